/*
 * follow.c - callbacks, the next step of a chain, errbacks: task signatures, in Celery's order (docs/protocol.md "What a
 * worker does after a task").
 *
 * Composite steps (a group or chord as a link or step, a chord's part) are expanded by their own modules; a request that
 * carries one this build cannot expand is refused by apm_follow_check() before it runs.
 */
#include "workflows/follow.h"

#include "core/base/error.h"
#include "core/base/ids.h"

typedef apium_status each_fn(void *arg, const apm_signature *sig, size_t index);

/* Call fn for each signature of a raw JSON array. */
static apium_status
each_signature(apm_str list, apm_arena *arena, each_fn *fn, void *arg, apium_error *err)
{
    if (!apm_str_is(list))
        return APIUM_OK;
    apm_json_iter it;
    apium_status st = apm_json_open(&it, list, err);
    if (st != APIUM_OK)
        return st;
    apm_str key;
    apm_json val;
    int more;
    for (size_t i = 0; (more = apm_json_next(&it, &key, &val, err)) > 0; i++) {
        apm_signature sig;
        st = apm_signature_read(val, arena, &sig, err);
        if (st == APIUM_OK)
            st = fn(arg, &sig, i);
        if (st != APIUM_OK)
            return st;
    }
    return more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

struct check {
    const char *what;
    apium_error *err;
};

static apium_status
check_task(void *arg, const apm_signature *sig, size_t index)
{
    (void)index;
    const struct check *check = arg;
    static const char *const kinds[] = { "task", "chain", "group", "chord" };
    if (sig->kind != APM_SIG_TASK)
        return apm_fail(check->err, APIUM_E_UNSUPPORTED,
                        "its %s holds a %s, which this worker cannot expand", check->what,
                        kinds[sig->kind]);
    if (apm_json_get(sig->options, "chord").type == APM_JSON_OBJECT)
        return apm_fail(check->err, APIUM_E_UNSUPPORTED,
                        "its %s holds a part of a chord, which this worker cannot count",
                        check->what);
    return APIUM_OK;
}

apium_status
apm_follow_check(const apm_request *req, apm_arena *arena, apium_error *err)
{
    if (apm_str_is(req->chord))
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "it is a part of a chord, which this worker cannot count");
    struct check check = { "link", err };
    apium_status st = each_signature(req->callbacks, arena, check_task, &check, err);
    check.what = "link_error";
    if (st == APIUM_OK)
        st = each_signature(req->errbacks, arena, check_task, &check, err);
    check.what = "chain";
    if (st == APIUM_OK)
        st = each_signature(req->chain, arena, check_task, &check, err);
    return st;
}

struct gather {
    const apm_request *req;
    apm_arena *arena;
    int64_t now_us;
    apm_follow *out;
    apm_str partial; /* the array of what is put before the arguments */
    apm_str group;   /* several links are one new group; absent otherwise */
    apm_str rest;    /* of the chain, for its next step */
    apm_buf *children;
    size_t want; /* of a chain: only the step of this index is sent */
    apium_error *err;
};

static void
add_child(struct gather *g, apm_str id)
{
    if (g->children->len > 1)
        apm_buf_addz(g->children, ", ");
    apm_buf_addz(g->children, "[[");
    apm_json_add_string(g->children, id);
    apm_buf_addz(g->children, ", null], null]");
}

static apium_status
send_one(struct gather *g, const apm_signature *sig, apm_sig_send *send)
{
    apium_status st = apm_signature_request(sig, g->partial, g->now_us, g->arena, send, g->err);
    if (st != APIUM_OK)
        return st;
    const apm_request *from = g->req;
    send->req.root_id = apm_str_is(from->root_id) ? from->root_id : from->id;
    send->req.parent_id = from->id;
    if (apm_str_is(g->group) && !apm_str_is(send->req.group))
        send->req.group = g->group;
    send->req.chain = g->rest;
    add_child(g, send->req.id);
    return APIUM_OK;
}

static apium_status
gather_link(void *arg, const apm_signature *sig, size_t index)
{
    struct gather *g = arg;
    apm_sig_send *send = &g->out->sends[g->out->n_sends];
    apium_status st = send_one(g, sig, send);
    if (st != APIUM_OK)
        return st;
    if (apm_str_is(g->group) && send->req.group_index < 0)
        send->req.group_index = (int64_t)index;
    g->out->n_sends++;
    return APIUM_OK;
}

static apium_status
gather_step(void *arg, const apm_signature *sig, size_t index)
{
    struct gather *g = arg;
    return index == g->want ? gather_link(arg, sig, index) : APIUM_OK;
}

static apium_status
gather_failed(void *arg, const apm_signature *sig, size_t index)
{
    (void)index;
    struct gather *g = arg;
    if (apm_json_get(sig->options, "task_id").type != APM_JSON_STRING)
        return APIUM_OK;
    apm_sig_send send;
    apium_status st = apm_signature_request(sig, APM_STR_NONE, g->now_us, g->arena, &send, g->err);
    if (st == APIUM_OK)
        g->out->failed[g->out->n_failed++] = send.req;
    return st;
}

static size_t
count(apm_str list)
{
    return apm_str_is(list) ? apm_json_count((apm_json){ APM_JSON_ARRAY, list }) : 0;
}

