/* links.c - the signatures that follow a task, sent; and what the files about following share; see follow_inner.h */
#include "workflows/follow_inner.h"

#include "core/base/error.h"

apium_status
apm_follow_no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot go on after the task: out of memory");
}

/* Call fn for each item of a raw JSON array. */
apium_status
apm_each_item(apm_str list, apm_each_fn *fn, void *arg, apium_error *err)
{
    if (!apm_str_is(list))
        return APIUM_OK;
    apm_json_iter it;
    apium_status st = apm_json_open(&it, list, err);
    apm_str key;
    apm_json val;
    int more = 0;
    for (size_t i = 0; st == APIUM_OK && (more = apm_json_next(&it, &key, &val, err)) > 0; i++)
        st = fn(arg, val, i);
    return st != APIUM_OK ? st : more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

size_t
apm_count_items(apm_str list)
{
    return apm_str_is(list) ? apm_json_count((apm_json){ APM_JSON_ARRAY, list }) : 0;
}

apm_str
apm_array_of_one(apm_str item, apm_arena *arena)
{
    char *p = apm_arena_bytes(arena, item.len + 2);
    if (!p)
        return APM_STR_NONE;
    p[0] = '[';
    memcpy(p + 1, item.p, item.len);
    p[item.len + 1] = ']';
    return (apm_str){ p, item.len + 2 };
}

apm_str
apm_array_of_text(apm_str text, apm_arena *arena)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    apm_json_add_string(&buf, text);
    apm_buf_addc(&buf, ']');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

/* What the worker passes beside the arguments: who it comes from; the priority is not inherited. */
apium_status
apm_origin_options(const apm_sending *how, apm_options *options, apium_error *err)
{
    apm_arena *arena = how->arena;
    *options = (apm_options){ 0 };
    return apm_canvas_set_text(arena, options, APM_OPT_ROOT_ID, how->root_id) &&
                   apm_canvas_set_text(arena, options, APM_OPT_PARENT_ID, how->parent_id)
               ? APIUM_OK
               : apm_follow_no_memory(err);
}

struct links {
    apm_sending *how;
    apm_str partial;
    const apm_options *options;
    apm_canvas *together; /* all that are no groups, when there are several */
    apium_error *err;
};

static apium_status
send_link(void *arg, apm_json text, size_t index)
{
    (void)index;
    struct links *links = arg;
    apm_canvas *sig;
    apium_status st = apm_canvas_read(text, links->how->arena, &sig, links->err);
    if (st != APIUM_OK)
        return st;
    if (links->together && sig->kind != APM_SIG_GROUP) {
        links->together->tasks[links->together->n_tasks++] = sig;
        return APIUM_OK;
    }
    return apm_canvas_apply(links->how, sig, links->partial, links->options, NULL, links->err);
}

/* One link is sent by itself; of several, groups by themselves and all others as one new group. */
apium_status
apm_send_links(apm_sending *how, apm_str list, apm_str partial, const apm_options *options,
               bool always_group, apium_error *err)
{
    size_t n = apm_count_items(list);
    struct links links = { how, partial, options, NULL, err };
    if (!n)
        return APIUM_OK;
    if (n > 1 || always_group) {
        links.together = apm_canvas_new(how->arena, APM_SIG_GROUP, "celery.group");
        if (!links.together ||
            !(links.together->tasks = apm_arena_alloc(how->arena, n * sizeof(apm_canvas *))))
            return apm_follow_no_memory(err);
    }
    apium_status st = apm_each_item(list, send_link, &links, err);
    if (st == APIUM_OK && links.together && links.together->n_tasks)
        st = apm_canvas_apply(how, links.together, partial, options, NULL, err);
    return st;
}
