/* value.c - values and JSON templates; see apium/value.h. */
#include "client/value.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_DEPTH (APM_JSON_DEPTH - 2) /* of a value inside a message or a result */

apium_value
apium_null(void)
{
    return (apium_value){ .kind = APIUM_NULL };
}

apium_value
apium_bool(bool value)
{
    return (apium_value){ .kind = APIUM_BOOL, .u.b = value };
}

apium_value
apium_int(int64_t value)
{
    return (apium_value){ .kind = APIUM_INT, .u.i = value };
}

apium_value
apium_double(double value)
{
    return (apium_value){ .kind = APIUM_DOUBLE, .u.d = value };
}

apium_value
apium_stringn(const char *text, size_t len)
{
    if (!text)
        return apium_null();
    return (apium_value){ .kind = APIUM_STRING, .u.text = text, .len = len };
}

apium_value
apium_string(const char *text)
{
    return apium_stringn(text, text ? strlen(text) : 0);
}

/* why is a literal. */
static apium_value
broken(const char *why)
{
    return (apium_value){ .kind = APIUM_BROKEN, .u.text = why, .len = strlen(why) };
}

apium_value
apium_jsonn(const char *text, size_t len)
{
    if (!text)
        return broken("there is no JSON text");
    return (apium_value){ .kind = APIUM_JSON, .u.text = text, .len = len };
}

apium_value
apium_json(const char *text)
{
    return apium_jsonn(text, text ? strlen(text) : 0);
}

apium_value
apium_json_take(char *text)
{
    apium_value value = apium_json(text);
    value.owned = text;
    return value;
}

void
apium_value_free(apium_value value)
{
    free(value.owned);
}

/* --- templates --- */

/* One conversion of a template, after its '%'. */
typedef struct conversion {
    enum {
        LEN_INT,
        LEN_CHAR,
        LEN_SHORT,
        LEN_LONG,
        LEN_LONG_LONG,
        LEN_INTMAX,
        LEN_SIZE,
        LEN_PTRDIFF
    } length;
    bool star;     /* ".*" was given */
    int precision; /* ".12"; -1 none */
    char letter;
} conversion;

/* Read a conversion at *p and step over it; false when it is none that a template may have. */
static bool
read_conversion(const char **p, conversion *c)
{
    const char *at = *p;
    *c = (conversion){ .precision = -1 };
    if (*at == '.') {
        at++;
        if (*at == '*') {
            c->star = true;
            at++;
        } else {
            c->precision = 0;
            while (*at >= '0' && *at <= '9' && c->precision < 1000000)
                c->precision = c->precision * 10 + (*at++ - '0');
        }
    }
    switch (*at) {
    case 'h':
        c->length = at[1] == 'h' ? LEN_CHAR : LEN_SHORT;
        at += at[1] == 'h' ? 2 : 1;
        break;
    case 'l':
        c->length = at[1] == 'l' ? LEN_LONG_LONG : LEN_LONG;
        at += at[1] == 'l' ? 2 : 1;
        break;
    case 'j':
        c->length = LEN_INTMAX;
        at++;
        break;
    case 'z':
        c->length = LEN_SIZE;
        at++;
        break;
    case 't':
        c->length = LEN_PTRDIFF;
        at++;
        break;
    default:
        break;
    }
    c->letter = *at;
    if (*at == '\0' || !strchr("sdiufgec", *at))
        return false;
    bool integer = strchr("diu", *at) != NULL;
    if ((c->star || c->precision >= 0) && *at != 's')
        return false;
    if (c->length != LEN_INT && !integer)
        return false;
    *p = at + 1;
    return true;
}

/* va_list travels in a struct, because it may be an array type, which a function cannot take by
 * reference. */
typedef struct arguments {
    va_list ap;
} arguments;

