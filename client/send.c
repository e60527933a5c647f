/*
 * send.c - calling tasks; see apium/send.h.
 *
 *   options of the call, the signature, the definition ─▶ request ─▶ route ─▶ message ─▶ unit ─▶ confirmed
 */
#include "client/send.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/app.h"
#include "client/builtin.h"
#include "client/sig.h"
#include "client/task.h"
#include "core/base/clock.h"
#include "core/base/ids.h"

/* --- from options to a request --- */

void
apm_call_init(apm_call *call)
{
    *call = (apm_call){ .req = { .group_index = -1,
                                 .priority = APM_PRIORITY_NONE,
                                 .ignore_result = APM_UNSET,
                                 .protocol = 2 } };
}

apium_send_opts
apm_call_defaults(const apium_task_def *def)
{
    if (!def)
        return (apium_send_opts){ 0 };
    return (apium_send_opts){
        .queue = def->queue,
        .exchange = def->exchange,
        .routing_key = def->routing_key,
        .serializer = def->serializer,
        .compression = def->compression,
        .priority = def->priority,
        .has_priority = def->has_priority || def->priority,
        .expires = def->expires,
        .time_limit = def->time_limit,
        .soft_time_limit = def->soft_time_limit,
        .ignore_result = def->ignore_result,
    };
}

/* args and kwargs: an array, an object, or neither; opts->kwargs beside an array. */
static apium_status
take_arguments(apm_call *call, apium_value args, apium_error *err)
{
    apium_error why;
    apm_json json, named = { 0 };

    apium_status st = apm_value_take(args, &call->arena, &json, &why);
    if (st != APIUM_OK)
        return apm_fail(err, st == APIUM_E_ENCODE ? APIUM_E_INVALID : st, "its arguments: %s",
                        why.text);
    if (call->opts.kwargs && (st = apm_value_take(apium_json(call->opts.kwargs), &call->arena,
                                                  &named, &why)) != APIUM_OK)
        return apm_fail(err, st == APIUM_E_ENCODE ? APIUM_E_INVALID : st, "its kwargs: %s",
                        why.text);
    if (named.type != APM_JSON_NONE && named.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_INVALID, "its kwargs are no JSON object");
    call->req.args = APM_STR("[]");
    call->req.kwargs = named.type == APM_JSON_OBJECT ? named.text : APM_STR("{}");
    switch (json.type) {
    case APM_JSON_NONE:
    case APM_JSON_NULL:
        return APIUM_OK;
    case APM_JSON_ARRAY:
        call->req.args = json.text;
        return APIUM_OK;
    case APM_JSON_OBJECT:
        if (named.type == APM_JSON_OBJECT)
            return apm_fail(err, APIUM_E_INVALID, "its keyword arguments are given twice");
        call->req.kwargs = json.text;
        return APIUM_OK;
    default:
        return apm_fail(err, APIUM_E_INVALID,
                        "its arguments are neither a JSON array nor an object");
    }
}

/* A wall time from seconds or a date; neither: APM_TIME_NONE. */
static apium_status
time_of(double seconds, int64_t at_us, const char *what, int64_t *out, apium_error *err)
{
    *out = APM_TIME_NONE;
    if (seconds == 0 && !at_us)
        return APIUM_OK;
    double us = seconds != 0 ? (double)apm_clock_wall_us() + seconds * 1e6 : (double)at_us;
    if (!(us >= -62135596800e6 && us <= (double)APM_LAST_DATE_US))
        return apm_fail(err, APIUM_E_INVALID, "its %s is not between the years 1 and 9999", what);
    *out = seconds != 0 ? apm_clock_wall_us() + (int64_t)(seconds * 1e6) : at_us;
    return APIUM_OK;
}

apium_status
apm_call_check(const apium_send_opts *opts, apium_error *err)
{
    if (!(opts->time_limit >= 0) || !(opts->soft_time_limit >= 0) || isinf(opts->time_limit) ||
        isinf(opts->soft_time_limit))
        return apm_fail(err, APIUM_E_INVALID, "its time limits are no numbers of seconds");
    if (opts->priority < 0 || opts->priority > 255)
        return apm_fail(err, APIUM_E_INVALID, "its priority %d is not between 0 and 255",
                        opts->priority);
    if (opts->retries < 0)
        return apm_fail(err, APIUM_E_INVALID, "its number of retries is negative");
    return APIUM_OK;
}

