/*
 * test_client.c - calling tasks and waiting for them, through a real file and another process. A test binary runs with
 * the URL of a broker and of a backend as its arguments; "DIR" in them is a new temporary directory.
 */
#include <apium/apium.h>

#include <ftw.h>
#include <pthread.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/app.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/support/consumer.h"
#include "tests/support/suite.h"

static const char *const *urls; /* the command line's */
static apium_error error, *err = &error;
static char dir[] = "/tmp/apium-client-XXXXXX";
static char broker_setting[512], backend_setting[512];
/* A queue for each test: what its consumer, which is killed, had not acknowledged comes to no other's. */
static char queue_setting[128];
static const char *settings[8] = { broker_setting, backend_setting, queue_setting,
                                   "result_extended=true" };
static bool
    to_sender_only; /* results travel to whoever sent the task (rpc://), and nobody else can read them */
static apium_app *app;
static pid_t consumer;

/* --- tasks --- */

static apium_verdict
add(apium_task *task)
{
    int64_t x, y;
    if (!apium_args(task, "x:int y:int=10", &x, &y))
        return APIUM_FAILURE;
    return apium_return(task, apium_int(x + y));
}

static apium_verdict
echo(apium_task *task)
{
    const char *value;
    if (!apium_args(task, "value", &value))
        return APIUM_FAILURE;
    return apium_return(task, apium_json(value));
}

static apium_verdict
steps(apium_task *task)
{
    const char *seen;
    if (!apium_args(task, "seen:str", &seen))
        return APIUM_FAILURE;
    for (int i = 0; i < 3; i++)
        apium_progress(task, i, 3, NULL);
    for (int64_t end = apm_clock_ms() + 10000; access(seen, F_OK) != 0 && apm_clock_ms() < end;)
        usleep(5000);
    return APIUM_SUCCESS;
}

/* What the task saw of its request. */
static apium_verdict
context(apium_task *task)
{
    return apium_return(
        task,
        apium_jsonf("{\"id\": %s, \"root\": %s, \"parent\": %s, \"priority\": %d, \"queue\": %s, "
                    "\"retries\": %d, \"header\": %s, \"reply_to\": %s, \"origin\": %s}",
                    apium_task_id(task), apium_task_root_id(task), apium_task_parent_id(task),
                    apium_task_priority(task), apium_task_queue(task),
                    (int)apium_task_retries(task), apium_task_header(task, "mine"),
                    apium_task_reply_to(task), apium_task_origin(task)));
}

/* Sends context and waits for nothing. */
static apium_verdict
parent(apium_task *task)
{
    apium_run *run;
    apium_error why;
    if (apium_call(apium_task_app(task), "t.context", apium_null(),
                   &(apium_send_opts){ .task_id = "child-of-parent" }, &run, &why) != APIUM_OK)
        return apium_raise(task, "RuntimeError", "%s", why.text);
    apium_verdict verdict = apium_return(task, apium_string(apium_run_id(run)));
    apium_run_free(run);
    return verdict;
}

static const apium_task_def tasks[] = {
    { .name = "t.add", .run = add },       { .name = "t.echo", .run = echo },
    { .name = "t.steps", .run = steps },   { .name = "t.context", .run = context },
    { .name = "t.parent", .run = parent }, { 0 },
};

/* --- around the tests --- */

static void
expand(char *out, size_t size, const char *name, const char *url)
{
    const char *at = strstr(url, "DIR");
    if (at)
        snprintf(out, size, "%s=%.*s%s%s", name, (int)(at - url), url, dir, at + 3);
    else
        snprintf(out, size, "%s=%s", name, url);
}

static void
app_open(const apium_task_def *known)
{
    const apium_module module = {
        APIUM_ABI, sizeof(apium_task_def), "test", known, NULL, settings
    };
    ck_ok(apium_app_new("test", NULL, &app, err));
    ck_ok(apium_app_add(app, &module, err));
}

static void
setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    expand(broker_setting, sizeof(broker_setting), "broker_url", urls[0]);
    expand(backend_setting, sizeof(backend_setting), "result_backend", urls[1]);
    snprintf(queue_setting, sizeof(queue_setting), "task_default_queue=%s", strrchr(dir, '/') + 1);
    app_open(NULL);
    consumer = consumer_start(settings, tasks);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void
