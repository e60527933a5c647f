/*
 * test_flow.c - workflows sent from C, run by a real worker, and followed. The program is its own worker: it runs with the URLs of a
 * broker and a backend as its arguments, "DIR" in them is a new temporary directory, and starts itself as `... worker`.
 */
#include <apium/apium.h>

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/json.h"
#include "tests/support/suite.h"

#define LONG_MS 30000

static const char *const *urls;
static apium_error error, *err = &error;
static char dir[] = "/tmp/apium-flow-XXXXXX";
static char broker_url[512], backend_url[512];
static bool to_sender_only; /* rpc://: only the sender can read results, and there are no chords */
static apium_app *app;
static pid_t worker;

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
sum(apium_task *task)
{
    int64_t total = 0;
    apium_ints numbers;
    if (!apium_args(task, "numbers:int[]", &numbers))
        return APIUM_FAILURE;
    for (size_t i = 0; i < numbers.n; i++)
        total += numbers.items[i];
    return apium_return(task, apium_int(total));
}

static apium_verdict
echo(apium_task *task)
{
    const char *value;
    if (!apium_args(task, "value:json", &value))
        return APIUM_FAILURE;
    return apium_return(task, apium_json(value));
}

static apium_verdict
failing(apium_task *task)
{
    return apium_raise(task, "ValueError", "no such thing");
}

static apium_verdict
context(apium_task *task)
{
    return apium_return(task,
                        apium_jsonf("[%s, %s, %s]", apium_task_root_id(task),
                                    apium_task_parent_id(task), apium_task_header(task, "stamps")));
}

static apium_sig *
sig(const char *name)
{
    return apium_sig_new(name, NULL);
}

/* Sends a chain, a group and (where there can be one) a chord. */
static apium_verdict
spread(apium_task *task)
{
    apium_error why;
    apium_app *me = apium_task_app(task);
    bool chords;
    if (!apium_args(task, "chords:bool", &chords))
        return APIUM_FAILURE;
    if (apium_send(me, apium_chain(sig("t.context"), sig("t.echo"), NULL), NULL, NULL, &why) !=
            APIUM_OK ||
        apium_send(me, apium_group(sig("t.context"), sig("t.context"), NULL), NULL, NULL, &why) !=
            APIUM_OK ||
        (chords &&
         apium_send(
             me, apium_chord(apium_group(sig("t.context"), sig("t.context"), NULL), sig("t.echo")),
             NULL, NULL, &why) != APIUM_OK))
        return apium_raise(task, "RuntimeError", "%s", why.text);
    return apium_return(task, apium_null());
}

static const apium_task_def tasks[] = {
    { .name = "t.add", .run = add },
    { .name = "t.sum", .run = sum },
    { .name = "t.echo", .run = echo },
    { .name = "t.fail", .run = failing },
    { .name = "t.context", .run = context },
    { .name = "t.spread", .run = spread },
    { 0 },
};

/* --- around the tests --- */

static void
expand(char *out, size_t size, const char *url)
{
    const char *at = strstr(url, "DIR");
    if (at)
        snprintf(out, size, "%.*s%s%s", (int)(at - url), url, dir, at + 3);
    else
        snprintf(out, size, "%s", url);
}

static void
start_worker(void)
{
    sigset_t term, before;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, &before); /* Check's handler would end the whole test */
    pid_t me = getpid();
    worker = fork();
    ck_assert_int_ge(worker, 0);
    if (worker != 0) {
        sigprocmask(SIG_SETMASK, &before, NULL);
        return;
    }
    (void)signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != me)
        _exit(1);
    setsid();
    if (!freopen("/dev/null", "w", stdout))
        _exit(1);
    execl("/proc/self/exe", "test_flow", "-b", broker_url, "--result-backend", backend_url,
          "worker", "-c", "2", "-l", "WARNING", (char *)NULL);
    _exit(1);
}

