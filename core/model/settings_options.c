/* settings_options.c - settings that are more than one value: lists, aliases, objects with members
 * of their own. */
#include "core/model/settings_table.h"

#include <stdlib.h>
#include <strings.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "core/model/serializer.h"

apium_status
apm_settings_unknown(apm_settings *settings, apm_str raw_key, const char *const *known, size_t n,
                     const char *of, apium_error *err)
{
    const char *name, *nearest;
    apium_status st;

    if ((st = apm_settings_text(settings, (apm_json){ APM_JSON_STRING, raw_key }, &name, err)) !=
        APIUM_OK)
        return st;
    nearest = apm_setting_nearest(name, known, n);
    return apm_fail(err, APIUM_E_CONFIG, "unknown member %.60s of %s%s%s%s", name, of,
                    nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "");
}

static apium_status
add_content(apm_str name, unsigned *bits, apium_error *err)
{
    const apm_serializer *format = apm_serializer_find(name);

    /* What kombu always reads, and its other plain ones: no body of a task comes in these. */
    if (apm_str_eqz(name, "application/data") || apm_str_eqz(name, "application/text") ||
        apm_str_eqz(name, "text/plain") || apm_str_eqz(name, "auth") || apm_str_eqz(name, "raw"))
        return APIUM_OK;
    if (!format)
        return apm_fail(err, APIUM_E_CONFIG,
                        "expected a list of json, yaml, msgpack or their content types");
    *bits |= format->accept_bit;
    return APIUM_OK;
}

apium_status
apm_set_accept_content(apm_settings *settings, const apm_given *given, apium_error *err)
{
    apm_json_iter it;
    apm_json item;
    apm_str key, text;
    unsigned bits = 0;
    apium_status st = APIUM_OK;

    if (given->json.type == APM_JSON_ARRAY) {
        if ((st = apm_json_open(&it, given->json.text, err)) != APIUM_OK)
            return st;
        while (st == APIUM_OK && apm_json_next(&it, &key, &item, err) > 0)
            if ((st = apm_json_string(item, "content", &settings->arena, &text, err)) == APIUM_OK)
                st = add_content(text, &bits, err);
    } else if (given->json.type == APM_JSON_STRING) {
        if ((st = apm_json_string(given->json, "content", &settings->arena, &text, err)) !=
            APIUM_OK)
            return st;
        while (st == APIUM_OK && text.len) {
            const char *comma = memchr(text.p, ',', text.len);
            size_t len = comma ? (size_t)(comma - text.p) : text.len;
            apm_str one = { text.p, len };
            for (; one.len && *one.p == ' '; one.p++)
                one.len--;
            for (; one.len && one.p[one.len - 1] == ' ';)
                one.len--;
            st = add_content(one, &bits, err);
            text.p += len + (comma != NULL);
            text.len -= len + (comma != NULL);
        }
    } else {
        st = add_content(APM_STR_NONE, &bits, err);
    }
    if (st == APIUM_OK)
        settings->accept_content = bits;
    return st;
}

static apium_status
set_format(apm_settings *settings, apm_json val, const char **out, apium_error *err)
{
    const char *name;
    apium_status st;

    if ((st = apm_settings_text(settings, val, &name, err)) != APIUM_OK)
        return st;
    const apm_serializer *format = apm_serializer_find(apm_strz(name ? name : "json"));
    if (!format || format->accept_bit == APM_ACCEPT_PICKLE)
        return apm_fail(err, APIUM_E_CONFIG, "expected json, yaml or msgpack%s",
                        format ? " (pickle runs code of whoever sends it)" : "");
    *out = format->name;
    return APIUM_OK;
}

apium_status
apm_set_serializer(apm_settings *settings, const apm_given *given, apium_error *err)
{
    return set_format(settings, given->json, &settings->task_serializer, err);
}

apium_status
apm_set_result_serializer(apm_settings *settings, const apm_given *given, apium_error *err)
{
    return set_format(settings, given->json, &settings->result_serializer, err);
}

static apium_status
set_compression(apm_settings *settings, apm_json val, const char **out, apium_error *err)
{
    const char *name;
    apium_status st;

    if ((st = apm_settings_text(settings, val, &name, err)) != APIUM_OK)
        return st;
    if (name && *name && !apm_compression_mime(apm_strz(name)))
        return apm_fail(err, APIUM_E_CONFIG, "expected gzip, bzip2, lzma, brotli, zstd or null");
    *out = name && *name ? name : NULL;
    return APIUM_OK;
}

