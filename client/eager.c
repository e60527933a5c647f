/*
 * eager.c - task_always_eager: a call runs here and now, retries and all that follows from it included, and the run has its
 * result.
 *
 *   call ─▶ run ─▶ outcome ─▶ what follows waits for its turn ─▶ the next one runs ...
 *                     └─▶ a part of a header: counted; the last one puts the body in line
 *
 * So a workflow runs as one worker would run it, one task after the other.
 */
#include "client/flow.h"

#include <stdlib.h>
#include <unistd.h>
#include <uthash.h>

#include "client/builtin.h"
#include "client/except.h"
#include "client/run.h"
#include "client/task.h"
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

/* --- one call and what follows --- */

/* A document that a worker would have stored. */
struct kept {
    apm_str id, doc;
    UT_hash_handle hh;
};

/* A chord's header, counting. */
struct header {
    struct header *next;
    apm_str group_id;
    int64_t size;
    apm_return *parts;
    size_t n, cap;
};

/* A message that waits for its turn, with all its text. */
struct todo {
    struct todo *next;
    apm_arena arena;
    apm_sig_send send;
};

struct eager {
    apium_app *app;
    apm_arena arena; /* of documents and headers */
    apm_arena *now;  /* of what runs now */
    struct todo *first, **last;
    struct kept *kept;
    struct header *headers;
    apium_error failure; /* of the first task that failed */
};

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

static void
eager_init(struct eager *e, apium_app *app)
{
    *e = (struct eager){ .app = app };
    e->last = &e->first;
}

static void
todo_free(struct todo *todo)
{
    apm_arena_clear(&todo->arena);
    free(todo);
}

static void
eager_clear(struct eager *e)
{
    for (struct todo *todo = e->first, *next; todo; todo = next) {
        next = todo->next;
        todo_free(todo);
    }
    HASH_CLEAR(hh, e->kept);
    apm_arena_clear(&e->arena);
}

static apium_status
keep_doc(struct eager *e, apm_str id, const apm_buf *doc, apium_error *err)
{
    struct kept *kept;
    apm_str text = doc->failed ? APM_STR_NONE : apm_arena_str(&e->arena, apm_buf_str(doc), NULL);
    HASH_FIND(hh, e->kept, id.p, id.len, kept);
    if (!kept && (kept = apm_arena_alloc(&e->arena, sizeof(*kept)))) {
        kept->id = apm_arena_str(&e->arena, id, NULL);
        if (apm_str_is(kept->id))
            HASH_ADD_KEYPTR(hh, e->kept, kept->id.p, kept->id.len, kept);
    }
    if (!kept || !apm_str_is(text))
        return no_memory(err);
    kept->doc = text;
    return APIUM_OK;
}

static struct header *
header_of(struct eager *e, apm_str group_id)
{
    struct header *h = e->headers;
    while (h && !apm_str_eq(h->group_id, group_id))
        h = h->next;
    return h;
}

/* A copy: what is emitted may borrow from the message of the task that runs now. */
static struct todo *
todo_new(const apm_sig_send *send)
{
    struct todo *todo = calloc(1, sizeof(*todo));
    bool ok = todo != NULL;
    apm_buf flat;
    if (!ok)
        return NULL;
    apm_buf_init(&flat, 4 * APM_BUF_MAX);
    apm_request_pack(&send->req, &flat, NULL);
    apm_str bytes = apm_arena_str(&todo->arena, apm_buf_str(&flat), &ok);
    ok = ok && !flat.failed && apm_request_unpack(bytes, &todo->send.req, NULL) == APIUM_OK;
    apm_buf_clear(&flat);
    const char *const from[] = { send->choice.queue, send->choice.exchange,
                                 send->choice.routing_key, send->serializer, send->compression };
    const char **const to[] = { &todo->send.choice.queue, &todo->send.choice.exchange,
                                &todo->send.choice.routing_key, &todo->send.serializer,
                                &todo->send.compression };
    for (size_t i = 0; i < sizeof(from) / sizeof(*from); i++)
        *to[i] = apm_arena_str(&todo->arena, apm_strz(from[i]), &ok).p;
    todo->send.headers = apm_arena_str(&todo->arena, send->headers, &ok);
    todo->send.choice.priority = send->choice.priority;
    if (ok)
        return todo;
    todo_free(todo);
    return NULL;
}

