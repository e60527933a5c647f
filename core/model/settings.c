/*
 * settings.c - setting by name: find the row, read the value as the row's kind, remember who gave
 * it.
 */
#include "core/model/settings_table.h"

#include <ctype.h>
#include <math.h>
#include <strings.h>

#include "core/base/error.h"
#include "core/base/log.h"
#include "core/base/url.h"

#define EMBEDDED     "sqlite:///apium.db" /* where everything is when nothing is said */
#define NAME_MAX_LEN 80                   /* longer than any setting's name */

/* Celery's old names that do not follow from the new ones. */
static const struct {
    const char *was, *is;
} renamed[] = {
    { "CELERYD_TASK_SOFT_TIME_LIMIT", "task_soft_time_limit" },
    { "CELERYD_TASK_TIME_LIMIT", "task_time_limit" },
    { "CELERYD_WORKER_LOST_WAIT", "worker_lost_wait" },
    { "CELERY_EAGER_PROPAGATES_EXCEPTIONS", "task_eager_propagates" },
    { "CELERY_MAX_CACHED_RESULTS", "result_cache_max" },
    { "CELERY_MESSAGE_COMPRESSION", "task_compression" },
    { "CELERY_QUEUE_MAX_PRIORITY", "task_queue_max_priority" },
    { "CELERY_RESULT_DBURI", "database_url" },
    { "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS", "database_short_lived_sessions" },
    { "CELERY_RESULT_DB_TABLENAMES", "database_table_names" },
    { "CELERY_RESULT_ENGINE_OPTIONS", "database_engine_options" },
    { "CELERY_SEND_EVENTS", "worker_send_task_events" },
    { "CELERY_SEND_TASK_SENT_EVENT", "task_send_sent_event" },
    { "CELERY_TASK_RESULT_EXPIRES", "result_expires" },
};

static size_t
edits(const char *a, const char *b)
{
    size_t row[NAME_MAX_LEN + 1], n = strlen(b);

    if (n > NAME_MAX_LEN || strlen(a) > NAME_MAX_LEN)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (best > row[j] + 1)
                best = row[j] + 1;
            if (best > row[j - 1] + 1)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

const char *
apm_setting_nearest(const char *name, const char *const *known, size_t n)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 2 + 2; /* further away is no likely slip of the pen */

    for (size_t i = 0; i < n; i++) {
        size_t d = edits(name, known[i]);
        if (d < best) {
            best = d;
            nearest = known[i];
        }
    }
    return nearest;
}

static const apm_setting *
find_lower(const char *prefix, const char *rest)
{
    char name[NAME_MAX_LEN + 1];
    size_t len = strlen(prefix);

    if (len + strlen(rest) > NAME_MAX_LEN)
        return NULL;
    memcpy(name, prefix, len);
    do
        name[len++] = (char)tolower((unsigned char)*rest);
    while (*rest++);
    for (size_t i = 0; i < apm_setting_count; i++)
        if (strcmp(name, apm_setting_table[i].name) == 0)
            return &apm_setting_table[i];
    return NULL;
}

/* CELERY_TASK_ACKS_LATE, CELERY_ACKS_LATE, CELERYD_CONCURRENCY, CELERYBEAT_SCHEDULE, BROKER_URL:
 * how Celery named settings before 4.0, and how Django projects still do. */
static const apm_setting *
find_old(const char *name)
{
    static const struct {
        const char *was, *is;
    } prefixes[] = {
        { "CELERYD_", "worker_" }, { "CELERYBEAT_", "beat_" }, { "CELERY_", "" },
        { "CELERY_", "task_" },    { "CELERY_", "worker_" },   { "", "" },
    };
    const apm_setting *row = NULL;

    for (const char *p = name; *p; p++)
        if (islower((unsigned char)*p))
            return NULL;
    for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
        if (strcmp(name, renamed[i].was) == 0)
            return find_lower("", renamed[i].is);
    for (size_t i = 0; !row && i < sizeof prefixes / sizeof *prefixes; i++) {
        size_t len = strlen(prefixes[i].was);
        if (strncmp(name, prefixes[i].was, len) == 0)
            row = find_lower(prefixes[i].is, name + len);
    }
    if (row)
        apm_log(APM_LOG_DEBUG, "settings.renamed", "setting %s is called %s now", name, row->name);
    return row;
}

