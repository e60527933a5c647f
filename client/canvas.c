/* canvas.c - composing workflows, copying and stamping them; see apium/canvas.h. */
#include <apium/canvas.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/sig.h"

/* --- parts --- */

static void
no_memory(apium_sig *sig)
{
    apm_sig_break(sig, APIUM_E_NOMEM, "out of memory");
}

/* Put `part` and what is in it among the parts of `whole`, so many levels below it. False: it cannot be one, and stays whose it is. */
static bool
take_over(apium_sig *whole, apium_sig *part, int levels, const char *what)
{
    if (!part) {
        apm_sig_break(whole, APIUM_E_NOMEM, "%s is missing", what);
        return false;
    }
    if (part->owner) {
        apm_sig_break(whole, APIUM_E_INVALID, "%s is a part of %s workflow already", what,
                      part->owner == whole ? "this" : "another");
        return false;
    }
    if (part->depth + levels > APM_CANVAS_DEPTH)
        apm_sig_break(whole, APIUM_E_TOOBIG, "it is nested deeper than %d", APM_CANVAS_DEPTH);
    if (part->depth + levels > whole->depth)
        whole->depth = part->depth + levels;
    apium_sig *last = part;
    part->next = part->parts;
    part->parts = NULL;
    for (;; last = last->next) {
        last->owner = whole;
        if (!last->next)
            break;
    }
    last->next = whole->parts;
    whole->parts = part;
    return true;
}

static apium_sig *
composite(apm_sig_kind kind, size_t n, apium_sig *const *parts)
{
    apium_sig *sig = apm_sig_new(kind, kind == APM_SIG_CHAIN ? "celery.chain" : "celery.group");
    apm_canvas **tasks = sig ? apm_arena_alloc(&sig->arena, (n + 1) * sizeof(*tasks)) : NULL;
    char what[32];
    if (sig && !tasks)
        no_memory(sig);
    for (size_t i = 0; i < n; i++) {
        if (!sig) { /* its parts are used up all the same */
            apium_sig_free(parts[i]);
            continue;
        }
        snprintf(what, sizeof(what), "part %zu", i + 1);
        if (take_over(sig, parts[i], 1, what) && tasks)
            tasks[sig->tree->n_tasks++] = parts[i]->tree;
    }
    if (sig)
        sig->tree->tasks = tasks;
    if (sig && kind == APM_SIG_CHAIN && !n)
        apm_sig_break(sig, APIUM_E_INVALID, "it has no steps");
    return sig;
}

apium_sig *
apium_chain_of(size_t n, apium_sig *const *parts)
{
    return composite(APM_SIG_CHAIN, n, parts);
}

apium_sig *
apium_group_of(size_t n, apium_sig *const *parts)
{
    return composite(APM_SIG_GROUP, n, parts);
}

static apium_sig *
listed(apm_sig_kind kind, apium_sig *first, va_list ap)
{
    va_list count;
    size_t n = 1;
    if (!first) /* there was no memory for it */
        return NULL;
    va_copy(count, ap);
    while (va_arg(count, apium_sig *))
        n++;
    va_end(count);
    apium_sig **parts = calloc(n, sizeof(apium_sig *));
    for (size_t i = 0; i < n; i++) {
        apium_sig *part = i ? va_arg(ap, apium_sig *) : first;
        if (parts)
            parts[i] = part;
        else
            apium_sig_free(part);
    }
    apium_sig *sig = parts ? composite(kind, n, parts) : NULL;
    free(parts);
    return sig;
}

apium_sig *
apium_chain(apium_sig *first, ...)
{
    va_list ap;
    va_start(ap, first);
    apium_sig *sig = listed(APM_SIG_CHAIN, first, ap);
    va_end(ap);
    return sig;
}

apium_sig *
apium_group(apium_sig *first, ...)
{
    va_list ap;
    va_start(ap, first);
    apium_sig *sig = listed(APM_SIG_GROUP, first, ap);
    va_end(ap);
    return sig;
}

/* --- chords --- */

