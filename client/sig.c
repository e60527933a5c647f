/* sig.c - signatures: built from C, read from and written as Celery's JSON; see apium/send.h. */
#include "client/sig.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#include "client/value.h"
#include "core/base/clock.h"

/* --- options --- */

#define LAY(field)                                                                                 \
    if (over->field)                                                                               \
    base->field = over->field

void
apm_opts_lay(apium_send_opts *base, const apium_send_opts *over)
{
    LAY(kwargs);
    if (over->countdown != 0 || over->eta_us) {
        base->countdown = over->countdown;
        base->eta_us = over->eta_us;
    }
    if (over->expires != 0 || over->expires_at_us) {
        base->expires = over->expires;
        base->expires_at_us = over->expires_at_us;
    }
    LAY(queue);
    LAY(exchange);
    LAY(routing_key);
    if (over->priority || over->has_priority) {
        base->priority = over->priority;
        base->has_priority = true;
    }
    LAY(task_id);
    LAY(shadow);
    LAY(root_id);
    LAY(parent_id);
    LAY(reply_to);
    LAY(retries);
    LAY(time_limit);
    LAY(soft_time_limit);
    LAY(ignore_result);
    LAY(serializer);
    LAY(compression);
    LAY(persistent);
    LAY(headers);
    LAY(argsrepr);
    LAY(kwargsrepr);
    LAY(link);
    LAY(link_error);
}

/* The options that are text, by their names in a signature. */
static const struct {
    const char *name;
    size_t offset;
} text_options[] = {
    { "queue", offsetof(apium_send_opts, queue) },
    { "exchange", offsetof(apium_send_opts, exchange) },
    { "routing_key", offsetof(apium_send_opts, routing_key) },
    { "task_id", offsetof(apium_send_opts, task_id) },
    { "shadow", offsetof(apium_send_opts, shadow) },
    { "root_id", offsetof(apium_send_opts, root_id) },
    { "parent_id", offsetof(apium_send_opts, parent_id) },
    { "reply_to", offsetof(apium_send_opts, reply_to) },
    { "serializer", offsetof(apium_send_opts, serializer) },
    { "compression", offsetof(apium_send_opts, compression) },
    { "argsrepr", offsetof(apium_send_opts, argsrepr) },
    { "kwargsrepr", offsetof(apium_send_opts, kwargsrepr) },
};
#define N_TEXT_OPTIONS (sizeof(text_options) / sizeof(*text_options))

/* Those that are numbers of seconds. */
static const struct {
    const char *name;
    size_t offset;
} second_options[] = {
    { "countdown", offsetof(apium_send_opts, countdown) },
    { "expires", offsetof(apium_send_opts, expires) },
    { "time_limit", offsetof(apium_send_opts, time_limit) },
    { "soft_time_limit", offsetof(apium_send_opts, soft_time_limit) },
};
#define N_SECOND_OPTIONS (sizeof(second_options) / sizeof(*second_options))

static const char **
text_option(apium_send_opts *opts, size_t i)
{
    return (const char **)((char *)opts + text_options[i].offset);
}

static double *
second_option(apium_send_opts *opts, size_t i)
{
    return (double *)((char *)opts + second_options[i].offset);
}

/* --- making --- */

static void
broken(apium_sig *sig, apium_status status, const char *what, const char *why)
{
    if (sig->broken.status == APIUM_OK)
        apm_fail(&sig->broken, status, "the signature of %s: %s%s",
                 sig->task ? sig->task : "a task", what, why);
}

static apium_sig *
sig_new(void)
{
    apium_sig *sig = calloc(1, sizeof(*sig));
    if (!sig)
        return NULL;
    apm_buf_init(&sig->other_options, APM_BUF_MAX);
    apm_buf_init(&sig->other, APM_BUF_MAX);
    apm_buf_init(&sig->links, APM_BUF_MAX);
    apm_buf_init(&sig->link_errors, APM_BUF_MAX);
    apm_buf_init(&sig->json, APM_BUF_MAX);
    return sig;
}

