/* apply_task.c - one task of a workflow, sent: options laid over options, stamps, and the result that there will be; see canvas_inner.h */
#include "workflows/canvas_inner.h"

#include "core/base/error.h"

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot send a workflow: out of memory");
}

static void
write_handle(apm_buf *buf, const apm_handle *handle, int depth)
{
    apm_buf_addz(buf, "[[");
    apm_json_add_string(buf, handle->id);
    apm_buf_addz(buf, ", ");
    if (handle->parent && depth < APM_JSON_DEPTH / 4)
        write_handle(buf, handle->parent, depth + 1);
    else
        apm_buf_addz(buf, "null");
    apm_buf_addz(buf, "], ");
    if (!handle->is_group) {
        apm_buf_addz(buf, "null]");
        return;
    }
    apm_buf_addc(buf, '[');
    for (size_t i = 0; i < handle->n_members; i++) {
        if (i)
            apm_buf_addz(buf, ", ");
        write_handle(buf, handle->members[i], depth + 1);
    }
    apm_buf_addz(buf, "]]");
}

void
apm_handle_write(apm_buf *buf, const apm_handle *handle)
{
    write_handle(buf, handle, 0);
}

void
apm_add_child(apm_sending *how, const apm_handle *handle)
{
    if (!how->children)
        return;
    if (how->children->len)
        apm_buf_addz(how->children, ", ");
    apm_handle_write(how->children, handle);
}

bool
apm_option_is_false(const apm_options *options, apm_opt which)
{
    const apm_option *o = apm_canvas_opt(options, which);
    return o && apm_str_eqz(o->raw, "false");
}

/* dict(base, **over) */
bool
apm_options_update(apm_arena *arena, apm_options *base, const apm_options *over, bool nulls)
{
    for (size_t i = 0; over && i < over->n; i++) {
        const apm_option *o = &over->items[i];
        if (!nulls && !o->sig && apm_str_eqz(o->raw, "null"))
            continue;
        if (!apm_canvas_put(arena, base, o))
            return false;
    }
    return true;
}

/* Signature._merge: a group_id that is there stays, as do stamps. */
bool
apm_options_merge(apm_arena *arena, apm_options *base, const apm_options *over, bool nulls)
{
    const apm_option *group = apm_canvas_opt(base, APM_OPT_GROUP_ID);
    const apm_option *stamped = apm_canvas_opt(base, APM_OPT_STAMPED_HEADERS);
    apm_option kept = group ? *group : (apm_option){ 0 },
               kept_stamps = stamped ? *stamped : (apm_option){ 0 };
    return apm_options_update(arena, base, over, nulls) &&
           (!group || apm_canvas_put(arena, base, &kept)) &&
           (!stamped || apm_canvas_put(arena, base, &kept_stamps));
}

static apm_str
written(apm_arena *arena, const apm_canvas *sig)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_canvas_write(&buf, sig);
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

/* Stamps are options of their own names, listed in stamped_headers; they travel as two headers. */
static apium_status
add_stamps(apm_arena *arena, const apm_options *options, apm_sig_send *send, apium_error *err)
{
    const apm_option *names = apm_canvas_opt(options, APM_OPT_STAMPED_HEADERS);
    if (!names || !names->raw.len || names->raw.p[0] != '[')
        return APIUM_OK;
    apm_buf buf;
    apm_json_iter it;
    apm_str key;
    apm_json val;
    bool first = true;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addz(&buf, "{\"stamped_headers\": ");
    apm_buf_adds(&buf, names->raw);
    apm_buf_addz(&buf, ", \"stamps\": {");
    if (apm_json_open(&it, names->raw, NULL) == APIUM_OK) {
        while (apm_json_next(&it, &key, &val, NULL) > 0) {
            for (size_t i = 0; i < options->n; i++) {
                const apm_option *o = &options->items[i];
                if (o->sig || !apm_str_eq(o->key, val.text))
                    continue;
                apm_buf_addz(&buf, first ? "" : ", ");
                apm_buf_adds(&buf, o->key);
                apm_buf_addz(&buf, ": ");
                apm_buf_adds(&buf, o->raw);
                first = false;
            }
        }
    }
    apm_buf_addc(&buf, '}');
    apm_json given = { APM_JSON_OBJECT, send->headers };
    if (apm_str_is(send->headers) && apm_json_count(given)) {
        apm_buf_addz(&buf, ", ");
        apm_buf_add(&buf, send->headers.p + 1, send->headers.len - 1);
    } else {
        apm_buf_addc(&buf, '}');
    }
    send->headers = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return apm_str_is(send->headers) ? APIUM_OK : no_memory(err);
}

