/* amqp_table.c - field tables and JSON; see amqp_table.h. */
#include "core/link/amqp_table.h"

#include <inttypes.h>
#include <math.h>

#include "core/base/error.h"

#define KEY_MAX 255 /* a short string */

/* ---- writing ---- */

static void
put32(apm_buf *buf, uint32_t v)
{
    const unsigned char b[4] = { v >> 24 & 0xff, v >> 16 & 0xff, v >> 8 & 0xff, v & 0xff };
    apm_buf_add(buf, b, sizeof(b));
}

static void
put64(apm_buf *buf, uint64_t v)
{
    put32(buf, (uint32_t)(v >> 32));
    put32(buf, (uint32_t)v);
}

/* The length of what was appended after a 4-byte gap at `at`. */
static void
patch_length(apm_buf *buf, size_t at)
{
    if (buf->failed)
        return;
    uint32_t len = (uint32_t)(buf->len - at - 4);
    for (int i = 0; i < 4; i++)
        buf->p[at + (size_t)i] = (char)(len >> (24 - 8 * i) & 0xff);
}

/* Text without quotes and escapes; the arena is touched only when there are escapes. */
static apium_status
unquote(apm_json val, apm_arena *arena, apm_str *out, apium_error *err)
{
    if (val.text.len >= 2 && !memchr(val.text.p, '\\', val.text.len)) {
        *out = (apm_str){ val.text.p + 1, val.text.len - 2 };
        return APIUM_OK;
    }
    return apm_json_string(val, "header", arena, out, err);
}

static apium_status
write_members(apm_buf *buf, apm_str json, int depth, apm_arena *arena, apium_error *err);

static apium_status
write_value(apm_buf *buf, apm_json val, int depth, apm_arena *arena, apium_error *err)
{
    apium_status st;
    apm_str text;
    int64_t n;
    double d;
    uint64_t bits;

    switch (val.type) {
    case APM_JSON_BOOL:
        apm_buf_addc(buf, 't');
        apm_buf_addc(buf, val.text.p[0] == 't');
        return APIUM_OK;
    case APM_JSON_INT:
        if ((st = apm_json_int64(val, "value", &n, err)) != APIUM_OK)
            return apm_fail(err, APIUM_E_ENCODE, "an integer beyond 64 bits");
        if (n >= -INT32_MAX && n <= INT32_MAX) {
            apm_buf_addc(buf, 'I');
            put32(buf, (uint32_t)(int32_t)n);
        } else {
            apm_buf_addc(buf, 'L');
            put64(buf, (uint64_t)n);
        }
        return APIUM_OK;
    case APM_JSON_FLOAT:
        if ((st = apm_json_double(val, "value", &d, err)) != APIUM_OK)
            return st;
        memcpy(&bits, &d, sizeof(bits));
        apm_buf_addc(buf, 'd');
        put64(buf, bits);
        return APIUM_OK;
    case APM_JSON_STRING:
        if ((st = unquote(val, arena, &text, err)) != APIUM_OK)
            return st;
        apm_buf_addc(buf, 'S');
        put32(buf, (uint32_t)text.len);
        apm_buf_adds(buf, text);
        return APIUM_OK;
    case APM_JSON_ARRAY:
    case APM_JSON_OBJECT:
        apm_buf_addc(buf, val.type == APM_JSON_ARRAY ? 'A' : 'F');
        return write_members(buf, val.text, depth + 1, arena, err);
    case APM_JSON_NONE:
    case APM_JSON_NULL:
        break;
    }
    apm_buf_addc(buf, 'V');
    return APIUM_OK;
}

