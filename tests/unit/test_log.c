/* test_log.c - core/base/log */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/log.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;
static char path[64];

static void
open_log(apm_log_level level, bool kv)
{
    snprintf(path, sizeof(path), "/tmp/apium-log-%d", (int)getpid());
    unlink(path);
    ck_ok(apm_log_open(&(apm_log_opts){ .level = level, .kv = kv, .file = path }, err));
}

/* What is in the file by now. */
static const char *
written(void)
{
    static char text[200000];

    int fd = open(path, O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    close(fd);
    return text;
}

/* The file's one line behind its time, after checking the time's form. */
static const char *
the_line(const char *form)
{
    apm_log_flush();
    const char *text = written();
    for (; *form; form++, text++) {
        if (*form == '0')
            ck_assert_msg(*text >= '0' && *text <= '9', "%s", text);
        else
            ck_assert_msg(*text == *form, "%s", text);
    }
    ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
    unlink(path);
    return text;
}

#define CLASSIC "[0000-00-00 00:00:00,000: "
#define KV      "ts=0000-00-00T00:00:00.000 "

START_TEST(a_line_looks_like_celerys)
{
    open_log(APM_LOG_INFO, false);
    apm_log(APM_LOG_INFO, "task.succeeded", "Task %s[%s] succeeded in %.3fs: %d", "math.add",
            "an-id", 0.003, 4);
    ck_assert_str_eq(the_line(CLASSIC),
                     "INFO/MainProcess] Task math.add[an-id] succeeded in 0.003s: 4\n");
}
END_TEST

START_TEST(key_value_lines_name_the_event_and_quote_what_is_no_word)
{
    open_log(APM_LOG_DEBUG, true);
    apm_log_process("worker 1");
    apm_log_task(APM_LOG_WARNING,
                 &(apm_log_ctx){ .task_id = "a1-b2", .task = "math.add", .fields = "runtime_ms=3" },
                 "task.succeeded", "it \"said\" \\ %s", "so");
    ck_assert_str_eq(the_line(KV), "level=warning proc=\"worker 1\" event=task.succeeded id=a1-b2 "
                                   "task=math.add runtime_ms=3 msg=\"it \\\"said\\\" \\\\ so\"\n");
}
END_TEST

START_TEST(foreign_text_stays_on_its_line)
{
    open_log(APM_LOG_INFO, false);
    apm_log_task(APM_LOG_INFO, &(apm_log_ctx){ .process = "Pool\n-1" }, NULL,
                 "a\nb\tc\r\x1b[31m\x7f \xc2\x9b \xff \xed\xa0\x80 %s",
                 "\xc3\xa9 \xf0\x9f\x98\x80 \"q\" \\");
    ck_assert_str_eq(the_line(CLASSIC),
                     "INFO/Pool\\n-1] a\\nb\\tc\\r\\x1b[31m\\x7f \\x9b \\xff \\xed\\xa0\\x80 "
                     "\xc3\xa9 \xf0\x9f\x98\x80 \"q\" \\\n");
}
END_TEST

START_TEST(foreign_words_cannot_forge_fields)
{
    open_log(APM_LOG_INFO, true);
    apm_log_task(APM_LOG_INFO, &(apm_log_ctx){ .task_id = "x level=error", .task = "" }, "e", "m");
    ck_assert_str_eq(
        the_line(KV),
        "level=info proc=MainProcess event=e id=\"x level=error\" task=\"\" msg=\"m\"\n");
}
END_TEST

START_TEST(a_long_message_is_cut)
{
    char *text = malloc(100001);

    memset(text, 'x', 100000);
    text[100000] = '\0';
    open_log(APM_LOG_INFO, false);
    apm_log(APM_LOG_INFO, "e", "%s", text);
    const char *line = the_line(CLASSIC);
    ck_assert_uint_lt(strlen(line), 17000);
    ck_assert_str_eq(line + strlen(line) - 5, "x...\n");
    free(text);
}
END_TEST

START_TEST(lines_are_gathered_until_flushed_and_errors_go_at_once)
{
    open_log(APM_LOG_INFO, false);
    apm_log(APM_LOG_INFO, "e", "first");
    ck_assert_str_eq(written(), "");
    apm_log(APM_LOG_WARNING, "e", "second");
    ck_assert_str_eq(written(), "");
    apm_log(APM_LOG_ERROR, "e", "third");
    ck_assert_ptr_nonnull(strstr(written(), "first\n"));
    ck_assert_ptr_nonnull(strstr(written(), "third\n"));
    apm_log(APM_LOG_INFO, "e", "fourth");
    ck_assert_ptr_null(strstr(written(), "fourth"));
    apm_log_flush();
    ck_assert_ptr_nonnull(strstr(written(), "fourth\n"));
    unlink(path);
}
END_TEST

START_TEST(many_lines_are_written_without_a_flush)
{
    open_log(APM_LOG_INFO, false);
    for (int i = 0; i < 2000; i++)
        apm_log(APM_LOG_INFO, "e", "a line of some length, number %d", i);
    ck_assert_uint_gt(strlen(written()), 64 << 10);
    unlink(path);
}
END_TEST

START_TEST(what_is_below_the_level_is_not_written)
{
    open_log(APM_LOG_WARNING, false);
    ck_assert(!apm_log_on(APM_LOG_INFO));
    ck_assert(apm_log_on(APM_LOG_WARNING));
    apm_log(APM_LOG_INFO, "e", "no");
    apm_log_task(APM_LOG_DEBUG, &(apm_log_ctx){ 0 }, "e", "no");
    apm_log_flush();
    ck_assert_str_eq(written(), "");
    unlink(path);
}
END_TEST

START_TEST(a_file_that_cannot_be_opened_is_named_and_changes_nothing)
{
    open_log(APM_LOG_INFO, false);
    ck_fails(
        apm_log_open(&(apm_log_opts){ .level = APM_LOG_DEBUG, .file = "/nonexistent/log" }, err),
        APIUM_E_SYSTEM);
    ck_assert_str_eq(err->text,
                     "cannot open the log file /nonexistent/log: No such file or directory");
    ck_assert(!apm_log_on(APM_LOG_DEBUG));
    apm_log(APM_LOG_INFO, "e", "still here");
    ck_assert_str_eq(the_line(CLASSIC), "INFO/MainProcess] still here\n");
}
END_TEST

START_TEST(a_file_is_appended_to)
{
    open_log(APM_LOG_INFO, false);
    apm_log(APM_LOG_INFO, "e", "one");
    ck_ok(apm_log_open(&(apm_log_opts){ .level = APM_LOG_INFO, .file = path },
                       err)); /* writes what was gathered */
    apm_log(APM_LOG_INFO, "e", "two");
    apm_log_flush();
    const char *text = written();
    ck_assert_ptr_nonnull(strstr(text, "one\n"));
    ck_assert_ptr_nonnull(strstr(text, "two\n"));
    unlink(path);
}
END_TEST

START_TEST(before_it_is_opened_warnings_go_to_stderr_at_once)
{
    int fd[2];
    char text[200];

    ck_assert_int_eq(pipe(fd), 0);
    int keep = dup(STDERR_FILENO);
    dup2(fd[1], STDERR_FILENO);
    apm_log(APM_LOG_INFO, "e", "no");
    apm_log(APM_LOG_WARNING, "e", "yes");
    dup2(keep, STDERR_FILENO);
    close(fd[1]);
    ssize_t n = read(fd[0], text, sizeof(text) - 1);
    ck_assert_int_gt(n, 0);
    text[n] = '\0';
    ck_assert_ptr_nonnull(strstr(text, ": WARNING/MainProcess] yes\n"));
    ck_assert_ptr_null(strstr(text, "no"));
}
END_TEST

START_TEST(a_forked_child_does_not_repeat_its_parents_lines)
{
    int status;

    open_log(APM_LOG_INFO, false);
    apm_log(APM_LOG_INFO, "e", "the parent's");
    pid_t pid = fork();
    if (pid == 0) {
        apm_log_forked();
        apm_log(APM_LOG_INFO, "e", "the child's");
        apm_log_flush();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    ck_assert_ptr_null(strstr(written(), "the parent's"));
    ck_assert_ptr_nonnull(strstr(written(), "the child's"));
    unlink(path);
}
END_TEST

static void *
chatter(void *arg)
{
    for (int i = 0; i < 500; i++)
        apm_log(APM_LOG_INFO, "e", "%s%d.", (const char *)arg, i);
    return NULL;
}

START_TEST(lines_of_threads_do_not_mix)
{
    pthread_t thread[4];
    static const char *const names[] = { "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc",
                                         "dddddddddddddddd" };
    int next[4] = { 0 }, lines = 0;

    open_log(APM_LOG_INFO, false);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, chatter, (char *)(uintptr_t)names[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    apm_log_flush();
    for (const char *at = written(); *at; at = strchr(at, '\n') + 1, lines++) {
        const char *text = strstr(at, "] ") + 2;
        char expected[40];
        int who = text[0] - 'a';
        ck_assert(who >= 0 && who < 4);
        int n = snprintf(expected, sizeof(expected), "%s%d.\n", names[who], next[who]++);
        ck_assert_msg(strncmp(text, expected, (size_t)n) == 0, "%.60s", at);
    }
    ck_assert_int_eq(lines, 2000);
    unlink(path);
}
END_TEST

START_TEST(level_names_are_known_in_any_case)
{
    apm_log_level level;

    ck_ok(apm_log_level_parse("debug", &level, err));
    ck_assert_int_eq(level, APM_LOG_DEBUG);
    ck_ok(apm_log_level_parse("Info", &level, err));
    ck_assert_int_eq(level, APM_LOG_INFO);
    ck_ok(apm_log_level_parse("WARN", &level, err));
    ck_assert_int_eq(level, APM_LOG_WARNING);
    ck_ok(apm_log_level_parse("error", &level, err));
    ck_assert_int_eq(level, APM_LOG_ERROR);
    ck_ok(apm_log_level_parse("FATAL", &level, err));
    ck_assert_int_eq(level, APM_LOG_CRITICAL);
    ck_fails(apm_log_level_parse("loud", &level, err), APIUM_E_CONFIG);
    ck_assert_str_eq(err->text,
                     "unknown log level \"loud\": it is debug, info, warning, error or critical");
    ck_fails(apm_log_level_parse("", &level, err), APIUM_E_CONFIG);
    ck_assert_int_eq(level, APM_LOG_CRITICAL);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_line_looks_like_celerys,
        key_value_lines_name_the_event_and_quote_what_is_no_word,
        foreign_text_stays_on_its_line,
        foreign_words_cannot_forge_fields,
        a_long_message_is_cut,
        lines_are_gathered_until_flushed_and_errors_go_at_once,
        many_lines_are_written_without_a_flush,
        what_is_below_the_level_is_not_written,
        a_file_that_cannot_be_opened_is_named_and_changes_nothing,
        a_file_is_appended_to,
        before_it_is_opened_warnings_go_to_stderr_at_once,
        a_forked_child_does_not_repeat_its_parents_lines,
        lines_of_threads_do_not_mix,
        level_names_are_known_in_any_case,
        NULL,
    };
    return suite_run("log", tests, 10);
}