/* Its options as JSON, without what is too big to be copied for every part of a header. */
static apm_str
small_options(apm_arena *arena, const apm_options *options)
{
    apm_buf buf;
    bool first = true;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '{');
    for (size_t i = 0; i < options->n; i++) {
        const apm_option *o = &options->items[i];
        if (o->sig || o->which == APM_OPT_CHORD || o->which == APM_OPT_CHAIN)
            continue;
        apm_buf_addz(&buf, first ? "" : ", ");
        apm_buf_adds(&buf, o->key);
        apm_buf_addz(&buf, ": ");
        apm_buf_adds(&buf, o->raw);
        first = false;
    }
    apm_buf_addc(&buf, '}');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

apium_status
apm_apply_task(apm_sending *how, apm_canvas *sig, apm_str args, const apm_options *over,
               apm_handle **out, apium_error *err)
{
    apm_arena *arena = how->arena;
    apm_options options;
    if (!apm_canvas_copy_options(arena, &options, &sig->options) ||
        !apm_options_merge(arena, &options, over, false))
        return no_memory(err);
    apm_signature plain = {
        .kind = APM_SIG_TASK,
        .task = sig->task,
        .args = { apm_str_is(sig->args) ? APM_JSON_ARRAY : APM_JSON_NONE, sig->args },
        .kwargs = { apm_str_is(sig->kwargs) ? APM_JSON_OBJECT : APM_JSON_NONE, sig->kwargs },
        .options = { APM_JSON_OBJECT, small_options(arena, &options) },
        .immutable = sig->immutable,
    };
    if (!apm_str_is(plain.options.text))
        return no_memory(err);
    apm_sig_send send;
    apium_status st = apm_signature_request(&plain, args, how->now_us, arena, &send, err);
    if (st == APIUM_OK)
        st = add_stamps(arena, &options, &send, err);
    if (st != APIUM_OK)
        return st;
    const apm_option *chord = apm_canvas_opt(&options, APM_OPT_CHORD),
                     *chain = apm_canvas_opt(&options, APM_OPT_CHAIN);
    if (chord && chord->sig && !apm_str_is(chord->sig->json)) {
        /* Once for the whole header. */
        chord->sig->json = written(arena, chord->sig);
        if (!apm_str_is(chord->sig->json))
            return no_memory(err);
    }
    send.req.chord = !chord ? APM_STR_NONE : chord->sig ? chord->sig->json : chord->raw;
    send.req.chain = chain ? chain->raw : APM_STR_NONE;
    if (!apm_str_is(send.req.root_id))
        send.req.root_id = apm_str_is(how->root_id) ? how->root_id : send.req.id;
    if (!apm_str_is(send.req.parent_id))
        send.req.parent_id = how->parent_id;
    if (!apm_str_is(send.req.reply_to))
        send.req.reply_to = how->reply_to;
    apm_handle *handle = apm_arena_alloc(arena, sizeof(*handle));
    if (!handle)
        return no_memory(err);
    handle->id = send.req.id;
    *out = handle;
    const apm_canvas_op op = { .kind = APM_CANVAS_SEND, .send = &send };
    if ((st = how->emit(how->arg, &op, err)) != APIUM_OK)
        return st;
    if (!apm_option_is_false(&options, APM_OPT_ADD_TO_PARENT))
        apm_add_child(how, handle);
    return APIUM_OK;
}

int64_t
apm_canvas_size(const apm_canvas *sig)
{
    int64_t size = 0;
    switch (sig->kind) {
    case APM_SIG_GROUP:
        for (size_t i = 0; i < sig->n_tasks; i++)
            size += apm_canvas_size(sig->tasks[i]);
        return size;
    case APM_SIG_CHAIN:
        for (size_t i = sig->n_tasks; i > 0 && size == 0; i--)
            size = apm_canvas_size(sig->tasks[i - 1]);
        return size;
    case APM_SIG_CHORD:
        return apm_canvas_size(sig->body);
    default:
        return 1;
    }
}
