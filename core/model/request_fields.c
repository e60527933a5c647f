/* request_fields.c - which members there are and what each means. Lenient where Celery is. */
#include "core/model/request_fields.h"

#include <math.h>

#include "core/base/clock.h"
#include "core/base/error.h"

const char *const apm_field_names[APM_FIELDS] = {
    [APM_F_LANG] = "lang",
    [APM_F_TASK] = "task",
    [APM_F_ID] = "id",
    [APM_F_SHADOW] = "shadow",
    [APM_F_ETA] = "eta",
    [APM_F_EXPIRES] = "expires",
    [APM_F_GROUP] = "group",
    [APM_F_GROUP_INDEX] = "group_index",
    [APM_F_RETRIES] = "retries",
    [APM_F_TIMELIMIT] = "timelimit",
    [APM_F_ROOT_ID] = "root_id",
    [APM_F_PARENT_ID] = "parent_id",
    [APM_F_ARGSREPR] = "argsrepr",
    [APM_F_KWARGSREPR] = "kwargsrepr",
    [APM_F_ORIGIN] = "origin",
    [APM_F_IGNORE_RESULT] = "ignore_result",
    [APM_F_NESTING] = "replaced_task_nesting",
    [APM_F_STAMPED_HEADERS] = "stamped_headers",
    [APM_F_STAMPS] = "stamps",
    [APM_F_COMPRESSION] = "compression",
    [APM_F_REDELIVERED] = "redelivered",
    [APM_F_ARGS] = "args",
    [APM_F_KWARGS] = "kwargs",
    [APM_F_UTC] = "utc",
    [APM_F_TASKSET] = "taskset",
    [APM_F_CALLBACKS] = "callbacks",
    [APM_F_ERRBACKS] = "errbacks",
    [APM_F_CHORD] = "chord",
};

static inline int
find(apm_str name, bool raw, int n, int *hint)
{
    int at = *hint < n ? *hint : 0;

    for (int i = 0; i < n; i++) {
        if (raw ? apm_json_key_is(name, apm_field_names[at])
                : apm_str_eqz(name, apm_field_names[at])) {
            *hint = at + 1;
            return at;
        }
        if (++at == n)
            at = 0;
    }
    return -1;
}

int
apm_field_find(apm_str raw_key, int n, int *hint)
{
    return find(raw_key, true, n, hint);
}

int
apm_field_named(apm_str name, int n, int *hint)
{
    return find(name, false, n, hint);
}