static int64_t
next_signed(arguments *args, const conversion *c)
{
    switch (c->length) {
    case LEN_CHAR:
        return (signed char)va_arg(args->ap, int);
    case LEN_SHORT:
        return (short)va_arg(args->ap, int);
    case LEN_LONG:
        return va_arg(args->ap, long);
    case LEN_LONG_LONG:
        return va_arg(args->ap, long long);
    case LEN_INTMAX:
        return va_arg(args->ap, intmax_t);
    case LEN_SIZE:
        return va_arg(args->ap, ssize_t);
    case LEN_PTRDIFF:
        return va_arg(args->ap, ptrdiff_t);
    case LEN_INT:
        break;
    }
    return va_arg(args->ap, int);
}

static uint64_t
next_unsigned(arguments *args, const conversion *c)
{
    switch (c->length) {
    case LEN_CHAR:
        return (unsigned char)va_arg(args->ap, unsigned);
    case LEN_SHORT:
        return (unsigned short)va_arg(args->ap, unsigned);
    case LEN_LONG:
        return va_arg(args->ap, unsigned long);
    case LEN_LONG_LONG:
        return va_arg(args->ap, unsigned long long);
    case LEN_INTMAX:
        return va_arg(args->ap, uintmax_t);
    case LEN_SIZE:
        return va_arg(args->ap, size_t);
    case LEN_PTRDIFF:
        return (uint64_t)va_arg(args->ap, ptrdiff_t);
    case LEN_INT:
        break;
    }
    return va_arg(args->ap, unsigned);
}

/* Append text as a string, or, inside quotes, as a part of one. False when it is no UTF-8. */
static bool
add_text(apm_buf *buf, apm_str text, bool quoted)
{
    if (!apm_utf8_valid(text, true))
        return false;
    if (!quoted) {
        apm_json_add_string(buf, text);
        return true;
    }
    apm_buf part;
    apm_buf_init(&part, APM_BUF_MAX);
    apm_json_add_string(&part, text);
    if (part.failed)
        buf->failed = true;
    else
        apm_buf_add(buf, part.p + 1, part.len - 2); /* without its quotes */
    apm_buf_clear(&part);
    return true;
}

/* Append what one conversion stands for. Answers what is wrong, or NULL. */
static const char *
add_conversion(apm_buf *buf, const conversion *c, arguments *args, bool quoted)
{
    switch (c->letter) {
    case 's': {
        int limit = c->star ? va_arg(args->ap, int) : c->precision;
        const char *text = va_arg(args->ap, const char *);
        if (!text && !quoted) {
            apm_buf_addz(buf, "null");
            return NULL;
        }
        if (!text)
            text = "";
        size_t len = limit < 0 ? strlen(text) : strnlen(text, (size_t)limit);
        return add_text(buf, (apm_str){ text, len }, quoted)
                   ? NULL
                   : "a string of the template is not UTF-8";
    }
    case 'c': {
        char letter = (char)va_arg(args->ap, int);
        return add_text(buf, (apm_str){ &letter, 1 }, quoted)
                   ? NULL
                   : "a character of the template is not ASCII";
    }
    case 'd':
    case 'i':
        apm_json_add_int(buf, next_signed(args, c));
        return NULL;
    case 'u':
        apm_buf_addf(buf, "%llu", (unsigned long long)next_unsigned(args, c));
        return NULL;
    default:
        apm_json_add_double(buf, va_arg(args->ap, double));
        return NULL;
    }
}

apium_value
apium_jsonv(const char *fmt, __builtin_va_list ap)
{
    apm_buf buf;
    arguments args;
    const char *why = NULL;
    bool quoted = false;

    apm_buf_init(&buf, APM_BUF_MAX);
    va_copy(args.ap, ap);
    for (const char *p = fmt; *p && !why;) {
        if (*p == '%' && p[1] == '%') {
            apm_buf_addc(&buf, '%');
            p += 2;
        } else if (*p == '%') {
            conversion c;
            p++;
            why = read_conversion(&p, &c)
                      ? add_conversion(&buf, &c, &args, quoted)
                      : "a conversion of the template is not one of %s %d %i %u %f %g %e %c";
        } else if (quoted && *p == '\\' && p[1]) {
            apm_buf_add(&buf, p, 2);
            p += 2;
        } else {
            quoted ^= *p == '"';
            apm_buf_addc(&buf, *p++);
        }
    }
    va_end(args.ap);
    size_t len = 0;
    char *text = why ? NULL : apm_buf_take(&buf, &len);
    if (!why && !text)
        why = "out of memory";
    if (why) {
        apm_buf_clear(&buf);
        return broken(why);
    }
    return (apium_value){ .kind = APIUM_JSON, .u.text = text, .len = len, .owned = text };
}

