/*
 * expand.c - sending a signature of any kind: what apply_async() of Celery's task, chain, group and chord puts on the wire; see
 * canvas.h. Which options go where follows Celery's order of updates closely: nested workflows depend on it.
 */
#include "workflows/canvas_inner.h"
#include "workflows/pieces.h"

#include "core/base/error.h"

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot send a workflow: out of memory");
}

static apium_status apply(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over,
                          bool header, apm_handle **out, apium_error *err);

/* ---- a group ---- */

/* Unrolled, with the index within the innermost group, as they are sent. */
struct members {
    apm_canvas **tasks;
    apm_handle **handles;
    size_t n;
};

static size_t
count_members(const apm_canvas *group)
{
    size_t n = 0;
    for (size_t i = 0; i < group->n_tasks; i++)
        n += group->tasks[i]->kind == APM_SIG_GROUP ? count_members(group->tasks[i]) : 1;
    return n;
}

static apium_status
freeze_members(apm_sending *how, apm_canvas *group, apm_str gid, apm_str root_id,
               struct members *out, apium_error *err)
{
    for (size_t i = 0; i < group->n_tasks; i++) {
        apm_canvas *task = group->tasks[i];
        if (task->kind == APM_SIG_GROUP) {
            apium_status st = freeze_members(how, task, gid, root_id, out, err);
            if (st != APIUM_OK)
                return st;
            continue;
        }
        const apm_place place = { .group_id = gid, .root_id = root_id, .group_index = (int64_t)i };
        apm_handle *handle = apm_freeze(how, task, &place, err);
        if (!handle)
            return err ? err->status : APIUM_E_NOMEM;
        out->tasks[out->n] = task;
        out->handles[out->n++] = handle;
    }
    return APIUM_OK;
}

/* `header`: it is a chord's, whose size is stored just before its last part is sent. */
static apium_status
apply_group(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over, bool header,
            apm_handle **out, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_options options;
    if (!apm_canvas_copy_options(arena, &options, &sig->options) ||
        !apm_options_merge(arena, &options, over, true))
        return no_memory(err);
    if (apm_canvas_opt(&options, APM_OPT_LINK) || apm_canvas_opt(&options, APM_OPT_LINK_ERROR))
        return apm_fail(err, APIUM_E_INVALID,
                        "cannot send a group: it has links (link its members, or use a chord)");
    apm_str gid = apm_canvas_opt_text(arena, &options, APM_OPT_TASK_ID);
    if (!apm_str_is(gid))
        gid = apm_new_id(arena);
    size_t n = count_members(sig);
    struct members members = { apm_arena_alloc(arena, (n + 1) * sizeof(apm_canvas *)),
                               apm_arena_alloc(arena, (n + 1) * sizeof(apm_handle *)), 0 };
    apm_handle *group = apm_arena_alloc(arena, sizeof(*group));
    if (!apm_str_is(gid) || !members.tasks || !members.handles || !group)
        return no_memory(err);
    apium_status st = freeze_members(
        how, sig, gid, apm_canvas_opt_text(arena, &options, APM_OPT_ROOT_ID), &members, err);
    if (st != APIUM_OK)
        return st;
    *group = (apm_handle){
        .id = gid, .members = members.handles, .n_members = members.n, .is_group = true
    };

    bool silent = apm_option_is_false(&options, APM_OPT_ADD_TO_PARENT);
    apm_canvas_drop_option(&options, APM_OPT_TASK_ID);
    apm_canvas_drop_option(&options, APM_OPT_GROUP_INDEX);
    if (!apm_canvas_set_text(arena, &options, APM_OPT_GROUP_ID, gid) ||
        !apm_canvas_set(arena, &options, APM_OPT_ADD_TO_PARENT, APM_STR("false")))
        return no_memory(err);
    apm_str partial = apm_str_is(sig->args) ? apm_canvas_concat(arena, args, sig->args) : args;
    int64_t size = 0;
    for (size_t i = 0; i < members.n && st == APIUM_OK; i++) {
        apm_handle *handle;
        size += apm_canvas_size(members.tasks[i]);
        if (header && i + 1 == members.n && how->chords == APM_CHORDS_COUNTED) {
            const apm_canvas_op op = { .kind = APM_CANVAS_SIZE, .group_id = gid, .size = size };
            st = how->emit(how->arg, &op, err);
        }
        if (st == APIUM_OK)
            st = apply(how, members.tasks[i], partial, &options, false, &handle, err);
    }
    if (st != APIUM_OK)
        return st;
    if (group->n_members == 1 && group->members[0]->is_group)
        group = group->members[0];
    if (!silent && members.n)
        apm_add_child(how, group);
    *out = group;
    return APIUM_OK;
}