teardown(void)
{
    consumer_stop(consumer);
    apium_app_free(app);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Call and wait: the result of one task. */
static apium_result *
result_of(const char *task, apium_value args, const apium_send_opts *opts)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_call(app, task, args, opts, &run, err));
    ck_ok(apium_wait(run, 10000, &res, err));
    apium_run_free(run);
    return res;
}

/* --- the tests --- */

START_TEST(a_call_is_answered)
{
    apium_result *res = result_of("t.add", apium_jsonf("[%d, %d]", 2, 3), NULL);
    ck_assert_str_eq(apium_result_json(res), "5");
    ck_assert_str_eq(apium_result_state(res), "SUCCESS");
    ck_assert(apium_result_ready(res) && apium_result_ok(res));
    ck_assert_str_eq(apium_result_name(res), "t.add");
    ck_assert_str_eq(apium_result_args(res), "[2, 3]");
    ck_assert_str_eq(apium_result_worker(res), "consumer@test");
    ck_assert_ptr_null(apium_result_exception(res));
    ck_assert_ptr_null(apium_result_traceback(res));
    ck_assert_str_eq(apium_result_children(res), "[]");
    ck_assert_int_gt(apium_result_date_done_us(res), apm_clock_wall_us() - 60000000);
    apium_result_free(res);
}
END_TEST

START_TEST(keyword_arguments_travel_beside_positional_ones)
{
    apium_result *res =
        result_of("t.add", apium_json("[1]"), &(apium_send_opts){ .kwargs = "{\"y\": 5}" });
    ck_assert_str_eq(apium_result_json(res), "6");
    apium_result_free(res);
    res = result_of("t.add", apium_json("{\"x\": 1}"), NULL);
    ck_assert_str_eq(apium_result_json(res), "11");
    apium_result_free(res);
}
END_TEST

START_TEST(values_come_back_as_they_went)
{
    const char *const values[] = { "1180591620717411303424",
                                   "-9223372036854775808",
                                   "1e308",
                                   "0.1",
                                   "Infinity",
                                   "[[], {}, \"\"]",
                                   "[1, 1.0, -0.0]",
                                   "\"a\\u0000b\"",
                                   "\"\\ud800\"",
                                   "\"\\ud83d\\ude00\"",
                                   "null" };
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        char *args;
        ck_assert_int_gt(asprintf(&args, "[%s]", values[i]), 0);
        apium_result *res = result_of("t.echo", apium_json_take(args), NULL);
        ck_assert_str_eq(apium_result_json(res), values[i]);
        apium_result_free(res);
    }
}
END_TEST

START_TEST(a_failure_is_an_exception)
{
    apium_run *run;
    apium_result *res = result_of("t.add", apium_json("[\"x\"]"), NULL);
    ck_assert_str_eq(apium_result_state(res), "FAILURE");
    ck_assert(apium_result_ready(res) && !apium_result_ok(res));
    ck_assert_ptr_null(apium_result_json(res));
    ck_assert_str_eq(apium_result_exception(res), "TypeError");
    ck_assert_str_eq(apium_result_exception_module(res), "builtins");
    ck_assert_str_eq(apium_result_exception_args(res),
                     "[\"add() argument 'x' must be int, not str\"]");
    ck_assert_str_eq(apium_result_message(res),
                     "TypeError: add() argument 'x' must be int, not str");
    ck_assert_ptr_nonnull(strstr(apium_result_traceback(res), "in add\nTypeError: "));
    ck_ok(apium_run_of(app, apium_result_id(res), &run, err));
    apium_result_free(res);
    ck_fails(apium_get(run, 10000, &res, err), APIUM_E_FAILED);
    ck_assert_str_eq(err->text, "TypeError: add() argument 'x' must be int, not str");
    apium_run_free(run);
}
END_TEST

START_TEST(what_is_unknown_is_pending_and_waiting_for_it_ends)
{
    apium_run *run;
    apium_result *res = NULL;
    ck_ok(apium_run_of(app, "nobody-knows", &run, err));
    ck_ok(apium_state(run, &res, err));
    ck_assert_str_eq(apium_result_state(res), "PENDING");
    ck_assert(!apium_result_ready(res));
    ck_assert_ptr_null(apium_result_json(res));
    ck_assert_ptr_null(apium_result_document(res));
    ck_assert_str_eq(apium_result_id(res), "nobody-knows");
    apium_result_free(res);
    res = NULL;
    ck_fails(apium_wait(run, 0, &res, err), APIUM_E_TIMEOUT);
    int64_t began = apm_clock_ms();
    ck_fails(apium_wait(run, 200, &res, err), APIUM_E_TIMEOUT);
    ck_assert_int_ge(apm_clock_ms() - began, 190);
    ck_assert_ptr_null(res);
    apium_run_free(run);
}
END_TEST