static apium_status
find(const char *name, apm_source source, const apm_setting **out, apium_error *err)
{
    const char *names[256], *nearest;
    size_t n = 0;

    for (; n < apm_setting_count && n < sizeof names / sizeof *names; n++) {
        names[n] = apm_setting_table[n].name;
        if (strcmp(name, names[n]) == 0) {
            *out = &apm_setting_table[n];
            return APIUM_OK;
        }
    }
    if ((*out = find_old(name)))
        return APIUM_OK;
    nearest = apm_setting_nearest(name, names, n);
    return apm_fail(err, APIUM_E_CONFIG, "unknown setting %.80s%s%s%s%s", name,
                    source == APM_FROM_ENV    ? " in the environment"
                    : source == APM_FROM_FLAG ? " on the command line"
                                              : "",
                    nearest ? " (did you mean " : "", nearest ? nearest : "", nearest ? "?)" : "");
}

apium_status
apm_settings_keep(apm_settings *settings, apm_str text, const char **out, apium_error *err)
{
    bool ok = true;

    *out = apm_arena_str(&settings->arena, text, &ok).p;
    return ok ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

apium_status
apm_settings_text(apm_settings *settings, apm_json val, const char **out, apium_error *err)
{
    if (val.type == APM_JSON_NULL) {
        *out = NULL;
        return APIUM_OK;
    }
    if (val.type != APM_JSON_STRING)
        return apm_settings_keep(settings, val.text, out, err);
    return apm_json_cstr(val, "text", &settings->arena, out, err);
}

apium_status
apm_settings_bool(apm_json val, bool *out, apium_error *err)
{
    static const char *const words[] = { "true", "yes", "on", "1", "false", "no", "off", "0" };
    apm_str text = val.text;

    if (val.type == APM_JSON_NULL) {
        *out = false;
        return APIUM_OK;
    }
    if (val.type == APM_JSON_STRING)
        text = (apm_str){ text.p + 1, text.len - 2 };
    for (size_t i = 0; i < 8; i++)
        if (text.len == strlen(words[i]) && strncasecmp(text.p, words[i], text.len) == 0) {
            *out = i < 4;
            return APIUM_OK;
        }
    return apm_fail(err, APIUM_E_CONFIG, "expected true or false");
}

/* A number, also as a string (the environment of a container quotes everything). */
static bool
number_of(apm_json val, apm_json *out)
{
    *out = val;
    if (val.type == APM_JSON_STRING &&
        apm_json_parse((apm_str){ val.text.p + 1, val.text.len - 2 }, out, NULL) != APIUM_OK)
        return false;
    return out->type == APM_JSON_INT || out->type == APM_JSON_FLOAT;
}

apium_status
apm_settings_int(apm_json val, double min, double max, int64_t *out, apium_error *err)
{
    apm_json number;
    double value;
    int64_t n = 0;

    if (val.type == APM_JSON_NULL) {
        *out = 0;
        return APIUM_OK;
    }
    if (!number_of(val, &number) || apm_json_double(number, "", &value, NULL) != APIUM_OK ||
        value < min || value > max || value != floor(value) ||
        (number.type == APM_JSON_INT && apm_json_int64(number, "", &n, NULL) != APIUM_OK))
        return apm_fail(err, APIUM_E_CONFIG, "expected a whole number from %.0f to %.0f", min, max);
    *out = number.type == APM_JSON_INT ? n : (int64_t)value;
    return APIUM_OK;
}

apium_status
apm_settings_seconds(apm_json val, double min, double max, double *out, apium_error *err)
{
    apm_json number;
    double value;

    if (val.type == APM_JSON_NULL) {
        *out = 0;
        return APIUM_OK;
    }
    if (!number_of(val, &number) || apm_json_double(number, "", &value, NULL) != APIUM_OK ||
        !(value >= min && value <= max))
        return apm_fail(err, APIUM_E_CONFIG, "expected a number of seconds from %g to %g", min,
                        max);
    *out = value;
    return APIUM_OK;
}

static apium_status
set_choice(apm_settings *settings, const apm_setting *row, apm_json val, const char **out,
           apium_error *err)
{
    const char *text;
    apium_status st;

    if ((st = apm_settings_text(settings, val, &text, err)) != APIUM_OK)
        return st;
    if (!text) { /* null: the default */
        *out = NULL;
        size_t len = strlen(row->initial);
        return apm_settings_keep(settings, (apm_str){ row->initial + 1, len - 2 }, out, err);
    }
    for (const char *at = row->choices; *at;) {
        size_t len = strcspn(at, "|");
        if (strlen(text) == len && strncasecmp(text, at, len) == 0)
            return apm_settings_keep(settings, (apm_str){ at, len }, out, err);
        at += len + (at[len] == '|');
    }
    return apm_fail(err, APIUM_E_CONFIG, "expected one of %s", row->choices);
}

/* One URL, or a list of alternatives as Celery has it. */
static apium_status
set_url(apm_settings *settings, apm_json val, const char **out, apium_error *err)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    const char *all = NULL, *one;
    apium_status st;

    if (val.type != APM_JSON_ARRAY)
        return apm_settings_text(settings, val, out, err);
    if ((st = apm_json_open(&it, val.text, err)) != APIUM_OK)
        return st;
    while (apm_json_next(&it, &key, &item, err) > 0) {
        if (item.type != APM_JSON_STRING)
            return apm_fail(err, APIUM_E_CONFIG, "expected a URL or a list of URLs");
        if ((st = apm_settings_text(settings, item, &one, err)) != APIUM_OK)
            return st;
        all = all ? apm_arena_printf(&settings->arena, "%s;%s", all, one) : one;
        if (!all)
            return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    *out = all;
    return APIUM_OK;
}

static apium_status
set_value(apm_settings *settings, const apm_setting *row, const apm_given *given, apium_error *err)
{
    void *field = (char *)settings + row->offset;
    apm_json val = given->json;
    apium_status st;
    bool yes = false;

    switch (row->kind) {
    case APM_S_BOOL:
        return apm_settings_bool(val, field, err);
    case APM_S_TRI:
        if ((st = apm_settings_bool(val, &yes, err)) == APIUM_OK)
            *(apm_tri *)field = val.type == APM_JSON_NULL ? APM_UNSET : yes ? APM_YES : APM_NO;
        return st;
    case APM_S_INT:
        return apm_settings_int(val, row->min, row->max, field, err);
    case APM_S_SECONDS:
        return apm_settings_seconds(val, row->min, row->max, field, err);
    case APM_S_TEXT:
        return apm_settings_text(settings, val, field, err);
    case APM_S_CHOICE:
        return set_choice(settings, row, val, field, err);
    case APM_S_URL:
        return set_url(settings, val, field, err);
    case APM_S_JSON:
        if (val.type != APM_JSON_OBJECT && val.type != APM_JSON_ARRAY && val.type != APM_JSON_NULL)
            return apm_fail(err, APIUM_E_CONFIG, "expected an object");
        *(apm_json *)field = val;
        return APIUM_OK;
    case APM_S_CUSTOM:
        return row->set(settings, given, err);
    case APM_S_NO_EFFECT:
        if (given->source != APM_FROM_DEFAULT)
            apm_log(APM_LOG_DEBUG, "settings.unused", "setting %s is %s", row->name, row->help);
    }
    return APIUM_OK;
}

apium_status
apm_set_broker(apm_settings *settings, const apm_given *given, apium_error *err)
{
    const char *url;
    apium_status st;

    if ((st = set_url(settings, given->json, &url, err)) != APIUM_OK)
        return st;
    settings->broker_url = url ? url : EMBEDDED;
    settings->broker_given = url != NULL;
    return APIUM_OK;
}

apium_status
apm_set_backend(apm_settings *settings, const apm_given *given, apium_error *err)
{
    const char *url;
    apium_status st;

    if ((st = set_url(settings, given->json, &url, err)) != APIUM_OK)
        return st;
    bool none = !url || !*url || strcmp(url, "disabled") == 0 || strcmp(url, "disabled://") == 0;
    settings->result_backend = none ? NULL : url;
    return APIUM_OK;
}

static const char *
source_name(apm_source source)
{
    static const char *const names[] = { "default", "configuration file", "environment", "program",
                                         "command line" };

    return names[source];
}

/* JSON, or bare text as a JSON string; in the arena. */
static apium_status
take_value(apm_settings *settings, const apm_setting *row, apm_str value, apm_given *given,
           apium_error *err)
{
    bool textual = row->kind == APM_S_TEXT || row->kind == APM_S_URL || row->kind == APM_S_CHOICE;
    apm_buf buf;
    bool ok = true;
    apium_status st = APIUM_OK;

    if (!apm_str_is(value))
        value = APM_STR("null");
    value = apm_arena_str(&settings->arena, value, &ok);
    if (!ok)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if (apm_json_parse(value, &given->json, NULL) == APIUM_OK &&
        (!textual || given->json.type == APM_JSON_STRING || given->json.type == APM_JSON_NULL ||
         given->json.type == APM_JSON_ARRAY))
        return APIUM_OK;
    if (!apm_utf8_valid(value, false))
        return apm_fail(err, APIUM_E_CONFIG, "the value is not UTF-8");
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_json_add_string(&buf, value);
    ok = !buf.failed;
    given->json.type = APM_JSON_STRING;
    given->json.text = apm_arena_str(&settings->arena, apm_buf_str(&buf), &ok);
    if (!ok)
        st = apm_fail(err, APIUM_E_NOMEM, "out of memory");
    apm_buf_clear(&buf);
    return st;
}

static void mask(apm_buf *buf, const apm_setting *row, apm_str text);

apium_status
apm_settings_set(apm_settings *settings, const char *name, apm_str value, apm_source source,
                 apium_error *err)
{
    struct apm_settings_state *state = settings->state;
    apm_given given = { .source = source };
    const apm_setting *row = NULL;
    apium_error why = { 0 };
    apium_status st;

    if ((st = find(name, source, &row, err)) != APIUM_OK)
        return st;
    size_t at = (size_t)(row - apm_setting_table);
    if (source < state->values[at].source)
        return APIUM_OK;
    const apm_settings before = *settings;
    if ((st = take_value(settings, row, value, &given, &why)) != APIUM_OK ||
        (st = set_value(settings, row, &given, &why)) != APIUM_OK) {
        /* A value that is no good changes nothing; the arena alone has grown. */
        apm_arena arena = settings->arena;
        *settings = before;
        settings->arena = arena;
        apm_buf shown;
        apm_buf_init(&shown, APM_BUF_MAX);
        mask(&shown, row, apm_str_is(given.json.text) ? given.json.text : APM_STR("null"));
        st = apm_fail(err, APIUM_E_CONFIG, "setting %s: %s, not %.*s (%s)", row->name, why.text,
                      shown.len < 80 ? (int)shown.len : 80, apm_buf_str(&shown).p,
                      source_name(source));
        apm_buf_clear(&shown);
        return st;
    }
    state->values[at].source = source;
    state->values[at].text = given.json.text;
    state->made =
        NULL; /* what was made up may look different now; the old ones live on in the arena */
    /* A broker of one's own with results in the embedded file would surprise: then there is no
     * backend. */
    if (row->set == apm_set_broker && given.json.type != APM_JSON_NULL) {
        const apm_setting *backend = NULL;
        if (find("result_backend", APM_FROM_DEFAULT, &backend, NULL) == APIUM_OK &&
            state->values[backend - apm_setting_table].source == APM_FROM_DEFAULT)
            settings->result_backend = NULL;
    }
    return APIUM_OK;
}

apium_status
apm_settings_init(apm_settings *settings, apium_error *err)
{
    apium_status st;

    *settings = (apm_settings){ 0 };
    settings->state = apm_arena_alloc(&settings->arena, sizeof *settings->state);
    if (settings->state)
        settings->state->values =
            apm_arena_alloc(&settings->arena, apm_setting_count * sizeof *settings->state->values);
    if (!settings->state || !settings->state->values) {
        apm_settings_clear(settings);
        return apm_fail(err, APIUM_E_NOMEM, "cannot read settings: out of memory");
    }
    for (size_t i = 0; i < apm_setting_count; i++) {
        const apm_setting *row = &apm_setting_table[i];
        if ((st = apm_settings_set(settings, row->name, apm_strz(row->initial), APM_FROM_DEFAULT,
                                   err)) != APIUM_OK) {
            apm_settings_clear(settings);
            return st;
        }
    }
    settings->result_backend = EMBEDDED;
    return APIUM_OK;
}

void
apm_settings_clear(apm_settings *settings)
{
    if (settings->state)
        apm_settings_drop_rules(settings);
    apm_arena_clear(&settings->arena);
    *settings = (apm_settings){ 0 };
}

static bool
secret_name(apm_str raw_key)
{
    static const char *const words[] = { "password", "secret", "token" };
    for (size_t w = 0; w < sizeof(words) / sizeof(*words); w++)
        for (size_t i = 0, len = strlen(words[w]); i + len <= raw_key.len; i++)
            if (strncasecmp(raw_key.p + i, words[w], len) == 0)
                return true;
    return false;
}

/* A copy of a small object with the values of its passwords starred out, nested ones too. */
static void
mask_members(apm_buf *buf, apm_json val, int depth)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    bool first = true;

    if (val.type != APM_JSON_OBJECT || depth == 8 ||
        apm_json_open(&it, val.text, NULL) != APIUM_OK) {
        apm_buf_adds(buf, val.text);
        return;
    }
    apm_buf_addc(buf, '{');
    while (apm_json_next(&it, &key, &item, NULL) > 0) {
        apm_buf_addz(buf, first ? "" : ", ");
        apm_buf_adds(buf, key);
        apm_buf_addz(buf, ": ");
        if (secret_name(key))
            apm_buf_addz(buf, "\"**\"");
        else
            mask_members(buf, item, depth + 1);
        first = false;
    }
    apm_buf_addc(buf, '}');
}

