/* eager.c - task_always_eager: a call runs its task here and now, retries included, and the run has
 * its result. */
#include "client/send.h"

#include <stdlib.h>
#include <unistd.h>

#include "client/app.h"
#include "client/except.h"
#include "client/run.h"
#include "core/base/clock.h"
#include "core/model/result.h"
#include "workflows/follow.h"

/* Document of an outcome as a worker would have stored it. */
static void
write_doc(apium_app *app, apm_buf *buf, const apm_request *req, const apm_outcome *out)
{
    const apm_settings *settings = apm_app_settings(app);
    apm_result_opts opts = { .extended = settings->result_extended, .now_us = apm_clock_wall_us() };

    if (settings->timezone)
        apm_zone_offset(settings->timezone, opts.now_us, &opts.zone_offset_s, NULL);
    if (out->kind == APM_DONE_IGNORE || out->kind == APM_DONE_REJECT)
        apm_result_write_state(
            buf, req, out->kind == APM_DONE_IGNORE ? APM_STR("IGNORED") : APM_STR("REJECTED"),
            APM_STR("null"), &opts);
    else
        apm_result_write(buf, req, out, &opts);
}

/* task_store_eager_result: the backend gets the document too. */
static apium_status
store(apium_app *app, const apm_request *req, apm_str state, apm_str doc, apium_error *err)
{
    apm_conn *conn;
    apm_backend *backend;

    apium_status st = apm_conn_get(app, &conn, err);
    if (st == APIUM_OK)
        st = apm_conn_backend(conn, &backend, err);
    if (st != APIUM_OK || apm_backend_can(backend, APM_BACKEND_NONE) ||
        apm_backend_can(backend, APM_BACKEND_REPLY))
        return st;
    apm_unit *unit = apm_unit_new(backend->link);
    apm_answer *answer = apm_answer_new();
    const apm_record record = { .task_id = req->id, .state = state, .doc = doc };
    if (!unit || !answer)
        st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
    else
        st = backend->ops->record(backend, unit, &record, err);
    if (st != APIUM_OK) {
        apm_unit_drop(unit);
    } else {
        apm_unit_commit(unit, apm_answer_done, answer);
        st = apm_answer_wait(conn, &answer, err);
    }
    apm_answer_free(answer);
    return st;
}

struct reporting {
    apium_app *app;
    const apm_request *req;
};

static apium_status
report(void *arg, apm_str state, apm_str meta, apium_error *err)
{
    struct reporting *to = arg;
    const apm_settings *settings = apm_app_settings(to->app);
    const apm_result_opts opts = { .extended = settings->result_extended,
                                   .now_us = apm_clock_wall_us() };
    apm_buf buf;

    if (!settings->task_store_eager_result)
        return APIUM_OK;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_result_write_state(&buf, to->req, state, meta, &opts);
    apium_status st = buf.failed ? apm_fail(err, APIUM_E_NOMEM, "out of memory")
                                 : store(to->app, to->req, state, apm_buf_str(&buf), err);
    apm_buf_clear(&buf);
    return st;
}

/* What a retry changes in the request; eagerly there is nobody to wait for the eta. */
static void
apply_retry(apm_request *req, const apm_outcome *out)
{
    apm_json changes = { APM_JSON_OBJECT, out->retry_request };
    req->retries = out->retries;
    if (!apm_str_is(out->retry_request))
        return;
    apm_json args = apm_json_get(changes, "args"), kwargs = apm_json_get(changes, "kwargs");
    if (args.type != APM_JSON_NONE)
        req->args = args.text;
    if (kwargs.type != APM_JSON_NONE)
        req->kwargs = kwargs.text;
}

struct following {
    apium_app *app;
    apm_arena *arena;
};

