/* sig_options.c - the options of a call, laid over one another and written as Celery's; see sig.h. */
#include "client/sig.h"

#include <math.h>

#include "core/base/clock.h"
#include "core/base/error.h"

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

/* The others. */
static const char *const other_options[] = {
    "countdown", "eta",           "expires",         "time_limit",    "soft_time_limit",
    "retries",   "priority",      "ignore_result",   "delivery_mode", "headers",
    "link",      "link_error",    "group_id",        "group_index",   "chord",
    "chain",     "add_to_parent", "stamped_headers", "immutable",     "replaced_task_nesting",
};
#define N_OTHER_OPTIONS (sizeof(other_options) / sizeof(*other_options))

bool
apm_opts_known(const char *name)
{
    for (size_t i = 0; i < N_TEXT_OPTIONS; i++)
        if (strcmp(text_options[i].name, name) == 0)
            return true;
    for (size_t i = 0; i < N_OTHER_OPTIONS; i++)
        if (strcmp(other_options[i], name) == 0)
            return true;
    return false;
}

/* Options on their way into a signature; the first failure is remembered. */
struct writing {
    apm_arena *arena;
    apm_options *options;
    apm_buf scratch; /* one value */
    apium_status st;
    apium_error *err;
};

/* Set what was written to the scratch. */
static void
put(struct writing *w, const char *name)
{
    apm_str raw =
        w->scratch.failed ? APM_STR_NONE : apm_arena_str(w->arena, apm_buf_str(&w->scratch), NULL);
    if (w->st == APIUM_OK && !apm_canvas_set_named(w->arena, w->options, name, raw))
        w->st = apm_fail(w->err, APIUM_E_NOMEM, "out of memory");
    apm_buf_reset(&w->scratch);
}

static void
put_text(struct writing *w, const char *name, const char *text)
{
    if (!text || w->st != APIUM_OK)
        return;
    if (!apm_utf8_valid(apm_strz(text), false)) {
        w->st = apm_fail(w->err, APIUM_E_INVALID, "its %s is not UTF-8", name);
        return;
    }
    if (!*text && strcmp(name, "task_id") == 0) {
        w->st = apm_fail(w->err, APIUM_E_INVALID, "its task_id is empty");
        return;
    }
    apm_json_add_stringz(&w->scratch, text);
    put(w, name);
}

static void
put_raw(struct writing *w, const char *name, const char *json)
{
    apm_buf_addz(&w->scratch, json);
    put(w, name);
}

static void
put_number(struct writing *w, const char *name, double value)
{
    if (value == 0 || w->st != APIUM_OK)
        return;
    if (!isfinite(value)) {
        w->st = apm_fail(w->err, APIUM_E_INVALID, "its %s is no number of seconds", name);
        return;
    }
    if (value == floor(value) && fabs(value) < 1e15)
        apm_json_add_int(&w->scratch, (int64_t)value);
    else
        apm_json_add_double(&w->scratch, value);
    put(w, name);
}

static void
put_date(struct writing *w, const char *name, int64_t wall_us)
{
    char date[APM_DATE_MAX];
    if (!wall_us)
        return;
    apm_date_print(wall_us, 0, date);
    put_text(w, name, date);
}

static void
put_headers(struct writing *w, const char *headers)
{
    apium_error why;
    apm_json json;
    if (!headers || w->st != APIUM_OK)
        return;
    if (apm_json_parse(apm_strz(headers), &json, &why) != APIUM_OK)
        w->st = apm_fail(w->err, APIUM_E_INVALID, "its headers: %s", why.text);
    else if (json.type != APM_JSON_OBJECT)
        w->st = apm_fail(w->err, APIUM_E_INVALID, "its headers are no JSON object");
    else
        put_raw(w, "headers", headers);
}

apium_status
apm_opts_write(apm_arena *arena, apm_options *options, const apium_send_opts *opts,
               apium_error *err)
{
    struct writing w = { .arena = arena, .options = options, .err = err };
    apm_buf_init(&w.scratch, APM_BUF_MAX);
    for (size_t i = 0; i < N_TEXT_OPTIONS; i++)
        put_text(&w, text_options[i].name,
                 *(const char *const *)((const char *)opts + text_options[i].offset));
    if (opts->countdown != 0 || opts->eta_us) {
        apm_canvas_unset(options, "countdown");
        apm_canvas_unset(options, "eta");
    }
    put_number(&w, "countdown", opts->countdown);
    put_date(&w, "eta", opts->eta_us);
    put_number(&w, "expires", opts->expires);
    if (opts->expires == 0)
        put_date(&w, "expires", opts->expires_at_us);
    put_number(&w, "time_limit", opts->time_limit);
    put_number(&w, "soft_time_limit", opts->soft_time_limit);
    put_number(&w, "retries", (double)opts->retries);
    if (opts->has_priority || opts->priority) {
        apm_json_add_int(&w.scratch, opts->priority);
        put(&w, "priority");
    }
    if (opts->ignore_result != APIUM_DEFAULT)
        put_raw(&w, "ignore_result", opts->ignore_result == APIUM_ON ? "true" : "false");
    if (opts->persistent != APIUM_DEFAULT)
        put_raw(&w, "delivery_mode", opts->persistent == APIUM_ON ? "2" : "1");
    put_headers(&w, opts->headers);
    apm_buf_clear(&w.scratch);
    return w.st;
}
