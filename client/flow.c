/*
 * flow.c - sending a signature of any kind; see apium/send.h.
 *
 *   tree ─▶ what has to be sent now, in its order ─▶ checked, each with its route ─▶ watched for ─▶ units ─▶ confirmed
 *
 * Everything that can be refused is refused before the first message leaves.
 */
#include "client/flow.h"

#include <stdlib.h>

#include "client/app.h"
#include "client/builtin.h"
#include "client/task.h"
#include "core/base/clock.h"

/* A unit holds this much, so that a big group is a stream. */
#define UNIT_MESSAGES 64
#define UNIT_BYTES    (1 << 20)

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

/* --- one message --- */

/* The task that a map calls is the one whose route counts. */
static apm_str
route_name(const apm_request *req, apm_arena *arena)
{
    apm_str name;
    if (!apm_str_eqz(req->task, "celery.map") && !apm_str_eqz(req->task, "celery.starmap"))
        return APM_STR_NONE;
    apm_json task =
        apm_json_get(apm_json_get((apm_json){ APM_JSON_OBJECT, req->kwargs }, "task"), "task");
    return task.type == APM_JSON_STRING &&
                   apm_json_string(task, "task", arena, &name, NULL) == APIUM_OK
               ? name
               : APM_STR_NONE;
}

void
apm_call_of(apium_app *app, const apm_sig_send *send, apm_arena *arena, apm_call *call)
{
    const apm_settings *settings = apm_app_settings(app);
    apm_call_init(call);
    call->def = apm_app_runnable(app, send->req.task);
    call->opts = apm_call_defaults(call->def);
    const apium_send_opts own = {
        .queue = send->choice.queue,
        .exchange = send->choice.exchange,
        .routing_key = send->choice.routing_key,
        .priority = send->choice.priority != APM_PRIORITY_NONE ? send->choice.priority : 0,
        .has_priority = send->choice.priority != APM_PRIORITY_NONE,
        .serializer = send->serializer,
        .compression = send->compression,
        .headers = apm_arena_str(arena, send->headers, NULL).p,
        .time_limit = send->req.time_limit_s,
        .soft_time_limit = send->req.soft_time_limit_s,
        .retries = send->req.retries,
        .ignore_result = send->req.ignore_result == APM_YES  ? APIUM_ON
                         : send->req.ignore_result == APM_NO ? APIUM_OFF
                                                             : APIUM_DEFAULT,
    };
    apm_opts_lay(&call->opts, &own);

    apm_request *req = &call->req;
    *req = send->req;
    call->route_name = route_name(req, arena);
    req->correlation_id = req->id;
    req->time_limit_s = call->opts.time_limit;
    req->soft_time_limit_s = call->opts.soft_time_limit;
    if (call->opts.ignore_result != APIUM_DEFAULT)
        req->ignore_result = call->opts.ignore_result == APIUM_ON ? APM_YES : APM_NO;
    call->ignored = req->ignore_result == APM_YES ||
                    (req->ignore_result == APM_UNSET && call->def && settings->task_ignore_result);
    if (req->expires_us == APM_TIME_NONE && call->opts.expires != 0)
        req->expires_us = apm_clock_wall_us() + (int64_t)(call->opts.expires * 1e6);
    if (!req->delivery_mode)
        req->delivery_mode = (int)settings->task_default_delivery_mode;
}

static apium_status
check_call(const apm_call *call, apium_error *err)
{
    const apm_request *req = &call->req;
    apium_status st = apm_call_check(&call->opts, err);
    if (st == APIUM_OK && req->eta_us > APM_LAST_DATE_US)
        st = apm_fail(err, APIUM_E_INVALID, "its eta is not between the years 1 and 9999");
    if (st == APIUM_OK && req->expires_us > APM_LAST_DATE_US)
        st = apm_fail(err, APIUM_E_INVALID, "its expires is not between the years 1 and 9999");
    return st;
}