/* The array without its last item: what remains of a chain (its last element runs next). */
static apm_str
without_last(apm_str list, apm_arena *arena)
{
    apm_json array = { APM_JSON_ARRAY, list };
    size_t n = apm_json_count(array);
    if (n < 2)
        return APM_STR("[]");
    apm_str last_kept = apm_json_at(array, n - 2).text;
    size_t len = (size_t)(last_kept.p + last_kept.len - list.p);
    char *p = apm_arena_bytes(arena, len + 1);
    if (!p)
        return APM_STR_NONE;
    memcpy(p, list.p, len);
    p[len] = ']';
    return (apm_str){ p, len + 1 };
}

static apm_str
new_group(apm_arena *arena)
{
    char id[APM_UUID_LEN + 1];
    apm_uuid4(id);
    return apm_arena_str(arena, apm_strz(id), NULL);
}

static apm_str
array_of_one(apm_str item, apm_arena *arena)
{
    char *p = apm_arena_bytes(arena, item.len + 2);
    if (!p)
        return APM_STR_NONE;
    p[0] = '[';
    memcpy(p + 1, item.p, item.len);
    p[item.len + 1] = ']';
    return (apm_str){ p, item.len + 2 };
}

static apium_status
after_success(struct gather *g, apm_str result)
{
    const apm_request *req = g->req;
    size_t links = count(req->callbacks), steps = count(req->chain);
    g->partial = array_of_one(result, g->arena);
    g->out->sends = apm_arena_alloc(g->arena, (links + 1) * sizeof(*g->out->sends));
    if (!apm_str_is(g->partial) || !g->out->sends)
        return apm_fail(g->err, APIUM_E_NOMEM, "cannot go on after the task: out of memory");
    if (links > 1)
        g->group = new_group(g->arena);
    apium_status st = each_signature(req->callbacks, g->arena, gather_link, g, g->err);
    if (st != APIUM_OK || !steps)
        return st;
    g->group = APM_STR_NONE;
    g->rest = without_last(req->chain, g->arena);
    g->want = steps - 1;
    if (!apm_str_is(g->rest))
        return apm_fail(g->err, APIUM_E_NOMEM, "cannot go on after the task: out of memory");
    return each_signature(req->chain, g->arena, gather_step, g, g->err);
}

/* Errbacks are sent as tasks with the failed id as argument: what Celery does for every errback whose arity it cannot know. */
static apium_status
after_failure(struct gather *g)
{
    const apm_request *req = g->req;
    size_t links = count(req->errbacks), steps = count(req->chain);
    g->out->sends = apm_arena_alloc(g->arena, (links + 1) * sizeof(*g->out->sends));
    g->out->failed = apm_arena_alloc(g->arena, (steps + 1) * sizeof(*g->out->failed));
    apm_buf id;
    apm_buf_init(&id, 1 << 20);
    apm_buf_addc(&id, '[');
    apm_json_add_string(&id, req->id);
    apm_buf_addc(&id, ']');
    g->partial = id.failed ? APM_STR_NONE : apm_arena_str(g->arena, apm_buf_str(&id), NULL);
    apm_buf_clear(&id);
    if (!g->out->sends || !g->out->failed || !apm_str_is(g->partial))
        return apm_fail(g->err, APIUM_E_NOMEM, "cannot go on after the failure: out of memory");
    apium_status st = each_signature(req->chain, g->arena, gather_failed, g, g->err);
    if (st != APIUM_OK || !links)
        return st;
    g->group = new_group(g->arena);
    return each_signature(req->errbacks, g->arena, gather_link, g, g->err);
}

apium_status
apm_follow_outcome(const apm_request *req, const apm_outcome *outcome, int64_t now_us,
                   apm_arena *arena, apm_follow *out, apium_error *err)
{
    *out = (apm_follow){ .children = outcome->children };
    bool success = outcome->kind == APM_DONE_SUCCESS;
    bool failure = outcome->kind == APM_DONE_FAILURE || outcome->kind == APM_DONE_LOST ||
                   outcome->kind == APM_DONE_TIMEOUT || outcome->kind == APM_DONE_REVOKED;
    if (!(success && (apm_str_is(req->callbacks) || apm_str_is(req->chain))) &&
        !(failure && (apm_str_is(req->errbacks) || apm_str_is(req->chain))))
        return APIUM_OK;

    apm_buf children;
    apm_buf_init(&children, APM_BUF_MAX);
    apm_str before = apm_str_is(outcome->children) ? outcome->children : APM_STR("[]");
    apm_buf_add(&children, before.p, before.len - 1); /* open: the closing bracket comes last */
    struct gather g = {
        .req = req, .arena = arena, .now_us = now_us, .out = out, .children = &children, .err = err
    };
    apium_status st = success ? after_success(&g, outcome->result) : after_failure(&g);
    apm_buf_addc(&children, ']');
    if (st == APIUM_OK && success) {
        out->children =
            children.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&children), NULL);
        if (!apm_str_is(out->children))
            st = apm_fail(err, APIUM_E_NOMEM, "cannot go on after the task: out of memory");
    }
    apm_buf_clear(&children);
    return st;
}
