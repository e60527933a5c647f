/* test_eager.c - client/eager: calls that run here and now; and what an app knows. No server is needed. */
#include <apium/apium.h>
#include <apium/cjson.h>

#include <math.h>
#include <stdlib.h>

#include "client/annotate.h"
#include "client/app.h"
#include "core/base/json.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;
static apium_app *app;
static int attempts;

static apium_verdict
add(apium_task *task)
{
    int64_t x, y;
    ck_assert(apium_task_eager(task));
    if (!apium_args(task, "x:int y:int", &x, &y))
        return APIUM_FAILURE;
    return apium_return(task, apium_int(x + y));
}

static apium_verdict
flaky(apium_task *task)
{
    attempts++;
    if (apium_task_retries(task) < 2)
        return apium_retry(task, 3600, "later");
    return apium_return(task, apium_json(apium_task_args(task)));
}

static apium_verdict
other_args(apium_task *task)
{
    if (apium_task_retries(task) == 0)
        return apium_retry_with(task, &(apium_retry_opts){ .args = "[7]" });
    return apium_return(task, apium_json(apium_task_args(task)));
}

static apium_verdict
ignore(apium_task *task)
{
    return apium_ignore(task);
}

/* Calls another task, which then runs inside this one. */
static apium_verdict
outer(apium_task *task)
{
    apium_run *run;
    apium_result *res;
    apium_error why;
    if (apium_call(apium_task_app(task), "t.inner", apium_null(), NULL, &run, &why) != APIUM_OK ||
        apium_get(run, 0, &res, &why) != APIUM_OK)
        return apium_raise(task, "RuntimeError", "%s", why.text);
    apium_verdict verdict = apium_return(task, apium_json(apium_result_json(res)));
    apium_result_free(res);
    apium_run_free(run);
    return verdict;
}

static apium_verdict
inner(apium_task *task)
{
    return apium_return(
        task, apium_jsonf("[%s, %s]", apium_task_parent_id(task), apium_task_root_id(task)));
}

static const apium_task_def tasks[] = {
    { .name = "t.add", .run = add },
    { .name = "t.flaky", .run = flaky },
    { .name = "t.other_args", .run = other_args },
    { .name = "t.ignore", .run = ignore },
    { .name = "t.outer", .run = outer },
    { .name = "t.inner", .run = inner },
    { 0 },
};

static void
setup(void)
{
    ck_ok(apium_app_new("eager", tasks, &app, err));
    ck_ok(apium_app_set(app, "task_always_eager", "true", err));
    ck_ok(apium_app_set(app, "broker_url", "memory://", err));
    ck_ok(apium_app_set(app, "result_backend", "disabled://", err));
}

static void
teardown(void)
{
    apium_app_free(app);
}

static apium_result *
result_of(const char *task, const char *args)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_call(app, task, apium_json(args), NULL, &run, err));
    ck_ok(apium_wait(run, 0, &res, err));
    ck_assert_str_eq(apium_run_id(run), apium_result_id(res));
    ck_ok(apium_forget(run, err));
    apium_run_free(run);
    return res;
}

START_TEST(an_eager_call_has_its_result_at_once)
{
    apium_result *res = result_of("t.add", "[40, 2]");
    ck_assert_str_eq(apium_result_json(res), "42");
    ck_assert_str_eq(apium_result_state(res), "SUCCESS");
    apium_result_free(res);
    res = result_of("t.add", "[40]");
    ck_assert_str_eq(apium_result_message(res),
                     "TypeError: add() missing 1 required positional argument: 'y'");
    apium_result_free(res);
    res = result_of("t.ignore", "[]");
    ck_assert_str_eq(apium_result_state(res), "IGNORED");
    apium_result_free(res);
}
END_TEST

