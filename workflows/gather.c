/*
 * gather.c - the results of a complete header, gathered as its parts come; see follow.h. Their text is appended to one buffer, which
 * becomes the body's arguments: a header of many small results is never in memory as parts.
 */
#include "workflows/gather.h"

#include <stdlib.h>

#include "core/base/error.h"
#include "workflows/canvas_inner.h"

struct apm_gathered_part {
    size_t id, id_len;     /* in ids */
    size_t result, length; /* in list */
};

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM,
                    "cannot gather the results of a chord's header: out of memory");
}

static apium_status
too_big(apium_error *err)
{
    return apm_fail(err, APIUM_E_TOOBIG, "the results of a chord's header are too big together");
}

apium_status
apm_gather_read(apm_str text, apm_part_read *out, apium_error *err)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;
    size_t i = 0;
    int more = 0;
    *out = (apm_part_read){ 0 };
    apium_status st = apm_json_open(&it, text, err);
    for (; st == APIUM_OK && (more = apm_json_next(&it, &key, &val, err)) > 0; i++) {
        if (i == 1)
            out->task_id = val.text;
        else if (i == 2)
            out->state = val.text;
        else if (i == 3)
            out->result = val.text;
    }
    if (st == APIUM_OK && (more < 0 || i < 4))
        return apm_fail(err, APIUM_E_DECODE, "a part of the chord is no [1, id, state, result]");
    out->failed = apm_str_eqz(out->state, "\"FAILURE\"") || apm_str_eqz(out->state, "\"REVOKED\"");
    return st;
}

apium_status
apm_gather_init(apm_gathered *all, apm_arena *arena, apm_str tree, apium_error *err)
{
    bool ok = true;
    *all = (apm_gathered){ .arena = arena };
    apm_buf_init(&all->list, APM_BUF_MAX);
    apm_buf_init(&all->ids, APM_BUF_MAX);
    apm_buf_addz(&all->list, "[[");
    all->tree = apm_arena_str(arena, tree, &ok);
    return ok ? APIUM_OK : no_memory(err);
}

void
apm_gather_clear(apm_gathered *all)
{
    apm_buf_clear(&all->list);
    apm_buf_clear(&all->ids);
    free(all->parts);
    *all = (apm_gathered){ 0 };
}

static bool
note_place(apm_gathered *all, const apm_part_read *part)
{
    if (all->n == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 64;
        struct apm_gathered_part *parts = realloc(all->parts, cap * sizeof(*parts));
        if (!parts)
            return false;
        all->parts = parts;
        all->cap = cap;
    }
    all->parts[all->n] = (struct apm_gathered_part){ all->ids.len, part->task_id.len, all->list.len,
                                                     part->result.len };
    apm_buf_adds(&all->ids, part->task_id);
    return !all->ids.failed;
}

apium_status
apm_gather_add(apm_gathered *all, const apm_str *members, size_t n, apium_error *err)
{
    for (size_t i = 0; i < n; i++) {
        apm_part_read part;
        bool ok = true;
        apium_status st = apm_gather_read(members[i], &part, err);
        if (st != APIUM_OK)
            return st;
        if (part.failed && !apm_str_is(all->failed)) {
            all->failed = apm_arena_str(all->arena, members[i], &ok);
            apm_buf_clear(&all->list);
        }
        if (!ok)
            return no_memory(err);
        if (apm_str_is(all->failed))
            continue; /* no result is wanted any more */
        if (all->n)
            apm_buf_addz(&all->list, ", ");
        if (apm_str_is(all->tree) && !note_place(all, &part))
            return no_memory(err);
        apm_buf_adds(&all->list, part.result);
        all->n++;
    }
    return all->list.failed ? too_big(err) : APIUM_OK;
}

/* ---- the stored tree, [[id, parent], null | [member...]], with each task's result in the place of its tuple ---- */

struct weave {
    const apm_gathered *all;
    const size_t *sorted;
    apm_buf *out;
    size_t woven;
};

static apm_str
id_of(const apm_gathered *all, size_t i)
{
    return (apm_str){ all->ids.p + all->parts[i].id, all->parts[i].id_len };
}

static int
compare(apm_str x, apm_str y)
{
    int order = memcmp(x.p, y.p, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

static int
compare_ids(const void *a, const void *b, void *all)
{
    return compare(id_of(all, *(const size_t *)a), id_of(all, *(const size_t *)b));
}

static bool
weave_task(struct weave *w, apm_str id)
{
    size_t from = 0, to = w->all->n;
    while (from < to) {
        size_t middle = from + (to - from) / 2, i = w->sorted[middle];
        int order = compare(id, id_of(w->all, i));
        if (order == 0) {
            apm_buf_add(w->out, w->all->list.p + w->all->parts[i].result, w->all->parts[i].length);
            w->woven++;
            return true;
        }
        if (order < 0)
            to = middle;
        else
            from = middle + 1;
    }
    return false;
}

static bool
weave(struct weave *w, apm_json tuple, int depth)
{
    apm_json head = apm_json_at(tuple, 0), nodes = apm_json_at(tuple, 1);
    apm_json id = head.type == APM_JSON_ARRAY ? apm_json_at(head, 0) : head;
    if (depth > APM_CANVAS_DEPTH)
        return false;
    if (nodes.type != APM_JSON_ARRAY)
        return id.type == APM_JSON_STRING && weave_task(w, id.text);
    apm_json_iter it;
    apm_str key;
    apm_json val;
    bool first = true;
    apm_buf_addc(w->out, '[');
    if (apm_json_open(&it, nodes.text, NULL) != APIUM_OK)
        return false;
    while (apm_json_next(&it, &key, &val, NULL) > 0) {
        if (!first)
            apm_buf_addz(w->out, ", ");
        first = false;
        if (!weave(w, val, depth + 1))
            return false;
    }
    apm_buf_addc(w->out, ']');
    return true;
}

static bool
weave_tree(const apm_gathered *all, apm_buf *out)
{
    apm_json object;
    if (apm_json_parse(all->tree, &object, NULL) != APIUM_OK)
        return false;
    apm_json tuple = apm_json_get(object, "result");
    size_t *sorted = tuple.type == APM_JSON_ARRAY ? malloc((all->n + 1) * sizeof(*sorted)) : NULL;
    if (!sorted)
        return false;
    for (size_t i = 0; i < all->n; i++)
        sorted[i] = i;
    qsort_r(sorted, all->n, sizeof(*sorted), compare_ids, (void *)(uintptr_t)all);
    struct weave w = { all, sorted, out, 0 };
    /* A part that joined the header after the tree was saved is not in it: no result is left out for that. */
    bool ok = weave(&w, tuple, 0) && w.woven == all->n;
    free(sorted);
    return ok;
}

apium_status
apm_gather_args(apm_gathered *all, apm_buf *args, apium_error *err)
{
    apm_buf_init(args, APM_BUF_MAX);
    if (apm_str_is(all->tree)) {
        apm_buf_addc(args, '[');
        if (weave_tree(all, args)) {
            apm_buf_addc(args, ']');
            return args->failed ? too_big(err) : APIUM_OK;
        }
        apm_buf_clear(args);
    }
    apm_buf_addz(&all->list, "]]");
    *args = all->list;
    all->list = (apm_buf){ 0 };
    return args->failed ? too_big(err) : APIUM_OK;
}