/* Can it be written the way that it asks for? */
static apium_status
try_write(apium_app *app, apm_call *call, apium_error *err)
{
    apm_message msg;
    return apm_call_write(app, call, &msg, err);
}

/* --- what has to be sent --- */

/* One of the operations, kept until all are known to be fine. */
typedef struct step {
    struct step *next;
    apm_canvas_op_kind kind;
    apm_sig_send send;
    apm_str group_id, doc;
    int64_t size;
} step;

struct flow {
    apium_app *app;
    apm_conn *conn;
    apm_backend *backend; /* NULL: it was not needed */
    apm_arena arena;
    apm_buf children;
    step *first, **last;
    size_t messages;
    apm_str *ignored; /* ids whose results nobody will keep */
    size_t n_ignored, cap_ignored;
};

static bool
note_ignored(struct flow *flow, apm_str id)
{
    if (flow->n_ignored == flow->cap_ignored) {
        size_t cap = flow->cap_ignored ? 2 * flow->cap_ignored : 16;
        apm_str *ids = realloc(flow->ignored, cap * sizeof(*ids));
        if (!ids)
            return false;
        flow->ignored = ids;
        flow->cap_ignored = cap;
    }
    flow->ignored[flow->n_ignored++] = id;
    return true;
}

static apium_status
keep_step(void *arg, const apm_canvas_op *op, apium_error *err)
{
    struct flow *flow = arg;
    apm_route route = { 0 };
    apm_call call;
    step *s = apm_arena_alloc(&flow->arena, sizeof(*s));
    if (!s)
        return no_memory(err);
    *s = (step){ .kind = op->kind, .group_id = op->group_id, .size = op->size, .doc = op->doc };
    if (op->kind == APM_CANVAS_SEND) {
        s->send = *op->send;
        apm_call_of(flow->app, &s->send, &flow->arena, &call);
        apium_status st = check_call(&call, err);
        if (st == APIUM_OK)
            st = apm_call_route(flow->app, &call, &route, err);
        if (st == APIUM_OK && (call.opts.serializer || call.opts.compression || call.opts.headers))
            st = try_write(flow->app, &call, err);
        apm_arena_clear(&call.arena);
        if (st != APIUM_OK)
            return st;
        if (call.ignored && !note_ignored(flow, s->send.req.id))
            return no_memory(err);
        flow->messages++;
    }
    *flow->last = s;
    flow->last = &s->next;
    return APIUM_OK;
}

static int
compare_ids(const void *a, const void *b)
{
    const apm_str *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->len < y->len ? x->len : y->len);
    return order ? order : (x->len > y->len) - (x->len < y->len);
}

static apium_status
mark_ignored(void *arg, apium_run *run, apium_error *err)
{
    const struct flow *flow = arg;
    apm_str id = apm_strz(run->id);
    (void)err;
    run->ignored = bsearch(&id, flow->ignored, flow->n_ignored, sizeof(id), compare_ids) != NULL;
    return APIUM_OK;
}

static apium_status
watch(void *arg, apium_run *run, apium_error *err)
{
    return run->ignored ? APIUM_OK : apm_run_watch(run, arg, err);
}

/* The runs there will be. With rpc:// answers come to a queue of this conn's backend, which has to know whose they are before a
 * task can run. */
static apium_status
make_run(struct flow *flow, const apm_handle *handle, apium_run **out, apium_error *err)
{
    apium_run *run;
    apium_status st = apm_run_of_handle(flow->app, handle, &run, err);
    if (st != APIUM_OK)
        return st;
    if (flow->n_ignored) {
        qsort(flow->ignored, flow->n_ignored, sizeof(apm_str), compare_ids);
        st = apm_run_each(run, mark_ignored, flow, err);
    }
    if (st == APIUM_OK && flow->backend && apm_backend_can(flow->backend, APM_BACKEND_REPLY))
        st = apm_run_each(run, watch, flow->conn, err);
    else if (st == APIUM_OK && !run->is_group && !run->ignored && apm_conn_watches(flow->conn))
        st = apm_run_watch_sent(run, flow->conn, err);
    if (st == APIUM_OK)
        *out = run;
    else
        apium_run_free(run);
    return st;
}