static void
mask(apm_buf *buf, const apm_setting *row, apm_str text)
{
    bool url = row->kind == APM_S_URL || row->set == apm_set_broker ||
               row->set == apm_set_backend || strstr(row->name, "_url");
    char masked[1024];
    apm_json val;
    const char *plain;
    apm_arena arena = { 0 };

    if (apm_json_parse(text, &val, NULL) != APIUM_OK) {
        apm_buf_addz(buf, "null");
    } else if (val.type != APM_JSON_NULL && secret_name(apm_strz(row->name))) {
        apm_buf_addz(buf, "\"**\"");
    } else if (url && val.type == APM_JSON_STRING &&
               apm_json_cstr(val, "", &arena, &plain, NULL) == APIUM_OK) {
        apm_url_mask(plain, masked, sizeof masked);
        apm_json_add_stringz(buf, masked);
    } else if (url && val.type == APM_JSON_ARRAY) {
        apm_buf_addc(buf, '[');
        for (size_t i = 0; i < apm_json_count(val); i++) {
            apm_buf_addz(buf, i ? ", " : "");
            mask(buf, row, apm_json_at(val, i).text);
        }
        apm_buf_addc(buf, ']');
    } else {
        mask_members(buf, val, 0);
    }
    apm_arena_clear(&arena);
}