void
apium_sig_free(apium_sig *sig)
{
    if (!sig)
        return;
    apm_arena_clear(&sig->arena);
    apm_buf_clear(&sig->other_options);
    apm_buf_clear(&sig->other);
    apm_buf_clear(&sig->links);
    apm_buf_clear(&sig->link_errors);
    apm_buf_clear(&sig->json);
    free(sig);
}

/* Text kept in the signature. */
static const char *
keep(apium_sig *sig, const char *text)
{
    if (!text)
        return NULL;
    bool ok = true;
    apm_str copy = apm_arena_str(&sig->arena, apm_strz(text), &ok);
    if (!ok)
        broken(sig, APIUM_E_NOMEM, "out of memory", "");
    return copy.p;
}

/* args or kwargs from a value: an array goes to args, an object to kwargs. */
static void
take_arguments(apium_sig *sig, apium_value value, bool named)
{
    apium_error err;
    apm_json json;
    apium_status st = apm_value_take(value, &sig->arena, &json, &err);
    if (st != APIUM_OK)
        broken(sig, st, "its arguments: ", err.text);
    else if (json.type == APM_JSON_OBJECT)
        sig->kwargs = json.text;
    else if (json.type == APM_JSON_ARRAY && !named)
        sig->args = json.text;
    else
        broken(sig, APIUM_E_INVALID, "its arguments: ",
               named ? "a JSON object is expected" : "a JSON array or object is expected");
}

apium_sig *
apium_sig_new(const char *task, const char *fmt, ...)
{
    apium_sig *sig = sig_new();
    if (!sig)
        return NULL;
    sig->task = keep(sig, task);
    if (!task || !*task)
        broken(sig, APIUM_E_INVALID, "it has no task", "");
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        take_arguments(sig, apium_jsonv(fmt, ap), false);
        va_end(ap);
    }
    return sig;
}

apium_sig *
apium_sig_kwargs(apium_sig *sig, const char *fmt, ...)
{
    if (!sig)
        return NULL;
    va_list ap;
    va_start(ap, fmt);
    take_arguments(sig, apium_jsonv(fmt, ap), true);
    va_end(ap);
    return sig;
}

static void
add_links(apium_sig *sig, apm_buf *links, const char *json, const char *what)
{
    apium_error err;
    apium_status st = apm_sigs_add(links, json, what, &err);
    if (st != APIUM_OK)
        broken(sig, st, "", err.text);
}

apium_sig *
apium_sig_set(apium_sig *sig, const apium_send_opts *opts)
{
    if (!sig || !opts)
        return sig;
    apm_opts_lay(&sig->opts, opts);
    for (size_t i = 0; i < N_TEXT_OPTIONS; i++) {
        const char **text = text_option(&sig->opts, i);
        *text = keep(sig, *text);
    }
    sig->opts.headers = keep(sig, sig->opts.headers);
    if (sig->opts.kwargs)
        take_arguments(sig, apium_json(sig->opts.kwargs), true);
    add_links(sig, &sig->links, sig->opts.link, "link");
    add_links(sig, &sig->link_errors, sig->opts.link_error, "link_error");
    sig->opts.kwargs = sig->opts.link = sig->opts.link_error = NULL;
    return sig;
}

apium_sig *
apium_sig_immutable(apium_sig *sig)
{
    if (sig)
        sig->immutable = true;
    return sig;
}

static apium_sig *
link_to(apium_sig *sig, apm_buf *links, apium_sig *next, const char *what)
{
    apium_error err;
    const char *json = next ? apium_sig_json(next, &err) : NULL;
    if (sig && json)
        add_links(sig, links, json, what);
    else if (sig)
        broken(sig, next ? err.status : APIUM_E_NOMEM, what, next ? err.text : " is missing");
    apium_sig_free(next);
    return sig;
}

apium_sig *
apium_sig_link(apium_sig *sig, apium_sig *next)
{
    return link_to(sig, sig ? &sig->links : NULL, next, "link");
}

