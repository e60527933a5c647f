/* json_python.c - a JSON value as Python's repr() shows what it decodes from it; see json.h. */
#include <math.h>

#include "core/base/json_scan.h"

#define MAX_LEVELS 64

/* Characters that Python does not print as they are: controls, other spaces than the usual one, formatting, surrogates, private use.
 * Unassigned ones it would not print either; whether one is, is not known here. */
static bool
is_hidden(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0xa0) || c == 0xad || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200f) || (c >= 0x2028 && c <= 0x202f) ||
           (c >= 0x205f && c <= 0x206f) || c == 0x3000 || (c >= 0xd800 && c <= 0xf8ff) ||
           c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) || c >= 0xe0000;
}

static uint32_t
code_point(const char *c, int len)
{
    const unsigned char *u = (const unsigned char *)c;
    switch (len) {
    case 1:
        return u[0];
    case 2:
        return (u[0] & 0x1fU) << 6 | (u[1] & 0x3fU);
    case 3:
        return (u[0] & 0xfU) << 12 | (u[1] & 0x3fU) << 6 | (u[2] & 0x3fU);
    default:
        return (u[0] & 7U) << 18 | (u[1] & 0x3fU) << 12 | (u[2] & 0x3fU) << 6 | (u[3] & 0x3fU);
    }
}

/* In single quotes, unless there are single ones and no double ones within. */
static void
add_string(apm_buf *buf, apm_str raw)
{
    const char *end = raw.p + raw.len - 1;
    bool singles = false, doubles = false;
    char c[4];
    for (const char *at = raw.p + 1; at < end;) {
        int len = apm_json_char(&at, end, c);
        singles |= len == 1 && c[0] == '\'';
        doubles |= len == 1 && c[0] == '"';
    }
    char quote = singles && !doubles ? '"' : '\'';
    apm_buf_addc(buf, quote);
    for (const char *at = raw.p + 1; at < end && !buf->failed;) {
        int len = apm_json_char(&at, end, c);
        uint32_t code = code_point(c, len);
        if (c[0] == quote || c[0] == '\\')
            apm_buf_addf(buf, "\\%c", c[0]);
        else if (c[0] == '\n' || c[0] == '\r' || c[0] == '\t')
            apm_buf_addz(buf, c[0] == '\n' ? "\\n" : c[0] == '\r' ? "\\r" : "\\t");
        else if (!is_hidden(code))
            apm_buf_add(buf, c, (size_t)len);
        else if (code <= 0xff)
            apm_buf_addf(buf, "\\x%02x", (unsigned)code);
        else if (code <= 0xffff)
            apm_buf_addf(buf, "\\u%04x", (unsigned)code);
        else
            apm_buf_addf(buf, "\\U%08x", (unsigned)code);
    }
    apm_buf_addc(buf, quote);
}

static void
add_number(apm_buf *buf, apm_json val)
{
    char text[APM_DOUBLE_MAX];
    double v;
    if (val.type == APM_JSON_INT)
        apm_buf_adds(buf, apm_str_eqz(val.text, "-0") ? APM_STR("0") : val.text);
    else if (!apm_json_number(val.text, &v))
        buf->failed = true;
    else if (isfinite(v))
        apm_buf_add(buf, text, (size_t)apm_double_repr(v, text));
    else
        apm_buf_addz(buf, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
}

static void
add_value(apm_buf *buf, apm_json val, int depth)
{
    apm_json_walk walk;
    apm_json member;
    apm_str key;
    switch (val.type) {
    case APM_JSON_STRING:
        add_string(buf, val.text);
        return;
    case APM_JSON_INT:
    case APM_JSON_FLOAT:
        add_number(buf, val);
        return;
    case APM_JSON_BOOL:
        apm_buf_addz(buf, val.text.p[0] == 't' ? "True" : "False");
        return;
    case APM_JSON_ARRAY:
    case APM_JSON_OBJECT:
        break;
    default:
        apm_buf_addz(buf, "None");
        return;
    }
    bool object = val.type == APM_JSON_OBJECT, first = true;
    apm_buf_addc(buf, object ? '{' : '[');
    if (depth >= MAX_LEVELS) {
        apm_buf_addz(buf, "...");
    } else {
        walk = apm_json_walk_open(val);
        while (!buf->failed && apm_json_walk_next(&walk, &key, &member)) {
            apm_buf_addz(buf, first ? "" : ", ");
            first = false;
            if (object) {
                add_string(buf, key);
                apm_buf_addz(buf, ": ");
            }
            add_value(buf, member, depth + 1);
        }
    }
    apm_buf_addc(buf, object ? '}' : ']');
}

void
apm_json_python(apm_buf *buf, apm_json val)
{
    add_value(buf, val, 0);
}
