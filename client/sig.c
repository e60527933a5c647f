/* sig.c - signatures: made, changed, linked, read and written as Celery's JSON; see apium/send.h. */
#include "client/sig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/value.h"

/* --- making --- */

const char *
apm_sig_name(const apium_sig *sig, char *buf, size_t size)
{
    const apm_canvas *tree = sig->tree;
    if (!tree || (tree->kind == APM_SIG_TASK && !tree->task.len))
        snprintf(buf, size, "the signature of a task");
    else if (tree->kind == APM_SIG_TASK)
        snprintf(buf, size, "the signature of %.*s", APM_STR_ARG(tree->task));
    else
        snprintf(buf, size, "the %s", apium_sig_kind(sig));
    return buf;
}

void
apm_sig_break(apium_sig *sig, apium_status status, const char *fmt, ...)
{
    char name[128], why[sizeof(sig->broken.text)];
    va_list ap;
    if (sig->broken.status != APIUM_OK)
        return;
    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    apm_fail(&sig->broken, status, "%s: %s", apm_sig_name(sig, name, sizeof(name)), why);
}

static void
no_memory(apium_sig *sig)
{
    apm_sig_break(sig, APIUM_E_NOMEM, "out of memory");
}

apium_sig *
apm_sig_new(apm_sig_kind kind, const char *task)
{
    apium_sig *sig = calloc(1, sizeof(*sig));
    if (!sig)
        return NULL;
    apm_buf_init(&sig->json, APM_BUF_MAX);
    apm_str copy = apm_arena_str(&sig->arena, apm_strz(task ? task : ""), NULL);
    if (apm_str_is(copy))
        sig->tree = apm_canvas_new(&sig->arena, kind, copy.p);
    if (!sig->tree) {
        apium_sig_free(sig);
        return NULL;
    }
    return sig;
}

static void
free_one(apium_sig *sig)
{
    apm_arena_clear(&sig->arena);
    apm_buf_clear(&sig->json);
    free(sig);
}

void
apium_sig_free(apium_sig *sig)
{
    if (!sig || sig->owner)
        return;
    for (apium_sig *part = sig->parts, *next; part; part = next) {
        next = part->next;
        free_one(part);
    }
    free_one(sig);
}

apium_sig *
apm_sig_root(apium_sig *sig)
{
    return sig->owner ? sig->owner : sig;
}

apium_status
apm_sig_ok(const apium_sig *sig, apium_error *err)
{
    const apium_sig *wrong = sig->broken.status != APIUM_OK ? sig : NULL;
    for (const apium_sig *part = sig->parts; part && !wrong; part = part->next)
        wrong = part->broken.status != APIUM_OK ? part : NULL;
    if (wrong && err)
        *err = wrong->broken;
    return wrong ? wrong->broken.status : APIUM_OK;
}

apm_json
apm_sig_value(apium_sig *sig, apium_value value, const char *what)
{
    apium_error err;
    apm_json json;
    apium_status st = apm_value_take(value, &sig->arena, &json, &err);
    if (st == APIUM_OK)
        return json;
    apm_sig_break(sig, st, "its %s: %s", what, err.text);
    return (apm_json){ 0 };
}

void
apm_sig_arguments(apium_sig *sig, apium_value value, bool named)
{
    apm_json json = apm_sig_value(sig, value, "arguments");
    if (sig->broken.status != APIUM_OK)
        return;
    if (json.type == APM_JSON_OBJECT && sig->tree->kind == APM_SIG_TASK)
        sig->tree->kwargs = json.text;
    else if (json.type == APM_JSON_OBJECT)
        apm_sig_break(sig, APIUM_E_INVALID, "its arguments: only a task has those with names");
    else if (json.type == APM_JSON_ARRAY && !named)
        sig->tree->args = json.text;
    else
        apm_sig_break(sig, APIUM_E_INVALID, "its arguments: a JSON %s is expected",
                      named ? "object" : "array or object");
}

