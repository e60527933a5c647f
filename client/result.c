/* result.c - runs and what became of them; see apium/result.h. */
#include <apium/result.h>

#include <stdlib.h>

#include "client/app.h"
#include "client/except.h"
#include "client/send.h"
#include "core/base/clock.h"
#include "core/model/result.h"

/* How long one turn of a wait lasts while the backend is in reach; between turns we look whether it
 * still is. */
#define TURN_MS 1000

/* The getters that copy a slice of the document, the first time they are asked. */
enum {
    TEXT_ID,
    TEXT_STATE,
    TEXT_JSON,
    TEXT_EXCEPTION,
    TEXT_MODULE,
    TEXT_EXC_ARGS,
    TEXT_TRACEBACK,
    TEXT_CHILDREN,
    TEXT_PARENT,
    TEXT_GROUP,
    TEXT_NAME,
    TEXT_ARGS,
    TEXT_KWARGS,
    TEXT_WORKER,
    TEXT_QUEUE,
    TEXTS
};

/* What getters make lives apart, because they take a const result. */
typedef struct made {
    apm_arena arena;
    const char *texts[TEXTS];
    const char *message;
} made;

struct apium_result {
    apm_arena arena;
    apm_str text; /* the document; absent for PENDING */
    apm_result_doc doc;
    made *made;
};

/* --- results --- */

/* A result from a document; absent is PENDING. */
static apium_status
result_new(const char *id, apm_str text, apium_result **out, apium_error *err)
{
    apium_result *res = calloc(1, sizeof(*res));
    made *mine = calloc(1, sizeof(*mine));
    bool ok = res && mine;
    apium_status st = APIUM_OK;

    if (ok) {
        res->made = mine;
        res->doc = (apm_result_doc){ .status = APM_STR(APM_STATE_PENDING),
                                     .date_done_us = APM_TIME_NONE,
                                     .retries = -1 };
        res->text = apm_arena_str(&res->arena, text, &ok);
    }
    if (ok && apm_str_is(text))
        st = apm_result_read(res->text, &res->arena, &res->doc, err);
    if (ok && st == APIUM_OK && !apm_str_is(res->doc.task_id))
        res->doc.task_id = apm_arena_str(&res->arena, apm_strz(id), &ok);
    if (!ok)
        st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if (st != APIUM_OK) {
        if (!res)
            free(mine);
        else
            apium_result_free(res);
        return st;
    }
    *out = res;
    return APIUM_OK;
}

void
apium_result_free(apium_result *res)
{
    if (!res)
        return;
    if (res->made)
        apm_arena_clear(&res->made->arena);
    free(res->made);
    apm_arena_clear(&res->arena);
    free(res);
}

static const char *
text_of(const apium_result *res, int which, apm_str text)
{
    made *mine = res->made;
    if (!mine->texts[which] && apm_str_is(text))
        mine->texts[which] = apm_arena_str(&mine->arena, text, NULL).p;
    return mine->texts[which];
}

const char *
apium_result_id(const apium_result *res)
{
    return text_of(res, TEXT_ID, res->doc.task_id);
}

const char *
apium_result_state(const apium_result *res)
{
    return text_of(res, TEXT_STATE, res->doc.status);
}

bool
apium_result_ready(const apium_result *res)
{
    return apm_state_ready(res->doc.status);
}

bool
apium_result_ok(const apium_result *res)
{
    return apm_str_eqz(res->doc.status, APM_STATE_SUCCESS);
}

const char *
apium_result_json(const apium_result *res)
{
    return apm_state_exception(res->doc.status) ? NULL
                                                : text_of(res, TEXT_JSON, res->doc.result.text);
}

/* Is there an exception? */
static bool
raised(const apium_result *res)
{
    return apm_state_exception(res->doc.status) && apm_str_is(res->doc.exc.type);
}

const char *
apium_result_exception(const apium_result *res)
{
    return raised(res) ? text_of(res, TEXT_EXCEPTION, res->doc.exc.type) : NULL;
}

const char *
apium_result_exception_module(const apium_result *res)
{
    return raised(res) ? text_of(res, TEXT_MODULE, res->doc.exc.module) : NULL;
}

const char *
apium_result_exception_args(const apium_result *res)
{
    apm_str args = res->doc.exc.args;
    return raised(res) ? text_of(res, TEXT_EXC_ARGS, apm_str_is(args) ? args : APM_STR("[]"))
                       : NULL;
}