START_TEST(states_can_be_seen_on_the_way)
{
    apium_run *run;
    apium_result *res;
    bool seen = false;
    char path[128];
    snprintf(path, sizeof(path), "%s/seen", dir);
    ck_ok(apium_call(app, "t.steps", apium_jsonf("[%s]", path), NULL, &run, err));
    for (int64_t end = apm_clock_ms() + 10000; apm_clock_ms() < end;) {
        ck_ok(apium_state(run, &res, err));
        bool ready = apium_result_ready(res);
        if (strcmp(apium_result_state(res), "PROGRESS") == 0) {
            if (!seen)
                close(creat(path, 0600));
            seen = true;
            ck_assert_ptr_nonnull(strstr(apium_result_json(res), "\"total\": 3}"));
        }
        apium_result_free(res);
        if (ready)
            break;
        usleep(5000);
    }
    ck_assert(seen);
    ck_ok(apium_wait(run, 10000, &res, err));
    ck_assert_str_eq(apium_result_json(res), "null");
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

START_TEST(a_forgotten_result_is_gone)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_call(app, "t.add", apium_json("[1]"), NULL, &run, err));
    ck_ok(apium_wait(run, 10000, &res, err));
    apium_result_free(res);
    ck_ok(apium_forget(run, err));
    ck_ok(apium_state(run, &res, err));
    ck_assert_str_eq(apium_result_state(res), "PENDING");
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

/* One member of a JSON object, as text. */
static const char *
member(const apium_result *res, const char *name)
{
    static char out[4][512];
    static int next;
    apm_json object;
    ck_ok(apm_json_parse(apm_strz(apium_result_json(res)), &object, err));
    apm_json val = apm_json_get(object, name);
    char *text = out[next++ % 4];
    snprintf(text, sizeof(out[0]), "%.*s", APM_STR_ARG(val.text));
    return text;
}

START_TEST(options_reach_the_task)
{
    apium_result *res =
        result_of("t.context", apium_null(),
                  &(apium_send_opts){ .task_id = "given-id",
                                      .priority = 7,
                                      .retries = 2,
                                      .headers = "{\"mine\": [1.0]}",
                                      .root_id = "some-root",
                                      .reply_to = to_sender_only ? NULL : "somewhere" });
    ck_assert_str_eq(apium_result_id(res), "given-id");
    ck_assert_str_eq(member(res, "id"), "\"given-id\"");
    ck_assert_str_eq(member(res, "root"), "\"some-root\"");
    ck_assert_str_eq(member(res, "parent"), "null");
    ck_assert_str_eq(member(res, "priority"), "7");
    ck_assert_str_eq(member(res, "retries"), "2");
    ck_assert_str_eq(member(res, "header"), "\"[1.0]\"");
    if (to_sender_only)
        ck_assert_str_ne(member(res, "reply_to"), "null");
    else
        ck_assert_str_eq(member(res, "reply_to"), "\"somewhere\"");
    char queue[sizeof(dir)];
    snprintf(queue, sizeof(queue), "\"%s\"", strrchr(dir, '/') + 1);
    ck_assert_str_eq(member(res, "queue"), queue);
    char origin[64];
    snprintf(origin, sizeof(origin), "\"gen%d@", (int)getpid());
    ck_assert_int_eq(strncmp(member(res, "origin"), origin, strlen(origin)), 0);
    apium_result_free(res);
}
END_TEST