static apium_status
run_next(void *arg, const apm_canvas_op *op, apium_error *err)
{
    const struct following *f = arg;
    const apm_sig_send *send = op->send;
    apm_call call;

    apm_call_init(&call);
    call.req = send->req;
    call.def = apm_app_task(f->app, send->req.task);
    call.opts = (apium_send_opts){
        .queue = send->choice.queue,
        .exchange = send->choice.exchange,
        .routing_key = send->choice.routing_key,
        .priority = send->choice.priority > 0 ? send->choice.priority : 0,
        .has_priority = send->choice.priority != APM_PRIORITY_NONE,
        .serializer = send->serializer,
        .compression = send->compression,
        .headers = apm_arena_str(f->arena, send->headers, NULL).p,
    };
    apium_status st = apm_call_go(f->app, &call, NULL, err);
    apm_arena_clear(&call.arena);
    return st;
}

/* Callbacks, errbacks, the next step of a chain: eager too, where they are registered. Nothing counts the parts of a chord. */
static apium_status
follow_up(apium_app *app, const apm_request *req, apm_outcome *outcome, apm_arena *arena,
          apium_error *err)
{
    struct following f = { app, arena };
    apm_sending how = {
        .arena = arena,
        .now_us = apm_clock_wall_us(),
        .chords = APM_CHORDS_REFUSED,
        .store = "of eager calls",
        .emit = run_next,
        .arg = &f,
    };
    apm_follow follow;

    apium_status st = apm_follow_outcome(&how, req, outcome, true, &follow, err);
    if (st == APIUM_OK)
        outcome->children = follow.children;
    return st;
}

static apm_str
state_of(const apm_outcome *out)
{
    return out->kind == APM_DONE_SUCCESS ? APM_STR(APM_STATE_SUCCESS) : APM_STR(APM_STATE_FAILURE);
}

apium_status
apm_call_eager(apium_app *app, apm_call *call, apium_run **out, apium_error *err)
{
    const apm_settings *settings = apm_app_settings(app);
    char host[256] = "localhost";
    apm_request req = call->req;
    struct reporting to = { app, &req };
    apm_outcome outcome;
    apium_run *run = NULL;
    apm_buf doc;

    gethostname(host, sizeof(host) - 1);
    const apm_run_env env = {
        .app = app, .hostname = host, .eager = true, .report = report, .arg = &to
    };
    apium_status st;
    if (apm_str_is(req.chord))
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot call %.*s eagerly: it is a part of a chord", APM_STR_ARG(req.task));
    for (;;) {
        apm_run(&env, call->def, &req, &call->arena, &outcome);
        if (outcome.kind != APM_DONE_RETRY)
            break;
        apply_retry(&req, &outcome);
    }
    bool decided = outcome.kind == APM_DONE_SUCCESS || outcome.kind == APM_DONE_FAILURE;

    st = follow_up(app, &req, &outcome, &call->arena, err);
    if (st != APIUM_OK)
        return st;
    apm_buf_init(&doc, APM_BUF_MAX);
    write_doc(app, &doc, &req, &outcome);
    st = doc.failed ? apm_fail(err, APIUM_E_NOMEM, "out of memory") : APIUM_OK;
    if (st == APIUM_OK && decided && settings->task_store_eager_result && !call->ignored)
        st = store(app, &req, state_of(&outcome), apm_buf_str(&doc), err);
    if (st == APIUM_OK && outcome.kind == APM_DONE_FAILURE && settings->task_eager_propagates) {
        apm_buf line;
        apm_buf_init(&line, APM_BUF_MAX);
        apm_exception_line(&line, &outcome.exc);
        st = apm_fail(err, APIUM_E_FAILED, "%.*s", APM_STR_ARG(apm_buf_str(&line)));
        apm_buf_clear(&line);
    }
    if (st == APIUM_OK)
        st = apm_run_new(app, req.id, &run, err);
    if (st == APIUM_OK) {
        run->eager = true;
        apm_waiter_set(&run->waiter, apm_buf_str(&doc));
        *out = run;
    }
    apm_buf_clear(&doc);
    return st;
}