const char *
apium_result_message(const apium_result *res)
{
    if (raised(res) && !res->made->message) {
        apm_buf buf;
        apm_buf_init(&buf, APM_BUF_MAX);
        apm_exception_line(&buf, &res->doc.exc);
        res->made->message = apm_arena_str(&res->made->arena, apm_buf_str(&buf), NULL).p;
        apm_buf_clear(&buf);
    }
    return res->made->message;
}

const char *
apium_result_traceback(const apium_result *res)
{
    return text_of(res, TEXT_TRACEBACK, res->doc.traceback);
}

const char *
apium_result_children(const apium_result *res)
{
    return res->doc.children.type == APM_JSON_ARRAY
               ? text_of(res, TEXT_CHILDREN, res->doc.children.text)
               : NULL;
}

int64_t
apium_result_date_done_us(const apium_result *res)
{
    return res->doc.date_done_us == APM_TIME_NONE ? -1 : res->doc.date_done_us;
}

const char *
apium_result_parent_id(const apium_result *res)
{
    return text_of(res, TEXT_PARENT, res->doc.parent_id);
}

const char *
apium_result_group_id(const apium_result *res)
{
    return text_of(res, TEXT_GROUP, res->doc.group_id);
}

const char *
apium_result_name(const apium_result *res)
{
    return text_of(res, TEXT_NAME, res->doc.name);
}

const char *
apium_result_args(const apium_result *res)
{
    return text_of(res, TEXT_ARGS, res->doc.args.text);
}

const char *
apium_result_kwargs(const apium_result *res)
{
    return text_of(res, TEXT_KWARGS, res->doc.kwargs.text);
}

const char *
apium_result_worker(const apium_result *res)
{
    return text_of(res, TEXT_WORKER, res->doc.worker);
}

const char *
apium_result_queue(const apium_result *res)
{
    return text_of(res, TEXT_QUEUE, res->doc.queue);
}

int64_t
apium_result_retries(const apium_result *res)
{
    return res->doc.retries;
}

const char *
apium_result_document(const apium_result *res)
{
    return res->text.p;
}

/* --- runs --- */

apium_status
apium_run_of(apium_app *app, const char *task_id, apium_run **out, apium_error *err)
{
    if (!task_id || !*task_id || !apm_utf8_valid(apm_strz(task_id), false))
        return apm_fail(err, APIUM_E_INVALID, "cannot open a run without a task's id");
    return apm_run_new(app, apm_strz(task_id), out, err);
}

const char *
apium_run_id(const apium_run *run)
{
    return run->id;
}

/* The conn that has watched since the task was sent, if this thread and process may still use
 * it. */
static bool
watching_on(const apium_run *run, const apm_conn *conn)
{
    return run->watching && run->watching == conn;
}

void
apium_run_free(apium_run *run)
{
    apm_conn *conn;
    if (!run)
        return;
    if (run->watching && apm_conn_get(run->app, &conn, NULL) == APIUM_OK && watching_on(run, conn))
        apm_conn_unwatch(conn, run->id, &run->waiter);
    free(run->waiter.doc);
    free(run->id);
    free(run);
}

/* This thread's conn with its backend open, for a run whose result can be somewhere. */
static apium_status
backend_of(apium_run *run, apm_conn **conn, apm_backend **backend, apium_error *err)
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