apium_sig *
apium_sig_link_error(apium_sig *sig, apium_sig *next)
{
    return link_to(sig, sig ? &sig->link_errors : NULL, next, "link_error");
}

/* --- writing --- */

static void
add_text_member(apm_buf *buf, const char *key, const char *text)
{
    if (!text)
        return;
    apm_json_add_key(buf, key);
    apm_json_add_stringz(buf, text);
}

static void
add_number_member(apm_buf *buf, const char *key, double value)
{
    if (value == 0)
        return;
    apm_json_add_key(buf, key);
    if (value == floor(value) && fabs(value) < 1e15)
        apm_json_add_int(buf, (int64_t)value);
    else
        apm_json_add_double(buf, value);
}

static void
add_date_member(apm_buf *buf, const char *key, int64_t wall_us)
{
    char date[APM_DATE_MAX];
    if (!wall_us)
        return;
    apm_date_print(wall_us, 0, date);
    add_text_member(buf, key, date);
}

static void
add_raw_member(apm_buf *buf, const char *key, const char *before, apm_str text, const char *after)
{
    if (!text.len)
        return;
    apm_json_add_key(buf, key);
    apm_buf_addz(buf, before);
    apm_buf_adds(buf, text);
    apm_buf_addz(buf, after);
}

static void
add_options(apm_buf *buf, apium_sig *sig)
{
    apium_send_opts *opts = &sig->opts;
    for (size_t i = 0; i < N_TEXT_OPTIONS; i++)
        add_text_member(buf, text_options[i].name, *text_option(opts, i));
    for (size_t i = 0; i < N_SECOND_OPTIONS; i++)
        add_number_member(buf, second_options[i].name, *second_option(opts, i));
    add_date_member(buf, "eta", opts->eta_us);
    add_date_member(buf, "expires", opts->expires_at_us);
    add_number_member(buf, "retries", (double)opts->retries);
    if (opts->has_priority || opts->priority) {
        apm_json_add_key(buf, "priority");
        apm_json_add_int(buf, opts->priority);
    }
    if (opts->ignore_result != APIUM_DEFAULT) {
        apm_json_add_key(buf, "ignore_result");
        apm_buf_addz(buf, opts->ignore_result == APIUM_ON ? "true" : "false");
    }
    if (opts->persistent != APIUM_DEFAULT) {
        apm_json_add_key(buf, "delivery_mode");
        apm_json_add_int(buf, opts->persistent == APIUM_ON ? 2 : 1);
    }
    add_raw_member(buf, "headers", "", apm_strz(opts->headers), "");
    add_raw_member(buf, "link", "[", apm_buf_str(&sig->links), "]");
    add_raw_member(buf, "link_error", "[", apm_buf_str(&sig->link_errors), "]");
}

/* Members kept as they were read. */
static void
add_others(apm_buf *buf, const apm_buf *others)
{
    if (!others->len)
        return;
    if (buf->len && buf->p[buf->len - 1] != '{')
        apm_buf_addz(buf, ", ");
    apm_buf_adds(buf, apm_buf_str(others));
}

const char *
apium_sig_json(apium_sig *sig, apium_error *err)
{
    apm_buf *buf = &sig->json;
    if (sig->broken.status != APIUM_OK) {
        if (err)
            *err = sig->broken;
        return NULL;
    }
    apm_buf_reset(buf);
    apm_buf_addc(buf, '{');
    add_text_member(buf, "task", sig->task);
    apm_json_add_key(buf, "args");
    apm_buf_adds(buf, apm_str_is(sig->args) ? sig->args : APM_STR("[]"));
    apm_json_add_key(buf, "kwargs");
    apm_buf_adds(buf, apm_str_is(sig->kwargs) ? sig->kwargs : APM_STR("{}"));
    apm_json_add_key(buf, "options");
    apm_buf_addc(buf, '{');
    add_options(buf, sig);
    add_others(buf, &sig->other_options);
    apm_buf_addc(buf, '}');
    apm_json_add_key(buf, "subtask_type");
    apm_buf_adds(buf, apm_str_is(sig->subtask_type) ? sig->subtask_type : APM_STR("null"));
    apm_json_add_key(buf, "immutable");
    apm_buf_addz(buf, sig->immutable ? "true" : "false");
    add_others(buf, &sig->other);
    apm_buf_addc(buf, '}');
    if (buf->failed || sig->links.failed || sig->link_errors.failed || sig->other.failed ||
        sig->other_options.failed) {
        apm_fail(err, APIUM_E_NOMEM, "the signature of %s: out of memory", sig->task);
        return NULL;
    }
    return buf->p;
}

