/*
 * replace.c - a task that becomes a workflow, and one that adds parts to the header it belongs to: Celery's Task.replace() and
 * Task.add_to_chord(); see follow.h.
 */
#include "workflows/follow.h"

#include "core/base/error.h"
#include "workflows/canvas_inner.h"

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot replace a task: out of memory");
}

/* Call link or link_error of the tree for each signature of a list. */
static bool
link_each(apm_arena *arena, apm_canvas *sig, apm_str list,
          bool (*link)(apm_arena *, apm_canvas *, apm_str))
{
    apm_json_iter it;
    apm_str key;
    apm_json val;
    if (!apm_str_is(list))
        return true;
    if (apm_json_open(&it, list, NULL) != APIUM_OK)
        return false;
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        if (!link(arena, sig, val.text))
            return false;
    return true;
}

static apm_canvas *
chain_of(apm_arena *arena, apm_canvas *const *head, size_t n_head, apm_canvas *const *tail,
         size_t n_tail)
{
    apm_canvas *chain = apm_canvas_new(arena, APM_SIG_CHAIN, "celery.chain");
    if (!chain || !(chain->tasks = apm_arena_alloc(arena, (n_head + n_tail) * sizeof(*head))))
        return NULL;
    memcpy(chain->tasks, head, n_head * sizeof(*head));
    memcpy(chain->tasks + n_head, tail, n_tail * sizeof(*tail));
    chain->n_tasks = n_head + n_tail;
    return chain;
}

/* sig | rest: the steps that were to follow the replaced task. A chord is followed by its body. */
static apm_canvas *
piped(apm_arena *arena, apm_canvas *sig, apm_canvas *const *rest, size_t n)
{
    if (!n)
        return sig;
    if (sig->kind == APM_SIG_CHORD) {
        sig->body = piped(arena, sig->body, rest, n);
        return sig->body ? sig : NULL;
    }
    if (sig->kind == APM_SIG_CHAIN) {
        apm_canvas **last = &sig->tasks[sig->n_tasks - 1];
        if ((*last)->kind == APM_SIG_CHORD) {
            *last = piped(arena, *last, rest, n);
            return *last ? sig : NULL;
        }
        const apm_option *errbacks = apm_canvas_opt(&sig->options, APM_OPT_LINK_ERROR);
        for (size_t i = 0; errbacks && i < sig->n_tasks; i++)
            if (!link_each(arena, sig->tasks[i], errbacks->raw, apm_canvas_link_error))
                return NULL;
        return chain_of(arena, sig->tasks, sig->n_tasks, rest, n);
    }
    return chain_of(arena, &sig, 1, rest, n);
}

/* The remaining steps, first one first. */
static apium_status
read_rest(apm_arena *arena, apm_str chain, apm_canvas ***out, size_t *n, apium_error *err)
{
    *out = NULL;
    *n = 0;
    if (!apm_str_is(chain))
        return APIUM_OK;
    apm_json list = { APM_JSON_ARRAY, chain };
    size_t count = apm_json_count(list), at = count;
    apm_json_iter it;
    apm_str key;
    apm_json val;
    if (!count)
        return APIUM_OK;
    if (!(*out = apm_arena_alloc(arena, count * sizeof(**out))))
        return no_memory(err);
    int more = 0;
    apium_status st = apm_json_open(&it, chain, err);
    while (st == APIUM_OK && at && (more = apm_json_next(&it, &key, &val, err)) > 0)
        st = apm_canvas_read(val, arena, &(*out)[--at], err);
    *n = count;
    return more < 0 ? APIUM_E_DECODE : st;
}

/* What the replaced task was a part of. */
static bool
set_place(apm_arena *arena, apm_options *options, const apm_request *req)
{
    return (!apm_str_is(req->chord) || apm_canvas_set(arena, options, APM_OPT_CHORD, req->chord)) &&
           (!apm_str_is(req->group) ||
            apm_canvas_set_text(arena, options, APM_OPT_GROUP_ID, req->group)) &&
           (req->group_index < 0 ||
            apm_canvas_set(
                arena, options, APM_OPT_GROUP_INDEX,
                apm_strz(apm_arena_printf(arena, "%lld", (long long)req->group_index)))) &&
           (!apm_str_is(req->root_id) ||
            apm_canvas_set_text(arena, options, APM_OPT_ROOT_ID, req->root_id));
}

