/*
 * follow.c - callbacks, the next step of a chain, errbacks, the return of a chord's part, in Celery's order (docs/protocol.md "What a
 * worker does after a task"); see follow.h.
 */
#include "workflows/follow.h"

#include "workflows/follow_inner.h"
#include "workflows/pieces.h"

static apium_status
no_priority(const apm_sending *how, apm_options *options, apium_error *err)
{
    return apm_canvas_set_named(how->arena, options, "priority", APM_STR("null"))
               ? APIUM_OK
               : apm_follow_no_memory(err);
}

/* ---- success ---- */

/* The array without its last item: what remains of a chain (its last element runs next). */
static apm_str
without_last(apm_str list, apm_arena *arena, apm_json *last)
{
    size_t n;
    *last = apm_json_last((apm_json){ APM_JSON_ARRAY, list }, &n);
    if (n < 2)
        return APM_STR("[]");
    size_t len = (size_t)(last->text.p - list.p);
    while (len && list.p[len - 1] != ',')
        len--;
    char *p = apm_arena_bytes(arena, len);
    if (!p)
        return APM_STR_NONE;
    memcpy(p, list.p, len);
    p[len - 1] = ']';
    return (apm_str){ p, len };
}

static apium_status
send_next_step(apm_sending *how, apm_str chain, apm_str partial, apm_options *options,
               apium_error *err)
{
    apm_json next;
    apm_canvas *sig;
    if (!apm_str_is(chain) || apm_json_empty((apm_json){ APM_JSON_ARRAY, chain }))
        return APIUM_OK;
    apm_str rest = without_last(chain, how->arena, &next);
    if (!apm_str_is(rest))
        return apm_follow_no_memory(err);
    apium_status st = apm_pieces_cut(how, &rest, err);
    if (st != APIUM_OK)
        return st;
    if (!apm_canvas_set(how->arena, options, APM_OPT_CHAIN, rest))
        return apm_follow_no_memory(err);
    st = apm_canvas_read(next, how->arena, &sig, err);
    return st == APIUM_OK ? apm_canvas_apply(how, sig, partial, options, NULL, err) : st;
}

static apium_status
after_success(apm_sending *how, const apm_request *req, apm_str result, apium_error *err)
{
    apm_options options;
    apm_str partial = apm_array_of_one(result, how->arena);
    if (!apm_str_is(partial))
        return apm_follow_no_memory(err);
    apium_status st = apm_origin_options(how, &options, err);
    if (st == APIUM_OK)
        st = no_priority(how, &options, err);
    if (st == APIUM_OK)
        st = apm_send_links(how, req->callbacks, partial, &options, false, err);
    if (st == APIUM_OK)
        st = send_next_step(how, req->chain, partial, &options, err);
    return st;
}

/* ---- failure ---- */

static bool
is_failure(apm_outcome_kind kind)
{
    return kind == APM_DONE_FAILURE || kind == APM_DONE_LOST || kind == APM_DONE_TIMEOUT ||
           kind == APM_DONE_REVOKED || kind == APM_DONE_REJECT;
}

apium_status
apm_follow_outcome(apm_sending *how, const apm_request *req, const apm_outcome *outcome,
                   bool errbacks, apm_follow *out, apium_error *err)
{
    *out = (apm_follow){ .children = outcome->children };
    if (outcome->kind == APM_DONE_REPLACED)
        return apm_follow_replaced(how, req, outcome->replacement, err);
    bool success = outcome->kind == APM_DONE_SUCCESS, failure = is_failure(outcome->kind);
    bool chord = apm_str_is(req->chord), chain = apm_str_is(req->chain);
    if (!(success &&
          (chord || chain || apm_str_is(req->callbacks) || apm_str_is(outcome->added))) &&
        !(failure && (chord || chain || (errbacks && apm_str_is(req->errbacks)))))
        return APIUM_OK;

    how->root_id = apm_str_is(req->root_id) ? req->root_id : req->id;
    how->parent_id = req->id;
    struct apm_marking m = { .how = how, .out = out, .err = err };
    if (failure) {
        m.exc = &outcome->exc;
        m.exc_json = apm_mark_exception(how->arena, &outcome->exc);
        m.state = outcome->kind == APM_DONE_REVOKED ? APM_STR("REVOKED") : APM_STR("FAILURE");
        if (!apm_str_is(m.exc_json))
            return apm_follow_no_memory(err);
        apium_status st = apm_mark_return(&m, req, m.state, m.exc_json);
        if (st == APIUM_OK)
            st = apm_mark_chain(&m, req->chain);
        const struct apm_failed failed = { req, &outcome->exc, outcome->traceback };
        if (st == APIUM_OK && errbacks)
            st = apm_send_errbacks(how, req->errbacks, &failed, req->root_id, NULL, out, err);
        return st;
    }

    apm_buf children;
    apm_buf_init(&children, APM_BUF_MAX);
    how->children = &children;
    apium_status st = apm_mark_return(&m, req, APM_STR("SUCCESS"), outcome->result);
    if (st == APIUM_OK && apm_str_is(outcome->added))
        st = apm_follow_added(how, req, outcome->added, err);
    if (st == APIUM_OK)
        st = after_success(how, req, outcome->result, err);
    if (st == APIUM_OK && children.len) {
        apm_str own = outcome->children;
        bool some = apm_str_is(own) && apm_json_count((apm_json){ APM_JSON_ARRAY, own });
        out->children = apm_strz(apm_arena_printf(
            how->arena, "[%.*s%s%.*s]", some ? (int)(own.len - 2) : 0, some ? own.p + 1 : "",
            some ? ", " : "", APM_STR_ARG(apm_buf_str(&children))));
        if (children.failed || !apm_str_is(out->children))
            st = apm_follow_no_memory(err);
    }
    how->children = NULL;
    apm_buf_clear(&children);
    return st;
}