apium_sig *
apium_sig_new(const char *task, const char *fmt, ...)
{
    apium_sig *sig = apm_sig_new(APM_SIG_TASK, task);
    if (!sig)
        return NULL;
    if (!task || !*task)
        apm_sig_break(sig, APIUM_E_INVALID, "it has no task");
    else if (!apm_utf8_valid(apm_strz(task), false))
        apm_sig_break(sig, APIUM_E_INVALID, "its task's name is not UTF-8");
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        apm_sig_arguments(sig, apium_jsonv(fmt, ap), false);
        va_end(ap);
    }
    return sig;
}

const char *
apium_sig_kind(const apium_sig *sig)
{
    static const char *const names[] = {
        [APM_SIG_TASK] = "task",
        [APM_SIG_CHAIN] = "chain",
        [APM_SIG_GROUP] = "group",
        [APM_SIG_CHORD] = "chord",
    };
    return sig && sig->tree ? names[sig->tree->kind] : "task";
}

/* --- changing --- */

apium_sig *
apium_sig_kwargs(apium_sig *sig, const char *fmt, ...)
{
    if (!sig)
        return NULL;
    va_list ap;
    va_start(ap, fmt);
    apm_sig_arguments(sig, apium_jsonv(fmt, ap), true);
    va_end(ap);
    return sig;
}

/* Link a signature or an array of them, as JSON. */
static void
link_json(apium_sig *sig, const char *json, const char *what,
          bool (*link)(apm_arena *, apm_canvas *, apm_str))
{
    apium_error err;
    apm_json_iter it;
    apm_json item;
    apm_str key;
    apm_buf list;

    if (!json)
        return;
    apm_buf_init(&list, APM_BUF_MAX);
    apm_buf_addc(&list, '[');
    apium_status st = apm_sigs_add(&list, json, what, &err);
    apm_buf_addc(&list, ']');
    apm_str text =
        list.failed ? APM_STR_NONE : apm_arena_str(&sig->arena, apm_buf_str(&list), NULL);
    apm_buf_clear(&list);
    if (st != APIUM_OK) {
        apm_sig_break(sig, st, "%s", err.text);
        return;
    }
    bool ok = apm_str_is(text) && apm_json_open(&it, text, NULL) == APIUM_OK;
    while (ok && apm_json_next(&it, &key, &item, NULL) > 0)
        ok = link(&sig->arena, sig->tree, item.text);
    if (!ok)
        no_memory(sig);
}

apium_sig *
apium_sig_set(apium_sig *sig, const apium_send_opts *opts)
{
    apium_error err;
    if (!sig || !opts)
        return sig;
    apium_status st = apm_opts_write(&sig->arena, &sig->tree->options, opts, &err);
    if (st != APIUM_OK)
        apm_sig_break(sig, st, "%s", err.text);
    if (opts->kwargs)
        apm_sig_arguments(sig, apium_json(opts->kwargs), true);
    link_json(sig, opts->link, "link", apm_canvas_link);
    link_json(sig, opts->link_error, "link_error", apm_canvas_link_error);
    return sig;
}

apium_sig *
apium_sig_immutable(apium_sig *sig)
{
    if (sig)
        sig->tree->immutable = true;
    return sig;
}

apm_str
apm_sig_absorb(apium_sig *sig, apium_sig *part, const char *what)
{
    apium_error err;
    apm_str text = APM_STR_NONE;
    if (apm_sig_root(part) == apm_sig_root(sig)) {
        apm_sig_break(sig, APIUM_E_INVALID, "%s: it is a part of the same workflow already", what);
        return text; /* and stays that */
    }
    if (part->owner) {
        apm_sig_break(sig, APIUM_E_INVALID, "%s: it is a part of another workflow already", what);
        return text;
    }
    const char *json = apium_sig_json(part, &err);
    if (!json)
        apm_sig_break(sig, err.status, "%s: %s", what, err.text);
    else if (!apm_str_is(text = apm_arena_str(&sig->arena, apm_strz(json), NULL)))
        no_memory(sig);
    apium_sig_free(part);
    return text;
}