/* Say what could not be done, keeping the rest of the error. */
static apium_status
in_other_words(apium_error *err, const char *what, const apium_run *run, const apium_error *why)
{
    apm_fail(err, why->status, "cannot %s task %s: %s", what, run->id, why->text);
    if (err) {
        err->retriable = why->retriable;
        err->sys = why->sys;
    }
    return why->status;
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

/* Bring the run's document up to date without waiting for anything to happen. */
static apium_status
look(apium_run *run, apm_conn *conn, apm_backend *backend, apium_error *err)
{
    if (run->waiter.ready)
        return APIUM_OK;
    if (apm_backend_can(backend, APM_BACKEND_REPLY) && watching_on(run, conn)) {
        apm_conn_turn(conn, &run->waiter.ready, 0);
        return APIUM_OK;
    }
    return fetch(run, conn, backend, err);
}

static apium_status
wait_ready(apium_run *run, apm_conn *conn, int64_t timeout_ms, apium_error *err)
{
    int64_t patience = apm_conn_patience_ms(conn);
    int64_t deadline =
        timeout_ms < 0 || timeout_ms > INT64_MAX / 2 ? INT64_MAX : apm_clock_ms() + timeout_ms;
    const char *why;

    while (!run->waiter.ready) {
        int64_t down = apm_conn_backend_down_ms(conn, &why), left = deadline - apm_clock_ms();
        if (left <= 0)
            return apm_fail(err, APIUM_E_TIMEOUT, "it has not finished within %lld ms",
                            (long long)timeout_ms);
        if (down >= patience)
            return apm_fail(err, APIUM_E_CLOSED, "the result backend is out of reach%s%s",
                            *why ? ": " : "", why);
        int64_t turn = down > 0 && patience - down < TURN_MS ? patience - down : TURN_MS;
        apm_conn_turn(conn, &run->waiter.ready, turn < left ? turn : left);
    }
    return APIUM_OK;
}

static apium_status
wait_for(apium_run *run, int64_t timeout_ms, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;

    if (run->waiter.ready || run->eager)
        return APIUM_OK;
    apium_status st = backend_of(run, &conn, &backend, err);
    if (st != APIUM_OK)
        return st;
    if (timeout_ms == 0) {
        st = look(run, conn, backend, err);
        if (st == APIUM_OK && !run->waiter.ready)
            st = apm_fail(err, APIUM_E_TIMEOUT, "it has not finished");
        return st;
    }
    bool watched = watching_on(run, conn);
    if (!watched && (st = apm_conn_watch(conn, run->id, &run->waiter, err)) != APIUM_OK)
        return st;
    st = wait_ready(run, conn, timeout_ms, err);
    if (!watched)
        apm_conn_unwatch(conn, run->id, &run->waiter);
    return st;
}

static apm_str
newest(const apium_run *run)
{
    return (apm_str){ run->waiter.doc, run->waiter.doc_len };
}

apium_status
apium_wait(apium_run *run, int64_t timeout_ms, apium_result **out, apium_error *err)
{
    apium_error why;
    apium_status st = wait_for(run, timeout_ms, &why);
    if (st == APIUM_OK)
        st = result_new(run->id, newest(run), out, &why);
    return st == APIUM_OK ? st : in_other_words(err, "get the result of", run, &why);
}

apium_status
apium_get(apium_run *run, int64_t timeout_ms, apium_result **out, apium_error *err)
{
    apium_result *res;
    apium_status st = apium_wait(run, timeout_ms, &res, err);
    if (st != APIUM_OK)
        return st;
    if (apm_state_exception(res->doc.status)) {
        const char *message = apium_result_message(res);
        st = apm_fail(
            err, apm_str_eqz(res->doc.status, APM_STATE_REVOKED) ? APIUM_E_REVOKED : APIUM_E_FAILED,
            "%s", message ? message : "an exception that nobody wrote down");
        apium_result_free(res);
        return st;
    }
    *out = res;
    return APIUM_OK;
}

apium_status
apium_state(apium_run *run, apium_result **out, apium_error *err)
{
    apium_error why;
    apium_status st = APIUM_OK;
    apm_conn *conn;
    apm_backend *backend;

    if (!run->eager && !run->waiter.ready) {
        st = backend_of(run, &conn, &backend, &why);
        if (st == APIUM_OK)
            st = look(run, conn, backend, &why);
    }
    if (st == APIUM_OK)
        st = result_new(run->id, newest(run), out, &why);
    return st == APIUM_OK ? st : in_other_words(err, "get the state of", run, &why);
}

apium_status
apium_forget(apium_run *run, apium_error *err)
{
    apium_error why;
    apm_conn *conn;
    apm_backend *backend;

    apium_status st = run->eager ? APIUM_OK : backend_of(run, &conn, &backend, &why);
    if (!run->eager && st == APIUM_OK) {
        apm_answer *answer = apm_answer_new();
        if (answer) {
            backend->ops->forget(backend, run->id, apm_answer_done, answer);
            st = apm_answer_wait(conn, &answer, &why);
            apm_answer_free(answer);
        } else {
            st = apm_fail(&why, APIUM_E_NOMEM, "out of memory");
        }
    }
    if (st != APIUM_OK)
        return in_other_words(err, "forget", run, &why);
    free(run->waiter.doc);
    run->waiter.doc = NULL;
    run->waiter.ready = false;
    return APIUM_OK;
}