/* Whoever returns for it is to be told another group. */
static void
forget_group(apm_canvas *sig)
{
    sig->json = APM_STR_NONE;
    apm_canvas_drop_option(&sig->options, APM_OPT_GROUP_ID);
    if (sig->kind == APM_SIG_CHORD)
        forget_group(sig->body);
    else if (sig->kind == APM_SIG_CHAIN && sig->n_tasks)
        forget_group(sig->tasks[sig->n_tasks - 1]);
    else if (sig->kind == APM_SIG_GROUP)
        for (size_t i = 0; i < sig->n_tasks; i++)
            forget_group(sig->tasks[i]);
}

/* What follows a group would run once for each member, under the same ids. (Celery writes such a group where a chord with a group for a
 * body is followed by more.) It is a chord, as group | more is: a chain of the body and what follows. */
static apium_status
apply_group_with_rest(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over,
                      apm_str rest, apm_handle **out, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_canvas *body = apm_canvas_new(arena, APM_SIG_CHAIN, "celery.chain");
    size_t n = apm_json_count((apm_json){ APM_JSON_ARRAY, rest });
    apm_options without;
    if (!body || !(body->tasks = apm_arena_alloc(arena, n * sizeof(*body->tasks))))
        return no_memory(err);
    for (size_t i = n; i > 0; i--) {
        apium_status st = apm_canvas_read(apm_json_at((apm_json){ APM_JSON_ARRAY, rest }, i - 1),
                                          arena, &body->tasks[body->n_tasks++], err);
        if (st != APIUM_OK)
            return st;
    }
    apm_canvas *chord = apm_canvas_upgraded(arena, sig, n == 1 ? body->tasks[0] : body);
    if (!chord || !apm_canvas_copy_options(arena, &chord->options, &sig->options) ||
        !apm_canvas_copy_options(arena, &without, over ? over : &(apm_options){ 0 }))
        return no_memory(err);
    apm_canvas_drop_option(&chord->options, APM_OPT_CHAIN);
    apm_canvas_drop_option(&chord->options, APM_OPT_GROUP_ID);
    /* 5.6 gives a body that is a group the id of its header, whose parts are not to be counted again. */
    apm_canvas_drop_option(&chord->options, APM_OPT_TASK_ID);
    for (size_t i = 0; i < chord->n_tasks; i++)
        forget_group(chord->tasks[i]);
    apm_canvas_drop_option(&without, APM_OPT_CHAIN);
    return apply(how, chord, args, &without, false, out, err);
}

/* ---- a chain ---- */