/* --- on its way --- */

struct sending {
    struct flow *flow;
    apm_broker *broker;
    apm_unit *unit;
    size_t held, bytes; /* in the unit */
    size_t sent;
    size_t doubtful; /* in a unit that failed: some may have got through */
};

static apium_status
commit(struct sending *out, apm_unit *unit, apium_error *err)
{
    apm_answer *answer = apm_answer_new();
    if (!answer) {
        apm_unit_drop(unit);
        return no_memory(err);
    }
    apm_unit_commit(unit, apm_answer_done, answer);
    apium_status st = apm_answer_wait(out->flow->conn, &answer, err);
    apm_answer_free(answer);
    return st;
}

static apium_status
flush(struct sending *out, apium_error *err)
{
    apm_unit *unit = out->unit;
    if (!unit)
        return APIUM_OK;
    out->unit = NULL;
    apium_status st = commit(out, unit, err);
    *(st == APIUM_OK ? &out->sent : &out->doubtful) += out->held;
    out->held = out->bytes = 0;
    return st;
}

static apium_status
send_message(struct sending *out, const step *s, apium_error *err)
{
    struct flow *flow = out->flow;
    apm_route route = { 0 };
    apm_message msg;
    apm_call call;
    apm_call_of(flow->app, &s->send, &flow->arena, &call);
    apium_status st = apm_call_route(flow->app, &call, &route, err);
    if (st == APIUM_OK)
        st = apm_call_write(flow->app, &call, &msg, err);
    if (st == APIUM_OK && !out->unit && !(out->unit = apm_unit_new(out->broker->link)))
        st = no_memory(err);
    if (st == APIUM_OK)
        st = apm_broker_publish(out->broker, out->unit, &route, &msg, err);
    if (st == APIUM_OK) {
        out->held++;
        out->bytes += msg.body.len;
    }
    apm_arena_clear(&call.arena);
    if (st == APIUM_OK && (out->held >= UNIT_MESSAGES || out->bytes >= UNIT_BYTES))
        st = flush(out, err);
    return st;
}

static apium_status
append_kept(apm_backend *backend, apm_unit *unit, const step *s, apium_error *err)
{
    switch (s->kind) {
    case APM_CANVAS_EXTEND:
        return backend->ops->extend(backend, unit, s->group_id, s->size, err);
    case APM_CANVAS_KEEP:
        return backend->ops->save_group(backend, unit, s->group_id, s->doc, err);
    default:
        return backend->ops->expect(backend, unit, s->group_id, s->size, err);
    }
}

/* What has to be in the store before what is sent next: how many parts a chord's header has, a piece of a chain. */
static apium_status
store_first(struct sending *out, const step *s, apium_error *err)
{
    apm_backend *backend = out->flow->backend;
    apium_status st = flush(out, err);
    if (st != APIUM_OK)
        return st;
    apm_unit *unit = apm_unit_new(backend->link);
    if (!unit)
        return no_memory(err);
    st = append_kept(backend, unit, s, err);
    if (st == APIUM_OK)
        return commit(out, unit, err);
    apm_unit_drop(unit);
    return st;
}

static apium_status
send_all(struct flow *flow, apium_error *err)
{
    struct sending out = { .flow = flow };
    apium_error why;
    apium_status st = apm_conn_broker(flow->conn, &out.broker, &why);
    for (const step *s = flow->first; s && st == APIUM_OK; s = s->next)
        st = s->kind == APM_CANVAS_SEND ? send_message(&out, s, &why) : store_first(&out, s, &why);
    if (st == APIUM_OK)
        st = flush(&out, &why);
    if (st == APIUM_OK)
        return st;
    apm_unit_drop(out.unit);
    if (flow->messages < 2)
        apm_fail(err, st, "%s", why.text);
    else if (out.doubtful)
        apm_fail(err, st, "%zu of %zu messages were sent, and perhaps some of the next %zu: %s",
                 out.sent, flow->messages, out.doubtful, why.text);
    else
        apm_fail(err, st, "%zu of %zu messages were sent: %s", out.sent, flow->messages, why.text);
    if (err) {
        err->retriable = why.retriable && !out.sent && !out.doubtful;
        err->sys = why.sys;
    }
    return st;
}