START_TEST(a_task_is_the_parent_of_what_it_sends)
{
    apium_run *run;
    apium_result *res =
        result_of("t.parent", apium_null(), &(apium_send_opts){ .task_id = "the-parent" });
    ck_assert_msg(apium_result_ok(res), "%s", apium_result_message(res));
    ck_assert_str_eq(apium_result_children(res), "[[[\"child-of-parent\", null], null]]");
    apium_result_free(res);
    if (to_sender_only)
        return;
    ck_ok(apium_run_of(app, "child-of-parent", &run, err));
    ck_ok(apium_wait(run, 10000, &res, err));
    ck_assert_str_eq(member(res, "parent"), "\"the-parent\"");
    ck_assert_str_eq(member(res, "root"), "\"the-parent\"");
    ck_assert_str_eq(apium_result_parent_id(res), "the-parent");
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

START_TEST(a_signature_is_sent_with_its_options)
{
    apium_run *run;
    apium_result *res;
    apium_sig *sig =
        apium_sig_set(apium_sig_new("t.add", "[%d]", 40), &(apium_send_opts){ .task_id = "sig-1" });
    ck_ok(apium_send(app, apium_sig_kwargs(sig, "{\"y\": %d}", 2), NULL, &run, err));
    ck_assert_str_eq(apium_run_id(run), "sig-1");
    ck_ok(apium_get(run, 10000, &res, err));
    ck_assert_str_eq(apium_result_json(res), "42");
    apium_result_free(res);
    apium_run_free(run);

    ck_ok(apium_sig_parse("{\"task\": \"t.add\", \"args\": [1, 2], \"kwargs\": {}, \"options\": "
                          "{\"task_id\": \"sig-2\", "
                          "\"group_id\": \"g\"}, \"subtask_type\": null, \"immutable\": false}",
                          &sig, err));
    ck_ok(apium_send(app, sig, &(apium_send_opts){ .priority = 3 }, &run, err));
    ck_ok(apium_get(run, 10000, &res, err));
    ck_assert_str_eq(apium_result_json(res), "3");
    ck_assert_str_eq(apium_result_group_id(res), "g");
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

START_TEST(a_forked_process_may_go_on_using_the_app)
{
    int status;
    apium_result_free(result_of("t.add", apium_json("[1]"), NULL));
    pid_t pid = fork();
    if (pid == 0) {
        apium_run *run;
        apium_result *res;
        bool ok = apium_call(app, "t.add", apium_json("[1, 1]"), NULL, &run, err) == APIUM_OK &&
                  apium_get(run, 10000, &res, err) == APIUM_OK &&
                  strcmp(apium_result_json(res), "2") == 0;
        if (!ok)
            fprintf(stderr, "%s\n", err->text);
        apium_app_free(app);
        _exit(ok ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    apium_result *res = result_of("t.add", apium_json("[2, 2]"), NULL);
    ck_assert_str_eq(apium_result_json(res), "4");
    apium_result_free(res);
}
END_TEST

static void *
call_many(void *arg)
{
    apium_error why;
    (void)arg;
    for (int i = 0; i < 20; i++) {
        apium_run *run;
        apium_result *res;
        if (apium_call(app, "t.add", apium_jsonf("[%d, 1]", i), NULL, &run, &why) != APIUM_OK ||
            apium_get(run, 10000, &res, &why) != APIUM_OK)
            return strdup(why.text);
        if (atoi(apium_result_json(res)) != i + 1)
            return strdup(apium_result_json(res));
        apium_result_free(res);
        apium_run_free(run);
    }
    apm_app_thread_end(app);
    return NULL;
}

START_TEST(threads_may_share_an_app)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, call_many, NULL), 0);
    for (int i = 0; i < 4; i++) {
        void *why;
        pthread_join(threads[i], &why);
        ck_assert_msg(!why, "%s", (char *)why);
    }
}
END_TEST

START_TEST(what_cannot_be_sent_says_why)
{
    ck_fails(apium_call(app, "t.add", apium_json("[1"), NULL, NULL, err), APIUM_E_INVALID);
    ck_assert_ptr_eq(strstr(err->text, "cannot send t.add: its arguments: "), err->text);
    ck_fails(apium_call(app, "t.add", apium_int(3), NULL, NULL, err), APIUM_E_INVALID);
    ck_fails(apium_call(app, "", apium_null(), NULL, NULL, err), APIUM_E_INVALID);
    ck_fails(
        apium_call(app, "t.add", apium_json("{}"), &(apium_send_opts){ .kwargs = "{}" }, NULL, err),
        APIUM_E_INVALID);
    ck_fails(
        apium_call(app, "t.add", apium_null(), &(apium_send_opts){ .headers = "[]" }, NULL, err),
        APIUM_E_INVALID);
    ck_fails(
        apium_call(app, "t.add", apium_null(), &(apium_send_opts){ .countdown = 1e300 }, NULL, err),
        APIUM_E_INVALID);
    ck_fails(
        apium_call(app, "t.add", apium_null(), &(apium_send_opts){ .priority = 1000 }, NULL, err),
        APIUM_E_INVALID);
    ck_fails(apium_call(app, "t.add", apium_null(),
                        &(apium_send_opts){ .link = "{\"no\": \"task\"}" }, NULL, err),
             APIUM_E_INVALID);
    ck_fails(apium_call(app, "t.add", apium_null(), &(apium_send_opts){ .serializer = "pickle" },
                        NULL, err),
             APIUM_E_UNSUPPORTED);
    ck_fails(apium_call(app, "t.add", apium_null(), &(apium_send_opts){ .compression = "nonsense" },
                        NULL, err),
             APIUM_E_UNSUPPORTED);
    ck_fails(apium_send(app, apium_sig_new("t.add", "[%p]", (void *)0), NULL, NULL, err),
             APIUM_E_ENCODE);
}
END_TEST

START_TEST(eager_results_are_stored_when_the_settings_say_so)
{
    apium_run *run;
    apium_result *res;
    apium_app *eager;
    const apium_module module = {
        APIUM_ABI, sizeof(apium_task_def), "eager", tasks, NULL, settings
    };
    if (to_sender_only)
        return;
    ck_ok(apium_app_new("eager", NULL, &eager, err));
    ck_ok(apium_app_add(eager, &module, err));
    ck_ok(apium_app_set(eager, "task_always_eager", "true", err));
    ck_ok(apium_app_set(eager, "task_store_eager_result", "true", err));
    ck_ok(apium_call(eager, "t.add", apium_json("[20, 22]"),
                     &(apium_send_opts){ .task_id = "eager-1" }, NULL, err));
    ck_ok(apium_call(eager, "t.add", apium_json("[20, 22]"),
                     &(apium_send_opts){ .task_id = "eager-2", .ignore_result = APIUM_ON }, NULL,
                     err));
    apium_app_free(eager);
    ck_ok(apium_run_of(app, "eager-1", &run, err));
    ck_ok(apium_get(run, 1000, &res, err));
    ck_assert_str_eq(apium_result_json(res), "42");
    apium_result_free(res);
    apium_run_free(run);
    ck_ok(apium_run_of(app, "eager-2", &run, err));
    ck_ok(apium_state(run, &res, err));
    ck_assert_str_eq(apium_result_state(res), "PENDING");
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

START_TEST(a_call_leaves_the_programs_signals_alone)
{
    sigset_t mask, pending;
    ck_assert_int_eq(signal(SIGPIPE, SIG_DFL) == SIG_ERR, 0);
    apium_result_free(result_of("t.add", apium_json("[1]"), NULL));
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    sigpending(&pending);
    ck_assert(!sigismember(&mask, SIGPIPE) && !sigismember(&pending, SIGPIPE));
    ck_assert(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
}
END_TEST

START_TEST(an_ignored_result_is_not_waited_for)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_call(app, "t.add", apium_json("[1]"),
                     &(apium_send_opts){ .ignore_result = APIUM_ON }, &run, err));
    ck_fails(apium_wait(run, 10000, &res, err), APIUM_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err->text, "the task was sent to ignore its result"));
    apium_run_free(run);
}
END_TEST