static apium_sig *
link_to(apium_sig *sig, apium_sig *next, const char *what,
        bool (*link)(apm_arena *, apm_canvas *, apm_str))
{
    if (!sig) {
        apium_sig_free(next);
        return NULL;
    }
    if (!next) {
        apm_sig_break(sig, APIUM_E_NOMEM, "%s is missing", what);
        return sig;
    }
    apm_str json = apm_sig_absorb(sig, next, what);
    if (apm_str_is(json) && !link(&sig->arena, sig->tree, json))
        no_memory(sig);
    return sig;
}

apium_sig *
apium_sig_link(apium_sig *sig, apium_sig *next)
{
    return link_to(sig, next, "link", apm_canvas_link);
}

apium_sig *
apium_sig_link_error(apium_sig *sig, apium_sig *next)
{
    return link_to(sig, next, "link_error", apm_canvas_link_error);
}

/* --- writing and reading --- */

const char *
apium_sig_json(apium_sig *sig, apium_error *err)
{
    char name[128];
    if (!sig) {
        apm_fail(err, APIUM_E_NOMEM, "cannot write a signature: out of memory");
        return NULL;
    }
    if (apm_sig_ok(sig, err) != APIUM_OK)
        return NULL;
    apm_buf_reset(&sig->json);
    apm_canvas_write(&sig->json, sig->tree);
    if (!sig->json.failed)
        return sig->json.p;
    apm_fail(err, APIUM_E_NOMEM, "%s: out of memory", apm_sig_name(sig, name, sizeof(name)));
    return NULL;
}

apium_status
apium_sig_parse(const char *json, apium_sig **out, apium_error *err)
{
    apm_json whole;
    apium_error why;

    apium_status st = apm_json_parse(apm_strz(json), &whole, &why);
    if (st == APIUM_OK)
        st = apm_sig_check(whole, &why);
    if (st != APIUM_OK)
        return apm_fail(err, st, "cannot read a signature: %s", why.text);
    apium_sig *sig = apm_sig_new(APM_SIG_TASK, NULL);
    apm_str kept = sig ? apm_arena_str(&sig->arena, whole.text, NULL) : APM_STR_NONE;
    if (!apm_str_is(kept)) {
        apium_sig_free(sig);
        return apm_fail(err, APIUM_E_NOMEM, "cannot read a signature: out of memory");
    }
    st = apm_canvas_read((apm_json){ whole.type, kept }, &sig->arena, &sig->tree, err);
    if (st != APIUM_OK) {
        apium_sig_free(sig);
        return st;
    }
    *out = sig;
    return APIUM_OK;
}

apium_status
apm_sigs_add(apm_buf *buf, const char *json, const char *what, apium_error *err)
{
    apium_error why;
    apm_json whole;
    apm_json_iter it;
    apm_json item;
    apm_str key, array;

    if (!json)
        return APIUM_OK;
    apium_status st = apm_json_parse(apm_strz(json), &whole, &why);
    if (st != APIUM_OK)
        return apm_fail(err, APIUM_E_INVALID, "%s is no JSON: %s", what, why.text);
    if (whole.type != APM_JSON_OBJECT && whole.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_INVALID, "%s is neither a signature nor an array of them",
                        what);
    array = whole.text;
    if (whole.type == APM_JSON_ARRAY) {
        if (apm_json_count(whole) == 0)
            return APIUM_OK;
        if ((st = apm_json_open(&it, array, err)) != APIUM_OK)
            return st;
        while (apm_json_next(&it, &key, &item, NULL) > 0)
            if (apm_sig_check(item, &why) != APIUM_OK)
                return apm_fail(err, APIUM_E_INVALID, "%s holds something that is no signature: %s",
                                what, why.text);
        array = (apm_str){ array.p + 1, array.len - 2 };
    } else if (apm_sig_check(whole, &why) != APIUM_OK) {
        return apm_fail(err, APIUM_E_INVALID, "%s is no signature: %s", what, why.text);
    }
    if (buf->len && buf->p[buf->len - 1] != '[')
        apm_buf_addz(buf, ", ");
    apm_buf_adds(buf, array);
    return buf->failed ? apm_fail(err, APIUM_E_NOMEM, "out of memory") : APIUM_OK;
}