/* What is to be sent waits for its turn; a header is counted here. */
static apium_status
put_in_line(void *arg, const apm_canvas_op *op, apium_error *err)
{
    struct eager *e = arg;
    struct header *known = op->kind == APM_CANVAS_EXTEND ? header_of(e, op->group_id) : NULL;
    if (op->kind == APM_CANVAS_EXTEND) {
        if (known)
            known->size += op->size;
        return APIUM_OK;
    }
    if (op->kind == APM_CANVAS_SIZE) {
        struct header *h = apm_arena_alloc(&e->arena, sizeof(*h));
        if (!h)
            return no_memory(err);
        *h = (struct header){ .next = e->headers,
                              .group_id = apm_arena_str(&e->arena, op->group_id, NULL),
                              .size = op->size };
        e->headers = h;
        return APIUM_OK;
    }
    struct todo *todo = todo_new(op->send);
    if (!todo)
        return no_memory(err);
    *e->last = todo;
    e->last = &todo->next;
    return APIUM_OK;
}

/* Errbacks that are called as functions. */
static bool
is_called(void *arg, apm_str task)
{
    const struct eager *e = arg;
    const apium_task_def *def = apm_app_task(e->app, task);
    return def && def->errback;
}

static apm_sending
sending_of(struct eager *e)
{
    return (apm_sending){
        .arena = e->now,
        .now_us = apm_clock_wall_us(),
        .chords = APM_CHORDS_COUNTED,
        .emit = put_in_line,
        .calls = is_called,
        .arg = e,
    };
}

/* --- chords --- */

static apium_status
absorb(struct eager *e, const apm_request *last, const apm_follow *follow, apium_error *err);

static int
compare_parts(const void *a, const void *b)
{
    const apm_return *x = a, *y = b;
    return (x->index > y->index) - (x->index < y->index);
}

static apium_status
complete(struct eager *e, struct header *h, const apm_return *part, const apm_request *last,
         apium_error *err)
{
    apm_sending how = sending_of(e);
    apm_follow follow;
    apm_gathered all;
    qsort(h->parts, h->n, sizeof(*h->parts), compare_parts);
    apium_status st = apm_gather_init(&all, &e->arena, APM_STR_NONE, err);
    for (size_t i = 0; st == APIUM_OK && i < h->n; i++)
        st = apm_gather_add(&all, &h->parts[i].member, 1, err);
    if (st == APIUM_OK)
        st = apm_follow_complete(&how, part, last, &all, &follow, err);
    apm_gather_clear(&all);
    return st == APIUM_OK ? absorb(e, last, &follow, err) : st;
}

/* A part of a header has returned. */
static apium_status
arrive(struct eager *e, const apm_return *part, const apm_request *last, apium_error *err)
{
    struct header *h = header_of(e, part->group_id);
    if (!h) /* not of a chord that runs here */
        return APIUM_OK;
    if (h->n == h->cap) {
        size_t cap = h->cap ? 2 * h->cap : 16;
        apm_return *parts = apm_arena_alloc(&e->arena, cap * sizeof(*parts));
        if (!parts)
            return no_memory(err);
        if (h->n)
            memcpy(parts, h->parts, h->n * sizeof(*parts));
        h->parts = parts;
        h->cap = cap;
    }
    h->parts[h->n] = (apm_return){ .index = part->index,
                                   .member = apm_arena_str(&e->arena, part->member, NULL) };
    if (!apm_str_is(h->parts[h->n++].member))
        return no_memory(err);
    return (int64_t)h->n == h->size ? complete(e, h, part, last, err) : APIUM_OK;
}