START_TEST(a_batch_is_answered_call_by_call)
{
    enum { CALLS = 300 }; /* several units */
    apium_batch *batch;
    apium_run *runs[CALLS];
    apium_result *res;
    int64_t sum = 0;
    size_t sent = 0;
    ck_ok(apium_batch_new(app, &batch, err));
    for (int i = 0; i < CALLS; i++)
        ck_ok(apium_batch_call(batch, "t.add", apium_jsonf("[%d, 1]", i), NULL, &runs[i], err));
    ck_ok(apium_batch_end(batch, &sent, err));
    ck_assert_uint_eq(sent, CALLS);
    for (int i = 0; i < CALLS; i++) {
        ck_ok(apium_get(runs[i], 20000, &res, err));
        sum += atoi(apium_result_json(res));
        apium_result_free(res);
        apium_run_free(runs[i]);
    }
    ck_assert_int_eq(sum, CALLS * (CALLS + 1) / 2);
    ck_ok(apium_batch_end(batch, &sent, err)); /* nothing since */
    ck_assert_uint_eq(sent, 0);
    apium_batch_free(batch);
}
END_TEST

START_TEST(a_call_that_cannot_be_made_does_not_harm_its_batch)
{
    apium_batch *batch;
    apium_run *first, *last;
    apium_result *res;
    size_t sent;
    ck_ok(apium_batch_new(app, &batch, err));
    ck_ok(apium_batch_call(batch, "t.add", apium_json("[1, 2]"), NULL, &first, err));
    ck_fails(apium_batch_call(batch, "t.add", apium_json("[1"), NULL, NULL, err), APIUM_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err->text, "cannot send t.add: its arguments"));
    ck_fails(apium_batch_call(batch, "t.add", apium_json("[1]"),
                              &(apium_send_opts){ .serializer = "pickle" }, NULL, err),
             APIUM_E_UNSUPPORTED);
    ck_ok(apium_batch_call(batch, "t.add", apium_json("[3, 4]"), NULL, &last, err));
    ck_ok(apium_batch_end(batch, &sent, err));
    ck_assert_uint_eq(sent, 2);
    ck_ok(apium_get(first, 10000, &res, err));
    ck_assert_str_eq(apium_result_json(res), "3");
    apium_result_free(res);
    ck_ok(apium_get(last, 10000, &res, err));
    ck_assert_str_eq(apium_result_json(res), "7");
    apium_result_free(res);
    apium_run_free(first);
    apium_run_free(last);
    apium_batch_free(batch);
}
END_TEST