apium_status
apm_set_compression(apm_settings *settings, const apm_given *given, apium_error *err)
{
    return set_compression(settings, given->json, &settings->task_compression, err);
}

apium_status
apm_set_result_compression(apm_settings *settings, const apm_given *given, apium_error *err)
{
    return set_compression(settings, given->json, &settings->result_compression, err);
}

apium_status
apm_set_delivery_mode(apm_settings *settings, const apm_given *given, apium_error *err)
{
    apm_json val = given->json;

    if (val.type == APM_JSON_NULL || apm_str_eqz(val.text, "2") || apm_str_eqz(val.text, "\"2\"") ||
        apm_str_eqz(val.text, "\"persistent\""))
        settings->task_default_delivery_mode = 2;
    else if (apm_str_eqz(val.text, "1") || apm_str_eqz(val.text, "\"1\"") ||
             apm_str_eqz(val.text, "\"transient\""))
        settings->task_default_delivery_mode = 1;
    else
        return apm_fail(err, APIUM_E_CONFIG, "expected 2, 1, persistent or transient");
    return APIUM_OK;
}

apium_status
apm_set_priority(apm_settings *settings, const apm_given *given, apium_error *err)
{
    if (given->json.type == APM_JSON_NULL) {
        settings->task_default_priority = APM_PRIORITY_NONE;
        return APIUM_OK;
    }
    return apm_settings_int(given->json, 0, 255, &settings->task_default_priority, err);
}

apium_status
apm_set_timezone(apm_settings *settings, const apm_given *given, apium_error *err)
{
    const char *zone;
    int offset_s;
    apium_status st;

    if ((st = apm_settings_text(settings, given->json, &zone, err)) != APIUM_OK ||
        (zone && (st = apm_zone_offset(zone, 0, &offset_s, err)) != APIUM_OK))
        return st;
    settings->timezone = zone;
    return APIUM_OK;
}

apium_status
apm_rate_parse(apm_str text, double *per_second, apium_error *err)
{
    char number[32];
    const char *slash = text.p ? memchr(text.p, '/', text.len) : NULL;
    size_t len = slash ? (size_t)(slash - text.p) : text.len;
    double rate, over = 1;
    char *end;

    if (text.len == 0) {
        *per_second = 0;
        return APIUM_OK;
    }
    if (len == 0 || len >= sizeof number || (slash && text.len != len + 2))
        goto bad;
    memcpy(number, text.p, len);
    number[len] = '\0';
    rate = strtod(number, &end);
    if (slash)
        over = slash[1] == 's' ? 1 : slash[1] == 'm' ? 60 : slash[1] == 'h' ? 3600 : 0;
    if (*end || end == number || !(rate >= 0 && rate <= 1e9) || over == 0)
        goto bad;
    *per_second = rate / over;
    return APIUM_OK;
bad:
    return apm_fail(err, APIUM_E_CONFIG, "expected a rate such as 10, 10/s, 10/m or 10/h, not %.*s",
                    text.len < 40 ? (int)text.len : 40, text.p);
}

apium_status
apm_set_rate_limit(apm_settings *settings, const apm_given *given, apium_error *err)
{
    const char *text;
    double rate;
    apium_status st;

    if ((st = apm_settings_text(settings, given->json, &text, err)) != APIUM_OK ||
        (st = apm_rate_parse(apm_strz(text), &rate, err)) != APIUM_OK)
        return st;
    settings->task_default_rate_limit = text;
    return APIUM_OK;
}

apium_status
apm_set_pool(apm_settings *settings, const apm_given *given, apium_error *err)
{
    const char *text;
    apium_status st;

    if ((st = apm_settings_text(settings, given->json, &text, err)) != APIUM_OK)
        return st;
    if (!text || strcmp(text, "prefork") == 0 || strcmp(text, "processes") == 0)
        settings->worker_pool = "prefork";
    else if (strcmp(text, "threads") == 0 || strcmp(text, "solo") == 0)
        settings->worker_pool = text;
    else
        return apm_fail(err, APIUM_E_CONFIG, "expected prefork, threads or solo");
    return APIUM_OK;
}

apium_status
apm_set_prefetch(apm_settings *settings, const apm_given *given, apium_error *err)
{
    apium_status st =
        apm_settings_int(given->json, 0, 1e6, &settings->worker_prefetch_multiplier, err);

    if (st == APIUM_OK)
        settings->prefetch_multiplier_given = given->source != APM_FROM_DEFAULT;
    return st;
}

