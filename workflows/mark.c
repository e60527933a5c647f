/*
 * mark.c - what will not run: the steps and bodies that waited for what has failed get its failure for a result, and whoever counts on
 * them as parts of a chord is told; see follow_inner.h
 */
#include "workflows/follow_inner.h"
#include "workflows/pieces.h"

#include "core/base/error.h"

static void *
grown(apm_arena *arena, void *items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return items;
    size_t more = *cap ? 2 * *cap : 8;
    void *fresh = apm_arena_alloc(arena, more * size);
    if (fresh && n)
        memcpy(fresh, items, n * size);
    if (fresh)
        *cap = more;
    return fresh;
}

static apium_status
add_unrun(struct apm_marking *m, const apm_request *req)
{
    apm_unrun *items =
        grown(m->how->arena, m->out->unrun, m->out->n_unrun, &m->cap_unrun, sizeof(*items));
    if (!items)
        return apm_follow_no_memory(m->err);
    m->out->unrun = items;
    items[m->out->n_unrun++] = (apm_unrun){ .req = *req, .exc = *m->exc };
    return APIUM_OK;
}

static apium_status
add_return(struct apm_marking *m, const apm_return *part)
{
    apm_return *items =
        grown(m->how->arena, m->out->returns, m->out->n_returns, &m->cap_returns, sizeof(*items));
    if (!items)
        return apm_follow_no_memory(m->err);
    m->out->returns = items;
    items[m->out->n_returns++] = *part;
    return APIUM_OK;
}

apm_str
apm_follow_member(apm_arena *arena, apm_str task_id, apm_str state, apm_str result)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addz(&buf, "[1, ");
    apm_json_add_string(&buf, task_id);
    apm_buf_addz(&buf, ", ");
    apm_json_add_string(&buf, state);
    apm_buf_addz(&buf, ", ");
    apm_buf_adds(&buf, apm_str_is(result) ? result : APM_STR("null"));
    apm_buf_addc(&buf, ']');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

apm_str
apm_mark_exception(apm_arena *arena, const apm_exception *exc)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_exception_json(&buf, exc);
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

/* A signature that waited for what has failed: its own result, and whoever waits for that. Of a chain only the last step is
 * marked, which is the one that somebody waits for. */
apium_status
apm_mark_sig(struct apm_marking *m, const apm_canvas *sig)
{
    apm_arena *arena = m->how->arena;
    apium_status st = APIUM_OK;

    if (sig->kind == APM_SIG_CHAIN) {
        if (sig->n_tasks)
            st = apm_mark_sig(m, sig->tasks[sig->n_tasks - 1]);
        /* What was to follow the chain as a whole. */
        const apm_option *after = apm_canvas_opt(&sig->options, APM_OPT_CHAIN);
        return st == APIUM_OK && after && !after->sig ? apm_mark_chain(m, after->raw) : st;
    }
    const apm_options *options = &sig->options;
    apm_request req = { .id = apm_canvas_opt_text(arena, options, APM_OPT_TASK_ID),
                        .task = sig->task,
                        .group = apm_canvas_opt_text(arena, options, APM_OPT_GROUP_ID),
                        .reply_to = apm_canvas_opt_text(arena, options, APM_OPT_REPLY_TO),
                        .args = apm_str_is(sig->args) ? sig->args : APM_STR("[]"),
                        .kwargs = sig->kind == APM_SIG_TASK && apm_str_is(sig->kwargs)
                                      ? sig->kwargs
                                      : APM_STR("{}"),
                        .group_index = -1,
                        .eta_us = APM_TIME_NONE,
                        .expires_us = APM_TIME_NONE,
                        .ignore_result = APM_UNSET,
                        .priority = APM_PRIORITY_NONE };
    const apm_option *chord = apm_canvas_opt(options, APM_OPT_CHORD),
                     *index = apm_canvas_opt(options, APM_OPT_GROUP_INDEX);
    if (index)
        (void)apm_json_int64((apm_json){ APM_JSON_INT, index->raw }, "group_index",
                             &req.group_index, NULL);
    if (apm_str_is(req.id))
        st = add_unrun(m, &req);
    if (st == APIUM_OK && sig->kind == APM_SIG_CHORD)
        st = apm_mark_sig(m, sig->body);
    if (st == APIUM_OK && sig->kind == APM_SIG_GROUP) {
        /* Celery leaves its members pending, and whoever waits for them waits for ever. Within a header they return, too. */
        for (size_t i = 0; i < sig->n_tasks && st == APIUM_OK; i++)
            st = apm_mark_sig(m, sig->tasks[i]);
    }
    if (st == APIUM_OK && chord && sig->kind == APM_SIG_TASK && apm_str_is(req.group) &&
        apm_str_is(req.id)) {
        const apm_return part = { .group_id = req.group,
                                  .task_id = req.id,
                                  .index = req.group_index,
                                  .member = apm_follow_member(arena, req.id, m->state, m->exc_json),
                                  .body = chord->raw };
        st = apm_str_is(part.member) ? add_return(m, &part) : apm_follow_no_memory(m->err);
    }
    const apm_option *rest = apm_canvas_opt(options, APM_OPT_CHAIN);
    return st == APIUM_OK && rest && !rest->sig ? apm_mark_chain(m, rest->raw) : st;
}

static apium_status
mark_item(void *arg, apm_json text, size_t index)
{
    (void)index;
    struct apm_marking *m = arg;
    apm_canvas *sig;
    /* A piece that could not be had: at least its last step is told. */
    apm_str last = apm_pieces_last(text);
    if (apm_str_is(last))
        text.text = last;
    /* A step that is no signature would have failed when it was reached; it holds nobody up. */
    if (apm_canvas_read(text, m->how->arena, &sig, NULL) != APIUM_OK)
        return APIUM_OK;
    return apm_mark_sig(m, sig);
}

/* The steps that will not be reached, the last one first. */
apium_status
apm_mark_chain(struct apm_marking *m, apm_str chain)
{
    return apm_each_item(chain, mark_item, m, m->err);
}

apium_status
apm_mark_return(struct apm_marking *m, const apm_request *req, apm_str state, apm_str result)
{
    if (!apm_str_is(req->chord) || !apm_str_is(req->group) || !apm_str_is(req->id))
        return APIUM_OK;
    const apm_return part = { .group_id = req->group,
                              .task_id = req->id,
                              .index = req->group_index,
                              .member = apm_follow_member(m->how->arena, req->id, state, result),
                              .body = req->chord };
    return apm_str_is(part.member) ? add_return(m, &part) : apm_follow_no_memory(m->err);
}