apium_value
apium_jsonf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    apium_value value = apium_jsonv(fmt, ap);
    va_end(ap);
    return value;
}

/* --- consuming --- */

/* The arena's copy of what is in buf, which is cleared. */
static apium_status
keep(apm_buf *buf, apm_arena *arena, apm_str *out, apium_error *err)
{
    bool ok = !buf->failed;
    if (ok)
        *out = apm_arena_str(arena, apm_buf_str(buf), &ok);
    apm_buf_clear(buf);
    return ok ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

static apium_status
take(const apium_value *value, apm_arena *arena, apm_json *out, apium_error *err)
{
    static const apm_str null = { "null", 4 }, yes = { "true", 4 }, no = { "false", 5 };
    apm_buf buf;

    apm_buf_init(&buf, APM_BUF_MAX);
    *out = (apm_json){ 0 };
    switch (value->kind) {
    case APIUM_NONE:
        return APIUM_OK;
    case APIUM_NULL:
        *out = (apm_json){ APM_JSON_NULL, null };
        return APIUM_OK;
    case APIUM_BOOL:
        *out = (apm_json){ APM_JSON_BOOL, value->u.b ? yes : no };
        return APIUM_OK;
    case APIUM_INT:
        apm_json_add_int(&buf, value->u.i);
        out->type = APM_JSON_INT;
        return keep(&buf, arena, &out->text, err);
    case APIUM_DOUBLE:
        apm_json_add_double(&buf, value->u.d);
        out->type = APM_JSON_FLOAT;
        return keep(&buf, arena, &out->text, err);
    case APIUM_STRING: {
        apm_str text = { value->u.text, value->len };
        if (text.len > APM_BUF_MAX / 6)
            return apm_fail(err, APIUM_E_TOOBIG, "a string of %zu bytes is too long", text.len);
        if (!apm_utf8_valid(text, true))
            return apm_fail(err, APIUM_E_ENCODE, "a string is not UTF-8");
        apm_json_add_string(&buf, text);
        out->type = APM_JSON_STRING;
        return keep(&buf, arena, &out->text, err);
    }
    case APIUM_JSON: {
        apm_str text = { value->u.text, value->len };
        if (text.len > APM_BUF_MAX)
            return apm_fail(err, APIUM_E_TOOBIG, "%zu bytes of JSON are too long", text.len);
        apium_error why;
        apm_json parsed;
        /* Deeper, and nobody could read the message or result around it. */
        apium_status st = apm_json_parse_within(text, VALUE_DEPTH, &parsed, &why);
        if (st == APIUM_E_TOOBIG)
            return apm_fail(err, st, "nested deeper than %d", VALUE_DEPTH);
        if (st != APIUM_OK)
            return apm_fail(err, APIUM_E_ENCODE, "%s", why.text);
        bool ok = true;
        *out = (apm_json){ parsed.type, apm_arena_str(arena, parsed.text, &ok) };
        return ok ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    case APIUM_BROKEN:
        return apm_fail(err, APIUM_E_ENCODE, "%.*s", (int)value->len, value->u.text);
    }
    return apm_fail(err, APIUM_E_ENCODE, "a value of no kind (%d)", (int)value->kind);
}

apium_status
apm_value_take(apium_value value, apm_arena *arena, apm_json *out, apium_error *err)
{
    apium_status st = take(&value, arena, out, err);
    free(value.owned);
    return st;
}
