/* annotate.c - see annotate.h. */
#include "client/annotate.h"

#include <limits.h>

#include "core/base/error.h"

typedef enum kind { SECONDS, TEXT, OPTION, YES, PRIORITY, RETRIES } kind;

static const struct {
    const char *name;
    kind kind;
    size_t offset;
} attributes[] = {
#define ROW(name, kind)                                                                            \
    {                                                                                              \
#name, kind, offsetof(apium_task_def, name)                                                \
    }
    ROW(max_retries, RETRIES),
    ROW(default_retry_delay, SECONDS),
    ROW(retry_backoff, YES),
    ROW(retry_backoff_max, SECONDS),
    ROW(retry_jitter, OPTION),
    ROW(time_limit, SECONDS),
    ROW(soft_time_limit, SECONDS),
    ROW(rate_limit, TEXT),
    ROW(acks_late, OPTION),
    ROW(ignore_result, OPTION),
    ROW(track_started, OPTION),
    ROW(reject_on_worker_lost, OPTION),
    ROW(acks_on_failure_or_timeout, OPTION),
    ROW(store_errors_even_if_ignored, OPTION),
    ROW(queue, TEXT),
    ROW(exchange, TEXT),
    ROW(routing_key, TEXT),
    ROW(serializer, TEXT),
    ROW(compression, TEXT),
    ROW(priority, PRIORITY),
    ROW(expires, SECONDS),
#undef ROW
};
#define N_ATTRIBUTES (sizeof(attributes) / sizeof(*attributes))

/* null unsets: the setting decides again. */
static apium_status
set_text(apm_json val, const char *name, apm_arena *arena, const char **out, apium_error *err)
{
    if (val.type == APM_JSON_NULL) {
        *out = NULL;
        return APIUM_OK;
    }
    if (val.type == APM_JSON_INT || val.type == APM_JSON_FLOAT) { /* a rate of so many a second */
        *out = apm_arena_str(arena, val.text, NULL).p;
        return *out ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    return apm_json_cstr(val, name, arena, out, err);
}

static apium_status
set_count(apm_json val, const char *name, int low, int *out, apium_error *err)
{
    int64_t n;
    apium_status st = apm_json_int64(val, name, &n, err);
    if (st != APIUM_OK)
        return st;
    if (n < low || n > INT_MAX)
        return apm_fail(err, APIUM_E_INVALID, "%s is out of range", name);
    *out = (int)n;
    return APIUM_OK;
}

/* In a definition 0 is the default: Celery's 0 and None are other numbers there. */
static apium_status
set_retries(apm_json val, const char *name, int *out, apium_error *err)
{
    if (val.type == APM_JSON_NULL) {
        *out = APIUM_UNLIMITED;
        return APIUM_OK;
    }
    apium_status st = set_count(val, name, 0, out, err);
    if (st == APIUM_OK && *out == 0)
        *out = APIUM_NO_RETRIES;
    return st;
}

static apium_status
set_attribute(apium_task_def *def, size_t i, apm_json val, apm_arena *arena, apium_error *err)
{
    void *field = (char *)def + attributes[i].offset;
    const char *name = attributes[i].name;
    apium_status st = APIUM_OK;
    bool yes;

    switch (attributes[i].kind) {
    case TEXT:
        return set_text(val, name, arena, field, err);
    case RETRIES:
        return set_retries(val, name, field, err);
    case PRIORITY:
        def->has_priority = val.type != APM_JSON_NULL;
        return def->has_priority ? set_count(val, name, 0, field, err) : APIUM_OK;
    case SECONDS:
        if (val.type == APM_JSON_NULL)
            *(double *)field = 0;
        else
            st = apm_json_double(val, name, field, err);
        return st;
    case OPTION:
    case YES:
        st = apm_json_bool(val, name, &yes, err);
        if (st == APIUM_OK && attributes[i].kind == YES)
            *(bool *)field = yes;
        else if (st == APIUM_OK)
            *(apium_option *)field = yes ? APIUM_ON : APIUM_OFF;
        return st;
    }
    return st;
}

/* Let one object of attributes have its say. */
static apium_status
apply(apium_task_def *def, apm_json attrs, apm_arena *arena, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_error why;

    if (attrs.type != APM_JSON_OBJECT || apm_json_open(&it, attrs.text, NULL) != APIUM_OK)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot annotate task \"%s\": an object of attributes is expected",
                        def->name);
    while (apm_json_next(&it, &key, &val, NULL) > 0) {
        size_t i = 0;
        while (i < N_ATTRIBUTES && !apm_json_key_is(key, attributes[i].name))
            i++;
        if (i == N_ATTRIBUTES)
            return apm_fail(err, APIUM_E_CONFIG,
                            "cannot annotate task \"%s\": it has no attribute %.*s", def->name,
                            APM_STR_ARG(key));
        apium_status st = set_attribute(def, i, val, arena, &why);
        if (st != APIUM_OK)
            return apm_fail(err, APIUM_E_CONFIG, "cannot annotate task \"%s\": %s", def->name,
                            why.text);
    }
    return APIUM_OK;
}

/* One object of names. */
static apium_status
annotate(apm_json names, const apium_task_def *def, apm_arena *arena, apium_task_def **copy,
         apium_error *err)
{
    const apm_json says[] = { apm_json_get(names, def->name), apm_json_get(names, "*") };
    apium_status st = APIUM_OK;
    for (size_t i = 0; i < 2 && st == APIUM_OK; i++) {
        if (says[i].type == APM_JSON_NONE)
            continue;
        if (!*copy) {
            *copy = apm_arena_alloc(arena, sizeof(**copy));
            if (!*copy)
                return apm_fail(err, APIUM_E_NOMEM, "cannot annotate task \"%s\": out of memory",
                                def->name);
            **copy = *def;
        }
        st = apply(*copy, says[i], arena, err);
    }
    return st;
}

apium_status
apm_annotate(apm_json annotations, const apium_task_def *def, apm_arena *arena,
             const apium_task_def **out, apium_error *err)
{
    apium_task_def *copy = NULL;
    apium_status st = APIUM_OK;

    if (annotations.type == APM_JSON_OBJECT) {
        st = annotate(annotations, def, arena, &copy, err);
    } else if (annotations.type == APM_JSON_ARRAY) {
        apm_json one;
        for (size_t i = 0;
             st == APIUM_OK && (one = apm_json_at(annotations, i)).type != APM_JSON_NONE; i++)
            st = annotate(one, def, arena, &copy, err);
    }
    if (st == APIUM_OK)
        *out = copy ? copy : def;
    return st;
}