START_TEST(eager_retries_happen_at_once)
{
    apium_result *res = result_of("t.flaky", "[1, 2]");
    ck_assert_str_eq(apium_result_json(res), "[1, 2]");
    ck_assert_int_eq(attempts, 3);
    apium_result_free(res);
    res = result_of("t.other_args", "[1, 2]");
    ck_assert_str_eq(apium_result_json(res), "[7]");
    apium_result_free(res);
}
END_TEST

START_TEST(an_eager_failure_is_an_error_when_the_settings_say_so)
{
    apium_run *run = NULL;
    ck_ok(apium_app_set(app, "task_eager_propagates", "true", err));
    ck_fails(apium_call(app, "t.add", apium_json("[1]"), NULL, &run, err), APIUM_E_FAILED);
    ck_assert_str_eq(err->text, "TypeError: add() missing 1 required positional argument: 'y'");
    ck_assert_ptr_null(run);
}
END_TEST

START_TEST(an_eager_task_may_call_another)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_call(app, "t.outer", apium_null(), &(apium_send_opts){ .task_id = "the-outer" },
                     &run, err));
    ck_ok(apium_get(run, 0, &res, err));
    ck_assert_str_eq(apium_result_json(res), "[\"the-outer\", \"the-outer\"]");
    ck_assert_ptr_eq(strstr(apium_result_children(res), "[[[\""), apium_result_children(res));
    apium_result_free(res);
    apium_run_free(run);
}
END_TEST

static char calls[256];

static apium_verdict
note(apium_task *task)
{
    strncat(calls, apium_task_args(task), sizeof(calls) - strlen(calls) - 1);
    strncat(calls, ";", 2);
    return APIUM_SUCCESS;
}

START_TEST(callbacks_of_an_eager_task_are_called)
{
    const apium_task_def more[] = { { .name = "t.note", .run = note }, { 0 } };
    const apium_module module = { APIUM_ABI, sizeof(apium_task_def), NULL, more, NULL, NULL };
    ck_ok(apium_app_add(app, &module, err));
    apium_sig *sig =
        apium_sig_link(apium_sig_new("t.add", "[1, 2]"), apium_sig_new("t.note", "[%s]", "x"));
    sig = apium_sig_link(sig, apium_sig_immutable(apium_sig_new("t.note", "[9]")));
    sig = apium_sig_link_error(sig, apium_sig_new("t.note", "[\"never\"]"));
    apium_run *run;
    apium_result *res;
    ck_ok(apium_send(app, sig, NULL, &run, err));
    ck_assert_str_eq(calls, "[3, \"x\"];[9];");
    ck_ok(apium_get(run, 0, &res, err));
    apm_json children;
    ck_ok(apm_json_parse(apm_strz(apium_result_children(res)), &children, err));
    /* As in Celery, several are one group: [[its id, null], [both]]. */
    ck_assert_uint_eq(apm_json_count(children), 1);
    ck_assert_uint_eq(apm_json_count(apm_json_at(apm_json_at(children, 0), 1)), 2);
    apium_result_free(res);
    apium_run_free(run);

    *calls = '\0';
    sig = apium_sig_link_error(apium_sig_new("t.add", "[1]"), apium_sig_new("t.note", NULL));
    ck_ok(apium_send(app, sig, &(apium_send_opts){ .task_id = "failed-id" }, NULL, err));
    ck_assert_ptr_eq(strstr(calls, "[\"failed-id\""), calls);
}
END_TEST

/* --- workflows --- */

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

/* Becomes a chain. */
static apium_verdict
become(apium_task *task)
{
    return apium_replace(
        task, apium_chain(apium_sig_new("t.add", "[1, 2]"), apium_sig_new("t.add", "[3]"), NULL));
}

static apium_verdict
called(apium_task *task)
{
    strncat(calls, apium_task_args(task), sizeof(calls) - strlen(calls) - 1);
    return apium_return(task, apium_null());
}

