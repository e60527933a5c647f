/* test_run.c - client/run: from a handler's verdict to an outcome. */
#include <apium/task.h>

#include "core/base/ids.h"
#include "tests/support/run_task.h"

#define RUN(def_, ...)                                                                             \
    run_task(&(apium_task_def){ .name = "tasks.t", .run = def_, ##__VA_ARGS__ }, "[1, \"a\"]",     \
             "{\"k\": 2}")

static apium_verdict
nothing(apium_task *task)
{
    (void)task;
    return APIUM_SUCCESS;
}

static apium_verdict
value(apium_task *task)
{
    return apium_return(task, apium_json("[1.0, 1]"));
}

static apium_verdict
no_json(apium_task *task)
{
    apium_return(task, apium_json("[1"));
    return APIUM_SUCCESS; /* forgetting what apium_return answered changes nothing */
}

static apium_verdict
value_error(apium_task *task)
{
    return apium_raise(task, "ValueError", "no such size: %d", 7);
}

static apium_verdict
declined(apium_task *task)
{
    return apium_raise_in(task, "billing.errors", "Card.Declined",
                          apium_jsonf("[%s, %d]", "x", 51));
}

static apium_verdict
silent_failure(apium_task *task)
{
    (void)task;
    return APIUM_FAILURE;
}

static apium_verdict
nonsense(apium_task *task)
{
    (void)task;
    return (apium_verdict)42;
}

START_TEST(success_has_the_value_or_null)
{
    RUN(nothing);
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
    ck_assert_str_eq(text(outcome.result), "null");
    RUN(value);
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
    ck_assert_str_eq(text(outcome.result), "[1.0, 1]");
    ck_assert_int_ge(outcome.runtime_ns, 0);
}
END_TEST

START_TEST(a_value_that_is_no_json_is_an_encode_error)
{
    RUN(no_json);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(text(outcome.exc.type), "EncodeError");
    ck_assert_str_eq(text(outcome.exc.module), "kombu.exceptions");
}
END_TEST

START_TEST(an_exception_has_type_module_arguments_and_place)
{
    RUN(value_error);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(raised(), "ValueError: no such size: 7");
    ck_assert_str_eq(text(outcome.exc.module), "builtins");
    ck_assert_ptr_nonnull(
        strstr(text(outcome.traceback), "in value_error\nValueError: no such size: 7\n"));
    RUN(declined);
    ck_assert_str_eq(text(outcome.exc.module), "billing.errors");
    ck_assert_str_eq(text(outcome.exc.type), "Card.Declined");
    ck_assert_str_eq(text(outcome.exc.args), "[\"x\", 51]");
    ck_assert_ptr_nonnull(
        strstr(text(outcome.traceback), "billing.errors.Card.Declined: ('x', 51)\n"));
}
END_TEST

START_TEST(a_failure_without_a_reason_is_a_runtime_error)
{
    RUN(silent_failure);
    ck_assert_str_eq(raised(), "RuntimeError: tasks.t failed without saying why");
    RUN(nonsense);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(raised(), "RuntimeError: tasks.t returned 42, which is no verdict");
}
END_TEST

START_TEST(after_the_soft_limit_a_failure_is_the_limits)
{
    static _Atomic int stop = APM_STOP_SOFT_LIMIT;
    run_env.stop = &stop;
    RUN(silent_failure);
    ck_assert_str_eq(text(outcome.exc.module), "billiard.exceptions");
    ck_assert_str_eq(raised(), "billiard.exceptions.SoftTimeLimitExceeded");
    RUN(value_error); /* an exception of its own stands */
    ck_assert_str_eq(text(outcome.exc.type), "ValueError");
    RUN(value); /* and so does a value */
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
    stop = APM_STOP_REVOKED;
    RUN(silent_failure);
    ck_assert_str_eq(text(outcome.exc.type), "RuntimeError");
}
END_TEST

/* --- retries --- */

static double countdown;
static const char *why;
static apium_retry_opts retry_opts;

static apium_verdict
again(apium_task *task)
{
    return why ? apium_retry(task, countdown, "%s", why) : apium_retry(task, countdown, NULL);
}

static apium_verdict
raise_and_again(apium_task *task)
{
    apium_raise(task, "ConnectionError", "down");
    return apium_retry(task, 1, "ignored, there is a cause");
}

static apium_verdict
again_with(apium_task *task)
{
    return apium_retry_with(task, &retry_opts);
}

static apium_verdict
only_the_verdict(apium_task *task)
{
    (void)task;
    return APIUM_RETRY;
}

/* Seconds from now until the retry of the last run. */
static double
delay(void)
{
    return (double)(outcome.retry_eta_us - apm_clock_wall_us()) / 1e6;
}

static void
is_about(double seconds)
{
    ck_assert_msg(delay() > seconds - 2 && delay() <= seconds, "%f instead of %f", delay(),
                  seconds);
}

START_TEST(a_retry_has_a_time_a_number_and_a_cause)
{
    countdown = 30;
    why = "peer is down";
    RUN(again);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    ck_assert_int_eq(outcome.retries, 1);
    ck_assert_str_eq(raised(), "RuntimeError: peer is down");
    is_about(30);
    ck_assert_str_eq(text(outcome.children), "[[[\"id-1\", null], null]]");
    why = NULL;
    RUN(again);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    ck_assert_str_eq(raised(), "none");
    RUN(raise_and_again);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    ck_assert_str_eq(raised(), "ConnectionError: down");
    RUN(only_the_verdict, .default_retry_delay = 20);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    is_about(20);
}
END_TEST

static apium_verdict
again_but_not(apium_task *task)
{
    apium_retry(task, 1, "down");
    return APIUM_FAILURE;
}

START_TEST(a_retry_that_is_not_returned_is_a_failure_with_its_cause)
{
    RUN(again_but_not);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(raised(), "RuntimeError: down");
}
END_TEST

START_TEST(the_default_delay_is_three_minutes)
{
    countdown = APIUM_DEFAULT_DELAY;
    RUN(again);
    is_about(180);
}
END_TEST

START_TEST(when_retries_are_used_up_the_cause_is_the_failure)
{
    countdown = 0;
    why = "still down";
    request.retries = 2;
    RUN(again);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    ck_assert_int_eq(outcome.retries, 3);
    request.retries = 3;
    RUN(again);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(raised(), "RuntimeError: still down");
}
END_TEST

/* The text is Celery's, from its fixture of a task that used its retries up. */
START_TEST(without_a_cause_it_is_max_retries_exceeded)
{
    why = NULL;
    request.retries = 3;
    RUN(again);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    ck_assert_str_eq(text(outcome.exc.module), "celery.exceptions");
    ck_assert_str_eq(text(outcome.exc.type), "MaxRetriesExceededError");
    ck_assert_str_eq(text(outcome.exc.args),
                     "[\"Can't retry tasks.t[id-1] args:(1, 'a') kwargs:{'k': 2}\"]");
}
END_TEST

START_TEST(a_definition_and_a_call_set_the_number_of_retries)
{
    why = NULL;
    countdown = 0;
    RUN(again, .max_retries = APIUM_NO_RETRIES);
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    RUN(again, .max_retries = 1);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    request.retries = 1000000;
    RUN(again, .max_retries = APIUM_UNLIMITED);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    retry_opts = (apium_retry_opts){ .now = true, .max_retries = APIUM_UNLIMITED };
    RUN(again_with);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    is_about(0);
}
END_TEST

START_TEST(a_back_off_doubles_up_to_its_ceiling)
{
    why = NULL;
    countdown = APIUM_BACKOFF;
    static const double expected[] = { 1, 2, 4, 8, 16, 20, 20 };
    for (int i = 0; i < 7; i++) {
        request.retries = i;
        RUN(again, .retry_jitter = APIUM_OFF, .retry_backoff_max = 20, .max_retries = 10);
        is_about(expected[i]);
    }
    request.retries = 1 << 30;
    RUN(again, .retry_jitter = APIUM_OFF, .max_retries = APIUM_UNLIMITED);
    is_about(600);
    request.retries = 1;
    RUN(again, .retry_jitter = APIUM_OFF, .retry_backoff_factor = 2.5,
        .max_retries = APIUM_UNLIMITED);
    is_about(5);
}
END_TEST

START_TEST(jitter_spreads_a_back_off_over_whole_seconds_from_none_to_all)
{
    int seen[5] = { 0 };
    why = NULL;
    countdown = APIUM_BACKOFF;
    request.retries = 2; /* 0..4 seconds */
    for (int i = 0; i < 400; i++) {
        int64_t before = apm_clock_wall_us();
        RUN(again);
        double s = (double)(outcome.retry_eta_us - before) / 1e6;
        ck_assert(s >= 0 && s < 5);
        ck_assert_msg(s - (int)s < 0.5, "%f is no whole number", s);
        seen[(int)s]++;
    }
    for (int i = 0; i < 5; i++)
        ck_assert_msg(seen[i] > 20, "%d seconds came %d times in 400", i, seen[i]);
}
END_TEST

START_TEST(a_retry_may_change_the_request)
{
    int64_t now = apm_clock_wall_us();
    retry_opts = (apium_retry_opts){ .countdown = 10,
                                     .args = " [9]",
                                     .kwargs = "{}",
                                     .queue = "slow",
                                     .priority = 5,
                                     .headers = "{\"h\": 1}",
                                     .time_limit = 30,
                                     .soft_time_limit = 2.5 };
    RUN(again_with);
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
    is_about(10);
    ck_assert_str_eq(text(outcome.retry_request),
                     "{\"args\": [9], \"kwargs\": {}, \"queue\": \"slow\", \"priority\": 5, "
                     "\"headers\": {\"h\": 1}, "
                     "\"time_limit\": 30.0, \"soft_time_limit\": 2.5}");
    retry_opts = (apium_retry_opts){ .eta_us = now + 77, .expires = 60 };
    RUN(again_with);
    ck_assert(outcome.retry_eta_us == now + 77);
    apm_json changes;
    int64_t expires;
    ck_assert(apm_json_parse(outcome.retry_request, &changes, NULL) == APIUM_OK);
    ck_assert(apm_json_int64(apm_json_get(changes, "expires_us"), "", &expires, NULL) == APIUM_OK);
    ck_assert(expires >= now + 60000000 && expires < now + 62000000);
    retry_opts = (apium_retry_opts){ .args = "{}" };
    RUN(again_with);
    ck_assert_str_eq(raised(), "TypeError: cannot retry with these args: a JSON array is expected");
    /* MaxRetriesExceededError shows what would have been sent. */
    retry_opts = (apium_retry_opts){ .args = "[9]", .max_retries = APIUM_NO_RETRIES };
    RUN(again_with);
    ck_assert_ptr_nonnull(strstr(text(outcome.exc.args), "args:(9,) kwargs:{'k': 2}"));
}
END_TEST

START_TEST(an_absurd_countdown_ends_with_the_year_9999)
{
    why = NULL;
    countdown = 1e300;
    RUN(again);
    ck_assert(outcome.retry_eta_us == INT64_C(253402300799000000));
}
END_TEST

/* --- autoretry_for, throws --- */

static const char *raise_type, *raise_module;

static apium_verdict
raise_any(apium_task *task)
{
    return apium_raise_in(task, raise_module, raise_type, apium_json("[\"x\"]"));
}

static apm_outcome_kind
raised_with(const char *module, const char *type, const char *listed)
{
    const char *const list[] = { "KeyError", listed, NULL };
    raise_module = module;
    raise_type = type;
    RUN(raise_any, .autoretry_for = list, .throws = list, .default_retry_delay = 5);
    return outcome.kind;
}

START_TEST(listed_exceptions_and_their_kinds_are_retried)
{
    ck_assert_int_eq(raised_with("builtins", "ConnectionError", "ConnectionError"), APM_DONE_RETRY);
    is_about(5);
    ck_assert_str_eq(raised(), "ConnectionError: x");
    ck_assert_int_eq(raised_with("builtins", "ConnectionResetError", "OSError"), APM_DONE_RETRY);
    ck_assert_int_eq(raised_with("builtins", "ConnectionResetError", "IOError"), APM_DONE_RETRY);
    ck_assert_int_eq(raised_with("builtins", "OSError", "ConnectionResetError"), APM_DONE_FAILURE);
    ck_assert_int_eq(raised_with("builtins", "ValueError", "Exception"), APM_DONE_RETRY);
    ck_assert_int_eq(raised_with("builtins", "SystemExit", "Exception"), APM_DONE_FAILURE);
    ck_assert_int_eq(raised_with("mymod", "Busy", "mymod.Busy"), APM_DONE_RETRY);
    ck_assert_int_eq(raised_with("mymod", "Busy", "Exception"), APM_DONE_RETRY);
    ck_assert_int_eq(raised_with("mymod", "Busy", "Busy"), APM_DONE_FAILURE);
    ck_assert_int_eq(raised_with("othermod", "ValueError", "ValueError"), APM_DONE_FAILURE);
    ck_assert_int_eq(raised_with(NULL, "KeyError", "ValueError"), APM_DONE_RETRY);
}
END_TEST

START_TEST(listed_exceptions_fail_when_retries_are_used_up)
{
    request.retries = 3;
    ck_assert_int_eq(raised_with("builtins", "ConnectionError", "OSError"), APM_DONE_FAILURE);
    ck_assert_str_eq(raised(), "ConnectionError: x");
    ck_assert(outcome.expected); /* throws lists it too */
}
END_TEST

START_TEST(automatic_retries_back_off_when_told_to)
{
    static const char *const list[] = { "Exception", NULL };
    request.retries = 3;
    RUN(value_error, .autoretry_for = list, .retry_backoff = true, .retry_backoff_factor = 3,
        .retry_jitter = APIUM_OFF, .max_retries = 10);
    is_about(24);
}
END_TEST

START_TEST(only_listed_exceptions_are_expected)
{
    static const char *const list[] = { "ValueError", NULL };
    RUN(value_error, .throws = list);
    ck_assert(outcome.expected);
    RUN(declined, .throws = list);
    ck_assert(!outcome.expected);
}
END_TEST

/* --- reject, ignore, states --- */

static apium_verdict
reject(apium_task *task)
{
    return apium_reject(task, false, "not \"%s\"", "ours");
}

static apium_verdict
reject_silently(apium_task *task)
{
    return apium_reject(task, true, NULL);
}

static apium_verdict
ignore(apium_task *task)
{
    apium_raise(task, "ValueError", "forgotten");
    return apium_ignore(task);
}

START_TEST(reject_is_celerys_exception)
{
    RUN(reject);
    ck_assert_int_eq(outcome.kind, APM_DONE_REJECT);
    ck_assert(!outcome.requeue);
    ck_assert_str_eq(text(outcome.exc.args), "[\"not \\\"ours\\\"\", false]");
    ck_assert_str_eq(text(outcome.exc.module), "celery.exceptions");
    RUN(reject_silently);
    ck_assert(outcome.requeue);
    ck_assert_str_eq(text(outcome.exc.args), "[null, true]");
}
END_TEST

START_TEST(ignore_is_its_own_outcome)
{
    RUN(ignore);
    ck_assert_int_eq(outcome.kind, APM_DONE_IGNORE);
}
END_TEST

static char reports[512];

static apium_status
report(void *arg, apm_str state, apm_str meta, apium_error *err)
{
    (void)err;
    size_t len = strlen(reports);
    ck_assert_ptr_eq(arg, reports);
    snprintf(reports + len, sizeof(reports) - len, "%.*s %.*s;", APM_STR_ARG(state),
             APM_STR_ARG(meta));
    return APIUM_OK;
}

static apium_verdict
states(apium_task *task)
{
    apium_error error, *err = &error;
    ck_ok(apium_progress(task, 1, 3, err));
    ck_ok(apium_update_state(task, "HALF", apium_json("[1.0]"), err));
    ck_fails(apium_update_state(task, "", apium_null(), err), APIUM_E_INVALID);
    ck_fails(apium_update_state(task, "X", apium_json("[1"), err), APIUM_E_INVALID);
    return APIUM_SUCCESS;
}

START_TEST(states_are_handed_over_in_order)
{
    run_env.report = report;
    run_env.arg = reports;
    RUN(states);
    ck_assert_str_eq(reports, "PROGRESS {\"current\": 1, \"total\": 3};HALF [1.0];");
    ck_assert_int_eq(outcome.states, 2);
    run_env.report = NULL; /* nobody to tell is no failure */
    RUN(states);
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
}
END_TEST

/* --- hooks and getters --- */

static char hooks[512];

static void
note(const char *what)
{
    strncat(hooks, what, sizeof(hooks) - strlen(hooks) - 1);
}

static void
on_success(apium_task *task)
{
    note("success ");
    note(apium_task_result(task));
    apium_raise(task, "ValueError", "a hook cannot change what happened");
}

static void
on_failure(apium_task *task)
{
    note("failure ");
    note(apium_task_exception_module(task));
    note(".");
    note(apium_task_exception(task));
    note(apium_task_exception_args(task));
    apium_return(task, apium_int(1));
}

static void
on_retry(apium_task *task)
{
    note("retry ");
    note(apium_task_exception(task) ? "with" : "without");
    apium_ignore(task);
}

START_TEST(hooks_see_what_happened_and_cannot_change_it)
{
    RUN(value, .on_success = on_success, .on_failure = on_failure);
    ck_assert_str_eq(hooks, "success [1.0, 1]");
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
    *hooks = '\0';
    RUN(value_error, .on_success = on_success, .on_failure = on_failure);
    ck_assert_str_eq(hooks, "failure builtins.ValueError[\"no such size: 7\"]");
    ck_assert_int_eq(outcome.kind, APM_DONE_FAILURE);
    *hooks = '\0';
    RUN(only_the_verdict, .on_retry = on_retry);
    ck_assert_str_eq(hooks, "retry without");
    ck_assert_int_eq(outcome.kind, APM_DONE_RETRY);
}
END_TEST

static apium_verdict
look_around(apium_task *task)
{
    ck_assert_str_eq(apium_task_id(task), "id-1");
    ck_assert_str_eq(apium_task_name(task), "tasks.t");
    ck_assert_str_eq(apium_task_root_id(task), "root");
    ck_assert_ptr_null(apium_task_parent_id(task));
    ck_assert_ptr_null(apium_task_group(task));
    ck_assert_int_eq(apium_task_retries(task), 2);
    ck_assert_int_eq(apium_task_max_retries(task), 3);
    ck_assert_int_eq(apium_task_eta_us(task), -1);
    ck_assert_int_eq(apium_task_expires_us(task), 123);
    ck_assert_str_eq(apium_task_queue(task), "q");
    ck_assert_str_eq(apium_task_exchange(task), "");
    ck_assert_int_eq(apium_task_priority(task), -1);
    ck_assert(!apium_task_redelivered(task));
    ck_assert_str_eq(apium_task_hostname(task), "w1@here");
    ck_assert_str_eq(apium_task_args(task), "[1, \"a\"]");
    ck_assert_str_eq(apium_task_kwargs(task), "{\"k\": 2}");
    ck_assert_str_eq(apium_task_header(task, "h"), "[1]");
    ck_assert_ptr_null(apium_task_header(task, "g"));
    ck_assert_int_eq(apium_should_stop(task), APIUM_STOP_NO);
    int64_t left = apium_time_left_ms(task);
    ck_assert(left > 1000 && left <= 2500);
    ck_assert_ptr_nonnull(apium_task_alloc(task, 100));
    return APIUM_SUCCESS;
}

START_TEST(a_handler_can_look_at_its_request)
{
    request.root_id = APM_STR("root");
    request.retries = 2;
    request.expires_us = 123;
    request.exchange = APM_STR("");
    request.routing_key = (apm_str){ "queue", 1 };
    request.headers = APM_STR("{\"h\": [1], \"task\": \"t\"}");
    RUN(look_around, .time_limit = 10, .soft_time_limit = 2.5);
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
}
END_TEST

static apium_task *soft_task;

static void
on_soft(apium_task *task)
{
    soft_task = task;
}

static apium_verdict
soft(apium_task *task)
{
    apm_run_soft_limit();
    ck_assert_ptr_eq(soft_task, task);
    ck_assert_int_eq(apium_time_left_ms(task), INT64_MAX);
    return APIUM_SUCCESS;
}

START_TEST(the_soft_limit_reaches_the_task_that_runs)
{
    apm_run_soft_limit(); /* none runs */
    ck_assert_ptr_null(soft_task);
    RUN(soft, .on_soft_limit = on_soft);
    ck_assert_int_eq(outcome.kind, APM_DONE_SUCCESS);
    soft_task = NULL;
    apm_run_soft_limit(); /* it is over */
    ck_assert_ptr_null(soft_task);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        success_has_the_value_or_null,
        a_value_that_is_no_json_is_an_encode_error,
        an_exception_has_type_module_arguments_and_place,
        a_failure_without_a_reason_is_a_runtime_error,
        after_the_soft_limit_a_failure_is_the_limits,
        a_retry_has_a_time_a_number_and_a_cause,
        a_retry_that_is_not_returned_is_a_failure_with_its_cause,
        the_default_delay_is_three_minutes,
        when_retries_are_used_up_the_cause_is_the_failure,
        without_a_cause_it_is_max_retries_exceeded,
        a_definition_and_a_call_set_the_number_of_retries,
        a_back_off_doubles_up_to_its_ceiling,
        jitter_spreads_a_back_off_over_whole_seconds_from_none_to_all,
        a_retry_may_change_the_request,
        an_absurd_countdown_ends_with_the_year_9999,
        listed_exceptions_and_their_kinds_are_retried,
        listed_exceptions_fail_when_retries_are_used_up,
        automatic_retries_back_off_when_told_to,
        only_listed_exceptions_are_expected,
        reject_is_celerys_exception,
        ignore_is_its_own_outcome,
        states_are_handed_over_in_order,
        hooks_see_what_happened_and_cannot_change_it,
        a_handler_can_look_at_its_request,
        the_soft_limit_reaches_the_task_that_runs,
        NULL,
    };
    return suite_run("run", tests, 4);
}