/* --- reading --- */

static void
keep_member(apm_buf *others, apm_str key, apm_json val)
{
    if (others->len)
        apm_buf_addz(others, ", ");
    apm_buf_adds(others, key);
    apm_buf_addz(others, ": ");
    apm_buf_adds(others, val.text);
}

/* A time: seconds from now, or a date. False when it is neither. */
static bool
read_time(apium_sig *sig, apm_json val, double *seconds, int64_t *at_us)
{
    apm_str text;
    if (val.type == APM_JSON_INT || val.type == APM_JSON_FLOAT)
        return seconds && apm_json_double(val, "time", seconds, NULL) == APIUM_OK;
    return val.type == APM_JSON_STRING &&
           apm_json_string(val, "time", &sig->arena, &text, NULL) == APIUM_OK &&
           apm_date_parse(text, 0, at_us, NULL) == APIUM_OK;
}

/* Read one option; false leaves it to be kept as it is. */
static bool
read_option(apium_sig *sig, apm_str key, apm_json val)
{
    apium_send_opts *opts = &sig->opts;
    bool yes;
    int64_t n;

    for (size_t i = 0; i < N_TEXT_OPTIONS; i++)
        if (apm_json_key_is(key, text_options[i].name))
            return val.type == APM_JSON_STRING &&
                   apm_json_cstr(val, text_options[i].name, &sig->arena, text_option(opts, i),
                                 NULL) == APIUM_OK;
    if (apm_json_key_is(key, "eta"))
        return read_time(sig, val, NULL, &opts->eta_us);
    if (apm_json_key_is(key, "expires"))
        return read_time(sig, val, &opts->expires, &opts->expires_at_us);
    for (size_t i = 0; i < N_SECOND_OPTIONS; i++)
        if (apm_json_key_is(key, second_options[i].name))
            return (val.type == APM_JSON_INT || val.type == APM_JSON_FLOAT) &&
                   apm_json_double(val, second_options[i].name, second_option(opts, i), NULL) ==
                       APIUM_OK;
    if (apm_json_key_is(key, "retries"))
        return apm_json_int64(val, "retries", &opts->retries, NULL) == APIUM_OK;
    if (apm_json_key_is(key, "priority")) {
        if (apm_json_int64(val, "priority", &n, NULL) != APIUM_OK || n < 0 || n > 255)
            return false;
        opts->priority = (int)n;
        return opts->has_priority = true;
    }
    if (apm_json_key_is(key, "ignore_result")) {
        if (apm_json_bool(val, "ignore_result", &yes, NULL) != APIUM_OK)
            return false;
        opts->ignore_result = yes ? APIUM_ON : APIUM_OFF;
        return true;
    }
    if (apm_json_key_is(key, "delivery_mode")) {
        if (apm_json_int64(val, "delivery_mode", &n, NULL) != APIUM_OK || (n != 1 && n != 2))
            return false;
        opts->persistent = n == 2 ? APIUM_ON : APIUM_OFF;
        return true;
    }
    if (apm_json_key_is(key, "headers") && val.type == APM_JSON_OBJECT) {
        opts->headers = apm_arena_str(&sig->arena, val.text, NULL).p;
        return opts->headers != NULL;
    }
    return false;
}