/* Text of the options must be UTF-8 before it is written into JSON. */
static apium_status
check_text(const apium_send_opts *opts, apium_error *err)
{
    const struct {
        const char *name, *text;
    } all[] = {
        { "task_id", opts->task_id },
        { "shadow", opts->shadow },
        { "root_id", opts->root_id },
        { "parent_id", opts->parent_id },
        { "queue", opts->queue },
        { "exchange", opts->exchange },
        { "reply_to", opts->reply_to },
        { "argsrepr", opts->argsrepr },
        { "routing_key", opts->routing_key },
        { "kwargsrepr", opts->kwargsrepr },
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i].text && !apm_utf8_valid(apm_strz(all[i].text), false))
            return apm_fail(err, APIUM_E_INVALID, "its %s is not UTF-8", all[i].name);
    if (opts->task_id && !*opts->task_id)
        return apm_fail(err, APIUM_E_INVALID, "its task_id is empty");
    return APIUM_OK;
}

static apium_status
take_links(apm_call *call, const char *json, const char *what, apm_str *out, apium_error *err)
{
    apm_buf buf;
    bool ok = true;

    if (!json)
        return APIUM_OK;
    apm_buf_init(&buf, APM_BUF_MAX);
    apium_status st = apm_sigs_add(&buf, json, what, err);
    if (st == APIUM_OK && buf.len) {
        const char *array = apm_arena_printf(&call->arena, "[%s]", buf.p);
        ok = array != NULL;
        *out = apm_strz(array);
    }
    apm_buf_clear(&buf);
    return ok ? st : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

/* Its place in the tree of what runs: below the task that calls it. */
static void
place(apm_call *call)
{
    const apium_task *parent = apm_task_current();
    apm_request *req = &call->req;

    req->root_id = apm_strz(call->opts.root_id);
    req->parent_id = apm_strz(call->opts.parent_id);
    if (parent && !apm_str_is(req->root_id))
        req->root_id = apm_str_is(parent->req->root_id) ? parent->req->root_id : parent->req->id;
    if (parent && !apm_str_is(req->parent_id))
        req->parent_id = parent->req->id;
    if (!apm_str_is(req->root_id))
        req->root_id = req->id;
}

static apium_status
make_request(apium_app *app, apm_call *call, const char *task, apium_value args, apium_error *err)
{
    const apm_settings *settings = apm_app_settings(app);
    apium_send_opts *opts = &call->opts;
    apm_request *req = &call->req;

    apium_status st = take_arguments(call, args, err);
    if (st == APIUM_OK)
        st = apm_call_check(opts, err);
    if (st == APIUM_OK)
        st = check_text(opts, err);
    if (st == APIUM_OK)
        st = time_of(opts->countdown, opts->eta_us, opts->countdown != 0 ? "countdown" : "eta",
                     &req->eta_us, err);
    if (st == APIUM_OK)
        st = time_of(opts->expires, opts->expires_at_us, "expires", &req->expires_us, err);
    if (st == APIUM_OK)
        st = take_links(call, opts->link, "link", &req->callbacks, err);
    if (st == APIUM_OK)
        st = take_links(call, opts->link_error, "link_error", &req->errbacks, err);
    if (st != APIUM_OK)
        return st;

    char *id = apm_arena_bytes(&call->arena, APM_UUID_LEN + 1);
    if (!id)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if (!opts->task_id)
        apm_uuid4(id);
    req->id = apm_strz(opts->task_id ? opts->task_id : id);
    req->task = apm_strz(task);
    req->shadow = apm_strz(opts->shadow);
    req->argsrepr = apm_strz(opts->argsrepr);
    req->kwargsrepr = apm_strz(opts->kwargsrepr);
    req->retries = opts->retries;
    req->time_limit_s = opts->time_limit;
    req->soft_time_limit_s = opts->soft_time_limit;
    req->reply_to = apm_strz(opts->reply_to);
    req->correlation_id = req->id;
    req->delivery_mode = opts->persistent == APIUM_OFF  ? 1
                         : opts->persistent == APIUM_ON ? 2
                                                        : (int)settings->task_default_delivery_mode;
    if (opts->ignore_result != APIUM_DEFAULT)
        req->ignore_result = opts->ignore_result == APIUM_ON ? APM_YES : APM_NO;
    call->ignored = opts->ignore_result == APIUM_ON || (opts->ignore_result == APIUM_DEFAULT &&
                                                        call->def && settings->task_ignore_result);
    place(call);
    return APIUM_OK;
}

/* --- from a request to the broker --- */

apium_status
apm_call_route(apium_app *app, apm_call *call, apm_route *route, apium_error *err)
{
    apm_settings *settings = apm_app_settings(app);
    const apium_send_opts *opts = &call->opts;
    const apium_task *parent = apm_task_current();
    const apm_choice choice = {
        .queue = opts->queue,
        .exchange = opts->exchange,
        .routing_key = opts->routing_key,
        .priority = opts->has_priority || opts->priority ? opts->priority : APM_PRIORITY_NONE,
    };
    int priority = choice.priority;
    apm_str name = apm_str_is(call->route_name) ? call->route_name : call->req.task;

    apm_app_lock(app);
    apium_status st = apm_settings_route(settings, apm_arena_str(&call->arena, name, NULL).p,
                                         &choice, route, &priority, err);
    apm_app_unlock(app);
    if (st != APIUM_OK)
        return st;
    /* The default is the weakest wish of all, and there already where nobody had another. */
    if (choice.priority == APM_PRIORITY_NONE && priority == settings->task_default_priority &&
        parent && settings->task_inherit_parent_priority)
        priority = parent->req->priority;
    call->req.priority = priority;
    route->mandatory = true; /* a task that nobody can receive is an error here, not a loss there */
    return APIUM_OK;
}

/* "gen<pid>@<host>", made once a thread and process. */
static const char *
origin(void)
{
    static _Thread_local char text[320];
    static _Thread_local pid_t of;
    const pid_t pid = getpid();

    if (of != pid) {
        char host[256] = "localhost";
        gethostname(host, sizeof(host) - 1);
        snprintf(text, sizeof(text), "gen%ld@%s", (long)pid, host);
        of = pid;
    }
    return text;
}

apium_status
apm_call_write(apium_app *app, apm_call *call, apm_message *msg, apium_error *err)
{
    const apm_settings *settings = apm_app_settings(app);
    const apium_send_opts *opts = &call->opts;
    apm_json headers = { 0 };
    apium_error why;

    if (opts->headers) {
        apium_status st = apm_json_parse(apm_strz(opts->headers), &headers, &why);
        if (st != APIUM_OK)
            return apm_fail(err, APIUM_E_INVALID, "its headers: %s", why.text);
        if (headers.type != APM_JSON_OBJECT)
            return apm_fail(err, APIUM_E_INVALID, "its headers are no JSON object");
    }
    const apm_encode_opts encode = {
        .serializer = opts->serializer ? opts->serializer : settings->task_serializer,
        .compression = opts->compression ? opts->compression : settings->task_compression,
        .protocol = (int)settings->task_protocol,
        .extra_headers = headers.text,
        .origin = origin(),
    };
    return apm_request_write(&call->req, &encode, &call->arena, msg, err);
}

/* With rpc:// the answer comes to a queue of this conn's backend, which has to be there before the
 * task can run; others are watched before it if this thread is one that waits. */
static apium_status
expect_answer(apm_conn *conn, apm_call *call, apium_run *run, apium_error *err)
{
    const char *url = apm_links_settings(apm_conn_links(conn))->result_backend;
    apm_backend *backend;

    if (!run || run->ignored || apm_str_is(call->req.reply_to))
        return APIUM_OK;
    if (apm_conn_watches(conn))
        return apm_run_watch_sent(run, conn, err);
    if (!url || strncmp(url, "rpc", 3) != 0)
        return APIUM_OK;
    apium_status st = apm_conn_backend(conn, &backend, err);
    if (st != APIUM_OK || !apm_backend_can(backend, APM_BACKEND_REPLY))
        return st;
    st = apm_run_watch(run, conn, err);
    if (st != APIUM_OK)
        return st;
    call->req.reply_to = apm_strz(backend->ops->reply_to(backend));
    return APIUM_OK;
}

apium_status
apm_call_put(apm_conn *conn, apm_call *call, apium_run *run, apm_broker *broker, apm_unit *unit,
             size_t *bytes, apium_error *err)
{
    apium_app *app = apm_conn_app(conn);
    apm_route route = { 0 };
    apm_message msg;

    apium_status st = apm_call_route(app, call, &route, err);
    if (st == APIUM_OK)
        st = expect_answer(conn, call, run, err);
    if (st == APIUM_OK)
        st = apm_call_write(app, call, &msg, err);
    if (st == APIUM_OK)
        st = apm_broker_publish(broker, unit, &route, &msg, err);
    if (st == APIUM_OK)
        *bytes += msg.body.len;
    return st;
}

static apium_status
send_away(apium_app *app, apm_call *call, apium_run *run, apium_error *err)
{
    apm_conn *conn;
    apm_broker *broker;
    size_t bytes = 0;

    apium_status st = apm_conn_get(app, &conn, err);
    if (st == APIUM_OK)
        st = apm_conn_broker(conn, &broker, err);
    if (st != APIUM_OK)
        return st;
    apm_unit *unit = apm_unit_new(broker->link);
    apm_answer *answer = apm_answer_new();
    st = unit && answer ? apm_call_put(conn, call, run, broker, unit, &bytes, err)
                        : apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if (st != APIUM_OK) {
        apm_unit_drop(unit);
    } else {
        apm_unit_commit(unit, apm_answer_done, answer);
        st = apm_answer_wait(conn, &answer, err);
    }
    apm_answer_free(answer);
    return st;
}

bool
apm_call_is_eager(apium_app *app, const apm_call *call)
{
    return apm_app_settings(app)->task_always_eager && call->def;
}

apium_status
apm_call_go(apium_app *app, apm_call *call, apium_run **out, apium_error *err)
{
    apium_run *run = NULL;
    apium_status st = APIUM_OK;

    if (apm_call_is_eager(app, call)) {
        st = apm_call_eager(app, call, &run, err);
    } else {
        if (out)
            st = apm_run_new(app, call->req.id, &run, err);
        if (run)
            run->ignored = call->ignored;
        if (st == APIUM_OK)
            st = send_away(app, call, run, err);
    }
    if (st == APIUM_OK && out)
        *out = run;
    else
        apium_run_free(run);
    return st;
}

apium_status
apm_call_refused(apium_error *err, apium_status st, const char *task, const apium_error *why)
{
    if (st == APIUM_E_FAILED || st == APIUM_E_REVOKED) {
        if (err) /* eagerly: the task's own failure, in its own words */
            *err = *why;
        return st;
    }
    apm_fail(err, st, "cannot send %s: %s", task, why->text);
    if (err) {
        err->retriable = why->retriable;
        err->sys = why->sys;
    }
    return st;
}

apium_status
apm_call_make(apium_app *app, apm_call *call, const char *task, apium_value args,
              const apium_send_opts *opts, apium_error *err)
{
    apm_call_init(call);
    if (!task || !*task || !apm_utf8_valid(apm_strz(task), false)) {
        apium_value_free(args);
        return apm_fail(err, APIUM_E_INVALID, "cannot send a task without a name");
    }
    apium_error why;
    call->def = apm_app_runnable(app, apm_strz(task));
    call->opts = apm_call_defaults(call->def);
    if (opts)
        apm_opts_lay(&call->opts, opts);
    apium_status st = make_request(app, call, task, args, &why);
    return st == APIUM_OK ? st : apm_call_refused(err, st, task, &why);
}

apium_status
apium_call(apium_app *app, const char *task, apium_value args, const apium_send_opts *opts,
           apium_run **run, apium_error *err)
{
    apm_call call;
    apium_error why;

    apium_status st = apm_call_make(app, &call, task, args, opts, err);
    if (st == APIUM_OK) {
        st = apm_call_go(app, &call, run, &why);
        if (st != APIUM_OK)
            apm_call_refused(err, st, task, &why);
        else if (apm_task_current())
            apm_task_add_child(apm_task_current(), call.req.id);
    }
    apm_arena_clear(&call.arena);
    return st;
}