static void
more_tasks(void)
{
    static const apium_task_def more[] = { { .name = "t.sum", .run = sum },
                                           { .name = "t.note", .run = note },
                                           { .name = "t.become", .run = become },
                                           { .name = "t.called", .run = called, .errback = true },
                                           { 0 } };
    const apium_module module = { APIUM_ABI, sizeof(apium_task_def), NULL, more, NULL, NULL };
    ck_ok(apium_app_add(app, &module, err));
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

static apium_sig *
sum_sig(void)
{
    return apium_sig_new("t.sum", NULL);
}

static void
comes_to(apium_sig *flow, const char *expected)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_send(app, flow, NULL, &run, err));
    ck_assert_msg(apium_get(run, 0, &res, err) == APIUM_OK, "%s instead of %s", err->text,
                  expected);
    ck_assert_str_eq(apium_result_json(res), expected);
    apium_result_free(res);
    apium_run_free(run);
}

START_TEST(workflows_run_eagerly)
{
    more_tasks();
    comes_to(apium_chain(add_of(1, 2), add_to(3), add_to(4), NULL), "10");
    comes_to(apium_group(add_of(1, 1), apium_chain(add_of(2, 2), add_to(1), NULL), NULL), "[2, 5]");
    comes_to(apium_chord(apium_group(add_of(1, 1), add_of(2, 2), NULL), sum_sig()), "6");
    comes_to(apium_chord(apium_group_of(0, NULL), sum_sig()), "0");
    comes_to(apium_chain(add_of(1, 1), apium_group(add_to(1), add_to(2), NULL), sum_sig(),
                         add_to(10), NULL),
             "17");
    comes_to(apium_chord(
                 apium_group(apium_chord(apium_group(add_of(1, 1), add_of(2, 2), NULL), sum_sig()),
                             apium_chain(add_of(1, 1), apium_group(add_to(1), add_to(2), NULL),
                                         sum_sig(), NULL),
                             NULL),
                 apium_chain(sum_sig(), add_to(1), NULL)),
             "14");
    comes_to(apium_chord(apium_group(add_of(1, 1), add_of(2, 2), NULL),
                         apium_group(sum_sig(), sum_sig(), NULL)),
             "[6, 6]");
    comes_to(apium_starmap(apium_sig_new("t.add", NULL), apium_json("[[1, 1], [2, 2]]")), "[2, 4]");
    comes_to(apium_chunks(apium_sig_new("t.add", NULL), apium_json("[[1, 1], [2, 2], [3, 3]]"), 2),
             "[[2, 4], [6]]");
    comes_to(apium_chain(apium_sig_new("t.become", NULL), add_to(4), NULL), "10");
}
END_TEST

START_TEST(a_long_chain_runs_eagerly)
{
    apium_sig *steps[500];
    for (int i = 0; i < 500; i++)
        steps[i] = i ? add_to(1) : add_of(0, 1);
    comes_to(apium_chain_of(500, steps), "500");
}
END_TEST