static apium_status
write_members(apm_buf *buf, apm_str json, int depth, apm_arena *arena, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_str raw, key;
    int more;
    size_t at = buf->len;
    apium_status st = apm_json_open(&it, json, err);

    if (st != APIUM_OK)
        return st;
    if (depth == 0 && !it.object)
        return apm_fail(err, APIUM_E_ENCODE, "they are no object");
    if (depth > APM_JSON_DEPTH)
        return apm_fail(err, APIUM_E_TOOBIG, "nested deeper than %d", APM_JSON_DEPTH);
    put32(buf, 0);
    while ((more = apm_json_next(&it, &raw, &val, err)) > 0) {
        if (apm_str_is(raw)) {
            if ((st = unquote((apm_json){ APM_JSON_STRING, raw }, arena, &key, err)) != APIUM_OK)
                return st;
            if (key.len > KEY_MAX)
                return apm_fail(err, APIUM_E_ENCODE,
                                "the name \"%.40s...\" is longer than 255 bytes", key.p);
            apm_buf_addc(buf, (char)key.len);
            apm_buf_adds(buf, key);
        }
        apium_error why;
        if ((st = write_value(buf, val, depth, arena, &why)) != APIUM_OK) {
            if (depth > 0 || !apm_str_is(raw))
                return apm_fail(err, st, "%s", why.text);
            return apm_fail(err, st, "header %.*s: %s", (int)(raw.len < 60 ? raw.len : 60), raw.p,
                            why.text);
        }
    }
    if (more < 0)
        return err ? err->status : APIUM_E_ENCODE;
    patch_length(buf, at);
    return APIUM_OK;
}

apium_status
apm_amqp_table_write(apm_buf *buf, apm_str json, apium_error *err)
{
    apm_arena arena = { 0 };
    apium_error why = { .status = APIUM_E_ENCODE };
    apium_status st = APIUM_OK;

    if (!apm_str_is(json) || json.len == 0) {
        put32(buf, 0);
    } else if ((st = write_members(buf, json, 0, &arena, &why)) != APIUM_OK) {
        st = apm_fail(err, st, "cannot encode headers: %s", why.text);
    }
    apm_arena_clear(&arena);
    if (st == APIUM_OK && buf->failed)
        st = apm_fail(err, APIUM_E_NOMEM, "cannot encode headers: out of memory");
    return st;
}

/* ---- reading ---- */

struct reader {
    const unsigned char *at, *end;
};

static bool
take(struct reader *r, size_t n, const unsigned char **p)
{
    if ((size_t)(r->end - r->at) < n)
        return false;
    *p = r->at;
    r->at += n;
    return true;
}

/* An unsigned big-endian number of n bytes. */
static bool
take_uint(struct reader *r, size_t n, uint64_t *v)
{
    const unsigned char *p;

    if (!take(r, n, &p))
        return false;
    *v = 0;
    for (size_t i = 0; i < n; i++)
        *v = *v << 8 | p[i];
    return true;
}

static bool
take_text(struct reader *r, size_t len_size, apm_str *text)
{
    const unsigned char *p;
    uint64_t len;

    if (!take_uint(r, len_size, &len) || !take(r, (size_t)len, &p))
        return false;
    *text = (apm_str){ (const char *)p, (size_t)len };
    return true;
}

static void
add_text(apm_buf *json, apm_str text)
{
    if (apm_json_try_string(json, text))
        return;
    /* Bytes: one character each, so that nothing is lost. */
    apm_buf_addc(json, '"');
    for (size_t i = 0; i < text.len; i++)
        apm_buf_addf(json, "\\u%04x", (unsigned char)text.p[i]);
    apm_buf_addc(json, '"');
}

static bool
add_decimal(apm_buf *json, struct reader *r)
{
    uint64_t scale, value;

    if (!take_uint(r, 1, &scale) || !take_uint(r, 4, &value))
        return false;
    apm_json_add_double(json, (double)(int32_t)(uint32_t)value / pow(10, (double)scale));
    return true;
}

struct told {
    apm_amqp_table_seen *seen;
    void *arg;
};

static bool
read_members(apm_buf *json, struct reader *r, bool table, int depth, const struct told *told);

/* The size in bytes of the integers, by tag, and whether they are signed. RabbitMQ's reading of the tags where it and the
 * AMQP 0-9-1 document differ. */
static bool
integer_tag(int tag, size_t *size, bool *is_signed)
{
    switch (tag) {
    case 'b':
        *size = 1, *is_signed = true;
        return true;
    case 'B':
        *size = 1, *is_signed = false;
        return true;
    case 's':
    case 'U':
        *size = 2, *is_signed = true;
        return true;
    case 'u':
        *size = 2, *is_signed = false;
        return true;
    case 'I':
        *size = 4, *is_signed = true;
        return true;
    case 'i':
        *size = 4, *is_signed = false;
        return true;
    case 'l':
    case 'L':
    case 'T':
        *size = 8, *is_signed = true;
        return true;
    default:
        return false;
    }
}

