/* pieces.c - long chains in pieces; see pieces.h */
#include "workflows/pieces.h"

#include "core/base/error.h"
#include "workflows/canvas_inner.h"

static apium_status
no_memory(apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot send a chain: out of memory");
}

/* ---- cutting ---- */

/* The mark goes where the step goes that it stands before. */
static apium_status
write_mark(apm_arena *arena, apm_buf *buf, apm_str id, apm_str step, apm_str last, apium_error *err)
{
    static const char *const same[] = { "queue",    "exchange",   "routing_key",
                                        "priority", "link_error", "reply_to" };
    apm_canvas *mark = apm_canvas_new(arena, APM_SIG_TASK, APM_CHAIN_MARK), *first;
    apium_status st = apm_canvas_read((apm_json){ APM_JSON_OBJECT, step }, arena, &first, err);
    if (st != APIUM_OK)
        return st;
    bool ok = mark && apm_canvas_set_text(arena, &mark->options, APM_OPT_TASK_ID, id);
    for (size_t i = 0; ok && i < first->options.n; i++)
        for (size_t j = 0; ok && j < sizeof(same) / sizeof(same[0]); j++)
            if (apm_json_key_is(first->options.items[i].key, same[j]))
                ok = apm_canvas_put(arena, &mark->options, &first->options.items[i]);
    if (ok)
        mark->kwargs = apm_strz(apm_arena_printf(arena, "{\"last\": %.*s}", APM_STR_ARG(last)));
    if (!ok || !apm_str_is(mark->kwargs))
        return no_memory(err);
    apm_canvas_write(buf, mark);
    return APIUM_OK;
}

/* A chain to be cut: its steps, the last one first, and what its marks say that the last one is. */
struct chain {
    const apm_str *items;
    apm_str last;
};

/* Steps start to end, with a mark for all before them when id is present: [mark, item, item ...] */
static apium_status
write_list(apm_arena *arena, apm_buf *buf, const struct chain *chain, apm_str id, size_t start,
           size_t end, apium_error *err)
{
    apium_status st = APIUM_OK;
    apm_buf_addc(buf, '[');
    if (apm_str_is(id))
        st = write_mark(arena, buf, id, chain->items[start - 1], chain->last, err);
    for (size_t i = start; i < end; i++) {
        if (i > start || apm_str_is(id))
            apm_buf_addz(buf, ", ");
        apm_buf_adds(buf, chain->items[i]);
    }
    apm_buf_addc(buf, ']');
    return st;
}

static apm_str *
items_of(apm_arena *arena, apm_str list, size_t n)
{
    apm_str *items = apm_arena_alloc(arena, n * sizeof(*items)), key;
    apm_json_iter it;
    apm_json val;
    if (!items || apm_json_open(&it, list, NULL) != APIUM_OK)
        return NULL;
    for (size_t i = 0; i < n && apm_json_next(&it, &key, &val, NULL) > 0; i++)
        items[i] = val.text;
    return items;
}

static apium_status
keep(apm_sending *how, apm_str id, apm_str doc, apium_error *err)
{
    const apm_canvas_op op = { .kind = APM_CANVAS_KEEP, .group_id = id, .doc = doc };
    return how->emit(how->arg, &op, err);
}