/* A member of an object of options. */
struct option_row {
    const char *name;
    enum {
        TEXT,
        SECONDS,
        SIZE,
        BOOL,
        STEPS,
        STRATEGY,
        FANOUT_PREFIX,
        SENTINEL,
        SYNCHRONOUS,
        RESULT_PREFIX,
        UNUSED
    } kind;
    size_t offset, offset2;
};

#define FIELD(name) offsetof(apm_settings, name)

static const struct option_row broker_options[] = {
    { "visibility_timeout", SECONDS, FIELD(visibility_timeout) },
    { "global_keyprefix", TEXT, FIELD(global_keyprefix) },
    { "sep", TEXT, FIELD(sep) },
    { "priority_steps", STEPS },
    { "queue_order_strategy", STRATEGY, FIELD(queue_order_strategy) },
    { "unacked_key", TEXT, FIELD(unacked_key) },
    { "unacked_index_key", TEXT, FIELD(unacked_index_key) },
    { "unacked_mutex_key", TEXT, FIELD(unacked_mutex_key) },
    { "master_name", TEXT, FIELD(master_name) },
    { "sentinel_kwargs", SENTINEL, FIELD(sentinel_username), FIELD(sentinel_password) },
    { "fanout_prefix", FANOUT_PREFIX, FIELD(fanout_prefix) },
    { "fanout_patterns", BOOL, FIELD(fanout_patterns) },
    { "sqlite_synchronous", SYNCHRONOUS, FIELD(sqlite_synchronous) },
    { "max_message_bytes", SIZE, FIELD(max_message_bytes) },
    { "ack_emulation", UNUSED },
    { "body_encoding", UNUSED },
    { "client_name", UNUSED },
    { "client_properties", UNUSED },
    { "confirm_publish", UNUSED },
    { "connect_timeout", UNUSED },
    { "connection_class", UNUSED },
    { "connection_class_params", UNUSED },
    { "connection_errors", UNUSED },
    { "credential_provider", UNUSED },
    { "deadletter_queue", UNUSED },
    { "errback", UNUSED },
    { "health_check_interval", UNUSED },
    { "heartbeat", UNUSED },
    { "interval_max", UNUSED },
    { "interval_start", UNUSED },
    { "interval_step", UNUSED },
    { "login_method", UNUSED },
    { "max_connections", UNUSED },
    { "max_retries", UNUSED },
    { "min_other_sentinels", UNUSED },
    { "on_blocked", UNUSED },
    { "on_unblocked", UNUSED },
    { "polling_interval", UNUSED },
    { "read_timeout", UNUSED },
    { "reauth_check_interval", UNUSED },
    { "retry_on_timeout", UNUSED },
    { "retry_policy", UNUSED },
    { "socket_connect_timeout", UNUSED },
    { "socket_keepalive", UNUSED },
    { "socket_keepalive_options", UNUSED },
    { "socket_settings", UNUSED },
    { "socket_timeout", UNUSED },
    { "ssl", UNUSED },
    { "unacked_mutex_expire", UNUSED },
    { "unacked_restore_interval", UNUSED },
    { "unacked_restore_limit", UNUSED },
    { "unacked_restore_throttle", UNUSED },
    { "virtual_host", UNUSED },
    { "write_timeout", UNUSED },
};

static const struct option_row backend_options[] = {
    { "global_keyprefix", RESULT_PREFIX, FIELD(result_keyprefix) },
    { "master_name", TEXT, FIELD(result_master_name) },
    { "sentinel_kwargs", SENTINEL, FIELD(result_sentinel_username),
      FIELD(result_sentinel_password) },
    { "result_chord_ordered", BOOL, FIELD(result_chord_ordered) },
    { "http_ca", TEXT, FIELD(http_ca) },
    { "http_cert", TEXT, FIELD(http_cert) },
    { "http_key", TEXT, FIELD(http_key) },
    { "http_token", TEXT, FIELD(http_token) },
    { "http_verify", BOOL, FIELD(http_verify) },
    { "http_timeout", SECONDS, FIELD(http_timeout) },
    { "client_name", UNUSED },
    { "connection_class", UNUSED },
    { "health_check_interval", UNUSED },
    { "max_connections", UNUSED },
    { "min_other_sentinels", UNUSED },
    { "retry_on_timeout", UNUSED },
    { "retry_policy", UNUSED },
    { "socket_connect_timeout", UNUSED },
    { "socket_keepalive", UNUSED },
    { "socket_keepalive_options", UNUSED },
    { "socket_timeout", UNUSED },
    { "ssl", UNUSED },
    { "visibility_timeout", UNUSED },
};