static void
call_errback(struct eager *e, const apm_errback_call *call)
{
    char host[256] = "localhost";
    const apm_request req = { .id = call->failed_id,
                              .task = call->task,
                              .args = call->args,
                              .kwargs = call->kwargs,
                              .group_index = -1,
                              .eta_us = APM_TIME_NONE,
                              .expires_us = APM_TIME_NONE,
                              .priority = APM_PRIORITY_NONE };
    apm_outcome outcome; /* of no consequence, as in Celery */
    gethostname(host, sizeof(host) - 1);
    const apm_run_env env = { .app = e->app, .hostname = host, .eager = true };
    apm_run(&env, apm_app_task(e->app, call->task), &req, e->now, &outcome);
}

/* Keep and count what follows besides messages. */
static apium_status
absorb(struct eager *e, const apm_request *last, const apm_follow *follow, apium_error *err)
{
    apium_status st = APIUM_OK;
    for (size_t i = 0; st == APIUM_OK && i < follow->n_unrun; i++) {
        const apm_unrun *u = &follow->unrun[i];
        const apm_outcome outcome = { .kind = APM_DONE_FAILURE,
                                      .exc = u->exc,
                                      .children = u->children };
        apm_buf doc;
        apm_buf_init(&doc, APM_BUF_MAX);
        write_doc(e->app, &doc, &u->req, &outcome);
        st = keep_doc(e, u->req.id, &doc, err);
        if (st == APIUM_OK && apm_app_settings(e->app)->task_store_eager_result)
            st = store(e->app, &u->req, APM_STR(APM_STATE_FAILURE), apm_buf_str(&doc), err);
        apm_buf_clear(&doc);
    }
    for (size_t i = 0; st == APIUM_OK && i < follow->n_calls; i++)
        call_errback(e, &follow->calls[i]);
    for (size_t i = 0; st == APIUM_OK && i < follow->n_returns; i++)
        st = arrive(e, &follow->returns[i], last, err);
    return st;
}

/* --- running --- */

static apm_str
state_of(const apm_outcome *out)
{
    return out->kind == APM_DONE_SUCCESS ? APM_STR(APM_STATE_SUCCESS) : APM_STR(APM_STATE_FAILURE);
}

static void
note_failure(struct eager *e, const apm_outcome *outcome)
{
    apm_buf line;
    if (outcome->kind != APM_DONE_FAILURE || e->failure.status != APIUM_OK)
        return;
    apm_buf_init(&line, APM_BUF_MAX);
    apm_exception_line(&line, &outcome->exc);
    apm_fail(&e->failure, APIUM_E_FAILED, "%.*s", APM_STR_ARG(apm_buf_str(&line)));
    apm_buf_clear(&line);
}

static void
run_task(struct eager *e, apm_request *req, apm_outcome *outcome)
{
    char host[256] = "localhost";
    struct reporting to = { e->app, req };
    gethostname(host, sizeof(host) - 1);
    const apm_run_env env = {
        .app = e->app, .hostname = host, .eager = true, .report = report, .arg = &to
    };
    for (;;) {
        apm_run(&env, apm_app_runnable(e->app, req->task), req, e->now, outcome);
        if (outcome->kind != APM_DONE_RETRY)
            return;
        apply_retry(req, outcome);
    }
}

static apium_status
run_here(struct eager *e, const apm_call *call, apium_error *err)
{
    const apm_settings *settings = apm_app_settings(e->app);
    apm_sending how = sending_of(e);
    apm_request req = call->req;
    apm_outcome outcome;
    apm_follow follow;
    apm_buf doc;

    run_task(e, &req, &outcome);
    note_failure(e, &outcome);
    bool decided = outcome.kind == APM_DONE_SUCCESS || outcome.kind == APM_DONE_FAILURE;
    apium_status st = apm_follow_outcome(&how, &req, &outcome, true, &follow, err);
    if (st != APIUM_OK)
        return st;
    if (outcome.kind == APM_DONE_REPLACED) /* what goes on under its id has its result */
        return APIUM_OK;
    outcome.children = follow.children;
    apm_buf_init(&doc, APM_BUF_MAX);
    write_doc(e->app, &doc, &req, &outcome);
    st = keep_doc(e, req.id, &doc, err);
    if (st == APIUM_OK && decided && settings->task_store_eager_result && !call->ignored)
        st = store(e->app, &req, state_of(&outcome), apm_buf_str(&doc), err);
    apm_buf_clear(&doc);
    if (st == APIUM_OK)
        st = absorb(e, &req, &follow, err);
    return st;
}