void
apm_settings_each(const apm_settings *settings, apm_setting_visit *visit, void *arg)
{
    apm_buf buf;

    apm_buf_init(&buf, APM_BUF_MAX);
    for (size_t i = 0; i < apm_setting_count; i++) {
        const apm_setting *row = &apm_setting_table[i];
        apm_str text = settings->state->values[i].text;
        apm_buf_reset(&buf);
        if (row->set == apm_set_backend && settings->state->values[i].source == APM_FROM_DEFAULT) {
            char masked[1024];
            apm_url_mask(settings->result_backend ? settings->result_backend : "", masked,
                         sizeof masked);
            apm_json_add_stringz(&buf, settings->result_backend ? masked : NULL);
        } else {
            mask(&buf, row, text);
        }
        visit(arg, row->name, apm_buf_str(&buf), settings->state->values[i].source, row->help);
    }
    apm_buf_clear(&buf);
}

bool
apm_settings_ack_on_failure(const apm_settings *settings)
{
    return settings->task_acks_on_failure == APM_UNSET ? settings->task_acks_on_failure_or_timeout
                                                       : settings->task_acks_on_failure == APM_YES;
}

bool
apm_settings_ack_on_timeout(const apm_settings *settings)
{
    return settings->task_acks_on_timeout == APM_UNSET ? settings->task_acks_on_failure_or_timeout
                                                       : settings->task_acks_on_timeout == APM_YES;
}
