/* json_read.c - reading single JSON values as C values; see json.h */
#include <locale.h>
#include <pthread.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/json_scan.h"
#include "core/base/utf8.h"

static const char *
type_text(apm_json_type type)
{
    switch (type) {
    case APM_JSON_NONE:
        break;
    case APM_JSON_NULL:
        return "null";
    case APM_JSON_BOOL:
        return "a boolean";
    case APM_JSON_INT:
        return "an integer";
    case APM_JSON_FLOAT:
        return "a float";
    case APM_JSON_STRING:
        return "a string";
    case APM_JSON_ARRAY:
        return "an array";
    case APM_JSON_OBJECT:
        return "an object";
    }
    return "missing";
}

static apium_status
mistyped(apm_json val, const char *what, const char *wanted, apium_error *err)
{
    return apm_fail(err, APIUM_E_INVALID, "%s must be %s, but is %s", what, wanted,
                    type_text(val.type));
}

apium_status
apm_json_int64(apm_json val, const char *what, int64_t *out, apium_error *err)
{
    if (val.type != APM_JSON_INT)
        return mistyped(val, what, "an integer", err);
    const char *at = val.text.p, *end = at + val.text.len;
    bool minus = *at == '-';
    int64_t v = 0;
    /* Counted downwards, where there is room for one more. */
    for (at += minus; at < end; at++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *at - '0', &v))
            goto too_big;
    if (!minus && __builtin_sub_overflow(0, v, &v))
        goto too_big;
    *out = v;
    return APIUM_OK;
too_big:
    return apm_fail(err, APIUM_E_TOOBIG, "%s does not fit into 64 bits: %.*s%s", what,
                    val.text.len > 40 ? 40 : (int)val.text.len, val.text.p,
                    val.text.len > 40 ? "..." : "");
}

/* Programs that call setlocale() may have another decimal point than JSON. */
static locale_t plain_locale;
static pthread_once_t plain_once = PTHREAD_ONCE_INIT;

static void
make_plain_locale(void)
{
    plain_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

bool
apm_json_number(apm_str text, double *out)
{
    char small[64], *z = small;

    pthread_once(&plain_once, make_plain_locale);
    if (text.len >= sizeof(small) && !(z = malloc(text.len + 1)))
        return false;
    memcpy(z, text.p, text.len); /* strtod wants an end */
    z[text.len] = '\0';
    *out = plain_locale ? strtod_l(z, NULL, plain_locale) : strtod(z, NULL);
    if (z != small)
        free(z);
    return true;
}

apium_status
apm_json_double(apm_json val, const char *what, double *out, apium_error *err)
{
    double v;

    if (val.type != APM_JSON_INT && val.type != APM_JSON_FLOAT)
        return mistyped(val, what, "a number", err);
    if (!apm_json_number(val.text, &v))
        return apm_fail(err, APIUM_E_NOMEM, "cannot read %s: out of memory", what);
    if (val.type == APM_JSON_INT && v - v != 0)
        return apm_fail(err, APIUM_E_TOOBIG, "%s is an integer too large for a float", what);
    *out = v;
    return APIUM_OK;
}

apium_status
apm_json_bool(apm_json val, const char *what, bool *out, apium_error *err)
{
    if (val.type != APM_JSON_BOOL)
        return mistyped(val, what, "a boolean", err);
    *out = val.text.p[0] == 't';
    return APIUM_OK;
}

static uint32_t
hex4(const char *at)
{
    uint32_t v = 0;

    for (int i = 0; i < 4; i++) {
        uint32_t c = (unsigned char)at[i];
        v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10) % 16;
    }
    return v;
}

int
apm_json_char(const char **at, const char *end, char out[4])
{
    const char *p = *at;

    if (*p != '\\' || end - p < 2) {
        int len = apm_utf8_len(p, end, true);
        if (len == 0)
            len = 1;
        memcpy(out, p, (size_t)len);
        *at = p + len;
        return len;
    }
    *at = p + 2;
    switch (p[1]) {
    case 'b':
        out[0] = '\b';
        return 1;
    case 'f':
        out[0] = '\f';
        return 1;
    case 'n':
        out[0] = '\n';
        return 1;
    case 'r':
        out[0] = '\r';
        return 1;
    case 't':
        out[0] = '\t';
        return 1;
    case 'u':
        break;
    default:
        out[0] = p[1];
        return 1;
    }
    if (end - p < 6)
        return apm_utf8_put(0xfffd, out);
    uint32_t point = hex4(p + 2);
    *at = p + 6;
    if (point >= 0xd800 && point < 0xdc00 && end - p >= 12 && p[6] == '\\' && p[7] == 'u') {
        uint32_t low = hex4(p + 8);
        if (low >= 0xdc00 && low < 0xe000) {
            point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
            *at = p + 12;
        }
    }
    return apm_utf8_put(point, out);
}

bool
apm_json_key_is(apm_str raw_key, const char *name)
{
    size_t len = strlen(name);
    char c[4];

    if (raw_key.len == len + 2 && memcmp(raw_key.p + 1, name, len) == 0 && !memchr(name, '\\', len))
        return true;
    if (raw_key.len < len + 2 || !memchr(raw_key.p, '\\', raw_key.len))
        return false;
    const char *at = raw_key.p + 1, *end = raw_key.p + raw_key.len - 1;
    while (at < end) {
        size_t n = (size_t)apm_json_char(&at, end, c);
        if (n > len || memcmp(c, name, n) != 0)
            return false;
        name += n;
        len -= n;
    }
    return len == 0;
}

/* The string's text in the arena, terminated. */
static apium_status
unescape(apm_str inside, const char *what, apm_arena *arena, apm_str *out, apium_error *err)
{
    char *to = apm_arena_bytes(arena, inside.len + 1), *start = to;
    const char *at = inside.p, *end = at + inside.len;

    if (!to)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read %s: out of memory", what);
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        size_t run = (size_t)((escape ? escape : end) - at);
        memcpy(to, at, run);
        to += run;
        at += run;
        /* No escape stands for more bytes than it has, so there is room. */
        while (at < end && *at == '\\') {
            char c[4];
            int n = apm_json_char(&at, end, c);
            memcpy(to, c, (size_t)n);
            to += n;
        }
    }
    *to = '\0';
    *out = (apm_str){ start, (size_t)(to - start) };
    return APIUM_OK;
}

apium_status
apm_json_string(apm_json val, const char *what, apm_arena *arena, apm_str *out, apium_error *err)
{
    if (val.type != APM_JSON_STRING)
        return mistyped(val, what, "a string", err);
    apm_str inside = { val.text.p + 1, val.text.len - 2 };
    if (memchr(inside.p, '\\', inside.len))
        return unescape(inside, what, arena, out, err);
    *out = inside;
    return APIUM_OK;
}

apium_status
apm_json_cstr(apm_json val, const char *what, apm_arena *arena, const char **out, apium_error *err)
{
    apm_str s;

    if (val.type != APM_JSON_STRING)
        return mistyped(val, what, "a string", err);
    apium_status st = unescape((apm_str){ val.text.p + 1, val.text.len - 2 }, what, arena, &s, err);
    if (st != APIUM_OK)
        return st;
    if (memchr(s.p, '\0', s.len))
        return apm_fail(err, APIUM_E_INVALID, "%s holds a NUL character", what);
    *out = s.p;
    return APIUM_OK;
}
