/* test_options.c - cli/options */
#include <stdlib.h>

#include "cli/options.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;

struct values {
    bool force, quiet;
    const char *queue, *args, *level;
    apm_opt_number count, seconds;
};
struct globals {
    const char *app;
};

static const char *const levels[] = { "DEBUG", "INFO", NULL };

static const apm_option table[] = {
    { APM_OPT_HEADING, .help = "Some Options" },
    { APM_OPT_FLAG, 'f', "force", NULL, NULL, offsetof(struct values, force), .help = "Do it." },
    { APM_OPT_FLAG, 'q', "quiet", "silent", NULL, offsetof(struct values, quiet), .help = "Hush." },
    { APM_OPT_TEXT, 'Q', "queue", NULL, "NAME", offsetof(struct values, queue), .help = "Where." },
    { APM_OPT_ARRAY, 'a', "args", NULL, "JSON", offsetof(struct values, args),
      .help = "With what." },
    { APM_OPT_CHOICE, 'l', "level", NULL, NULL, offsetof(struct values, level), .choices = levels,
      .help = "How much." },
    { APM_OPT_INT, 'c', "count", NULL, "N", offsetof(struct values, count), .min = 1, .max = 8,
      .help = "How many." },
    { APM_OPT_NUMBER, 0, "seconds", NULL, "S", offsetof(struct values, seconds),
      .help = "How long." },
    { APM_OPT_INT, 0, "multiplier", NULL, "N", .setting = "worker_prefetch_multiplier",
      .help = "A setting." },
    { 0 },
};
static const apm_option globals_table[] = {
    { APM_OPT_TEXT, 'A', "app", NULL, "MODULE", offsetof(struct globals, app), .help = "Which." },
    { 0 },
};

static struct values values;
static struct globals globals;
static apm_options read_out;
static char *line[32];
static int n_line;

/* Read words, ended by NULL, as a command's line. */
static apium_status
read_words(const char *const *words)
{
    static char copies[32][64];
    n_line = 0;
    for (; words[n_line]; n_line++) {
        snprintf(copies[n_line], sizeof(copies[n_line]), "%s", words[n_line]);
        line[n_line] = copies[n_line];
    }
    values = (struct values){ 0 };
    globals = (struct globals){ 0 };
    read_out = (apm_options){ 0 };
    *err = (apium_error){ 0 };
    return apm_options_read(table, &values, globals_table, &globals, line, n_line, 0, false,
                            &read_out, NULL, err);
}

#define READ(...) read_words((const char *const[]){ __VA_ARGS__, NULL })

static void
refused(apium_status status, const char *text)
{
    ck_assert_int_eq(status, APIUM_E_INVALID);
    ck_assert_str_eq(err->text, text);
}

START_TEST(values_come_attached_or_as_the_next_word)
{
    ck_ok(READ("--queue=a,b", "-c", "4", "--seconds", "1.5"));
    ck_assert_str_eq(values.queue, "a,b");
    ck_assert(values.count.given && values.count.value == 4);
    ck_assert(values.seconds.value == 1.5);
    ck_ok(READ("-c4", "-Qx", "--queue", "-dash"));
    ck_assert(values.count.value == 4);
    ck_assert_str_eq(values.queue, "-dash"); /* the last one wins, whatever it looks like */
}
END_TEST

START_TEST(flags_share_a_word_and_have_other_spellings)
{
    ck_ok(READ("-fq"));
    ck_assert(values.force && values.quiet);
    ck_ok(READ("--silent"));
    ck_assert(values.quiet && !values.force);
    ck_ok(READ("-fc3"));
    ck_assert(values.force && values.count.value == 3);
    refused(READ("--force=1"), "Option '-f' / '--force' does not take a value.");
}
END_TEST

START_TEST(words_are_gathered_from_between_options)
{
    ck_ok(READ("one", "-f", "two", "-c", "2", "three", "-"));
    ck_assert_int_eq(read_out.n_words, 4);
    ck_assert_str_eq(read_out.words[0], "one");
    ck_assert_str_eq(read_out.words[2], "three");
    ck_assert_str_eq(read_out.words[3], "-");
}
END_TEST

START_TEST(two_dashes_end_the_options)
{
    ck_ok(READ("-f", "--", "worker.x=1", "--nosuch"));
    ck_assert_int_eq(read_out.after, 2);
    ck_assert_int_eq(read_out.n_words, 0);
    ck_ok(READ("-f"));
    ck_assert_int_eq(read_out.after, 1);
}
END_TEST