/* --- from a signature --- */

/* chunks stand for a group, which is what is sent. */
static apium_status
spread_chunks(apm_arena *arena, apm_canvas **tree, apium_error *err)
{
    apm_canvas *group;
    int64_t n;
    apm_json kwargs = { APM_JSON_OBJECT, (*tree)->kwargs };
    if ((*tree)->kind != APM_SIG_TASK || !apm_str_eqz((*tree)->task, "celery.chunks") ||
        !apm_str_is((*tree)->kwargs))
        return APIUM_OK;
    apm_json task = apm_json_get(kwargs, "task"), items = apm_json_get(kwargs, "it");
    apium_status st = apm_json_int64(apm_json_get(kwargs, "n"), "n", &n, err);
    if (st != APIUM_OK)
        return st;
    if (task.type != APM_JSON_OBJECT || items.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_INVALID, "its kwargs have no task, or no list of items");
    st = apm_canvas_chunks(arena, task.text, items, n, &group, err);
    if (st != APIUM_OK)
        return st;
    group->options = (*tree)->options;
    *tree = group;
    return APIUM_OK;
}

static apium_status
list_of(apm_arena *arena, const char *json, const char *what, apm_opt which, apm_options *over,
        apium_error *err)
{
    apm_buf buf;
    if (!json)
        return APIUM_OK;
    apm_buf_init(&buf, APM_BUF_MAX);
    apium_status st = apm_sigs_add(&buf, json, what, err);
    const char *list = st == APIUM_OK ? apm_arena_printf(arena, "[%s]", buf.p ? buf.p : "") : NULL;
    if (st == APIUM_OK && !apm_canvas_set(arena, over, which, apm_strz(list)))
        st = no_memory(err);
    apm_buf_clear(&buf);
    return st;
}

/* The options of the call: a task's own, or those that go where Celery's apply_async() of a workflow puts them. */
static apium_status
lay_options(apm_arena *arena, apium_sig *sig, const apium_send_opts *opts, apm_options *over,
            apium_error *err)
{
    if (!opts)
        return APIUM_OK;
    if (sig->tree->kind == APM_SIG_TASK) {
        apium_sig_set(sig, opts);
        return apm_sig_ok(sig, err);
    }
    if (opts->kwargs)
        return apm_fail(err, APIUM_E_INVALID, "only a task has keyword arguments");
    apium_status st = apm_opts_write(arena, over, opts, err);
    if (st == APIUM_OK)
        st = list_of(arena, opts->link, "link", APM_OPT_LINK, over, err);
    if (st == APIUM_OK)
        st = list_of(arena, opts->link_error, "link_error", APM_OPT_LINK_ERROR, over, err);
    return st;
}

/* The backend, where it matters: for chords, and for answers to this process. */
static apium_status
open_backend(struct flow *flow, const apm_canvas *tree, apium_error *err)
{
    const char *url = apm_app_settings(flow->app)->result_backend;
    if (tree->kind == APM_SIG_TASK && (!url || strncmp(url, "rpc", 3) != 0))
        return APIUM_OK;
    return apm_conn_backend_known(flow->conn, &flow->backend, err);
}

