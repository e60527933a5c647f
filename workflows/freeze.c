/*
 * freeze.c - giving the tasks of a tree their ids, as Celery's freeze() does it: the same ones get which group, chord and
 * index; see canvas.h.
 */
#include "workflows/canvas_inner.h"

#include "core/base/error.h"
#include "core/base/ids.h"

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot prepare a workflow: out of memory");
}

apm_str
apm_new_id(apm_arena *arena)
{
    char id[APM_UUID_LEN + 1];
    apm_uuid4(id);
    return apm_arena_str(arena, apm_strz(id), NULL);
}

static apm_handle *
handle_new(apm_arena *arena, apm_str id, bool is_group)
{
    apm_handle *handle = apm_str_is(id) ? apm_arena_alloc(arena, sizeof(*handle)) : NULL;
    if (handle)
        *handle = (apm_handle){ .id = id, .is_group = is_group };
    return handle;
}

static bool
set_index(apm_arena *arena, apm_canvas *sig, int64_t index)
{
    return apm_canvas_set(arena, &sig->options, APM_OPT_GROUP_INDEX,
                          apm_strz(apm_arena_printf(arena, "%lld", (long long)index)));
}

/* Which chord it is a part of, and which one. */
static bool
set_part(apm_arena *arena, apm_canvas *sig, const apm_place *place)
{
    const apm_option chord = { .which = APM_OPT_CHORD,
                               .key = APM_STR("\"chord\""),
                               .sig = place->chord };
    return (!place->chord || apm_canvas_put(arena, &sig->options, &chord)) &&
           (place->group_index < 0 || set_index(arena, sig, place->group_index));
}

static apm_handle *
freeze_task(const apm_sending *how, apm_canvas *sig, const apm_place *place, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_options *options = &sig->options;
    apm_str id = apm_canvas_opt_text(arena, options, APM_OPT_TASK_ID);
    bool ok = true;

    sig->json = APM_STR_NONE;
    if (!apm_str_is(id)) {
        id = apm_str_is(place->id) ? place->id : apm_new_id(arena);
        ok = apm_str_is(id) && apm_canvas_set_text(arena, options, APM_OPT_TASK_ID, id);
    }
    if (ok && apm_str_is(place->root_id))
        ok = apm_canvas_set_text(arena, options, APM_OPT_ROOT_ID, place->root_id);
    if (ok && apm_str_is(how->reply_to) && !apm_canvas_opt(options, APM_OPT_REPLY_TO))
        ok = apm_canvas_set_text(arena, options, APM_OPT_REPLY_TO, how->reply_to);
    if (ok && apm_str_is(place->group_id) && !apm_canvas_opt(options, APM_OPT_GROUP_ID))
        ok = apm_canvas_set_text(arena, options, APM_OPT_GROUP_ID, place->group_id);
    ok = ok && set_part(arena, sig, place);
    apm_handle *handle = ok ? handle_new(arena, id, false) : NULL;
    if (!handle)
        (void)no_memory(err);
    return handle;
}

/* ---- groups and headers ---- */

struct pile {
    apm_canvas **items;
    size_t n, cap;
};

static bool
pile_push(apm_arena *arena, struct pile *pile, apm_canvas *sig)
{
    if (pile->n == pile->cap) {
        size_t cap = pile->cap ? 2 * pile->cap : 16;
        apm_canvas **items = apm_arena_alloc(arena, cap * sizeof(*items));
        if (!items)
            return false;
        if (pile->n)
            memcpy(items, pile->items, pile->n * sizeof(*items));
        pile->items = items;
        pile->cap = cap;
    }
    pile->items[pile->n++] = sig;
    return true;
}

/* The tasks without groups among them. A group's members come out in reverse, each time one is met: Celery pushes them to the front
 * of a queue one by one, and indexes count what comes out. */
static bool
unroll(apm_arena *arena, apm_canvas **tasks, size_t n, struct pile *out)
{
    struct pile stack = { 0 };
    for (size_t i = n; i > 0; i--)
        if (!pile_push(arena, &stack, tasks[i - 1]))
            return false;
    while (stack.n) {
        apm_canvas *task = stack.items[--stack.n];
        if (task->kind != APM_SIG_GROUP) {
            if (!pile_push(arena, out, task))
                return false;
            continue;
        }
        for (size_t i = 0; i < task->n_tasks; i++)
            if (!pile_push(arena, &stack, task->tasks[i]))
                return false;
    }
    return true;
}

static bool
holds_group(apm_canvas *const *tasks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tasks[i]->kind == APM_SIG_GROUP)
            return true;
    return false;
}