/* The steps but the first, as the rest of a chain travels, behind what is to follow the chain itself. */
static apm_str
write_rest(apm_arena *arena, const apm_steps *steps, const apm_option *after)
{
    apm_buf buf;
    bool first = true;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    if (after && after->raw.len > 1 && apm_json_count((apm_json){ APM_JSON_ARRAY, after->raw })) {
        apm_buf_add(&buf, after->raw.p + 1, after->raw.len - 2);
        first = false;
    }
    for (size_t i = 0; i + 1 < steps->n; i++) {
        apm_buf_addz(&buf, first ? "" : ", ");
        apm_canvas_write(&buf, steps->tasks[i]);
        first = false;
    }
    apm_buf_addc(&buf, ']');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

static bool
link_all(apm_arena *arena, apm_canvas *to, const apm_option *links,
         bool (*link)(apm_arena *, apm_canvas *, apm_str))
{
    if (!links || !links->raw.len)
        return true;
    if (links->raw.p[0] != '[')
        return link(arena, to, links->raw);
    apm_json_iter it;
    apm_str key;
    apm_json val;
    if (apm_json_open(&it, links->raw, NULL) != APIUM_OK)
        return false;
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        if (!link(arena, to, val.text))
            return false;
    return true;
}

static int64_t
index_of(const apm_options *options)
{
    const apm_option *o = apm_canvas_opt(options, APM_OPT_GROUP_INDEX);
    int64_t index = -1;
    if (o &&
        apm_json_int64((apm_json){ APM_JSON_INT, o->raw }, "group_index", &index, NULL) != APIUM_OK)
        return -1;
    return index;
}

/* The body that an option names: a tree, read from its text if need be. */
static apium_status
chord_of(apm_arena *arena, const apm_options *options, apm_canvas **out, apium_error *err)
{
    const apm_option *o = apm_canvas_opt(options, APM_OPT_CHORD);
    *out = o ? o->sig : NULL;
    return o && !o->sig ? apm_canvas_read((apm_json){ APM_JSON_OBJECT, o->raw }, arena, out, err)
                        : APIUM_OK;
}

static apium_status
apply_chain(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over,
            apm_handle **out, apium_error *err)
{
    static const apm_opt taken[] = { APM_OPT_GROUP_ID,  APM_OPT_CHORD,      APM_OPT_TASK_ID,
                                     APM_OPT_LINK,      APM_OPT_LINK_ERROR, APM_OPT_ROOT_ID,
                                     APM_OPT_PARENT_ID, APM_OPT_GROUP_INDEX };
    apm_arena *arena = how->arena;
    apm_options options;
    apm_steps steps;
    if (!apm_canvas_copy_options(arena, &options, &sig->options) ||
        !apm_options_update(arena, &options, over, true))
        return no_memory(err);
    apm_place place = { .id = apm_canvas_opt_text(arena, &options, APM_OPT_TASK_ID),
                        .group_id = apm_canvas_opt_text(arena, &options, APM_OPT_GROUP_ID),
                        .root_id = apm_canvas_opt_text(arena, &options, APM_OPT_ROOT_ID),
                        .group_index = index_of(&options) };
    apium_status st = chord_of(arena, &options, &place.chord, err);
    if (st != APIUM_OK)
        return st;
    if (!apm_str_is(place.root_id))
        place.root_id = how->root_id;
    apm_str partial =
        sig->immutable || !apm_str_is(args) ? sig->args : apm_canvas_concat(arena, args, sig->args);
    if ((st = apm_freeze_steps(how, sig, partial, &place, &steps, err)) != APIUM_OK)
        return st;
    if (!steps.n)
        return apm_fail(err, APIUM_E_INVALID, "cannot send a chain: it has no steps");
    if (!link_all(arena, steps.tasks[0], apm_canvas_opt(&options, APM_OPT_LINK), apm_canvas_link))
        return no_memory(err);
    for (size_t i = 0; i < steps.n; i++)
        if (!link_all(arena, steps.tasks[i], apm_canvas_opt(&options, APM_OPT_LINK_ERROR),
                      apm_canvas_link_error))
            return no_memory(err);
    apm_str rest = write_rest(arena, &steps, apm_canvas_opt(&options, APM_OPT_CHAIN));
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++)
        apm_canvas_drop_option(&options, taken[i]);
    if (!apm_str_is(rest))
        return no_memory(err);
    if ((st = apm_pieces_cut(how, &rest, err)) != APIUM_OK)
        return st;
    if (!apm_canvas_set(arena, &options, APM_OPT_CHAIN, rest))
        return no_memory(err);
    /* A parent that its options name is forgotten, as in Celery: a body that is a chain descends from the last part. */
    st = apply(how, steps.tasks[steps.n - 1], APM_STR_NONE, &options, false, out, err);
    if (st == APIUM_OK && steps.n > 1)
        *out = steps.handles[0];
    return st;
}

/* ---- a chord ---- */