/* kombu takes the largest step that is not above a message's priority, so they must rise and begin
 * at 0. */
static apium_status
set_steps(apm_settings *settings, apm_json val, apium_error *err)
{
    int steps[10], n = 0;
    apm_json_iter it;
    apm_json item;
    apm_str key;
    int64_t step;

    if (val.type != APM_JSON_ARRAY || apm_json_open(&it, val.text, err) != APIUM_OK)
        return apm_fail(err, APIUM_E_CONFIG,
                        "priority_steps: expected a list of numbers from 0 to 9");
    while (apm_json_next(&it, &key, &item, err) > 0) {
        if (n == 10 ||
            apm_settings_int(item, n ? steps[n - 1] + 1 : 0, n ? 9 : 0, &step, NULL) != APIUM_OK)
            return apm_fail(err, APIUM_E_CONFIG,
                            "priority_steps: expected rising numbers from 0 to 9, the first 0");
        steps[n++] = (int)step;
    }
    if (n == 0)
        return apm_fail(err, APIUM_E_CONFIG, "priority_steps: expected at least one number");
    memcpy(settings->priority_steps, steps, sizeof steps);
    settings->n_priority_steps = n;
    return APIUM_OK;
}

static apium_status
set_word(apm_settings *settings, apm_json val, const char *name, const char *const *words,
         const char **out, apium_error *err)
{
    const char *text = NULL;
    apium_status st;

    if ((st = apm_settings_text(settings, val, &text, err)) != APIUM_OK)
        return st;
    for (; text && *words; words++)
        if (strcasecmp(text, *words) == 0) {
            *out = *words;
            return APIUM_OK;
        }
    return apm_fail(err, APIUM_E_CONFIG, "%s: unknown value %.40s", name, text ? text : "null");
}

static apium_status
set_option(apm_settings *settings, const struct option_row *option, apm_json val, apium_error *err)
{
    static const char *const strategies[] = { "round_robin", "priority", "sorted", NULL };
    static const char *const synchronous[] = { "FULL", "NORMAL", "EXTRA", "OFF", NULL };
    void *field = (char *)settings + option->offset;
    const char *text;
    apium_error why;
    apium_status st = APIUM_OK;

    switch (option->kind) {
    case TEXT: /* null is the default, which is set already */
        return val.type == APM_JSON_NULL ? APIUM_OK : apm_settings_text(settings, val, field, err);
    case SECONDS:
        st = apm_settings_seconds(val, 0.001, 1e10, field, &why);
        break;
    case SIZE:
        st = apm_settings_int(val, 1024, (double)APM_BUF_MAX, field, &why);
        break;
    case BOOL:
        st = apm_settings_bool(val, field, &why);
        break;
    case STEPS:
        return set_steps(settings, val, err);
    case STRATEGY:
        return set_word(settings, val, option->name, strategies, field, err);
    case SYNCHRONOUS:
        return set_word(settings, val, option->name, synchronous, field, err);
    case FANOUT_PREFIX: /* true is kombu's prefix, false none, text its own */
        if (val.type == APM_JSON_STRING)
            return apm_settings_text(settings, val, field, err);
        *(const char **)field = val.type == APM_JSON_BOOL && val.text.p[0] == 'f' ? "" : "/{db}.";
        return APIUM_OK;
    case SENTINEL:
        if (val.type != APM_JSON_OBJECT)
            return apm_fail(err, APIUM_E_CONFIG, "%s: expected an object", option->name);
        apm_json username = apm_json_get(val, "username"), password = apm_json_get(val, "password");
        if (username.type != APM_JSON_NONE)
            st = apm_settings_text(settings, username, field, err);
        if (st == APIUM_OK && password.type != APM_JSON_NONE)
            st = apm_settings_text(settings, password,
                                   (const char **)((char *)settings + option->offset2), err);
        return st;
    case RESULT_PREFIX:
        if ((st = apm_settings_text(settings, val, &text, err)) != APIUM_OK)
            return st;
        if (!text)
            text = "";
        else if (*text && !strchr(":_-.", text[strlen(text) - 1]))
            text = apm_arena_printf(&settings->arena, "%s_", text);
        if (!text)
            return apm_fail(err, APIUM_E_NOMEM, "out of memory");
        *(const char **)field = text;
        return APIUM_OK;
    case UNUSED:
        apm_log(APM_LOG_DEBUG, "settings.unused", "option %s is accepted without effect",
                option->name);
        return APIUM_OK;
    }
    return st == APIUM_OK ? st : apm_fail(err, st, "%s: %s", option->name, why.text);
}