START_TEST(eager_failures_end_workflows)
{
    apium_run *run;
    apium_result *res;
    apium_counts counts;
    more_tasks();
    ck_ok(apium_send(app,
                     apium_chain(add_of(1, 1), apium_sig_new("t.add", "[\"x\"]"), add_to(1), NULL),
                     NULL, &run, err));
    ck_fails(apium_get(run, 0, &res, err), APIUM_E_FAILED);
    ck_assert_ptr_nonnull(strstr(err->text, "TypeError"));
    ck_ok(apium_get(apium_run_parent(apium_run_parent(run)), 0, &res, err));
    apium_result_free(res);
    apium_run_free(run);

    apium_sig *flow =
        apium_chord(apium_group(add_of(1, 1), apium_sig_new("t.add", "[\"x\"]"), NULL), sum_sig());
    ck_ok(apium_send(app, flow, NULL, &run, err));
    ck_ok(apium_wait(run, 0, &res, err));
    ck_assert_str_eq(apium_result_exception(res), "ChordError");
    apium_result_free(res);
    ck_ok(apium_count(apium_run_parent(run), &counts, err));
    ck_assert(counts.all == 2 && counts.failed == 1 && counts.successful == 1);
    apium_run_free(run);

    *calls = '\0';
    ck_ok(apium_send(app, apium_sig_link_error(add_of(1, 1), apium_sig_new("t.called", NULL)), NULL,
                     NULL, err));
    ck_assert_str_eq(calls, "");
    flow = apium_sig_link_error(apium_sig_new("t.add", "[\"x\"]"), apium_sig_new("t.called", NULL));
    ck_ok(apium_send(app, flow, &(apium_send_opts){ .task_id = "the-failed" }, NULL, err));
    ck_assert_ptr_nonnull(strstr(calls, "the-failed"));
    ck_assert_ptr_nonnull(strstr(calls, "TypeError"));

    ck_ok(apium_app_set(app, "task_eager_propagates", "true", err));
    ck_fails(apium_send(app, apium_chain(apium_sig_new("t.add", "[\"x\"]"), add_to(1), NULL), NULL,
                        &run, err),
             APIUM_E_FAILED);
    ck_assert_ptr_eq(strstr(err->text, "TypeError"), err->text);
}
END_TEST

static void
hook_before(apium_task *task)
{
    (void)task;
    strcat(calls, "before ");
}

static void
hook_after(apium_task *task, apium_verdict verdict)
{
    (void)task;
    strcat(calls, verdict == APIUM_SUCCESS   ? "after-success "
                  : verdict == APIUM_FAILURE ? "after-failure "
                                             : "after-other ");
}

static void
hook_failure(apium_task *task)
{
    strcat(calls, apium_task_exception(task));
    strcat(calls, " ");
}

static void
hook_retry(apium_task *task)
{
    strcat(calls, apium_task_exception(task));
    strcat(calls, "-again ");
}

START_TEST(the_apps_hooks_surround_every_task)
{
    const apium_hooks hooks = { .before_task = hook_before,
                                .after_task = hook_after,
                                .on_failure = hook_failure,
                                .on_retry = hook_retry };
    const apium_module module = { APIUM_ABI, sizeof(apium_task_def), NULL, NULL, &hooks, NULL };
    ck_ok(apium_app_add(app, &module, err));
    apium_result_free(result_of("t.add", "[1, 2]"));
    ck_assert_str_eq(calls, "before after-success ");
    *calls = '\0';
    apium_result_free(result_of("t.add", "[1]"));
    ck_assert_str_eq(calls, "before TypeError after-failure ");
    *calls = '\0';
    apium_result_free(result_of("t.flaky", "[]"));
    ck_assert_str_eq(
        calls, "before RuntimeError-again after-other before RuntimeError-again after-other before "
               "after-success ");
}
END_TEST

START_TEST(an_error_can_be_filled_in_by_everybody)
{
    ck_fails(apium_fail(err, APIUM_E_CLOSED, "cannot open %s: %s", "db", "no"), APIUM_E_CLOSED);
    ck_assert_str_eq(err->text, "cannot open db: no");
    ck_assert(err->retriable);
    ck_assert_int_eq(apium_fail(NULL, APIUM_E_CLOSED, "nobody listens"), APIUM_E_CLOSED);
}
END_TEST

START_TEST(a_task_that_is_not_registered_is_sent_for_real)
{
    ck_ok(apium_app_set(app, "broker_url", "nonsense://", err));
    ck_assert_int_ne(apium_call(app, "t.elsewhere", apium_null(), NULL, NULL, err), APIUM_OK);
    ck_assert_ptr_eq(strstr(err->text, "cannot send t.elsewhere: "), err->text);
}
END_TEST