apium_status
apm_fields_read(apm_str object, int n, apm_json fields[], apium_error *err)
{
    bool had[APM_FIELDS];
    apm_json_iter it;
    apm_json val;
    apm_str key;
    apium_status st;
    int more, field, hint = 0;

    if ((st = apm_json_open(&it, object, err)) != APIUM_OK)
        return st;
    if (!it.object)
        return apm_fail(err, APIUM_E_DECODE, "an array where an object is expected");
    for (int i = 0; i < n; i++)
        had[i] = fields[i].type != APM_JSON_NONE;
    while ((more = apm_json_next(&it, &key, &val, err)) > 0)
        if ((field = apm_field_find(key, n, &hint)) >= 0 && !had[field])
            fields[field] = val;
    return more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

bool
apm_json_true(apm_json val)
{
    double number;

    switch (val.type) {
    case APM_JSON_NONE:
    case APM_JSON_NULL:
        return false;
    case APM_JSON_BOOL:
        return val.text.p[0] == 't';
    case APM_JSON_INT:
    case APM_JSON_FLOAT:
        return apm_json_double(val, "", &number, NULL) != APIUM_OK || number != 0;
    case APM_JSON_STRING:
        return val.text.len > 2;
    case APM_JSON_ARRAY:
    case APM_JSON_OBJECT:
        return !apm_json_empty(val);
    }
    return true;
}

void
apm_request_init(apm_request *req)
{
    *req = (apm_request){
        .group_index = -1,
        .eta_us = APM_TIME_NONE,
        .expires_us = APM_TIME_NONE,
        .ignore_result = APM_UNSET,
        .priority = APM_PRIORITY_NONE,
        .protocol = 2,
    };
}

/* Text; null and missing are absent; anything else is its own JSON text, as such a message works in
 * Python too. */
static apium_status
read_text(const apm_json fields[], apm_field field, apm_arena *arena, apm_str *out,
          apium_error *err)
{
    apm_json val = fields[field];

    if (val.type == APM_JSON_STRING)
        return apm_json_string(val, apm_field_names[field], arena, out, err);
    *out = val.type == APM_JSON_NULL ? APM_STR_NONE : val.text;
    return APIUM_OK;
}

static apium_status
read_date(apm_json val, const char *what, int naive_offset_s, apm_arena *arena, int64_t *out,
          apium_error *err)
{
    apm_str text;
    apium_error why;

    *out = APM_TIME_NONE;
    if (!apm_json_true(val))
        return APIUM_OK;
    if (val.type != APM_JSON_STRING || apm_json_string(val, what, arena, &text, &why) != APIUM_OK ||
        apm_date_parse(text, naive_offset_s, out, &why) != APIUM_OK) {
        int shown = val.text.len < 60 ? (int)val.text.len : 60;
        return apm_fail(err, APIUM_E_DECODE, "invalid %s value %.*s", what, shown, val.text.p);
    }
    return APIUM_OK;
}

/* Seconds; null, 0 and infinity are no limit. */
static apium_status
read_limit(apm_json val, const char *what, double *out, apium_error *err)
{
    *out = 0;
    if (!apm_json_true(val))
        return APIUM_OK;
    if ((val.type != APM_JSON_INT && val.type != APM_JSON_FLOAT) ||
        apm_json_double(val, what, out, NULL) != APIUM_OK || isnan(*out) || *out < 0)
        return apm_fail(err, APIUM_E_DECODE, "%s is no number of seconds: %.*s", what,
                        val.text.len < 60 ? (int)val.text.len : 60, val.text.p);
    if (isinf(*out))
        *out = 0;
    return APIUM_OK;
}

static apium_status
read_limits(apm_json val, apm_request *req, apium_error *err)
{
    apium_status st;

    if (!apm_json_true(val))
        return APIUM_OK;
    if (val.type != APM_JSON_ARRAY || apm_json_count(val) != 2)
        return apm_fail(err, APIUM_E_DECODE, "timelimit is not [hard, soft]");
    if ((st = read_limit(apm_json_at(val, 0), "timelimit[0]", &req->time_limit_s, err)) != APIUM_OK)
        return st;
    return read_limit(apm_json_at(val, 1), "timelimit[1]", &req->soft_time_limit_s, err);
}

/* A count; what is no integer, or beyond reason, is 0 or the reasonable bound: Celery runs such
 * tasks too. */
static int64_t
read_count(apm_json val, int64_t otherwise)
{
    double number;

    if ((val.type != APM_JSON_INT && val.type != APM_JSON_FLOAT) ||
        apm_json_double(val, "", &number, NULL) != APIUM_OK || isnan(number) || number < 0)
        return otherwise;
    return number < INT32_MAX ? (int64_t)number : INT32_MAX;
}

apium_status
apm_fields_interpret(const apm_json fields[], int naive_offset_s, apm_arena *arena,
                     apm_request *req, apium_error *err)
{
    static const struct {
        apm_field field;
        size_t offset;
    } texts[] = {
        { APM_F_TASK, offsetof(apm_request, task) },
        { APM_F_ID, offsetof(apm_request, id) },
        { APM_F_ROOT_ID, offsetof(apm_request, root_id) },
        { APM_F_PARENT_ID, offsetof(apm_request, parent_id) },
        { APM_F_GROUP, offsetof(apm_request, group) },
        { APM_F_SHADOW, offsetof(apm_request, shadow) },
        { APM_F_ORIGIN, offsetof(apm_request, origin) },
        { APM_F_ARGSREPR, offsetof(apm_request, argsrepr) },
        { APM_F_KWARGSREPR, offsetof(apm_request, kwargsrepr) },
        { APM_F_COMPRESSION, offsetof(apm_request, compression) },
    };
    apium_status st;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        apm_str *text = (apm_str *)((char *)req + texts[i].offset);
        if ((st = read_text(fields, texts[i].field, arena, text, err)) != APIUM_OK)
            return st;
    }
    req->group_index = read_count(fields[APM_F_GROUP_INDEX], -1);
    req->retries = read_count(fields[APM_F_RETRIES], 0);
    req->replaced_task_nesting = read_count(fields[APM_F_NESTING], 0);
    apm_json ignore = fields[APM_F_IGNORE_RESULT];
    if (ignore.type != APM_JSON_NONE && ignore.type != APM_JSON_NULL)
        req->ignore_result = apm_json_true(ignore) ? APM_YES : APM_NO;
    req->redelivered |= apm_json_true(fields[APM_F_REDELIVERED]);
    if ((st = read_date(fields[APM_F_ETA], "ETA", naive_offset_s, arena, &req->eta_us, err)) !=
            APIUM_OK ||
        (st = read_date(fields[APM_F_EXPIRES], "expires", naive_offset_s, arena, &req->expires_us,
                        err)) != APIUM_OK)
        return st;
    return read_limits(fields[APM_F_TIMELIMIT], req, err);
}