apium_status
apm_pieces_cut(apm_sending *how, apm_str *rest, apium_error *err)
{
    apm_arena *arena = how->arena;
    size_t n = how->piece ? apm_json_count((apm_json){ APM_JSON_ARRAY, *rest }) : 0;
    if (n <= 2 * how->piece)
        return APIUM_OK;
    struct chain chain = { .items = items_of(arena, *rest, n) };
    size_t end = n - how->piece; /* of what is not written yet; what is near the end runs early */
    apm_str id = apm_new_id(arena);
    if (!chain.items || !apm_str_is(id))
        return no_memory(err);
    chain.last = apm_pieces_last((apm_json){ APM_JSON_OBJECT, chain.items[0] });
    if (!apm_str_is(chain.last))
        chain.last = chain.items[0];
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apium_status st = write_list(arena, &buf, &chain, id, end, n, err);
    if (st == APIUM_OK &&
        (buf.failed || !apm_str_is(*rest = apm_arena_str(arena, apm_buf_str(&buf), NULL))))
        st = no_memory(err);
    while (end && st == APIUM_OK) {
        size_t start = end > 2 * how->piece ? end - how->piece : 0;
        apm_str next = start ? apm_new_id(arena) : APM_STR_NONE;
        apm_buf_reset(&buf);
        apm_buf_addz(&buf, "{\"result\": ");
        st = write_list(arena, &buf, &chain, next, start, end, err);
        apm_buf_addc(&buf, '}');
        apm_str doc = apm_arena_str(arena, apm_buf_str(&buf), NULL);
        if (st == APIUM_OK)
            st = buf.failed || !apm_str_is(doc) ? no_memory(err) : keep(how, id, doc, err);
        end = start;
        id = next;
    }
    apm_buf_clear(&buf);
    return st;
}

/* ---- joining ---- */

/* The first item of a list, and what is behind it up to the bracket: ", item, item", or nothing. */
static apm_json
first_of(apm_str list, apm_str *behind)
{
    apm_json_iter it;
    apm_str key;
    apm_json first = { 0 };
    *behind = APM_STR("");
    if (apm_json_open(&it, list, NULL) != APIUM_OK || apm_json_next(&it, &key, &first, NULL) <= 0)
        return (apm_json){ 0 };
    const char *from = first.text.p + first.text.len, *end = list.p + list.len - 1;
    const char *comma = memchr(from, ',', (size_t)(end - from));
    if (comma)
        *behind = (apm_str){ comma, (size_t)(end - comma) };
    return first;
}

static bool
is_mark(apm_json sig)
{
    if (sig.type != APM_JSON_OBJECT || sig.text.p[0] != '{' ||
        !memmem(sig.text.p, sig.text.len, APM_CHAIN_MARK, sizeof(APM_CHAIN_MARK) - 1))
        return false;
    apm_json task = apm_json_get(sig, "task");
    return task.type == APM_JSON_STRING && apm_json_key_is(task.text, APM_CHAIN_MARK);
}

apm_str
apm_pieces_last(apm_json sig)
{
    apm_json last = { 0 };
    if (is_mark(sig))
        last = apm_json_get(apm_json_get(sig, "kwargs"), "last");
    return last.type == APM_JSON_OBJECT ? last.text : APM_STR_NONE;
}

apm_str
apm_pieces_mark(apm_arena *arena, apm_str rest, bool *alone)
{
    apm_str behind;
    const char *id;
    if (!apm_str_is(rest))
        return APM_STR_NONE;
    apm_json first = first_of(rest, &behind);
    *alone = !behind.len;
    if (!is_mark(first) ||
        apm_json_cstr(apm_json_get(apm_json_get(first, "options"), "task_id"), "task_id", arena,
                      &id, NULL) != APIUM_OK ||
        !*id)
        return APM_STR_NONE;
    return apm_strz(id);
}

apium_status
apm_pieces_read(apm_str doc, apm_arena *arena, apm_str *list, apium_error *err)
{
    apm_json object;
    apium_status st = apm_json_parse(doc, &object, err);
    if (st != APIUM_OK)
        return st;
    apm_json result = apm_json_get(object, "result");
    if (result.type != APM_JSON_ARRAY || apm_json_empty(result))
        return apm_fail(err, APIUM_E_DECODE, "it is no list of signatures");
    *list = apm_arena_str(arena, result.text, NULL);
    return apm_str_is(*list) ? APIUM_OK : no_memory(err);
}

apm_str
apm_pieces_join(apm_arena *arena, const apm_str *lists, size_t n)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_add(&buf, lists[n - 1].p, lists[n - 1].len - 1);
    for (size_t i = n - 1; i > 0; i--) {
        apm_str behind;
        (void)first_of(lists[i - 1], &behind);
        apm_buf_adds(&buf, behind);
    }
    apm_buf_addc(&buf, ']');
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}