/* Run one task; what follows from it is put in line. */
static apium_status
run_one(struct eager *e, const apm_call *call, apium_error *err)
{
    apm_arena arena = { 0 };
    e->now = &arena;
    apium_status st = run_here(e, call, err);
    e->now = NULL;
    apm_arena_clear(&arena);
    return st;
}

/* Everything that waits for its turn; tasks that are not registered are sent to those who know them. */
static apium_status
run_all(struct eager *e, apium_error *err)
{
    apium_status st = APIUM_OK;
    while (st == APIUM_OK && e->first) {
        struct todo *todo = e->first;
        apm_call call;
        e->first = todo->next;
        if (!e->first)
            e->last = &e->first;
        apm_call_of(e->app, &todo->send, &todo->arena, &call);
        st = apm_app_runnable(e->app, call.req.task) ? run_one(e, &call, err)
                                                     : apm_call_go(e->app, &call, NULL, err);
        apm_arena_clear(&call.arena);
        todo_free(todo);
    }
    if (st == APIUM_OK && e->failure.status != APIUM_OK &&
        apm_app_settings(e->app)->task_eager_propagates) {
        st = e->failure.status;
        if (err)
            *err = e->failure;
    }
    return st;
}

static apium_status
give_doc(void *arg, apium_run *run, apium_error *err)
{
    struct eager *e = arg;
    struct kept *kept;
    (void)err;
    HASH_FIND(hh, e->kept, run->id, strlen(run->id), kept);
    run->eager = true;
    if (kept)
        apm_waiter_set(&run->waiter, kept->doc);
    return APIUM_OK;
}

apium_status
apm_call_eager(apium_app *app, apm_call *call, apium_run **out, apium_error *err)
{
    struct eager e;
    apium_run *run = NULL;

    eager_init(&e, app);
    apium_status st = run_one(&e, call, err);
    if (st == APIUM_OK)
        st = run_all(&e, err);
    if (st == APIUM_OK)
        st = apm_run_new(app, call->req.id, &run, err);
    if (st == APIUM_OK) {
        (void)give_doc(&e, run, err);
        *out = run;
    }
    eager_clear(&e);
    return st;
}

bool
apm_eager_can(apium_app *app, const apm_canvas *tree)
{
    if (tree->kind == APM_SIG_TASK)
        return apm_app_runnable(app, tree->task) != NULL;
    for (size_t i = 0; i < tree->n_tasks; i++)
        if (!apm_eager_can(app, tree->tasks[i]))
            return false;
    return !tree->body || apm_eager_can(app, tree->body);
}

apium_status
apm_send_eager(apium_app *app, apm_canvas *tree, const apm_options *over, apium_run **out,
               apium_error *err)
{
    const apium_task *parent = apm_task_current();
    apium_run *run = NULL;
    apm_handle *handle;
    apm_buf children;
    struct eager e;

    apm_arena arena = { 0 }; /* the handle's */

    eager_init(&e, app);
    e.now = &arena;
    apm_buf_init(&children, APM_BUF_MAX);
    apm_sending how = sending_of(&e);
    how.children = &children;
    if (parent) {
        how.root_id = apm_str_is(parent->req->root_id) ? parent->req->root_id : parent->req->id;
        how.parent_id = parent->req->id;
    }
    apium_status st = apm_canvas_apply(&how, tree, APM_STR_NONE, over, &handle, err);
    if (st == APIUM_OK)
        st = run_all(&e, err);
    if (st == APIUM_OK && out)
        st = apm_run_of_handle(app, handle, &run, err);
    if (st == APIUM_OK && run)
        st = apm_run_each(run, give_doc, &e, err);
    if (st == APIUM_OK && out)
        *out = run;
    else
        apium_run_free(run);
    if (st == APIUM_OK && parent)
        apm_task_add_children(apm_task_current(), apm_buf_str(&children));
    apm_buf_clear(&children);
    apm_arena_clear(&arena);
    eager_clear(&e);
    return st;
}
