/* wait.c - asking and waiting for what became of runs; see apium/result.h. */
#include <stdlib.h>

#include "client/app.h"
#include "client/runs.h"
#include "core/base/clock.h"
#include "core/model/result.h"

/* How long one turn of a wait lasts while the backend is in reach; between turns we look whether it
 * still is, and how those fare that it depends on. */
#define TURN_MS        1000
/* When nothing was told of a task that was watched for before it was sent. */
#define LOOK_MS        5
/* How many of those are looked at in between. */
#define PARENTS_A_TURN 64

apium_status
apm_run_words(apium_error *err, const char *what, const apium_run *run, const apium_error *why)
{
    apm_fail(err, why->status, "cannot %s %s %s: %s", what, run->is_group ? "group" : "task",
             run->id, why->text);
    if (err) {
        err->retriable = why->retriable;
        err->sys = why->sys;
    }
    return why->status;
}

bool
apm_run_done(const apium_run *run)
{
    return run->waiter.ready || run->eager || run->ignored;
}

bool
apm_run_failed(const apium_run *run)
{
    apm_json doc;
    apm_str text = { run->waiter.doc, run->waiter.doc_len };
    if (!run->waiter.ready || apm_json_parse(text, &doc, NULL) != APIUM_OK)
        return false;
    apm_json status = apm_json_get(doc, "status");
    return status.type == APM_JSON_STRING && !apm_json_key_is(status.text, APM_STATE_SUCCESS);
}

/* --- the backend --- */

apium_status
apm_run_backend(apium_run *run, apm_conn **conn, apm_backend **backend, apium_error *err)
{
    apium_status st = apm_conn_get(run->app, conn, err);
    if (st == APIUM_OK)
        st = apm_conn_backend(*conn, backend, err);
    if (st == APIUM_OK && apm_backend_can(*backend, APM_BACKEND_NONE))
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "no result backend is configured (result_backend)");
    if (st == APIUM_OK && run->ignored)
        return apm_fail(err, APIUM_E_UNSUPPORTED, "the task was sent to ignore its result");
    return st;
}

bool
apm_run_watched(const apium_run *run, const apm_conn *conn)
{
    return run->watching && run->watching == conn;
}

apium_status
apm_run_watch(apium_run *run, apm_conn *conn, apium_error *err)
{
    if (apm_run_watched(run, conn))
        return APIUM_OK;
    apium_status st = apm_conn_watch(conn, run->id, false, &run->waiter, err);
    if (st == APIUM_OK)
        run->watching = conn;
    return st;
}

apium_status
apm_run_watch_sent(apium_run *run, apm_conn *conn, apium_error *err)
{
    apium_status st = apm_conn_watch(conn, run->id, true, &run->waiter, err);
    if (st == APIUM_OK) {
        run->watching = conn;
        run->unlooked = true;
    }
    return st;
}

void
apm_run_unwatch(apium_run *run)
{
    apm_conn *conn;
    if (run->watching && apm_conn_get(run->app, &conn, NULL) == APIUM_OK &&
        apm_run_watched(run, conn))
        apm_conn_unwatch(conn, run->id, &run->waiter);
    run->watching = NULL;
}

/* Ask the backend once; the answer is the run's newest document. */
static apium_status
fetch(apium_run *run, apm_conn *conn, apm_backend *backend, apium_error *err)
{
    apm_answer *answer = apm_answer_new();
    if (!answer)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    backend->ops->fetch(backend, run->id, apm_answer_doc, answer);
    apium_status st = apm_answer_wait(conn, &answer, err);
    if (st == APIUM_OK && answer->doc)
        apm_waiter_set(&run->waiter, (apm_str){ answer->doc, answer->doc_len });
    apm_answer_free(answer);
    return st;
}

apium_status
apm_run_look(apium_run *run, apm_conn *conn, apm_backend *backend, apium_error *err)
{
    if (apm_run_done(run))
        return APIUM_OK;
    if (apm_backend_can(backend, APM_BACKEND_REPLY) && apm_run_watched(run, conn)) {
        apm_conn_turn(conn, &run->waiter.ready, 0);
        return APIUM_OK;
    }
    return fetch(run, conn, backend, err);
}

/* --- waiting --- */

int64_t
apm_run_deadline(int64_t timeout_ms)
{
    return timeout_ms < 0 || timeout_ms > INT64_MAX / 2 ? INT64_MAX : apm_clock_ms() + timeout_ms;
}

int64_t
apm_run_left(int64_t deadline_ms)
{
    int64_t now = apm_clock_ms();
    return deadline_ms == INT64_MAX ? -1 : deadline_ms > now ? deadline_ms - now : 0;
}