START_TEST(reading_stops_at_the_command_when_asked)
{
    char *words[] = { "-A", "x.so", "call", "-f" };
    int next = 0;
    globals = (struct globals){ 0 };
    read_out = (apm_options){ 0 };
    ck_ok(apm_options_read(globals_table, &globals, NULL, NULL, words, 4, 0, true, &read_out, &next,
                           err));
    ck_assert_int_eq(next, 2);
    ck_assert_str_eq(globals.app, "x.so");
}
END_TEST

START_TEST(global_options_may_follow_the_command)
{
    ck_ok(READ("-f", "-A", "late.so"));
    ck_assert_str_eq(globals.app, "late.so");
}
END_TEST

START_TEST(an_option_can_stand_for_a_setting)
{
    ck_ok(READ("--multiplier", "2"));
    ck_assert_uint_eq(read_out.n_settings, 1);
    ck_assert_str_eq(read_out.settings[0].name, "worker_prefetch_multiplier");
    ck_assert_str_eq(read_out.settings[0].value, "2");
}
END_TEST

START_TEST(an_unknown_option_is_answered_with_the_nearest)
{
    refused(READ("--quee"), "No such option: --quee (did you mean --queue?)");
    refused(READ("--ap=x"), "No such option: --ap (did you mean --app?)");
    refused(READ("--hepl"), "No such option: --hepl (did you mean --help?)");
    refused(READ("--completely-else"), "No such option: --completely-else");
    refused(READ("-fZ"), "No such option: -Z");
}
END_TEST

START_TEST(a_missing_value_is_named)
{
    refused(READ("-c"), "Option '-c' / '--count' requires an argument.");
    refused(READ("--seconds"), "Option '--seconds' requires an argument.");
}
END_TEST

START_TEST(numbers_are_checked_against_their_range)
{
    refused(READ("-c", "0"), "Invalid value for '-c' / '--count': 0 is not in the range 1 to 8.");
    refused(READ("-c", "9"), "Invalid value for '-c' / '--count': 9 is not in the range 1 to 8.");
    refused(READ("-c", "two"), "Invalid value for '-c' / '--count': 'two' is not a valid integer.");
    refused(READ("-c", "2.0"), "Invalid value for '-c' / '--count': '2.0' is not a valid integer.");
    refused(READ("-c", " 2"), "Invalid value for '-c' / '--count': ' 2' is not a valid integer.");
    refused(READ("-c", ""), "Invalid value for '-c' / '--count': '' is not a valid integer.");
    refused(READ("--seconds", "nan"), "Invalid value for '--seconds': 'nan' is not a valid float.");
    refused(READ("--seconds", "-1"),
            "Invalid value for '--seconds': -1 is not in the range 0 to 9.00719925474099e+15.");
    ck_assert(!values.seconds.given);
}
END_TEST

START_TEST(a_choice_is_spelled_as_in_the_table)
{
    ck_ok(READ("-l", "info"));
    ck_assert_str_eq(values.level, "INFO");
    refused(READ("-l", "loud"),
            "Invalid value for '-l' / '--level': 'loud' is not one of DEBUG|INFO.");
}
END_TEST

START_TEST(json_is_checked_before_anything_is_sent)
{
    ck_ok(READ("-a", "[1, 2]"));
    ck_assert_str_eq(values.args, "[1, 2]");
    refused(READ("-a", "{}"),
            "Invalid value for '-a' / '--args': not a JSON array, such as '[2, 3]'");
    ck_assert_int_eq(READ("-a", "{bad"), APIUM_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err->text, "'--args'"));
}
END_TEST

START_TEST(help_lines_are_wrapped_and_complete)
{
    char text[4096] = "";
    FILE *to = fmemopen(text, sizeof(text) - 1, "w");
    apm_options_print(table, to);
    fclose(to);
    ck_assert_ptr_nonnull(strstr(text, "Some Options:\n"));
    ck_assert_ptr_nonnull(strstr(text, "  -q, --quiet, --silent"));
    ck_assert_ptr_nonnull(strstr(text, "  -l, --level [DEBUG|INFO]"));
    for (char *p = strtok(text, "\n"); p; p = strtok(NULL, "\n"))
        ck_assert_uint_le(strlen(p), 79);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        values_come_attached_or_as_the_next_word,
        flags_share_a_word_and_have_other_spellings,
        words_are_gathered_from_between_options,
        two_dashes_end_the_options,
        reading_stops_at_the_command_when_asked,
        global_options_may_follow_the_command,
        an_option_can_stand_for_a_setting,
        an_unknown_option_is_answered_with_the_nearest,
        a_missing_value_is_named,
        numbers_are_checked_against_their_range,
        a_choice_is_spelled_as_in_the_table,
        json_is_checked_before_anything_is_sent,
        help_lines_are_wrapped_and_complete,
        NULL,
    };
    return suite_run("options", tests, 4);
}
