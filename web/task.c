/* task.c - tasks, groups and workflows for those who ask by REST; see docs/rest.md */
#include "web/inner.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/clock.h"
#include "core/model/result.h"

#define STATES_MAX 1000 /* ids in one request */
#define TREE_MAX   2000 /* tasks in one tree */
#define UP_MAX     200  /* steps to its root */

static void
add_text(apm_buf *buf, const char *name, apm_str text)
{
    if (!apm_str_is(text))
        return;
    apm_buf_addf(buf, ", \"%s\": ", name);
    apm_json_add_string(buf, text);
}

static void
add_raw(apm_buf *buf, const char *name, apm_json val)
{
    if (val.type == APM_JSON_NONE)
        return;
    apm_buf_addf(buf, ", \"%s\": ", name);
    apm_buf_adds(buf, val.text);
}

static void
add_error(apm_buf *buf, const apm_exception *exc)
{
    apm_buf_addz(buf, ", \"error\": {\"type\": ");
    apm_json_add_string(buf, exc->type);
    add_text(buf, "module", exc->module);
    add_raw(buf, "args",
            (apm_json){ apm_str_is(exc->args) ? APM_JSON_ARRAY : APM_JSON_NONE, exc->args });
    apm_buf repr;
    apm_buf_init(&repr, 65536);
    apm_exception_repr(&repr, exc);
    add_text(buf, "message", apm_buf_str(&repr));
    apm_buf_clear(&repr);
    apm_buf_addc(buf, '}');
}

bool
apm_task_ready(const apm_web_call *call, apm_str doc)
{
    (void)call;
    apm_arena arena = { 0 };
    apm_result_doc read;
    bool ready = apm_str_is(doc) && (apm_result_read(doc, &arena, &read, NULL) != APIUM_OK ||
                                     apm_state_ready(read.status));
    apm_arena_clear(&arena);
    return ready;
}

void
apm_task_write(apm_buf *buf, apm_str id, apm_str doc)
{
    apm_arena arena = { 0 };
    apm_result_doc read;
    apium_error err;
    apm_buf_addz(buf, "{\"id\": ");
    apm_json_add_string(buf, id);
    if (!apm_str_is(doc)) {
        apm_buf_addz(buf, ", \"state\": \"PENDING\", \"ready\": false}");
        return;
    }
    if (apm_result_read(doc, &arena, &read, &err) != APIUM_OK) {
        apm_buf_addz(buf, ", \"state\": \"UNKNOWN\", \"ready\": true");
        add_text(buf, "message", apm_strz(err.text));
        apm_buf_addc(buf, '}');
        apm_arena_clear(&arena);
        return;
    }
    add_text(buf, "state", read.status);
    apm_buf_addf(buf, ", \"ready\": %s", apm_state_ready(read.status) ? "true" : "false");
    if (apm_state_exception(read.status) && apm_str_is(read.exc.type))
        add_error(buf, &read.exc);
    else
        add_raw(buf, "result", read.result);
    add_text(buf, "traceback", read.traceback);
    if (read.date_done_us != APM_TIME_NONE) {
        char date[APM_DATE_MAX];
        apm_date_print(read.date_done_us, 0, date);
        add_text(buf, "date_done", apm_strz(date));
    }
    add_raw(buf, "children", read.children);
    add_text(buf, "parent_id", read.parent_id);
    add_text(buf, "group_id", read.group_id);
    add_text(buf, "name", read.name);
    add_raw(buf, "args", read.args);
    add_raw(buf, "kwargs", read.kwargs);
    add_text(buf, "worker", read.worker);
    add_text(buf, "queue", read.queue);
    if (apm_str_is(read.name))
        apm_buf_addf(buf, ", \"retries\": %lld", (long long)read.retries);
    apm_buf_addc(buf, '}');
    apm_arena_clear(&arena);
}

/* ---- one task ---- */

static void
answer_task(apm_web_call *call, apm_str doc)
{
    char etag[APM_ETAG_MAX];
    apm_buf body;
    apm_buf_init(&body, APM_BUF_MAX);
    apm_task_write(&body, call->args[0], doc);
    apm_etag(apm_buf_str(&body), etag);
    const apm_http_header header = { "ETag", etag };
    if (body.failed) {
        apm_web_answer(call, 200, &body);
    } else if (apm_web_has(call, etag)) {
        apm_buf_clear(&body);
        apm_web_reply(call,
                      &(apm_http_reply){
                          .status = 304, .body = APM_STR(""), .headers = &header, .n_headers = 1 });
    } else {
        apm_web_reply(call, &(apm_http_reply){
                                .status = 200, .take = &body, .headers = &header, .n_headers = 1 });
    }
}