static void
setup(void)
{
    const apium_module module = { APIUM_ABI, sizeof(apium_task_def), "flow", NULL, NULL, NULL };
    ck_assert_ptr_nonnull(mkdtemp(dir));
    expand(broker_url, sizeof(broker_url), urls[0]);
    expand(backend_url, sizeof(backend_url), urls[1]);
    to_sender_only = strncmp(backend_url, "rpc", 3) == 0;
    ck_ok(apium_app_new("flow", NULL, &app, err));
    ck_ok(apium_app_add(app, &module, err));
    ck_ok(apium_app_set(app, "broker_url", broker_url, err));
    ck_ok(apium_app_set(app, "result_backend", backend_url, err));
    start_worker();
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
    kill(worker, SIGTERM);
    ck_assert_int_eq(waitpid(worker, NULL, 0), worker);
    apium_app_free(app);
    nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static apium_run *
sent(apium_sig *flow, const apium_send_opts *opts)
{
    apium_run *run = NULL;
    ck_ok(apium_send(app, flow, opts, &run, err));
    return run;
}

/* The value that it comes to, in a buffer that the next call uses again. */
static const char *
value_of(apium_run *run)
{
    static char value[4096];
    apium_result *res;
    ck_ok(apium_get(run, LONG_MS, &res, err));
    snprintf(value, sizeof(value), "%s", apium_result_json(res));
    apium_result_free(res);
    return value;
}

static void
comes_to(apium_sig *flow, const char *expected)
{
    apium_run *run = sent(flow, NULL);
    ck_assert_str_eq(value_of(run), expected);
    apium_run_free(run);
}

static apium_sig *
add_of(int x, int y)
{
    return apium_sig_new("t.add", "[%d, %d]", x, y);
}

static apium_sig *
add_to(int x)
{
    return apium_sig_new("t.add", "[%d]", x);
}

/* --- tests --- */

START_TEST(a_chain_hands_its_results_on)
{
    apium_run *run = sent(apium_chain(add_of(1, 2), add_to(3), add_to(4), NULL),
                          &(apium_send_opts){ .task_id = "last-of-chain" });
    ck_assert_str_eq(apium_run_id(run), "last-of-chain");
    ck_assert_str_eq(value_of(run), "10");
    apium_run *second = apium_run_parent(run), *first = apium_run_parent(second);
    ck_assert_str_eq(value_of(second), "6");
    ck_assert_str_eq(value_of(first), "3");
    ck_assert_ptr_null(apium_run_parent(first));
    ck_assert(!apium_run_is_group(run));
    size_t n;
    ck_ok(apium_run_children(first, &n, err));
    ck_assert_uint_eq(n, 1);
    ck_assert_str_eq(apium_run_id(apium_run_child(first, 0)), apium_run_id(second));
    ck_assert_ptr_null(apium_run_child(first, 1));
    apium_run_free(run);
}
END_TEST

START_TEST(the_result_of_a_group_is_the_list_of_theirs)
{
    apium_counts counts;
    apium_result *res;
    bool ready;
    apium_run *run = sent(apium_group(add_of(1, 1), apium_chain(add_of(2, 2), add_to(1), NULL),
                                      apium_group(add_of(4, 4), NULL), NULL),
                          NULL);
    ck_assert(apium_run_is_group(run));
    ck_assert_str_eq(value_of(run), "[2, 5, 8]");
    ck_ok(apium_ready(run, &ready, err));
    ck_assert(ready);
    ck_ok(apium_count(run, &counts, err));
    ck_assert(counts.all == 3 && counts.successful == 3 && !counts.failed && !counts.waiting);
    ck_ok(apium_state(run, &res, err));
    ck_assert_str_eq(apium_result_state(res), "SUCCESS");
    ck_assert_str_eq(apium_result_id(res), apium_run_id(run));
    apium_result_free(res);
    apium_run_free(run);
    comes_to(apium_group_of(0, NULL), "[]");
}
END_TEST

START_TEST(a_failed_member_is_the_groups_failure)
{
    apium_counts counts;
    apium_result *res;
    apium_run *run = sent(apium_group(add_of(1, 1), sig("t.fail"), add_of(2, 2), NULL), NULL);
    ck_fails(apium_get(run, LONG_MS, &res, err), APIUM_E_FAILED);
    ck_assert_str_eq(err->text, "ValueError: no such thing");
    ck_ok(apium_wait(run, LONG_MS, &res, err)); /* for all of them, whatever became of one */
    ck_assert_str_eq(apium_result_state(res), "FAILURE");
    ck_assert_str_eq(apium_result_exception(res), "ValueError");
    apium_result_free(res);
    ck_ok(apium_count(run, &counts, err));
    ck_assert(counts.all == 3 && counts.successful == 2 && counts.failed == 1);
    apium_run_free(run);
}
END_TEST

START_TEST(members_are_told_as_they_finish)
{
    apium_run *run = sent(
                  apium_group(apium_sig_set(add_of(1, 0), &(apium_send_opts){ .countdown = 1 }),
                              add_of(2, 0), NULL),
                  NULL),
              *member;
    apium_result *res;
    ck_ok(apium_run_next(run, LONG_MS, &member, &res, err));
    ck_assert_str_eq(apium_result_json(res), "2");
    ck_assert_ptr_eq(member, apium_run_child(run, 1));
    apium_result_free(res);
    bool ready;
    ck_ok(apium_ready(run, &ready, err));
    ck_assert(!ready);
    ck_fails(apium_run_next(run, 0, &member, &res, err), APIUM_E_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(err->text, "1 of its 2 tasks"));
    ck_ok(apium_run_next(run, LONG_MS, &member, &res, err));
    ck_assert_str_eq(apium_result_json(res), "1");
    apium_result_free(res);
    ck_ok(apium_run_next(run, LONG_MS, &member, &res, err));
    ck_assert_ptr_null(member);
    ck_assert_ptr_null(res);
    apium_run_free(run);
}
END_TEST

START_TEST(a_chord_gathers)
{
    apium_run *run =
        sent(apium_chord(apium_group(add_of(1, 1), add_of(2, 2), NULL), sig("t.sum")), NULL);
    ck_assert_str_eq(value_of(run), "6");
    apium_run *header = apium_run_parent(run);
    ck_assert(apium_run_is_group(header));
    ck_assert_str_eq(value_of(header), "[2, 4]");
    apium_run_free(run);
    comes_to(apium_chord(apium_group_of(0, NULL), sig("t.sum")), "0");
    comes_to(apium_chord(apium_chain(add_of(1, 1), add_to(1), NULL), sig("t.sum")), "3");
    comes_to(apium_chain(add_of(1, 1), apium_group(add_to(1), add_to(2), NULL), sig("t.sum"),
                         add_to(100), NULL),
             "107");
    comes_to(apium_chain(add_of(1, 1), apium_group(add_to(1), add_to(2), NULL), NULL), "[3, 4]");
    comes_to(apium_chord(apium_group(apium_chord(apium_group(add_of(1, 1), add_of(2, 2), NULL),
                                                 sig("t.sum")),
                                     add_of(3, 3), NULL),
                         apium_chain(sig("t.sum"), add_to(1), NULL)),
             "13");
    comes_to(apium_chord(apium_group(add_of(1, 1), add_of(2, 2), NULL),
                         apium_group(sig("t.sum"), sig("t.echo"), NULL)),
             "[6, [2, 4]]");
}
END_TEST

START_TEST(a_chord_of_many_parts_is_complete)
{
    apium_sig *parts[500];
    for (int i = 0; i < 500; i++)
        parts[i] = add_of(i, 1);
    comes_to(apium_chord(apium_group_of(500, parts), sig("t.sum")), "125250");
}
END_TEST

START_TEST(chords_nest_a_hundred_deep)
{
    apium_sig *flow = add_of(1, 1);
    /* where parts are polled instead of counted, each level takes a second */
    int deep = strncmp(backend_url, "redis", 5) == 0 ? 100 : 5;
    for (int i = 0; i < deep; i++)
        flow = apium_chord(apium_group(flow, add_of(1, 0), NULL), sig("t.sum"));
    comes_to(flow, deep == 100 ? "102" : "7");
}
END_TEST

START_TEST(a_failed_part_is_the_chords_failure)
{
    apium_result *res;
    apium_run *run =
        sent(apium_chord(apium_group(add_of(1, 1), sig("t.fail"), NULL), sig("t.sum")), NULL);
    /* that of the part, which the run of the body depends on, or what the body got for it */
    ck_fails(apium_get(run, LONG_MS, &res, err), APIUM_E_FAILED);
    ck_assert_msg(strstr(err->text, "no such thing"), "%s", err->text);
    ck_ok(apium_wait(run, LONG_MS, &res, err));
    ck_assert_str_eq(apium_result_exception(res), "ChordError");
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

START_TEST(a_failed_step_ends_the_wait_for_its_chain)
{
    apium_result *res;
    apium_run *run = sent(apium_chain(sig("t.fail"), add_to(1), add_to(2), NULL), NULL);
    ck_fails(apium_get(run, LONG_MS, &res, err), APIUM_E_FAILED);
    ck_assert_str_eq(err->text, "ValueError: no such thing");
    apium_run_free(run);

    /* also where nobody wrote the failure under the last step's id */
    if (to_sender_only)
        return;
    apium_run *first = sent(sig("t.fail"), NULL);
    char tuple[256];
    snprintf(tuple, sizeof(tuple), "[[\"never-sent\", [[\"%s\", null], null]], null]",
             apium_run_id(first));
    ck_ok(apium_run_of_tuple(app, tuple, &run, err));
    ck_fails(apium_get(run, LONG_MS, &res, err), APIUM_E_FAILED);
    ck_assert_str_eq(err->text, "ValueError: no such thing");
    apium_run_free(run);
    apium_run_free(first);
}
END_TEST

START_TEST(maps_and_chunks_run_the_task_for_each_item)
{
    comes_to(apium_chunks(sig("t.add"), apium_json("[[1, 1], [2, 2], [3, 3]]"), 2),
             "[[2, 4], [6]]");
    comes_to(apium_map(sig("t.add"), apium_json("[1, 2]")), "[11, 12]");
    comes_to(apium_starmap(sig("t.add"), apium_json("[[1, 1], [2, 2]]")), "[2, 4]");
}
END_TEST

START_TEST(callbacks_of_a_workflow_are_called)
{
    apium_run *run = sent(apium_sig_link(apium_chain(add_of(1, 1), add_to(1), NULL), add_to(5)),
                          &(apium_send_opts){ .link = "{\"task\": \"t.add\", \"args\": [7]}" });
    ck_assert_str_eq(value_of(run), "3");
    size_t n;
    ck_ok(apium_run_children(run, &n, err));
    ck_assert_uint_ge(n, 1);
    if (!to_sender_only)
        ck_assert_str_eq(value_of(apium_run_child(run, 0)), "10");
    apium_run_free(run);
    ck_fails(apium_send(app, apium_group(sig("t.add"), NULL),
                        &(apium_send_opts){ .link = "{\"task\": \"t.add\"}" }, NULL, err),
             APIUM_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err->text, "links"));
}
END_TEST

START_TEST(stamps_travel)
{
    char value[256];
    apium_run *run = sent(
        apium_sig_stamp(apium_group(sig("t.context"), NULL), "user", apium_string("bob")), NULL);
    snprintf(value, sizeof(value), "%s", value_of(run));
    ck_assert_msg(strstr(value, "bob"), "%s", value);
    apium_run_free(run);
}
END_TEST

struct collected {
    char text[1024];
};

static bool
note(void *arg, apium_run *run, const apium_result *res)
{
    struct collected *all = arg;
    size_t len = strlen(all->text);
    snprintf(all->text + len, sizeof(all->text) - len, "%s%s;",
             apium_run_is_group(run) ? "group " : "", apium_result_json(res));
    return true;
}

START_TEST(all_that_came_of_a_run_is_collected)
{
    struct collected all = { "" };
    apium_run *run =
        sent(apium_chain(add_of(1, 1), apium_group(add_to(1), add_to(2), NULL), NULL), NULL);
    ck_ok(apium_collect(apium_run_parent(run), LONG_MS, note, &all, err));
    ck_assert_str_eq(all.text, "2;group [3, 4];3;4;");
    apium_run_free(run);
}
END_TEST

START_TEST(a_tuple_opens_the_same_tree)
{
    char tuple[1024];
    apium_run *run = sent(apium_chain(add_of(1, 1), add_to(1), NULL), NULL), *again;
    snprintf(tuple, sizeof(tuple), "[[\"%s\", [[\"%s\", null], null]], null]", apium_run_id(run),
             apium_run_id(apium_run_parent(run)));
    ck_assert_str_eq(apium_run_tuple(run), tuple);
    ck_assert_str_eq(value_of(run), "3");
    if (!to_sender_only) {
        ck_ok(apium_run_of_tuple(app, tuple, &again, err));
        ck_assert_str_eq(value_of(again), "3");
        ck_assert_str_eq(value_of(apium_run_parent(again)), "2");
        apium_run_free(again);
    }
    apium_run_free(run);
    static const char *const bad[] = { "",
                                       "{}",
                                       "[]",
                                       "[[5, null], null]",
                                       "[[\"a\", null], 5]",
                                       "[[\"a\", null], [1]]",
                                       "[[\"a\", [1]], null]",
                                       "[[\"\", null], null]" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_assert_msg(apium_run_of_tuple(app, bad[i], &again, err) != APIUM_OK, "%s", bad[i]);
}
END_TEST

START_TEST(a_group_is_saved_and_restored)
{
    apium_run *run =
                  sent(apium_group(add_of(1, 1), apium_chain(add_of(2, 2), add_to(1), NULL), NULL),
                       NULL),
              *again;
    apium_status st = apium_run_save(run, err);
    if (st == APIUM_E_UNSUPPORTED) { /* not every backend does */
        ck_assert_msg(strstr(err->text, "keeps no groups"), "%s", err->text);
        ck_assert_int_ne(strncmp(backend_url, "redis", 5), 0);
        apium_run_free(run);
        return;
    }
    ck_ok(st);
    ck_ok(apium_run_restore(app, apium_run_id(run), &again, err));
    ck_assert_str_eq(apium_run_tuple(again), apium_run_tuple(run));
    ck_assert_str_eq(value_of(again), "[2, 5]");
    ck_ok(apium_forget(again, err));
    apium_result *res;
    ck_ok(apium_state(again, &res, err));
    ck_assert_str_eq(apium_result_state(res), "PENDING");
    apium_result_free(res);
    apium_run_free(again);
    ck_fails(apium_run_restore(app, "nobody-saved-this", &again, err), APIUM_E_NOTFOUND);
    ck_fails(apium_run_save(apium_run_child(run, 0), err), APIUM_E_INVALID);
    apium_run_free(run);
}
END_TEST

START_TEST(what_a_task_sends_descends_from_it)
{
    size_t n;
    char expected[256];
    apium_run *run = sent(apium_sig_new("t.spread", "[%s]", "x"), NULL);
    apium_result *res;
    ck_fails(apium_get(run, LONG_MS, &res, err), APIUM_E_FAILED); /* a bool is wanted */
    apium_run_free(run);
    if (to_sender_only)
        return;
    run = sent(apium_sig_new("t.spread", "[true]"), NULL);
    ck_assert_str_eq(value_of(run), "null");
    ck_ok(apium_run_children(run, &n, err));
    ck_assert_uint_eq(n, 3); /* the first step, the group, the header */
    snprintf(expected, sizeof(expected), "[\"%s\", \"%s\", \"{}\"]", apium_run_id(run),
             apium_run_id(run));
    ck_assert_str_eq(value_of(apium_run_child(run, 0)), expected);
    for (size_t i = 1; i < 3; i++) {
        apium_run *group = apium_run_child(run, i);
        ck_assert(apium_run_is_group(group));
        ck_assert_str_eq(value_of(apium_run_child(group, 1)), expected);
    }
    apium_run_free(run);
}
END_TEST

START_TEST(a_revoke_is_broadcast_where_that_can_be)
{
    apium_run *run;
    ck_ok(apium_run_of_tuple(app, "[[\"a\", [[\"b\", null], null]], null]", &run, err));
    apium_status st = apium_revoke(run, NULL, err);
    if (strncmp(broker_url, "redis", 5) == 0)
        ck_ok(st);
    else if (strncmp(broker_url, "amqp", 4) == 0)
        ck_assert_int_eq(st, APIUM_E_UNROUTABLE); /* no node of Celery's was ever here */
    else
        ck_assert_int_eq(st, APIUM_E_UNSUPPORTED);
    ck_fails(apium_revoke(run, "", err), APIUM_E_INVALID);
    apium_run_free(run);
}
END_TEST

START_TEST(what_cannot_be_sent_is_refused_before_anything_is)
{
    apium_sig *part = add_of(1, 1), *whole = apium_group(part, NULL);
    ck_fails(apium_send(app, part, NULL, NULL, err), APIUM_E_INVALID);
    ck_assert_ptr_nonnull(strstr(err->text, "a part of a workflow"));
    comes_to(whole, "[2]");
    ck_fails(apium_send(
                 app,
                 apium_group(apium_sig_set(add_of(1, 1), &(apium_send_opts){ .task_id = "twice" }),
                             apium_sig_set(add_of(1, 1), &(apium_send_opts){ .task_id = "twice" }),
                             NULL),
                 NULL, NULL, err),
             APIUM_E_INVALID);
    ck_assert_str_eq(
        err->text, "cannot send the group: the id \"twice\" is given twice: tasks[0] and tasks[1]");
    ck_fails(apium_send(app, apium_group(add_of(1, 1), NULL), &(apium_send_opts){ .kwargs = "{}" },
                        NULL, err),
             APIUM_E_INVALID);
    apium_run *sent_first;
    if (!to_sender_only)
        return;
    /* a chord with nowhere to gather, deep inside */
    ck_fails(
        apium_send(
            app,
            apium_group(apium_sig_set(add_of(1, 1), &(apium_send_opts){ .task_id = "not-sent" }),
                        apium_chord(apium_group(add_of(1, 1), NULL), sig("t.sum")), NULL),
            NULL, &sent_first, err),
        APIUM_E_UNSUPPORTED);
    ck_assert_msg(strstr(err->text, "rpc"), "%s", err->text);
}
END_TEST

START_TEST(what_was_sent_before_a_failure_is_said)
{
    apium_app *small;
    apium_sig *parts[100];
    char *big = calloc(1, 70001);
    memset(big, 'x', 70000);
    for (int i = 0; i < 100; i++)
        parts[i] = apium_sig_new("t.nobody", "[%s]", i == 80 ? big : "small");
    free(big);
    ck_ok(apium_app_new("small", NULL, &small, err));
    ck_ok(apium_app_set(small, "broker_url", broker_url, err));
    ck_ok(apium_app_set(small, "result_backend", backend_url, err));
    ck_ok(apium_app_set(small, "task_default_queue", "unread", err));
    ck_ok(apium_app_set(small, "broker_transport_options", "{\"max_message_bytes\": 65536}", err));
    if (strncmp(broker_url, "redis", 5) == 0) { /* the broker that has such a bound */
        ck_fails(apium_send(small, apium_group_of(100, parts), NULL, NULL, err), APIUM_E_TOOBIG);
        ck_assert_msg(strstr(err->text, "cannot send the group: 64 of 100 messages were sent: "),
                      "%s", err->text);
        ck_assert(!err->retriable);
    } else {
        for (int i = 0; i < 100; i++)
            apium_sig_free(parts[i]);
    }
    /* what each one asks for is tried before the first leaves */
    for (int i = 0; i < 100; i++)
        parts[i] = apium_sig_set(apium_sig_new("t.nobody", NULL),
                                 &(apium_send_opts){ .serializer = i == 80 ? "pickle" : NULL });
    ck_assert_int_ne(apium_send(small, apium_group_of(100, parts), NULL, NULL, err), APIUM_OK);
    ck_assert_ptr_null(strstr(err->text, "were sent"));
    ck_assert_ptr_nonnull(strstr(err->text, "pickle"));
    apium_app_free(small);
}
END_TEST

int
main(int argc, char **argv)
{
    const TTest *list[] = {
        a_chain_hands_its_results_on,
        the_result_of_a_group_is_the_list_of_theirs,
        a_failed_member_is_the_groups_failure,
        members_are_told_as_they_finish,
        a_failed_step_ends_the_wait_for_its_chain,
        maps_and_chunks_run_the_task_for_each_item,
        callbacks_of_a_workflow_are_called,
        stamps_travel,
        a_tuple_opens_the_same_tree,
        a_group_is_saved_and_restored,
        what_a_task_sends_descends_from_it,
        a_revoke_is_broadcast_where_that_can_be,
        what_cannot_be_sent_is_refused_before_anything_is,
        what_was_sent_before_a_failure_is_said,
        /* where results can be read by others */
        a_chord_gathers,
        a_chord_of_many_parts_is_complete,
        chords_nest_a_hundred_deep,
        a_failed_part_is_the_chords_failure,
        all_that_came_of_a_run_is_collected,
        NULL,
    };
    const size_t shared = 5;
    if (argc != 3)
        return apium_main(argc, argv, "flow", tasks);
    urls = (const char *const *)&argv[1];
    if (strncmp(urls[1], "rpc", 3) == 0)
        list[sizeof(list) / sizeof(*list) - 1 - shared] = NULL;
    return suite_run_with("flow", list, 120, setup, teardown);
}