/* The message that polls the parts, on stores that cannot count them. */
static apium_status
send_unlock(apm_sending *how, const apm_canvas *body, const apm_handle *header,
            const apm_options *options, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_canvas *unlock = apm_canvas_new(arena, APM_SIG_TASK, "celery.chord_unlock");
    apm_buf buf;
    apm_handle *handle;
    if (!unlock)
        return no_memory(err);
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    apm_json_add_string(&buf, header->id);
    apm_buf_addz(&buf, ", ");
    apm_canvas_write(&buf, body);
    apm_buf_addc(&buf, ']');
    unlock->args = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_reset(&buf);
    apm_buf_addz(&buf, "{\"interval\": null, \"max_retries\": null, \"result\": [");
    for (size_t i = 0; i < header->n_members; i++) {
        apm_buf_addz(&buf, i ? ", " : "");
        apm_handle_write(&buf, header->members[i]);
    }
    apm_buf_addz(&buf, "]}");
    unlock->kwargs = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    double wait_s = how->retry_interval_s > 0 ? how->retry_interval_s : 1.0;
    (void)options;
    bool ok = apm_str_is(unlock->args) && apm_str_is(unlock->kwargs) &&
              apm_canvas_set_named(arena, &unlock->options, "countdown",
                                   apm_strz(apm_arena_printf(arena, "%.3f", wait_s))) &&
              apm_canvas_set_named(arena, &unlock->options, "ignore_result", APM_STR("true")) &&
              apm_canvas_set(arena, &unlock->options, APM_OPT_ADD_TO_PARENT, APM_STR("false"));
    for (size_t i = 0; ok && i < body->options.n; i++) {
        const apm_option *o = &body->options.items[i];
        if (apm_json_key_is(o->key, "queue") || apm_json_key_is(o->key, "priority"))
            ok = apm_canvas_put(arena, &unlock->options, o);
    }
    return ok ? apm_apply_task(how, unlock, APM_STR_NONE, NULL, &handle, err) : no_memory(err);
}

static apium_status
apply_chord(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over,
            apm_handle **out, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_canvas *body = sig->body;
    apm_options options;
    apm_handle *header, *body_handle;
    if (how->chords == APM_CHORDS_REFUSED)
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "cannot send a chord: the result backend %s keeps no results to gather",
                        how->store ? how->store : "disabled");
    if (!apm_canvas_copy_options(arena, &options, &sig->options) ||
        !apm_options_update(arena, &options, over, true))
        return no_memory(err);
    apm_str task_id = apm_canvas_opt_text(arena, &options, APM_OPT_TASK_ID);
    apm_str gid = apm_canvas_opt_text(arena, &sig->options, APM_OPT_TASK_ID);
    if (!apm_str_is(gid))
        gid = apm_new_id(arena);
    apm_canvas_drop_option(&options, APM_OPT_TASK_ID);
    if (!apm_str_is(gid) || !apm_options_update(arena, &body->options, &options, true))
        return no_memory(err);
    body->json = APM_STR_NONE;

    const apm_place place = { .id = task_id,
                              .group_id = gid,
                              .root_id =
                                  apm_canvas_opt_text(arena, &body->options, APM_OPT_ROOT_ID),
                              .group_index = -1 };
    if (!(body_handle = apm_freeze(how, body, &place, err)))
        return err ? err->status : APIUM_E_NOMEM;
    apium_status st = apm_freeze_header(how, sig, gid, place.root_id, &header, err);
    if (st != APIUM_OK)
        return st;

    apm_str partial =
        sig->immutable || !apm_str_is(args) ? sig->args : apm_canvas_concat(arena, args, sig->args);
    if (!sig->n_tasks) {
        apm_handle *sent;
        st = apply(how, body, APM_STR("[[]]"), NULL, false, &sent, err);
    } else {
        apm_canvas group = { .kind = APM_SIG_GROUP,
                             .task = APM_STR("celery.group"),
                             .tasks = sig->tasks,
                             .n_tasks = sig->n_tasks };
        const apm_option chord = { .which = APM_OPT_CHORD,
                                   .key = APM_STR("\"chord\""),
                                   .sig = body };
        apm_canvas_drop_option(&options, APM_OPT_CHAIN);
        apm_canvas_drop_option(&options, APM_OPT_GROUP_ID);
        apm_canvas_drop_option(&options, APM_OPT_LINK);
        apm_canvas_drop_option(&options, APM_OPT_LINK_ERROR);
        if (!apm_canvas_put(arena, &options, &chord) ||
            !apm_canvas_set_text(arena, &group.options, APM_OPT_TASK_ID, gid))
            return no_memory(err);
        if (how->chords == APM_CHORDS_POLLED)
            st = send_unlock(how, body, header, &options, err);
        if (st == APIUM_OK)
            st = apply_group(how, &group, partial, &options, true, &header, err);
    }
    if (st != APIUM_OK)
        return st;
    body_handle->parent = header; /* as in Celery also where the body is a chain */
    *out = body_handle;
    return APIUM_OK;
}