static apium_status
read_links(apium_sig *sig, apm_buf *links, apm_json val, const char *what, apium_error *err)
{
    if (val.type == APM_JSON_NULL)
        return APIUM_OK;
    const char *text = apm_arena_str(&sig->arena, val.text, NULL).p;
    return text ? apm_sigs_add(links, text, what, err)
                : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

static apium_status
read_options(apium_sig *sig, apm_json options, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_status st = APIUM_OK;

    if (options.type == APM_JSON_NULL || options.type == APM_JSON_NONE)
        return APIUM_OK;
    if (options.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_INVALID, "the signature's options are no object");
    if ((st = apm_json_open(&it, options.text, err)) != APIUM_OK)
        return st;
    while (st == APIUM_OK && apm_json_next(&it, &key, &val, err) > 0) {
        if (apm_json_key_is(key, "link"))
            st = read_links(sig, &sig->links, val, "link", err);
        else if (apm_json_key_is(key, "link_error"))
            st = read_links(sig, &sig->link_errors, val, "link_error", err);
        else if (val.type != APM_JSON_NULL && !read_option(sig, key, val))
            keep_member(&sig->other_options, key, val);
    }
    return st;
}

static apium_status
read_member(apium_sig *sig, apm_str key, apm_json val, apium_error *err)
{
    if (apm_json_key_is(key, "task"))
        return apm_json_cstr(val, "task", &sig->arena, &sig->task, err);
    if (apm_json_key_is(key, "options"))
        return read_options(sig, val, err);
    if (apm_json_key_is(key, "immutable")) {
        sig->immutable = val.type == APM_JSON_BOOL && val.text.p[0] == 't';
        return APIUM_OK;
    }
    bool args = apm_json_key_is(key, "args"), kwargs = apm_json_key_is(key, "kwargs");
    if (!args && !kwargs && !apm_json_key_is(key, "subtask_type")) {
        keep_member(&sig->other, key, val);
        return APIUM_OK;
    }
    if (val.type == APM_JSON_NULL)
        return APIUM_OK;
    if ((args && val.type != APM_JSON_ARRAY) || (kwargs && val.type != APM_JSON_OBJECT))
        return apm_fail(err, APIUM_E_INVALID, "the signature's %s are no %s",
                        args ? "args" : "kwargs", args ? "array" : "object");
    bool ok = true;
    *(args     ? &sig->args
      : kwargs ? &sig->kwargs
               : &sig->subtask_type) = apm_arena_str(&sig->arena, val.text, &ok);
    return ok ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

apium_status
apium_sig_parse(const char *json, apium_sig **out, apium_error *err)
{
    apm_json_iter it;
    apm_json whole, val;
    apm_str key;
    apium_error why;

    apium_status st = apm_json_parse(apm_strz(json), &whole, &why);
    if (st != APIUM_OK)
        return apm_fail(err, st, "cannot read a signature: %s", why.text);
    if (whole.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_INVALID, "cannot read a signature: it is no object");
    apium_sig *sig = sig_new();
    if (!sig)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read a signature: out of memory");
    st = apm_json_open(&it, whole.text, &why);
    while (st == APIUM_OK && apm_json_next(&it, &key, &val, &why) > 0)
        st = read_member(sig, key, val, &why);
    if (st == APIUM_OK && (!sig->task || !*sig->task))
        st = apm_fail(&why, APIUM_E_INVALID, "it names no task");
    if (st != APIUM_OK) {
        apium_sig_free(sig);
        return apm_fail(err, st, "cannot read a signature: %s", why.text);
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
            if (apm_json_get(item, "task").type != APM_JSON_STRING)
                return apm_fail(err, APIUM_E_INVALID, "%s holds something that is no signature",
                                what);
        array = (apm_str){ array.p + 1, array.len - 2 };
    } else if (apm_json_get(whole, "task").type != APM_JSON_STRING) {
        return apm_fail(err, APIUM_E_INVALID, "%s is no signature: it names no task", what);
    }
    if (buf->len)
        apm_buf_addz(buf, ", ");
    apm_buf_adds(buf, array);
    return buf->failed ? apm_fail(err, APIUM_E_NOMEM, "out of memory") : APIUM_OK;
}
