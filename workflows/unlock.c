/* unlock.c - looking at the results of a header that nobody counts; see unlock.h */
#include "workflows/unlock.h"

#include "core/base/error.h"
#include "core/model/result.h"
#include "workflows/builtin.h"

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot look at the parts of a chord: out of memory");
}

/* A result tuple is [[id, parent], members] or [id, members]; members null: a task. */
static apm_json
tuple_id(apm_json tuple)
{
    apm_json head = apm_json_at(tuple, 0);
    return head.type == APM_JSON_ARRAY ? apm_json_at(head, 0) : head;
}

/* Call fn for the tasks of a list of tuples, in order; open and close around the members of each group. */
typedef struct walker {
    void *arg;
    apium_status (*task)(void *arg, apm_json id, apium_error *err);
    void (*open)(void *arg);
    void (*close)(void *arg);
} walker;

static apium_status
walk(const walker *w, apm_json list, int depth, apium_error *err)
{
    apm_json_iter it;
    apm_str key;
    apm_json tuple;
    int more = 0;
    if (depth > APM_CANVAS_DEPTH)
        return apm_fail(err, APIUM_E_TOOBIG,
                        "the results of a chord's header are nested deeper than %d",
                        APM_CANVAS_DEPTH);
    apium_status st = apm_json_open(&it, list.text, err);
    while (st == APIUM_OK && (more = apm_json_next(&it, &key, &tuple, err)) > 0) {
        apm_json members = apm_json_at(tuple, 1);
        if (tuple.type != APM_JSON_ARRAY)
            return apm_fail(err, APIUM_E_DECODE, "the result of a chord's part is no tuple");
        if (members.type != APM_JSON_ARRAY) {
            st = w->task(w->arg, tuple_id(tuple), err);
            continue;
        }
        if (w->open)
            w->open(w->arg);
        st = walk(w, members, depth + 1, err);
        if (w->close)
            w->close(w->arg);
    }
    return more < 0 ? APIUM_E_DECODE : st;
}

/* ---- reading ---- */

static apium_status
count_part(void *arg, apm_json id, apium_error *err)
{
    size_t *n = arg;
    if (id.type != APM_JSON_STRING)
        return apm_fail(err, APIUM_E_DECODE, "the result of a chord's part has no id");
    ++*n;
    return APIUM_OK;
}

struct adding {
    apm_unlock *unlock;
    apm_arena *arena;
};

static apium_status
add_part(void *arg, apm_json id, apium_error *err)
{
    struct adding *a = arg;
    return apm_json_string(id, "a part's id", a->arena, &a->unlock->parts[a->unlock->n_parts++].id,
                           err);
}

apium_status
apm_unlock_read(const apm_request *req, apm_arena *arena, apm_unlock *out, apium_error *err)
{
    apm_json group_id = apm_builtin_arg(req, 0, "group_id"),
             body = apm_builtin_arg(req, 1, "callback"),
             interval = apm_builtin_arg(req, 2, "interval"),
             max = apm_builtin_arg(req, 3, "max_retries");
    *out = (apm_unlock){ .header = apm_builtin_arg(req, 4, "result"), .max_retries = -1 };
    size_t n = 0;
    apium_status st = APIUM_OK;
    if (group_id.type != APM_JSON_STRING || body.type != APM_JSON_OBJECT ||
        out->header.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_INVALID,
                        "chord_unlock() takes a group's id, a signature and a list of results: "
                        "'group_id', 'callback' and 'result'");
    out->body = body.text;
    if (interval.type == APM_JSON_INT || interval.type == APM_JSON_FLOAT)
        st = apm_json_double(interval, "interval", &out->interval_s, err);
    if (st == APIUM_OK && max.type == APM_JSON_INT)
        st = apm_json_int64(max, "max_retries", &out->max_retries, err);
    if (st == APIUM_OK)
        st = apm_json_string(group_id, "group_id", arena, &out->group_id, err);
    const walker counting = { &n, count_part, NULL, NULL };
    if (st == APIUM_OK)
        st = walk(&counting, out->header, 0, err);
    if (st != APIUM_OK)
        return st;
    if (!(out->parts = apm_arena_alloc(arena, (n + 1) * sizeof(*out->parts))))
        return no_memory(err);
    struct adding adding = { out, arena };
    const walker adder = { &adding, add_part, NULL, NULL };
    return walk(&adder, out->header, 0, err);
}