/* NONE when it cannot be read. */
static apm_json_type
read_value(apm_buf *json, struct reader *r, int depth)
{
    const unsigned char *tag;
    uint64_t v;
    size_t size;
    bool is_signed;
    apm_str text;

    if (!take(r, 1, &tag))
        return APM_JSON_NONE;
    if (integer_tag(*tag, &size, &is_signed)) {
        if (!take_uint(r, size, &v))
            return APM_JSON_NONE;
        unsigned unused = 64 - 8 * (unsigned)size;
        apm_json_add_int(json, is_signed ? (int64_t)(v << unused) >> unused : (int64_t)v);
        return APM_JSON_INT;
    }
    switch (*tag) {
    case 't':
        if (!take_uint(r, 1, &v))
            return APM_JSON_NONE;
        apm_buf_addz(json, v ? "true" : "false");
        return APM_JSON_BOOL;
    case 'd': {
        double d;
        if (!take_uint(r, 8, &v))
            return APM_JSON_NONE;
        memcpy(&d, &v, sizeof(d));
        apm_json_add_double(json, d);
        return APM_JSON_FLOAT;
    }
    case 'f': {
        float f;
        if (!take_uint(r, 4, &v))
            return APM_JSON_NONE;
        uint32_t low = (uint32_t)v;
        memcpy(&f, &low, sizeof(f));
        apm_json_add_double(json, (double)f);
        return APM_JSON_FLOAT;
    }
    case 'D':
        return add_decimal(json, r) ? APM_JSON_FLOAT : APM_JSON_NONE;
    case 'V':
        apm_buf_addz(json, "null");
        return APM_JSON_NULL;
    case 'S':
    case 'x':
        if (!take_text(r, 4, &text))
            return APM_JSON_NONE;
        add_text(json, text);
        return APM_JSON_STRING;
    case 'A':
    case 'F':
        if (depth + 1 >= APM_JSON_DEPTH || !read_members(json, r, *tag == 'F', depth + 1, NULL))
            return APM_JSON_NONE;
        return *tag == 'F' ? APM_JSON_OBJECT : APM_JSON_ARRAY;
    default:
        return APM_JSON_NONE;
    }
}

static bool
read_members(apm_buf *json, struct reader *r, bool table, int depth, const struct told *told)
{
    apm_str all, key;
    apm_json_type type;

    if (!take_text(r, 4, &all))
        return false;
    struct reader in = { (const unsigned char *)all.p, (const unsigned char *)all.p + all.len };
    apm_buf_addc(json, table ? '{' : '[');
    for (bool first = true; in.at < in.end; first = false) {
        if (!first)
            apm_buf_add(json, ", ", 2);
        if (table) {
            if (!take_text(&in, 1, &key))
                return false;
            add_text(json, key);
            apm_buf_add(json, ": ", 2);
        }
        const size_t at = json->len;
        if ((type = read_value(json, &in, depth)) == APM_JSON_NONE)
            return false;
        if (told)
            told->seen(told->arg, key, type, at, json->len - at);
    }
    apm_buf_addc(json, table ? '}' : ']');
    return true;
}

apium_status
apm_amqp_table_read(apm_buf *json, apm_str bytes, apm_amqp_table_seen *seen, void *arg,
                    size_t *used, apium_error *err)
{
    const struct told told = { seen, arg };
    struct reader r = { (const unsigned char *)bytes.p,
                        (const unsigned char *)bytes.p + bytes.len };

    if (!read_members(json, &r, true, 0, seen ? &told : NULL))
        return apm_fail(err, APIUM_E_DECODE,
                        "the headers are not a field table that we can read (offset %zu of %zu)",
                        (size_t)(r.at - (const unsigned char *)bytes.p), bytes.len);
    *used = (size_t)(r.at - (const unsigned char *)bytes.p);
    return APIUM_OK;
}