START_TEST(a_batch_that_is_released_unended_leaves_the_app_usable)
{
    apium_batch *batch;
    apium_batch_free(NULL);
    ck_ok(apium_batch_new(app, &batch, err));
    for (int i = 0; i < 200; i++)
        ck_ok(apium_batch_call(batch, "t.add", apium_json("[1, 2]"), NULL, NULL, err));
    apium_batch_free(batch);
    apium_result_free(result_of("t.add", apium_json("[1]"), NULL));
}
END_TEST

START_TEST(a_batch_whose_broker_is_out_of_reach_says_so_once_and_sends_no_more)
{
    apium_app *lost;
    apium_batch *batch;
    apium_error first;
    apium_status st = APIUM_OK;
    size_t sent = 9;
    ck_ok(apium_app_new("lost", NULL, &lost, err));
    ck_ok(apium_app_set(lost, "broker_url", "redis://127.0.0.1:1/0", err));
    ck_ok(apium_app_set(lost, "task_publish_retry", "false", err));
    ck_ok(apium_app_set(lost, "broker_connection_timeout", "1", err));
    ck_ok(apium_batch_new(lost, &batch, err));
    for (int i = 0; i < 5000 && st == APIUM_OK; i++)
        st = apium_batch_call(batch, "t.add", apium_json("[1, 2]"), NULL, NULL, &first);
    ck_assert_int_eq(st, APIUM_E_CLOSED);
    ck_assert_ptr_nonnull(strstr(first.text, "cannot send a batch: cannot reach"));
    ck_fails(apium_batch_call(batch, "t.add", apium_json("[1]"), NULL, NULL, err), APIUM_E_CLOSED);
    ck_assert_str_eq(err->text, first.text);
    ck_fails(apium_batch_end(batch, &sent, err), APIUM_E_CLOSED);
    ck_assert_uint_eq(sent, 0);
    apium_batch_free(batch);
    apium_app_free(lost);
}
END_TEST

int
main(int argc, char **argv)
{
    Suite *suite = suite_create("client");
    TCase *tc = tcase_create("client");
    const TTest *const tests[] = {
        a_call_is_answered,
        keyword_arguments_travel_beside_positional_ones,
        values_come_back_as_they_went,
        a_failure_is_an_exception,
        what_is_unknown_is_pending_and_waiting_for_it_ends,
        states_can_be_seen_on_the_way,
        a_forgotten_result_is_gone,
        options_reach_the_task,
        a_task_is_the_parent_of_what_it_sends,
        a_signature_is_sent_with_its_options,
        a_forked_process_may_go_on_using_the_app,
        threads_may_share_an_app,
        what_cannot_be_sent_says_why,
        eager_results_are_stored_when_the_settings_say_so,
        a_call_leaves_the_programs_signals_alone,
        an_ignored_result_is_not_waited_for,
        a_batch_is_answered_call_by_call,
        a_call_that_cannot_be_made_does_not_harm_its_batch,
        a_batch_that_is_released_unended_leaves_the_app_usable,
        a_batch_whose_broker_is_out_of_reach_says_so_once_and_sends_no_more,
    };
    if (argc != 3)
        return 2;
    urls = (const char *const *)argv + 1;
    to_sender_only = strncmp(urls[1], "rpc", 3) == 0;
    for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
        tcase_add_test(tc, tests[i]);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