START_TEST(results_without_a_backend_cannot_be_waited_for)
{
    apium_run *run;
    apium_result *res;
    ck_ok(apium_run_of(app, "some-id", &run, err));
    ck_fails(apium_wait(run, 0, &res, err), APIUM_E_UNSUPPORTED);
    ck_assert_str_eq(
        err->text,
        "cannot get the result of task some-id: no result backend is configured (result_backend)");
    ck_fails(apium_state(run, &res, err), APIUM_E_UNSUPPORTED);
    ck_fails(apium_forget(run, err), APIUM_E_UNSUPPORTED);
    apium_run_free(run);
    ck_fails(apium_run_of(app, "", &run, err), APIUM_E_INVALID);
}
END_TEST

START_TEST(an_app_knows_its_tasks)
{
    ck_assert_ptr_eq(apm_app_task(app, APM_STR("t.add")), &tasks[0]);
    ck_assert_ptr_eq(apm_app_task(app, APM_STR("t.inner")), &tasks[5]);
    ck_assert_ptr_null(apm_app_task(app, APM_STR("t.ad")));
    ck_assert_ptr_null(apm_app_task(app, APM_STR("t.add ")));
    ck_assert_ptr_null(apm_app_task(app, APM_STR("t.add\0x")));
    ck_assert_ptr_null(apm_app_task(app, APM_STR("")));
    ck_assert_ptr_eq(apm_app_task_at(app, 5), &tasks[5]);
    ck_assert_ptr_null(apm_app_task_at(app, 6));
}
END_TEST