apium_status
apm_run_turn(apm_conn *conn, const bool *done, int64_t deadline_ms, apium_error *err)
{
    const char *why;
    int64_t patience = apm_conn_patience_ms(conn), down = apm_conn_backend_down_ms(conn, &why),
            left = deadline_ms == INT64_MAX ? INT64_MAX : deadline_ms - apm_clock_ms();
    if (left <= 0)
        return apm_fail(err, APIUM_E_TIMEOUT, "it has not finished in time");
    if (down >= patience)
        return apm_fail(err, APIUM_E_CLOSED, "the result backend is out of reach%s%s",
                        *why ? ": " : "", why);
    int64_t turn = down > 0 && patience - down < TURN_MS ? patience - down : TURN_MS;
    apm_conn_turn(conn, done, turn < left ? turn : left);
    return APIUM_OK;
}

/* What a run depends on, the first to run first: as long as one has not finished, those behind it have not begun. */
struct before {
    apium_run **items;
    size_t n, at;
};

/* Look how they fare. A failed one is *failed. */
static apium_status
look_before(struct before *before, apm_conn *conn, apm_backend *backend, apium_run **failed,
            apium_error *err)
{
    int looks = 0;
    while (before->at < before->n && looks < PARENTS_A_TURN) {
        apium_run *parent = before->items[before->at];
        if (!apm_run_done(parent)) {
            apium_status st = apm_run_look(parent, conn, backend, err);
            if (st != APIUM_OK)
                return st;
            looks++;
        }
        if (!apm_run_done(parent))
            return APIUM_OK;
        if (apm_run_failed(parent)) {
            *failed = parent;
            return APIUM_OK;
        }
        before->at++;
    }
    return APIUM_OK;
}

static apium_status
push_before(void *arg, apium_run *run, apium_error *err)
{
    struct before *before = arg;
    (void)err;
    before->items[before->n++] = run;
    return APIUM_OK;
}

static apium_status
count_before(void *arg, apium_run *run, apium_error *err)
{
    (void)run;
    (void)err;
    ++*(size_t *)arg;
    return APIUM_OK;
}

static apium_status
find_before(apium_run *run, struct before *before, apium_error *err)
{
    size_t n = 0;
    *before = (struct before){ 0 };
    if (!run->parent)
        return APIUM_OK;
    (void)apm_run_each(run->parent, count_before, &n, err);
    before->items = calloc(n + 1, sizeof(apium_run *));
    if (!before->items)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    return apm_run_each(run->parent, push_before, before, err);
}

static apium_status
wait_watched(apium_run *run, apm_conn *conn, apm_backend *backend, int64_t timeout_ms,
             struct before *before, apium_run **failed, apium_error *err)
{
    int64_t deadline = apm_run_deadline(timeout_ms);
    apium_status st = APIUM_OK;
    if (run->unlooked) { /* nearly always we are told */
        apm_conn_turn(conn, &run->waiter.ready,
                      timeout_ms >= 0 && timeout_ms < LOOK_MS ? timeout_ms : LOOK_MS);
        if (!run->waiter.ready)
            st = apm_run_look(run, conn, backend, err);
        run->unlooked = false;
    }
    while (st == APIUM_OK && !run->waiter.ready) {
        st = apm_run_turn(conn, &run->waiter.ready, deadline, err);
        if (st == APIUM_OK && before && !run->waiter.ready) {
            st = look_before(before, conn, backend, failed, err);
            if (*failed)
                break;
        }
    }
    return st;
}

/* Wait for a task. With `failed` those that it depends on are watched too: one that failed ends the wait and is *failed. */
static apium_status
wait_task(apium_run *run, int64_t timeout_ms, apium_run **failed, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    struct before before = { 0 };

    if (run->waiter.ready || run->eager)
        return APIUM_OK;
    apium_status st = apm_run_backend(run, &conn, &backend, err);
    if (st == APIUM_OK && (timeout_ms == 0 || (failed && run->parent)))
        st = apm_run_look(run, conn, backend, err);
    if (st != APIUM_OK || run->waiter.ready)
        return st;
    if (failed && !apm_backend_can(backend, APM_BACKEND_REPLY)) {
        st = find_before(run, &before, err);
        if (st == APIUM_OK)
            st = look_before(&before, conn, backend, failed, err);
        if (st != APIUM_OK || *failed)
            goto out;
    }
    if (timeout_ms == 0) {
        st = apm_fail(err, APIUM_E_TIMEOUT, "it has not finished");
        goto out;
    }
    bool watched = apm_run_watched(run, conn);
    apm_conn_waits(conn);
    if (!watched && (st = apm_conn_watch(conn, run->id, false, &run->waiter, err)) != APIUM_OK)
        goto out;
    st = wait_watched(run, conn, backend, timeout_ms, before.n ? &before : NULL, failed, err);
    const char *why;
    if (st == APIUM_E_TIMEOUT && apm_conn_backend_down_ms(conn, &why) > 0)
        apm_fail(err, st,
                 "it has not finished within %lld ms, and the result backend is out of reach%s%s",
                 (long long)timeout_ms, *why ? ": " : "", why);
    else if (st == APIUM_E_TIMEOUT)
        apm_fail(err, st, "it has not finished within %lld ms", (long long)timeout_ms);
    if (!watched)
        apm_conn_unwatch(conn, run->id, &run->waiter);
out:
    free(before.items);
    return st;
}

