/* flower_options.c - what Flower's callers give besides args and kwargs: options of apply_async, with dates and numbers as text. */
#include "web/flower.h"

#include <stdlib.h>

#include "core/base/clock.h"

/* A number, or a text that is one. */
static bool
read_number(apm_json val, apm_arena *arena, double *out)
{
    const char *text;
    char *end;
    if (val.type == APM_JSON_INT || val.type == APM_JSON_FLOAT)
        return apm_json_double(val, "", out, NULL) == APIUM_OK && *out > -1e10 && *out < 1e10;
    if (val.type != APM_JSON_STRING || apm_json_cstr(val, "", arena, &text, NULL) != APIUM_OK)
        return false;
    *out = strtod(text, &end);
    return *text && !*end && *out > -1e10 && *out < 1e10;
}

/* "2026-11-28 10:00:00.000000", or anything else that is a date; in the zone of the settings. */
static bool
read_date(apm_web_call *call, apm_json val, char date[APM_DATE_MAX])
{
    const char *text;
    int offset_s = 0;
    int64_t us;
    if (val.type != APM_JSON_STRING ||
        apm_json_cstr(val, "", &call->arena, &text, NULL) != APIUM_OK)
        return false;
    (void)apm_zone_offset(call->web->settings->timezone, apm_clock_wall_us(), &offset_s, NULL);
    if (apm_date_parse(apm_strz(text), offset_s, &us, NULL) != APIUM_OK)
        return false;
    apm_date_print(us, 0, date);
    return true;
}

static void
add(apm_buf *options, const char *name)
{
    apm_buf_addf(options, "%s\"%s\": ", options->len ? ", " : "", name);
}

/* false: it makes no sense. */
static bool
add_time(apm_web_call *call, apm_buf *options, const char *name, apm_json val, bool number,
         bool date)
{
    char text[APM_DATE_MAX];
    double value;
    if (number && read_number(val, &call->arena, &value)) {
        add(options, name);
        apm_json_add_double(options, value);
        return true;
    }
    if (date && read_date(call, val, text)) {
        add(options, name);
        apm_json_add_stringz(options, text);
        return true;
    }
    return false;
}

bool
apm_flower_options(apm_web_call *call, apm_json body, apm_buf *options, int64_t *timeout_ms)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    bool ok = true;
    (void)apm_json_open(&it, body.text, NULL);
    while (ok && apm_json_next(&it, &key, &val, NULL) > 0) {
        double seconds;
        if (apm_json_key_is(key, "args") || apm_json_key_is(key, "kwargs") ||
            val.type == APM_JSON_NULL)
            continue;
        if (apm_json_key_is(key, "timeout")) {
            if (!read_number(val, &call->arena, &seconds)) {
                apm_web_error(call, 400, "Invalid timeout");
                return false;
            }
            *timeout_ms = seconds < 0                    ? 0
                          : seconds < APM_WEB_WAIT_MAX_S ? (int64_t)(seconds * 1000)
                                                         : APM_WEB_WAIT_MAX_S * 1000;
        } else if (apm_json_key_is(key, "eta")) {
            ok = add_time(call, options, "eta", val, false, true);
        } else if (apm_json_key_is(key, "countdown")) {
            ok = add_time(call, options, "countdown", val, true, false);
        } else if (apm_json_key_is(key, "expires")) {
            ok = add_time(call, options, "expires", val, true, true);
        } else {
            apm_buf_addz(options, options->len ? ", " : "");
            apm_buf_adds(options, key);
            apm_buf_addz(options, ": ");
            apm_buf_adds(options, val.text);
        }
    }
    if (!ok)
        apm_web_error(call, 400, "Invalid option: %.*s", (int)(key.len < 64 ? key.len : 64), key.p);
    return ok;
}