/* ---- answers ---- */

void
apm_unlock_put(apm_unlock *unlock, size_t i, apm_str doc, apm_arena *arena)
{
    apm_unlock_part *part = &unlock->parts[i];
    apm_result_doc read;
    apm_str copy = apm_arena_str(arena, doc, NULL);
    if (!apm_str_is(copy) || apm_result_read(copy, arena, &read, NULL) != APIUM_OK)
        return;
    bool success = apm_str_eqz(read.status, APM_STATE_SUCCESS);
    part->failed =
        apm_str_eqz(read.status, APM_STATE_FAILURE) || apm_str_eqz(read.status, APM_STATE_REVOKED);
    part->ready = success || part->failed;
    part->result = success ? read.result.text : APM_STR_NONE;
    part->exc = read.exc;
}

bool
apm_unlock_ready(const apm_unlock *unlock)
{
    for (size_t i = 0; i < unlock->n_parts; i++)
        if (!unlock->parts[i].ready)
            return false;
    return true;
}

/* ---- the end ---- */

struct weaving {
    const apm_unlock *unlock;
    size_t at;
    apm_buf *buf;
    bool first;
};

static void
comma(struct weaving *w)
{
    if (!w->first)
        apm_buf_addz(w->buf, ", ");
    w->first = false;
}

static apium_status
weave_part(void *arg, apm_json id, apium_error *err)
{
    (void)id;
    (void)err;
    struct weaving *w = arg;
    comma(w);
    apm_buf_adds(w->buf, w->unlock->parts[w->at++].result);
    return APIUM_OK;
}

static void
weave_open(void *arg)
{
    struct weaving *w = arg;
    comma(w);
    apm_buf_addc(w->buf, '[');
    w->first = true;
}

static void
weave_close(void *arg)
{
    struct weaving *w = arg;
    apm_buf_addc(w->buf, ']');
    w->first = false;
}

/* As Celery says it: ChordError with the repr of what was raised. */
static apium_status
fail_body(apm_sending *how, const apm_unlock *unlock, const apm_unlock_part *part, apm_follow *out,
          apium_error *err)
{
    apm_buf repr, args;
    apm_buf_init(&repr, 64 << 10);
    apm_exception_repr(&repr, &part->exc);
    apm_buf_init(&args, 512 << 10);
    apm_buf_addc(&args, '[');
    apm_json_add_string(&args, apm_buf_str(&repr));
    apm_buf_addc(&args, ']');
    const apm_exception exc = { APM_STR("ChordError"), APM_STR("celery.exceptions"),
                                args.failed ? APM_STR("[]")
                                            : apm_arena_str(how->arena, apm_buf_str(&args), NULL) };
    apm_buf_clear(&repr);
    apm_buf_clear(&args);
    return apm_follow_body_failed(how, unlock->body, &exc, &part->exc, out, err);
}

apium_status
apm_unlock_finish(apm_sending *how, const apm_unlock *unlock, const apm_request *req,
                  apm_follow *out, apium_error *err)
{
    *out = (apm_follow){ 0 };
    how->children = NULL;
    how->root_id = apm_str_is(req->root_id) ? req->root_id : req->id;
    how->parent_id = req->id;
    for (size_t i = 0; i < unlock->n_parts; i++)
        if (unlock->parts[i].failed)
            return fail_body(how, unlock, &unlock->parts[i], out, err);
    apm_buf args;
    apm_buf_init(&args, APM_BUF_MAX);
    apm_buf_addz(&args, "[[");
    struct weaving w = { unlock, 0, &args, true };
    const walker weaver = { &w, weave_part, weave_open, weave_close };
    apium_status st = walk(&weaver, unlock->header, 0, err);
    apm_buf_addz(&args, "]]");
    if (st == APIUM_OK && args.failed)
        st = apm_fail(err, APIUM_E_TOOBIG, "the results of a chord's header are too big together");
    if (st == APIUM_OK)
        st = apm_follow_send_body(how, unlock->body, apm_buf_str(&args), err);
    apm_buf_clear(&args);
    return st;
}