static apm_str
newest(const apium_run *run)
{
    return (apm_str){ run->waiter.doc, run->waiter.doc_len };
}

/* What is known of it now. */
static apium_status
result_of(apium_run *run, apium_result **out, apium_error *err)
{
    return run->is_group ? apm_group_result(run, out, err)
                         : apm_result_new(run->id, newest(run), out, err);
}

apium_status
apium_wait(apium_run *run, int64_t timeout_ms, apium_result **out, apium_error *err)
{
    apium_error why;
    apium_status st = run->is_group ? apm_group_wait(run, timeout_ms, false, &why)
                                    : wait_task(run, timeout_ms, NULL, &why);
    if (st == APIUM_OK)
        st = result_of(run, out, &why);
    return st == APIUM_OK ? st : apm_run_words(err, "get the result of", run, &why);
}

apium_status
apium_get(apium_run *run, int64_t timeout_ms, apium_result **out, apium_error *err)
{
    apium_result *res;
    apium_error why;
    apium_run *failed = NULL;
    apium_status st = run->is_group ? apm_group_wait(run, timeout_ms, true, &why)
                                    : wait_task(run, timeout_ms, &failed, &why);
    if (st == APIUM_OK)
        st = result_of(failed ? failed : run, &res, &why);
    if (st != APIUM_OK)
        return apm_run_words(err, "get the result of", run, &why);
    const char *state = apium_result_state(res);
    if (apium_result_ok(res) || !state || !apm_state_exception(apm_strz(state))) {
        *out = res;
        return APIUM_OK;
    }
    const char *message = apium_result_message(res);
    st = apm_fail(err, strcmp(state, APM_STATE_REVOKED) == 0 ? APIUM_E_REVOKED : APIUM_E_FAILED,
                  "%s", message ? message : "an exception that nobody wrote down");
    apium_result_free(res);
    return st;
}

apium_status
apium_state(apium_run *run, apium_result **out, apium_error *err)
{
    apium_error why;
    apium_status st = APIUM_OK;
    apm_conn *conn;
    apm_backend *backend;

    if (run->is_group) {
        st = apm_group_look(run, &why);
    } else if (!run->eager && !run->waiter.ready) {
        st = apm_run_backend(run, &conn, &backend, &why);
        if (st == APIUM_OK)
            st = apm_run_look(run, conn, backend, &why);
    }
    if (st == APIUM_OK)
        st = result_of(run, out, &why);
    return st == APIUM_OK ? st : apm_run_words(err, "get the state of", run, &why);
}

/* --- forgetting --- */

static apium_status
forget_task(void *arg, apium_run *run, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;
    (void)arg;

    if (run->ignored && run != run->top)
        return APIUM_OK; /* nothing was kept */
    apium_status st = run->eager ? APIUM_OK : apm_run_backend(run, &conn, &backend, err);
    if (!run->eager && st == APIUM_OK) {
        apm_answer *answer = apm_answer_new();
        if (answer) {
            backend->ops->forget(backend, run->id, apm_answer_done, answer);
            st = apm_answer_wait(conn, &answer, err);
            apm_answer_free(answer);
        } else {
            st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
        }
    }
    if (st != APIUM_OK)
        return st;
    free(run->waiter.doc);
    run->waiter.doc = NULL;
    run->waiter.doc_len = 0;
    run->waiter.ready = false;
    run->waiter.gather = NULL;
    return APIUM_OK;
}

static void
drop_gatherings(apium_run *run)
{
    for (; run; run = run->parent) {
        apm_gathering_free(run->gathering);
        run->gathering = NULL;
        for (size_t i = 0; i < run->n_members; i++)
            drop_gatherings(run->members[i]);
    }
}

apium_status
apium_forget(apium_run *run, apium_error *err)
{
    apium_error why;
    apium_status st = apm_run_each(run, forget_task, NULL, &why);
    drop_gatherings(run);
    run->top->active = NULL;
    return st == APIUM_OK ? st : apm_run_words(err, "forget", run, &why);
}