static apium_status
set_options(apm_settings *settings, const apm_given *given, const struct option_row *options,
            size_t n, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str raw_key;
    const char *names[64];
    apium_status st;

    if (given->json.type == APM_JSON_NULL)
        return APIUM_OK;
    if (given->json.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_CONFIG, "expected an object");
    if ((st = apm_json_open(&it, given->json.text, err)) != APIUM_OK)
        return st;
    for (size_t i = 0; i < n; i++)
        names[i] = options[i].name;
    while (apm_json_next(&it, &raw_key, &val, err) > 0) {
        size_t i = 0;
        while (i < n && !apm_json_key_is(raw_key, options[i].name))
            i++;
        if (i < n) {
            if ((st = set_option(settings, &options[i], val, err)) != APIUM_OK)
                return st;
            continue;
        }
        return apm_settings_unknown(settings, raw_key, names, n, "the options", err);
    }
    return APIUM_OK;
}

apium_status
apm_set_broker_options(apm_settings *settings, const apm_given *given, apium_error *err)
{
    /*
     * The whole object is the value: what an earlier one had and this has not is the default again.
     */
    settings->visibility_timeout = 3600;
    settings->global_keyprefix = "";
    settings->sep = "\x06\x16";
    memcpy(settings->priority_steps, (const int[10]){ 0, 3, 6, 9 },
           sizeof settings->priority_steps);
    settings->n_priority_steps = 4;
    settings->queue_order_strategy = "round_robin";
    settings->unacked_key = "unacked";
    settings->unacked_index_key = "unacked_index";
    settings->unacked_mutex_key = "unacked_mutex";
    settings->master_name = settings->sentinel_username = settings->sentinel_password = NULL;
    settings->fanout_prefix = "/{db}.";
    settings->fanout_patterns = true;
    settings->sqlite_synchronous = "FULL";
    settings->max_message_bytes = (int64_t)128 << 20;
    return set_options(settings, given, broker_options,
                       sizeof broker_options / sizeof *broker_options, err);
}

apium_status
apm_set_backend_options(apm_settings *settings, const apm_given *given, apium_error *err)
{
    settings->result_keyprefix = "";
    settings->result_master_name = settings->result_sentinel_username =
        settings->result_sentinel_password = NULL;
    settings->result_chord_ordered = true;
    settings->http_ca = settings->http_cert = settings->http_key = settings->http_token = NULL;
    settings->http_verify = true;
    settings->http_timeout = 30;
    return set_options(settings, given, backend_options,
                       sizeof backend_options / sizeof *backend_options, err);
}

apium_status
apm_set_publish_policy(apm_settings *settings, const apm_given *given, apium_error *err)
{
    static const char *const names[] = { "max_retries", "interval_start", "interval_step",
                                         "interval_max", "retry_errors" };
    double *const seconds[] = { &settings->publish_interval_start, &settings->publish_interval_step,
                                &settings->publish_interval_max };
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_status st;

    if (given->json.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_CONFIG, "expected an object");
    settings->publish_max_retries = 3;
    settings->publish_interval_start = 0;
    settings->publish_interval_step = 0.2;
    settings->publish_interval_max = 1;
    if ((st = apm_json_open(&it, given->json.text, err)) != APIUM_OK)
        return st;
    while (apm_json_next(&it, &key, &val, err) > 0) {
        size_t i = 0;
        while (i < 5 && !apm_json_key_is(key, names[i]))
            i++;
        if (i == 5)
            return apm_fail(
                err, APIUM_E_CONFIG,
                "expected members max_retries, interval_start, interval_step, interval_max");
        if (i == 0)
            st = apm_settings_int(val, 0, INT32_MAX, &settings->publish_max_retries, err);
        else if (i < 4)
            st = apm_settings_seconds(val, 0, 1e6, seconds[i - 1], err);
        if (st != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}