/* The members of a group are the header; its id is the chord's, its other options are theirs. */
static bool
take_header(apium_sig *sig, apm_canvas *group)
{
    apm_canvas *chord = sig->tree;
    chord->tasks = group->tasks;
    chord->n_tasks = group->n_tasks;
    for (size_t i = 0; i < group->options.n; i++) {
        const apm_option *o = &group->options.items[i];
        if (o->which == APM_OPT_TASK_ID) {
            if (!apm_canvas_set(&sig->arena, &chord->options, o->which, o->raw))
                return false;
            continue;
        }
        apm_str key = { o->key.p + 1, o->key.len - 2 };
        const char *name = apm_arena_str(&sig->arena, key, NULL).p;
        for (size_t t = 0; t < group->n_tasks; t++)
            if (!name ||
                !apm_canvas_set_named(&sig->arena, &group->tasks[t]->options, name, o->raw))
                return false;
    }
    return true;
}

apium_sig *
apium_chord(apium_sig *header, apium_sig *body)
{
    apium_sig *sig = header && body ? apm_sig_new(APM_SIG_CHORD, "celery.chord") : NULL;
    if (!sig) {
        apium_sig_free(header);
        if (body != header)
            apium_sig_free(body);
        return NULL;
    }
    bool ok = true;
    /* a group that is the header dissolves in the chord */
    if (take_over(sig, header, header->tree->kind == APM_SIG_GROUP ? 0 : 1, "its header")) {
        if (header->tree->kind == APM_SIG_GROUP) {
            ok = take_header(sig, header->tree);
        } else if ((ok = (sig->tree->tasks = apm_arena_alloc(&sig->arena, sizeof(apm_canvas *))) !=
                         NULL)) {
            sig->tree->tasks[sig->tree->n_tasks++] = header->tree;
        }
    }
    if (take_over(sig, body, 1, "its body"))
        sig->tree->body = body->tree;
    if (!ok)
        no_memory(sig);
    return sig;
}

/* --- map, starmap, chunks --- */

static apium_sig *
mapped(const char *name, apium_sig *task, apium_value items, const char *more)
{
    apium_sig *sig = task ? apm_sig_new(APM_SIG_TASK, name) : NULL;
    if (!sig) {
        apium_value_free(items);
        apium_sig_free(task);
        return NULL;
    }
    sig->tree->immutable = true;
    apm_json it = apm_sig_value(sig, items, "items");
    if (sig->broken.status == APIUM_OK && it.type != APM_JSON_ARRAY)
        apm_sig_break(sig, APIUM_E_INVALID, "its items are no JSON array");
    if (task->tree->kind != APM_SIG_TASK)
        apm_sig_break(sig, APIUM_E_INVALID, "it takes a single task, not a %s",
                      apium_sig_kind(task));
    apm_str json = apm_sig_absorb(sig, task, "its task");
    if (sig->broken.status != APIUM_OK)
        return sig;
    const char *kwargs = apm_arena_printf(&sig->arena, "{\"task\": %.*s, \"it\": %.*s%s}",
                                          APM_STR_ARG(json), APM_STR_ARG(it.text), more);
    if (!kwargs)
        no_memory(sig);
    sig->tree->kwargs = apm_strz(kwargs);
    return sig;
}

apium_sig *
apium_map(apium_sig *task, apium_value items)
{
    return mapped("celery.map", task, items, "");
}

apium_sig *
apium_starmap(apium_sig *task, apium_value items)
{
    return mapped("celery.starmap", task, items, "");
}

apium_sig *
apium_chunks(apium_sig *task, apium_value items, size_t n)
{
    char more[40];
    snprintf(more, sizeof(more), ", \"n\": %zu", n);
    apium_sig *sig = mapped("celery.chunks", task, items, more);
    if (sig && !n)
        apm_sig_break(sig, APIUM_E_INVALID, "no items are in a chunk");
    return sig;
}

/* --- copies --- */