/* Freeze *tasks, unrolled, as the members of a group. */
static apm_handle *
freeze_members(const apm_sending *how, apm_canvas ***tasks, size_t *n_tasks, apm_str gid,
               const apm_place *place, apium_error *err)
{
    apm_arena *arena = how->arena;
    if (holds_group(*tasks, *n_tasks)) {
        struct pile flat = { 0 };
        if (!unroll(arena, *tasks, *n_tasks, &flat)) {
            (void)no_memory(err);
            return NULL;
        }
        *tasks = flat.items;
        *n_tasks = flat.n;
    }
    apm_handle *group = handle_new(arena, gid, true);
    if (group)
        group->members = apm_arena_alloc(arena, (*n_tasks + 1) * sizeof(apm_handle *));
    if (!group || !group->members) {
        (void)no_memory(err);
        return NULL;
    }
    for (size_t i = 0; i < *n_tasks; i++) {
        apm_place member = *place;
        member.id = APM_STR_NONE;
        member.group_index = (int64_t)i;
        group->members[i] = apm_freeze(how, (*tasks)[i], &member, err);
        if (!group->members[i])
            return NULL;
        group->n_members++;
    }
    return group;
}

static apm_handle *
freeze_group(const apm_sending *how, apm_canvas *sig, const apm_place *place, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_options *options = &sig->options;
    apm_str gid = apm_canvas_opt_text(arena, options, APM_OPT_TASK_ID);
    bool ok = true;

    sig->json = APM_STR_NONE;
    if (!apm_str_is(gid)) {
        gid = apm_str_is(place->group_id) ? place->group_id : apm_new_id(arena);
        ok = apm_str_is(gid) && apm_canvas_set_text(arena, options, APM_OPT_TASK_ID, gid);
    }
    if (ok && apm_str_is(place->group_id))
        ok = apm_canvas_set_text(arena, options, APM_OPT_GROUP_ID, place->group_id);
    ok = ok && set_part(arena, sig, place);
    if (ok && !apm_canvas_opt(options, APM_OPT_ROOT_ID))
        ok = apm_str_is(place->root_id)
                 ? apm_canvas_set_text(arena, options, APM_OPT_ROOT_ID, place->root_id)
                 : apm_canvas_set(arena, options, APM_OPT_ROOT_ID, APM_STR("null"));
    if (ok && !apm_canvas_opt(options, APM_OPT_PARENT_ID))
        ok = apm_canvas_set(arena, options, APM_OPT_PARENT_ID, APM_STR("null"));
    if (!ok) {
        (void)no_memory(err);
        return NULL;
    }
    return freeze_members(how, &sig->tasks, &sig->n_tasks, gid, place, err);
}

apium_status
apm_freeze_header(const apm_sending *how, apm_canvas *chord, apm_str group_id, apm_str root_id,
                  apm_handle **out, apium_error *err)
{
    const apm_place place = {
        .group_id = group_id, .chord = chord->body, .root_id = root_id, .group_index = -1
    };
    *out = freeze_members(how, &chord->tasks, &chord->n_tasks, group_id, &place, err);
    return *out ? APIUM_OK : (err ? err->status : APIUM_E_NOMEM);
}

/* ---- chords ---- */

/* The first of the results that lead to this one. */
static apm_handle *
first_of(apm_handle *handle)
{
    while (handle->parent)
        handle = handle->parent;
    return handle;
}

static apm_handle *
freeze_chord(const apm_sending *how, apm_canvas *sig, const apm_place *place, apium_error *err)
{
    apm_str gid = apm_canvas_opt_text(how->arena, &sig->options, APM_OPT_TASK_ID);
    apm_handle *header, *body;

    sig->json = APM_STR_NONE;
    if (!apm_str_is(gid))
        gid = apm_new_id(how->arena);
    if (!apm_str_is(gid) || !apm_canvas_set_text(how->arena, &sig->options, APM_OPT_TASK_ID, gid)) {
        (void)no_memory(err);
        return NULL;
    }
    /* Which group they are in they learn when the chord is sent. */
    const apm_place inside = { .chord = sig->body, .root_id = place->root_id, .group_index = -1 };
    if (!(header = freeze_members(how, &sig->tasks, &sig->n_tasks, gid, &inside, err)))
        return NULL;
    body = apm_freeze(how, sig->body, place, err);
    if (body)
        first_of(body)->parent = header;
    return body;
}

/* ---- chains ---- */

struct steps {
    apm_canvas **tasks;
    apm_handle **handles;
    size_t n, cap;
};

static bool
steps_push(apm_arena *arena, struct steps *steps, apm_canvas *task, apm_handle *handle)
{
    if (steps->n == steps->cap) {
        size_t cap = steps->cap ? 2 * steps->cap : 16;
        apm_canvas **tasks = apm_arena_alloc(arena, cap * sizeof(*tasks));
        apm_handle **handles = apm_arena_alloc(arena, cap * sizeof(*handles));
        if (!tasks || !handles)
            return false;
        if (steps->n) {
            memcpy(tasks, steps->tasks, steps->n * sizeof(*tasks));
            memcpy(handles, steps->handles, steps->n * sizeof(*handles));
        }
        steps->tasks = tasks;
        steps->handles = handles;
        steps->cap = cap;
    }
    steps->tasks[steps->n] = task;
    steps->handles[steps->n++] = handle;
    return true;
}

apm_canvas *
apm_canvas_upgraded(apm_arena *arena, const apm_canvas *group, apm_canvas *body)
{
    apm_canvas *chord = apm_canvas_new(arena, APM_SIG_CHORD, "celery.chord");
    if (!chord)
        return NULL;
    chord->tasks = group->tasks;
    chord->n_tasks = group->n_tasks;
    chord->args = group->args;
    chord->immutable = group->immutable;
    chord->body = body;
    return chord;
}