static void
on_task(void *arg, apm_str doc, const apium_error *err)
{
    apm_web_call *call = arg;
    if (err)
        apm_web_fail(call, err);
    else
        answer_task(call, doc);
}

void
apm_task_get(apm_web_call *call)
{
    int64_t wait_ms = apm_web_wait_ms(call, "wait");
    if (wait_ms > 0)
        apm_web_wait(call, wait_ms, apm_task_ready, answer_task);
    else if (wait_ms == 0)
        call->web->backend->ops->fetch(call->web->backend, call->args[0].p, on_task, call);
}

static void
on_deleted(void *arg, apium_status status, const apium_error *err)
{
    apm_web_call *call = arg;
    if (status == APIUM_OK)
        apm_web_answer(call, 204, NULL);
    else
        apm_web_fail(call, err);
}

void
apm_task_delete(apm_web_call *call)
{
    call->web->backend->ops->forget(call->web->backend, call->args[0].p, on_deleted, call);
}

/* ---- a walk over tasks: those of a list, of a group, or of a workflow ---- */

/*
 * Every task is fetched once. A tree begins with the walk up to the root; a task's children, and what a saved group names, are tasks to
 * be fetched too.
 */
typedef struct node {
    struct walk *walk;
    struct node *next; /* in the order of their finding */
    apm_str id, doc;
    UT_hash_handle hh;
} node;

typedef struct walk {
    apm_web_call *call;
    node *nodes, *first, *last;
    size_t left, up;
    apm_str root, tree; /* where it began; a group's tree */
    apm_str path[UP_MAX +
                 1]; /* from where it was asked, up: a chord's body is no child of its parent */
    bool down, cut;  /* follow children; there are more than fit */
    apium_error err;
} walk;

static void visit(walk *w, apm_str id);

/* Visit the tasks that result tuples name: [[id, parent], null | [tuple, ...]], or a list of them. */
static void
visit_tuples(walk *w, apm_json val, int depth)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    if (val.type != APM_JSON_ARRAY || depth > 64 || apm_json_open(&it, val.text, NULL) != APIUM_OK)
        return;
    apm_json head = apm_json_at(val, 0), id = apm_json_at(head, 0);
    const char *text;
    if (head.type == APM_JSON_ARRAY && id.type == APM_JSON_STRING && apm_json_count(val) == 2) {
        apm_json members = apm_json_at(val, 1);
        if (members.type == APM_JSON_ARRAY)
            visit_tuples(w, members, depth + 1);
        else if (apm_json_cstr(id, "id", &w->call->arena, &text, NULL) == APIUM_OK &&
                 apm_web_id_ok(apm_strz(text)))
            visit(w, apm_strz(text));
        return;
    }
    while (apm_json_next(&it, &key, &item, NULL) > 0)
        visit_tuples(w, item, depth + 1);
}

static void
answer_walk(walk *w)
{
    apm_web_call *call = w->call;
    apm_buf body;
    size_t n = 0;
    if (w->err.status != APIUM_OK) {
        apium_error err = w->err;
        HASH_CLEAR(hh, w->nodes);
        apm_web_fail(call, &err);
        return;
    }
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addc(&body, '{');
    if (apm_str_is(w->root)) {
        apm_buf_addz(&body, "\"root\": ");
        apm_json_add_string(&body, w->root);
        apm_buf_addz(&body, ", ");
    }
    if (apm_str_is(w->tree)) {
        apm_buf_addz(&body, "\"tree\": ");
        apm_buf_adds(&body, w->tree);
        apm_buf_addz(&body, ", ");
    }
    apm_buf_addf(&body, "\"complete\": %s, \"tasks\": [", w->cut ? "false" : "true");
    for (const node *at = w->first; at; at = at->next) {
        apm_buf_addz(&body, n++ ? ", " : "");
        apm_task_write(&body, at->id, at->doc);
    }
    apm_buf_addz(&body, "]}");
    HASH_CLEAR(hh, w->nodes);
    apm_web_answer(call, 200, &body); /* all of it lived in the call's arena */
}

static void
on_node(void *arg, apm_str doc, const apium_error *err)
{
    node *at = arg;
    walk *w = at->walk;
    apm_json json;
    bool ok = true;
    if (err)
        w->err = *err;
    at->doc = apm_arena_str(&w->call->arena, doc, &ok);
    if (!ok)
        (void)apm_fail(&w->err, APIUM_E_NOMEM, "cannot read many results: out of memory");
    if (w->down && apm_str_is(at->doc) && apm_json_parse(at->doc, &json, NULL) == APIUM_OK)
        visit_tuples(w, apm_json_get(json, "children"), 0);
    if (--w->left == 0)
        answer_walk(w);
}