/* ---- all of them ---- */

static apium_status
apply(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over, bool header,
      apm_handle **out, apium_error *err)
{
    switch (sig->kind) {
    case APM_SIG_CHAIN:
        return apply_chain(how, sig, args, over, out, err);
    case APM_SIG_GROUP: {
        const apm_option *rest = over ? apm_canvas_opt(over, APM_OPT_CHAIN) : NULL;
        if (!rest)
            rest = apm_canvas_opt(&sig->options, APM_OPT_CHAIN);
        if (!header && rest && !rest->sig &&
            apm_json_count((apm_json){ APM_JSON_ARRAY, rest->raw }))
            return apply_group_with_rest(how, sig, args, over, rest->raw, out, err);
        return apply_group(how, sig, args, over, header, out, err);
    }
    case APM_SIG_CHORD:
        return apply_chord(how, sig, args, over, out, err);
    default:
        return apm_apply_task(how, sig, args, over, out, err);
    }
}

apium_status
apm_canvas_apply(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *options,
                 apm_handle **out, apium_error *err)
{
    apm_handle *handle = NULL;
    apium_error mine;
    apium_status st = apply(how, sig, args, options, false, &handle, err ? err : &mine);
    if (st == APIUM_OK && out)
        *out = handle;
    return st;
}

apium_status
apm_canvas_chunks(apm_arena *arena, apm_str task, apm_json it, int64_t n, apm_canvas **out,
                  apium_error *err)
{
    if (n < 1)
        return apm_fail(err, APIUM_E_INVALID, "cannot make chunks of %lld items", (long long)n);
    size_t count = apm_json_count(it), groups = (count + (size_t)n - 1) / (size_t)n;
    apm_canvas *group = apm_canvas_new(arena, APM_SIG_GROUP, "celery.group");
    if (!group || !(group->tasks = apm_arena_alloc(arena, (groups + 1) * sizeof(apm_canvas *))))
        return no_memory(err);
    apm_json_iter at;
    apm_str key;
    apm_json val;
    apm_buf buf;
    int more = 0;
    apium_status st = apm_json_open(&at, it.text, err);
    if (st != APIUM_OK)
        return st;
    apm_buf_init(&buf, APM_BUF_MAX);
    do {
        apm_buf_reset(&buf);
        apm_buf_addz(&buf, "{\"task\": ");
        apm_buf_adds(&buf, task);
        apm_buf_addz(&buf, ", \"it\": [");
        int64_t in = 0;
        while (in < n && (more = apm_json_next(&at, &key, &val, err)) > 0) {
            apm_buf_addz(&buf, in++ ? ", " : "");
            apm_buf_adds(&buf, val.text);
        }
        apm_buf_addz(&buf, "]}");
        if (!in)
            break;
        apm_canvas *part = apm_canvas_new(arena, APM_SIG_TASK, "celery.starmap");
        if (!part || buf.failed ||
            !apm_str_is(part->kwargs = apm_arena_str(arena, apm_buf_str(&buf), NULL))) {
            apm_buf_clear(&buf);
            return no_memory(err);
        }
        part->immutable = true;
        group->tasks[group->n_tasks++] = part;
    } while (more > 0);
    apm_buf_clear(&buf);
    if (more < 0)
        return APIUM_E_DECODE;
    *out = group;
    return APIUM_OK;
}