START_TEST(annotations_override_definitions)
{
    ck_ok(apium_app_set(app, "task_annotations",
                        "{\"t.add\": {\"rate_limit\": \"10/m\", \"acks_late\": true, "
                        "\"max_retries\": 0, \"time_limit\": 2.5, "
                        "\"priority\": 0}, \"*\": {\"acks_late\": false, \"max_retries\": null}}",
                        err));
    const apium_task_def *def = apm_app_task(app, APM_STR("t.add"));
    ck_assert_str_eq(def->rate_limit, "10/m");
    ck_assert_int_eq(def->acks_late, APIUM_OFF); /* the last word is that of "*" */
    ck_assert_int_eq(def->max_retries, APIUM_UNLIMITED);
    ck_assert(def->time_limit == 2.5 && def->has_priority && def->priority == 0);
    ck_assert_ptr_eq(def->run, add);
    ck_assert_ptr_eq(apm_app_task_at(app, 0), def);
    ck_assert_int_eq(apm_app_task(app, APM_STR("t.inner"))->acks_late, APIUM_OFF);

    ck_ok(apium_app_set(app, "task_annotations",
                        "[{\"t.add\": {\"max_retries\": 0}}, {\"t.inner\": {\"rate_limit\": 3}}]",
                        err));
    ck_assert_int_eq(apm_app_task(app, APM_STR("t.add"))->max_retries, APIUM_NO_RETRIES);
    ck_assert_int_eq(apm_app_task(app, APM_STR("t.add"))->acks_late, APIUM_DEFAULT);
    ck_assert_str_eq(apm_app_task(app, APM_STR("t.inner"))->rate_limit, "3");
    ck_assert_ptr_eq(apm_app_task(app, APM_STR("t.outer")), &tasks[4]);

    const apium_task_def *out = NULL;
    apm_arena arena = { 0 };
    apm_json wrong;
    ck_ok(apm_json_parse(APM_STR("{\"t.add\": {\"rate_limits\": 1}}"), &wrong, err));
    ck_fails(apm_annotate(wrong, &tasks[0], &arena, &out, err), APIUM_E_CONFIG);
    ck_assert_str_eq(err->text,
                     "cannot annotate task \"t.add\": it has no attribute \"rate_limits\"");
    ck_ok(apm_json_parse(APM_STR("{\"*\": {\"acks_late\": \"yes\"}}"), &wrong, err));
    ck_fails(apm_annotate(wrong, &tasks[0], &arena, &out, err), APIUM_E_CONFIG);
    ck_assert_ptr_null(out);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(wrong_tables_and_modules_are_refused)
{
    apium_app *none = NULL;
    const apium_task_def twice[] = { { .name = "a", .run = add },
                                     { .name = "a", .run = add },
                                     { 0 } };
    const apium_task_def no_handler[] = { { .name = "a" }, { 0 } };
    const apium_module old = { APIUM_ABI + 1, sizeof(apium_task_def), "old", tasks, NULL, NULL };
    const char *const bad_settings[] = { "task_acks_late", NULL }, *const unknown[] = {
        "task_ack_late=true", NULL
    };
    const apium_module bad = { APIUM_ABI, sizeof(apium_task_def), "bad", NULL, NULL, bad_settings };
    const apium_module odd = { APIUM_ABI, sizeof(apium_task_def), "odd", NULL, NULL, unknown };

    ck_fails(apium_app_new("x", twice, &none, err), APIUM_E_CONFIG);
    ck_fails(apium_app_new("x", no_handler, &none, err), APIUM_E_CONFIG);
    ck_assert_str_eq(err->text, "cannot register task \"a\": it has no handler (.run)");
    ck_assert_ptr_null(none);
    ck_fails(apium_app_add(app, &old, err), APIUM_E_CONFIG);
    ck_fails(apium_app_add(app, &bad, err), APIUM_E_CONFIG);
    ck_fails(apium_app_add(app, &odd, err), APIUM_E_CONFIG);
    ck_fails(apium_app_load(app, "/nonexistent.so", err), APIUM_E_CONFIG);
    ck_fails(apm_app_learn(app, "/nonexistent.so", err), APIUM_E_CONFIG);
    ck_fails(apium_app_load(app, "/dev/null", err), APIUM_E_CONFIG);
}
END_TEST

START_TEST(cjson_trees_go_in_and_out)
{
    cJSON *tree = cJSON_Parse("{\"a\": [1, 2.5, \"x\"], \"b\": null}");
    apium_run *run;
    apium_result *res;
    cJSON *args = cJSON_Parse("[40, 2]");
    ck_ok(apium_call(app, "t.add", apium_cjson(args), NULL, &run, err));
    ck_ok(apium_get(run, 0, &res, err));
    cJSON *back = apium_cjson_parse(apium_result_json(res));
    ck_assert_int_eq(back->valueint, 42);
    cJSON_Delete(back);
    cJSON_Delete(args);
    apium_result_free(res);
    apium_run_free(run);
    cJSON_AddNumberToObject(tree, "c", NAN);
    ck_fails(apium_call(app, "t.add", apium_cjson(tree), NULL, &run, err), APIUM_E_INVALID);
    ck_fails(apium_call(app, "t.add", apium_cjson(NULL), NULL, &run, err), APIUM_E_INVALID);
    cJSON_Delete(tree);
    ck_assert_ptr_null(apium_cjson_parse(NULL));
}
END_TEST

int
main(void)
{
    Suite *suite = suite_create("eager");
    TCase *tc = tcase_create("eager");
    const TTest *const tests[] = {
        an_eager_call_has_its_result_at_once,
        eager_retries_happen_at_once,
        an_eager_failure_is_an_error_when_the_settings_say_so,
        an_eager_task_may_call_another,
        callbacks_of_an_eager_task_are_called,
        workflows_run_eagerly,
        a_long_chain_runs_eagerly,
        eager_failures_end_workflows,
        the_apps_hooks_surround_every_task,
        an_error_can_be_filled_in_by_everybody,
        a_task_that_is_not_registered_is_sent_for_real,
        results_without_a_backend_cannot_be_waited_for,
        an_app_knows_its_tasks,
        annotations_override_definitions,
        wrong_tables_and_modules_are_refused,
        cjson_trees_go_in_and_out,
    };
    for (size_t i = 0; i < sizeof(tests) / sizeof(*tests); i++)
        tcase_add_test(tc, tests[i]);
    tcase_add_checked_fixture(tc, setup, teardown);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