static void
visit(walk *w, apm_str id)
{
    node *at;
    HASH_FIND(hh, w->nodes, id.p, id.len, at);
    if (at)
        return;
    if (HASH_COUNT(w->nodes) >= TREE_MAX) {
        w->cut = true;
        return;
    }
    at = apm_arena_alloc(&w->call->arena, sizeof(*at));
    if (!at)
        return;
    at->walk = w;
    at->id = id;
    HASH_ADD_KEYPTR(hh, w->nodes, at->id.p, at->id.len, at);
    if (!at->hh.tbl)
        return;
    if (w->last)
        w->last->next = at;
    else
        w->first = at;
    w->last = at;
    w->left++;
    w->call->web->backend->ops->fetch(w->call->web->backend, at->id.p, on_node, at);
}

static walk *
walk_new(apm_web_call *call)
{
    walk *w = apm_arena_alloc(&call->arena, sizeof(*w));
    if (w)
        w->call = call;
    else
        apm_web_error(call, 503, "out of memory");
    return w;
}

void
apm_tasks_post_states(apm_web_call *call)
{
    apm_json body, id;
    apm_json_iter it;
    apm_str key;
    const char *text;
    if (!apm_web_json(call, APM_JSON_ARRAY, &body))
        return;
    if (apm_json_count(body) > STATES_MAX) {
        apm_web_error(call, 413, "at most %d ids at once", STATES_MAX);
        return;
    }
    (void)apm_json_open(&it, body.text, NULL);
    while (apm_json_next(&it, &key, &id, NULL) > 0)
        if (apm_json_cstr(id, "an id", &call->arena, &text, NULL) != APIUM_OK ||
            !apm_web_id_ok(apm_strz(text))) {
            apm_web_error(call, 400, "the body is a list of ids");
            return;
        }
    walk *w = walk_new(call);
    if (!w)
        return;
    w->left = 1;
    (void)apm_json_open(&it, body.text, NULL);
    while (apm_json_next(&it, &key, &id, NULL) > 0)
        if (apm_json_cstr(id, "an id", &call->arena, &text, NULL) == APIUM_OK)
            visit(w, apm_strz(text));
    if (--w->left == 0)
        answer_walk(w);
}

/* Up, one parent after the other; then down. */
static void
on_up(void *arg, apm_str doc, const apium_error *err)
{
    walk *w = arg;
    apm_json json, parent;
    const char *text;
    if (err) {
        apm_web_fail(w->call, err);
        return;
    }
    if (apm_str_is(doc) && apm_json_parse(doc, &json, NULL) == APIUM_OK &&
        (parent = apm_json_get(json, "parent_id")).type == APM_JSON_STRING && w->up < UP_MAX &&
        apm_json_cstr(parent, "id", &w->call->arena, &text, NULL) == APIUM_OK &&
        apm_web_id_ok(apm_strz(text))) {
        /* Text without escapes is borrowed from the document, which dies with this call. */
        w->root = apm_arena_str(&w->call->arena, apm_strz(text), NULL);
        if (apm_str_is(w->root)) {
            w->path[++w->up] = w->root;
            w->call->web->backend->ops->fetch(w->call->web->backend, w->root.p, on_up, w);
            return;
        }
    }
    w->down = true;
    w->left = 1;
    for (size_t i = w->up + 1; i-- > 0;)
        visit(w, w->path[i]);
    if (--w->left == 0)
        answer_walk(w);
}

void
apm_task_tree_get(apm_web_call *call)
{
    walk *w = walk_new(call);
    if (!w)
        return;
    w->root = w->path[0] = call->args[0];
    call->web->backend->ops->fetch(call->web->backend, w->root.p, on_up, w);
}

static void
on_group(void *arg, apm_str doc, const apium_error *err)
{
    apm_web_call *call = arg;
    apm_json json;
    if (err) {
        apm_web_fail(call, err);
        return;
    }
    if (!apm_str_is(doc)) {
        apm_web_error(call, 404, "no such group was saved");
        return;
    }
    walk *w = walk_new(call);
    if (!w)
        return;
    doc = apm_arena_str(&call->arena, doc, NULL);
    if (!apm_str_is(doc) || apm_json_parse(doc, &json, NULL) != APIUM_OK) {
        apm_web_error(call, 500, "the saved group cannot be read");
        return;
    }
    json = apm_json_get(json, "result");
    w->tree = json.type == APM_JSON_NONE ? APM_STR_NONE : json.text;
    w->left = 1;
    visit_tuples(w, json, 0);
    if (--w->left == 0)
        answer_walk(w);
}

void
apm_group_get(apm_web_call *call)
{
    if (call->web->backend->ops->fetch_group)
        call->web->backend->ops->fetch_group(call->web->backend, call->args[0].p, on_group, call);
    else
        apm_web_error(call, 501, "this store keeps no groups");
}