/* A group that ends a chain which is itself a part of a chord would have to be counted by its members, under its own id and the
 * chord's: Celery gets that wrong. As a chord that hands its results on it is one part, and its result the same list. */
apm_canvas *
apm_canvas_gathered(apm_arena *arena, const apm_canvas *group)
{
    apm_canvas *body = apm_canvas_new(arena, APM_SIG_TASK, "celery.accumulate");
    if (!body)
        return NULL;
    body->kwargs = APM_STR("{\"index\": 0}");
    return apm_canvas_upgraded(arena, group, body);
}

apium_status
apm_freeze_steps(const apm_sending *how, apm_canvas *chain, apm_str args, const apm_place *place,
                 apm_steps *out, apium_error *err)
{
    apm_arena *arena = how->arena;
    struct pile todo = { 0 };
    struct steps done = { 0 };
    apm_canvas *prev = NULL;
    apm_handle *prev_handle = NULL;
    bool any = false;

    for (size_t i = 0; i < chain->n_tasks; i++)
        if (!pile_push(arena, &todo, chain->tasks[i]))
            return no_memory(err);
    while (todo.n) {
        apm_canvas *task = todo.items[--todo.n];
        bool last = !any;
        apm_handle *popped = NULL;

        if (task->kind == APM_SIG_GROUP && task->n_tasks == 1)
            task = task->tasks[0];
        if (task->kind == APM_SIG_CHAIN) {
            for (size_t i = 0; i < task->n_tasks; i++)
                if (!pile_push(arena, &todo, task->tasks[i]))
                    return no_memory(err);
            continue;
        }
        if (todo.n == 0 && !apm_canvas_prepend(arena, task, args))
            return no_memory(err);
        if (task->kind == APM_SIG_GROUP && prev) {
            popped = done.handles[--done.n];
            task = apm_canvas_upgraded(arena, task, prev);
            prev = done.n ? done.tasks[done.n - 1] : NULL;
            prev_handle = done.n ? done.handles[done.n - 1] : NULL;
            last = done.n == 0;
        } else if (task->kind == APM_SIG_GROUP && place->chord && task->n_tasks) {
            task = apm_canvas_gathered(arena, task);
        }
        if (!task)
            return no_memory(err);
        const apm_place inside = { .root_id = place->root_id, .group_index = -1 };
        apm_handle *handle = apm_freeze(how, task, last ? place : &inside, err);
        if (!handle)
            return err ? err->status : APIUM_E_NOMEM;
        any = true;
        if (popped &&
            first_of(popped) !=
                first_of(handle)) /* what came after it was told of this one as its parent */
            first_of(popped)->parent = first_of(handle);
        if (prev && prev_handle && !prev_handle->parent)
            prev_handle->parent = handle;
        if (!steps_push(arena, &done, task, handle))
            return no_memory(err);
        prev = task;
        prev_handle = task->kind == APM_SIG_CHORD ? first_of(handle) : handle;
    }
    *out = (apm_steps){ done.tasks, done.handles, done.n };
    return APIUM_OK;
}

static apm_handle *
freeze_chain(const apm_sending *how, apm_canvas *sig, const apm_place *place, apium_error *err)
{
    apm_steps steps;
    sig->json = APM_STR_NONE;
    if (apm_freeze_steps(how, sig, APM_STR_NONE, place, &steps, err) != APIUM_OK)
        return NULL;
    if (!steps.n) {
        apm_fail(err, APIUM_E_INVALID, "cannot prepare a workflow: a chain has no steps");
        return NULL;
    }
    /* What was upgraded stays so: its group's id has been told. */
    apm_canvas **tasks = apm_arena_alloc(how->arena, steps.n * sizeof(*tasks));
    if (!tasks ||
        !apm_canvas_set_text(how->arena, &sig->options, APM_OPT_TASK_ID, steps.handles[0]->id)) {
        (void)no_memory(err);
        return NULL;
    }
    for (size_t i = 0; i < steps.n; i++)
        tasks[i] = steps.tasks[steps.n - 1 - i];
    sig->tasks = tasks;
    sig->n_tasks = steps.n;
    return steps.handles[0];
}

apm_handle *
apm_freeze(const apm_sending *how, apm_canvas *sig, const apm_place *place, apium_error *err)
{
    switch (sig->kind) {
    case APM_SIG_CHAIN:
        return freeze_chain(how, sig, place, err);
    case APM_SIG_GROUP:
        return freeze_group(how, sig, place, err);
    case APM_SIG_CHORD:
        return freeze_chord(how, sig, place, err);
    default:
        return freeze_task(how, sig, place, err);
    }
}

apm_handle *
apm_canvas_freeze(const apm_sending *how, apm_canvas *sig, apm_str id, apium_error *err)
{
    const apm_place place = { .id = id,
                              .group_id = sig->kind == APM_SIG_GROUP ? id : APM_STR_NONE,
                              .group_index = -1 };
    return apm_freeze(how, sig, &place, err);
}