/* An object laid over the kwargs: members of both keep the new value. */
static bool
lay_kwargs(apium_sig *sig, apm_str over)
{
    apm_json base = { APM_JSON_OBJECT, sig->tree->kwargs };
    if (!apm_str_is(sig->tree->kwargs) || !apm_json_count(base)) {
        sig->tree->kwargs = over;
        return true;
    }
    if (!apm_json_count((apm_json){ APM_JSON_OBJECT, over }))
        return true;
    apm_buf buf;
    apm_json_iter it, new;
    apm_str key, new_key;
    apm_json val, new_val;
    apm_buf_init(&buf, APM_BUF_MAX);
    if (apm_json_open(&it, base.text, NULL) != APIUM_OK)
        return false;
    while (apm_json_next(&it, &key, &val, NULL) > 0) {
        bool replaced = false;
        if (apm_json_open(&new, over, NULL) != APIUM_OK)
            return false;
        while (!replaced && apm_json_next(&new, &new_key, &new_val, NULL) > 0)
            replaced = apm_str_eq(new_key, key);
        if (replaced)
            continue;
        apm_buf_addz(&buf, buf.len ? ", " : "{");
        apm_buf_adds(&buf, key);
        apm_buf_addz(&buf, ": ");
        apm_buf_adds(&buf, val.text);
    }
    apm_buf_addz(&buf, buf.len ? ", " : "{");
    apm_buf_add(&buf, over.p + 1, over.len - 1);
    apm_str text = buf.failed ? APM_STR_NONE : apm_arena_str(&sig->arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    if (apm_str_is(text))
        sig->tree->kwargs = text;
    return apm_str_is(text);
}

static void
lay_arguments(apium_sig *sig, apm_json partial)
{
    bool ok = true;
    if (sig->broken.status != APIUM_OK || sig->tree->immutable)
        return;
    if (partial.type == APM_JSON_ARRAY)
        ok = apm_canvas_prepend(&sig->arena, sig->tree, partial.text);
    else if (partial.type != APM_JSON_OBJECT)
        apm_sig_break(sig, APIUM_E_INVALID,
                      "its partial arguments: a JSON array or object is "
                      "expected");
    else if (sig->tree->kind != APM_SIG_TASK)
        apm_sig_break(sig, APIUM_E_INVALID,
                      "its partial arguments: only a task has those with names");
    else
        ok = lay_kwargs(sig, partial.text);
    if (!ok)
        no_memory(sig);
}

/* A copy, by way of its JSON. */
static apium_sig *
copy(const apium_sig *sig)
{
    apium_error err;
    apm_json json;
    apm_buf buf;
    apium_sig *fresh = apm_sig_new(APM_SIG_TASK, NULL);
    if (!fresh)
        return NULL;
    if (apm_sig_ok(sig, &fresh->broken) != APIUM_OK)
        return fresh;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_canvas_write(&buf, sig->tree);
    apm_str text =
        buf.failed ? APM_STR_NONE : apm_arena_str(&fresh->arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    if (!apm_str_is(text))
        no_memory(fresh);
    else if (apm_json_parse(text, &json, &err) != APIUM_OK ||
             apm_canvas_read(json, &fresh->arena, &fresh->tree, &err) != APIUM_OK)
        apm_sig_break(fresh, err.status, "cannot copy it: %s", err.text);
    fresh->depth = sig->depth;
    return fresh;
}

apium_sig *
apium_sig_clone(const apium_sig *sig, const char *fmt, ...)
{
    apium_sig *fresh = sig ? copy(sig) : NULL;
    if (!fresh || !fmt)
        return fresh;
    va_list ap;
    va_start(ap, fmt);
    lay_arguments(fresh, apm_sig_value(fresh, apium_jsonv(fmt, ap), "partial arguments"));
    va_end(ap);
    return fresh;
}

/* --- stamps --- */

struct stamp {
    apm_arena *arena;
    const char *name;
    apm_str quoted, value;
};

static bool stamp(const struct stamp *s, apm_canvas *tree);

static bool
add_name(const struct stamp *s, apm_options *options)
{
    const apm_option *names = apm_canvas_opt(options, APM_OPT_STAMPED_HEADERS);
    apm_json list = { APM_JSON_ARRAY, names ? names->raw : APM_STR("[]") };
    apm_json_iter it;
    apm_str key;
    apm_json val;
    if (list.text.p[0] != '[' || apm_json_open(&it, list.text, NULL) != APIUM_OK)
        list.text = APM_STR("[]");
    else
        while (apm_json_next(&it, &key, &val, NULL) > 0)
            if (apm_str_eq(val.text, s->quoted))
                return true;
    const char *longer =
        apm_arena_printf(s->arena, "%.*s%s%.*s]", (int)list.text.len - 1, list.text.p,
                         apm_json_count(list) ? ", " : "", APM_STR_ARG(s->quoted));
    return apm_canvas_set(s->arena, options, APM_OPT_STAMPED_HEADERS, apm_strz(longer));
}

/* What is linked is stamped too: read, stamped, written. */
static bool
stamp_links(const struct stamp *s, apm_canvas *tree, apm_opt which)
{
    const apm_option *links = apm_canvas_opt(&tree->options, which);
    apm_json_iter it;
    apm_str key;
    apm_json val;
    apm_canvas *link;
    apm_buf buf;
    bool ok = true;
    if (!links || !links->raw.len)
        return true;
    apm_str list = links->raw;
    if (list.p[0] != '[')
        list = apm_strz(apm_arena_printf(s->arena, "[%.*s]", APM_STR_ARG(list)));
    if (!apm_str_is(list) || apm_json_open(&it, list, NULL) != APIUM_OK)
        return false;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    while (ok && apm_json_next(&it, &key, &val, NULL) > 0) {
        ok = apm_canvas_read(val, s->arena, &link, NULL) == APIUM_OK && stamp(s, link);
        apm_buf_addz(&buf, buf.len > 1 ? ", " : "");
        if (ok)
            apm_canvas_write(&buf, link);
    }
    apm_buf_addc(&buf, ']');
    ok = ok && !buf.failed &&
         apm_canvas_set(s->arena, &tree->options, which,
                        apm_arena_str(s->arena, apm_buf_str(&buf), NULL));
    apm_buf_clear(&buf);
    return ok;
}

static bool
stamp(const struct stamp *s, apm_canvas *tree)
{
    bool ok = stamp_links(s, tree, APM_OPT_LINK) && stamp_links(s, tree, APM_OPT_LINK_ERROR);
    for (size_t i = 0; ok && i < tree->n_tasks; i++)
        ok = stamp(s, tree->tasks[i]);
    if (ok && tree->kind == APM_SIG_TASK)
        ok = apm_canvas_set_named(s->arena, &tree->options, s->name, s->value) &&
             add_name(s, &tree->options);
    return ok;
}

apium_sig *
apium_sig_stamp(apium_sig *sig, const char *header, apium_value value)
{
    if (!sig) {
        apium_value_free(value);
        return NULL;
    }
    apm_json json = apm_sig_value(sig, value, "stamp");
    if (!header || !*header || !apm_utf8_valid(apm_strz(header), false))
        apm_sig_break(sig, APIUM_E_INVALID, "a stamp has no name");
    else if (apm_opts_known(header))
        apm_sig_break(sig, APIUM_E_INVALID, "a stamp cannot be named %s: that is an option",
                      header);
    if (sig->broken.status != APIUM_OK)
        return sig;
    apm_buf quoted;
    apm_buf_init(&quoted, APM_BUF_MAX);
    apm_json_add_stringz(&quoted, header);
    const struct stamp s = {
        .arena = &sig->arena,
        .name = apm_arena_str(&sig->arena, apm_strz(header), NULL).p,
        .quoted =
            quoted.failed ? APM_STR_NONE : apm_arena_str(&sig->arena, apm_buf_str(&quoted), NULL),
        .value = json.type == APM_JSON_NONE ? APM_STR("null") : json.text,
    };
    apm_buf_clear(&quoted);
    if (!s.name || !apm_str_is(s.quoted) || !stamp(&s, sig->tree))
        no_memory(sig);
    return sig;
}