static bool
set_nesting(apm_arena *arena, apm_canvas *sig, const apm_request *req)
{
    apm_str level =
        apm_strz(apm_arena_printf(arena, "%lld", (long long)req->replaced_task_nesting + 1));
    if (!apm_canvas_set_named(arena, &sig->options, "replaced_task_nesting", level))
        return false;
    for (size_t i = 0; sig->kind == APM_SIG_CHAIN && i < sig->n_tasks; i++)
        if (!apm_canvas_set_named(arena, &sig->tasks[i]->options, "replaced_task_nesting", level))
            return false;
    return true;
}

apium_status
apm_follow_replaced(apm_sending *how, const apm_request *req, apm_str replacement, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_json text;
    apm_canvas *sig, **rest;
    size_t n_rest;
    apium_status st = apm_json_parse(replacement, &text, err);
    if (st == APIUM_OK)
        st = apm_canvas_read(text, arena, &sig, err);
    if (st == APIUM_OK)
        st = read_rest(arena, req->chain, &rest, &n_rest, err);
    if (st != APIUM_OK)
        return st;
    if (apm_canvas_opt(&sig->options, APM_OPT_CHORD))
        return apm_fail(err, APIUM_E_INVALID,
                        "a signature replacing a task must not be part of a chord");
    if (sig->kind == APM_SIG_CHAIN && !sig->n_tasks)
        return apm_fail(err, APIUM_E_INVALID, "cannot replace with an empty chain");
    if (sig->kind == APM_SIG_GROUP && !(sig = apm_canvas_gathered(arena, sig)))
        return no_memory(err);
    if (!link_each(arena, sig, req->callbacks, apm_canvas_link) ||
        !link_each(arena, sig, req->errbacks, apm_canvas_link_error))
        return no_memory(err);
    if (sig->kind == APM_SIG_CHAIN) { /* before anything else comes behind its last step */
        const apm_option *links = apm_canvas_opt(&sig->options, APM_OPT_LINK);
        if (links && !link_each(arena, sig->tasks[sig->n_tasks - 1], links->raw, apm_canvas_link))
            return no_memory(err);
        apm_canvas_drop_option(&sig->options, APM_OPT_LINK);
    }
    /* Whoever waits for the replaced task waits for this now. */
    if (!apm_canvas_freeze(how, sig, req->id, err))
        return err ? err->status : APIUM_E_NOMEM;
    if (!set_place(arena, &sig->options, req) || !set_nesting(arena, sig, req))
        return no_memory(err);
    for (size_t i = 0; i < n_rest; i++)
        if (!set_nesting(arena, rest[i], req))
            return no_memory(err);
    if (!(sig = piped(arena, sig, rest, n_rest)))
        return no_memory(err);
    how->root_id = apm_str_is(req->root_id) ? req->root_id : req->id;
    how->parent_id = req->id;
    return apm_canvas_apply(how, sig, APM_STR_NONE, NULL, NULL, err);
}

apium_status
apm_follow_added(apm_sending *how, const apm_request *req, apm_str added, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_json_iter it;
    apm_str key;
    apm_json val;
    int more = 0;
    if (!apm_str_is(req->chord) || !apm_str_is(req->group))
        return apm_fail(err, APIUM_E_INVALID, "the task is not a part of any chord");
    if (how->chords != APM_CHORDS_COUNTED)
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot add to a chord: the result backend %s does not count parts",
                        how->store ? how->store : "in use");
    apium_status st = apm_json_open(&it, added, err);
    while (st == APIUM_OK && (more = apm_json_next(&it, &key, &val, err)) > 0) {
        apm_canvas *sig;
        if ((st = apm_canvas_read(val, arena, &sig, err)) != APIUM_OK)
            break;
        if (!set_place(arena, &sig->options, req))
            return no_memory(err);
        const apm_canvas_op more_parts = { .kind = APM_CANVAS_EXTEND,
                                           .group_id = req->group,
                                           .size = 1 };
        if ((st = how->emit(how->arg, &more_parts, err)) == APIUM_OK)
            st = apm_canvas_apply(how, sig, APM_STR_NONE, NULL, NULL, err);
    }
    return more < 0 ? APIUM_E_DECODE : st;
}