static apium_status
send_tree(struct flow *flow, apm_canvas *tree, const apm_options *over, apium_run **out,
          apium_error *err)
{
    apium_app *app = flow->app;
    const apium_task *parent = apm_task_current();
    apm_handle *handle;
    apium_run *run = NULL;
    apium_status st = apm_conn_get(app, &flow->conn, err);
    if (st == APIUM_OK)
        st = open_backend(flow, tree, err);
    if (st != APIUM_OK)
        return st;
    apm_backend *backend = flow->backend;
    apm_sending how = {
        .arena = &flow->arena,
        .now_us = apm_clock_wall_us(),
        .chords = !backend || backend->features & (APM_BACKEND_NONE | APM_BACKEND_REPLY)
                      ? APM_CHORDS_REFUSED
                  : apm_backend_can(backend, APM_BACKEND_BARRIER) ? APM_CHORDS_COUNTED
                                                                  : APM_CHORDS_POLLED,
        .store = backend ? backend->ops->name : NULL,
        .reply_to = backend && out && apm_backend_can(backend, APM_BACKEND_REPLY)
                        ? apm_strz(backend->ops->reply_to(backend))
                        : APM_STR_NONE,
        .retry_interval_s = apm_app_settings(app)->result_chord_retry_interval,
        .piece = backend && backend->ops->save_group
                     ? (size_t)apm_app_settings(app)->task_chain_piece_size
                     : 0,
        .emit = keep_step,
        .arg = flow,
        .children = &flow->children,
    };
    if (parent) {
        how.root_id = apm_str_is(parent->req->root_id) ? parent->req->root_id : parent->req->id;
        how.parent_id = parent->req->id;
    }
    st = apm_canvas_apply(&how, tree, APM_STR_NONE, over, &handle, err);
    if (st == APIUM_OK && out)
        st = make_run(flow, handle, &run, err);
    if (st == APIUM_OK)
        st = send_all(flow, err);
    if (st == APIUM_OK && out)
        *out = run;
    else
        apium_run_free(run);
    if (st == APIUM_OK && parent)
        apm_task_add_children(apm_task_current(), apm_buf_str(&flow->children));
    return st;
}

/* Why it could not be, in words that name it once. */
static apium_status
say(apium_error *err, apium_status st, const char *name, const apium_error *why)
{
    if (st == APIUM_E_FAILED || st == APIUM_E_REVOKED) /* eagerly: the task's own words */
        apm_fail(err, st, "%s", why->text);
    else if (strncmp(why->text, "cannot ", 7) == 0)
        apm_fail(err, st, "%s", why->text);
    else
        apm_fail(err, st, "cannot send %s: %s", name, why->text);
    if (err) {
        err->retriable = why->retriable;
        err->sys = why->sys;
    }
    return st;
}

apium_status
apium_send(apium_app *app, apium_sig *sig, const apium_send_opts *opts, apium_run **run,
           apium_error *err)
{
    char buf[128], *name = buf;
    apium_error why;
    apm_options over = { 0 };
    if (!sig)
        return apm_fail(err, APIUM_E_NOMEM, "cannot send a signature: out of memory");
    apm_sig_name(sig, buf, sizeof(buf));
    if (strncmp(buf, "the signature of ", 17) == 0)
        name += 17;
    if (sig->owner)
        return apm_fail(err, APIUM_E_INVALID, "cannot send %s: it is a part of a workflow", name);
    struct flow flow = { .app = app };
    flow.last = &flow.first;
    apm_buf_init(&flow.children, APM_BUF_MAX);

    apium_status st = apm_sig_ok(sig, &why);
    bool broken = st != APIUM_OK;
    if (st == APIUM_OK)
        st = lay_options(&flow.arena, sig, opts, &over, &why);
    if (st == APIUM_OK)
        st = apm_sig_check_ids(sig->tree, &why);
    apm_canvas *tree = sig->tree;
    if (st == APIUM_OK)
        st = spread_chunks(&flow.arena, &tree, &why);
    if (st == APIUM_OK)
        st = apm_app_settings(app)->task_always_eager && apm_eager_can(app, tree)
                 ? apm_send_eager(app, tree, &over, run, &why)
                 : send_tree(&flow, tree, &over, run, &why);
    if (broken && err)
        *err = why;
    else if (st != APIUM_OK)
        say(err, st, name, &why);
    free(flow.ignored);
    apm_buf_clear(&flow.children);
    apm_arena_clear(&flow.arena);
    apium_sig_free(sig);
    return st;
}
