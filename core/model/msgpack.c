/*
 * msgpack.c - bodies in MessagePack, as kombu writes and reads them: text as str, bytes as bin,
 * floats as float 64.
 *
 * Read and written here rather than by a library: msgpack-c gives up at 32 levels, which a
 * workflow's signatures pass, and builds a tree of many times the message's size. Both ways are one
 * pass without recursion.
 */
#include "core/model/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"

/* What is being read: how many items are left at each level. */
struct reader {
    const unsigned char *at, *end;
    apm_buf *out;
    apm_arena *arena;
    apium_error *err;
    int depth;
    struct {
        uint64_t left; /* keys and values count each */
        bool map, empty;
    } open[APM_JSON_DEPTH + 1];
};

static apium_status
malformed(struct reader *r, const char *why)
{
    return apm_fail(r->err, APIUM_E_DECODE, "cannot decode msgpack: %s", why);
}

/* A big-endian number of n bytes. */
static bool
take_uint(struct reader *r, int n, uint64_t *out)
{
    if (r->end - r->at < n)
        return false;
    *out = 0;
    while (n--)
        *out = *out << 8 | *r->at++;
    return true;
}

static bool
is_key(const struct reader *r)
{
    return r->depth > 0 && r->open[r->depth].map && r->open[r->depth].left % 2 == 0;
}

/* What goes before an item. */
static void
begin_item(struct reader *r)
{
    if (r->depth <= 0)
        return;
    if (r->open[r->depth].map && !is_key(r))
        apm_buf_addz(r->out, ": ");
    else if (!r->open[r->depth].empty)
        apm_buf_addz(r->out, ", ");
    r->open[r->depth].empty = false;
}

/* Count an item, and close what it completes. */
static void
end_item(struct reader *r)
{
    for (;;) {
        if (r->depth <= 0 || --r->open[r->depth].left > 0)
            return;
        apm_buf_addc(r->out, r->open[r->depth].map ? '}' : ']');
        r->depth--;
    }
}

/* A scalar. A key of an object has to be a string in JSON: it gets quotes, as Python's json gives
 * it. */
static void
put_scalar(struct reader *r, const char *text)
{
    bool key = is_key(r);

    begin_item(r);
    apm_buf_addz(r->out, key ? "\"" : "");
    apm_buf_addz(r->out, text);
    apm_buf_addz(r->out, key ? "\"" : "");
    end_item(r);
}

static void
put_int(struct reader *r, int64_t n)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRId64, n);
    put_scalar(r, text);
}

static apium_status
put_float(struct reader *r, double value)
{
    if (is_key(r))
        return malformed(r, "a number with a fraction is the key of a map");
    begin_item(r);
    apm_json_add_double(r->out, value);
    end_item(r);
    return APIUM_OK;
}

static apium_status
put_text(struct reader *r, uint64_t len, bool binary)
{
    apm_str text = { (const char *)r->at, (size_t)len };

    if ((uint64_t)(r->end - r->at) < len)
        return malformed(r, "it ends in the middle of a string");
    r->at += len;
    bool utf8 = apm_utf8_valid(text, false);
    if (!utf8 && (!binary || is_key(r)))
        return malformed(r, "a string is not UTF-8");
    bool plain = !binary || is_key(r);
    begin_item(r);
    if (plain)
        apm_json_add_string(r->out, text);
    else
        apm_json_add_bytes(r->out, text);
    end_item(r);
    return APIUM_OK;
}

static apium_status
open_container(struct reader *r, uint64_t n, bool map)
{
    if (is_key(r))
        return malformed(r, "an array or map is the key of a map");
    /* Each item is at least one byte: a length that cannot be is found before anything is written
     * for it. */
    if (n * (map ? 2 : 1) > (uint64_t)(r->end - r->at))
        return malformed(r, "it ends in the middle of an array or map");
    if (r->depth == APM_JSON_DEPTH)
        return apm_fail(r->err, APIUM_E_TOOBIG, "cannot decode msgpack: nested deeper than %d",
                        APM_JSON_DEPTH);
    begin_item(r);
    apm_buf_addc(r->out, map ? '{' : '[');
    if (n == 0) {
        apm_buf_addc(r->out, map ? '}' : ']');
        end_item(r);
        return APIUM_OK;
    }
    r->depth++;
    r->open[r->depth].left = n * (map ? 2 : 1);
    r->open[r->depth].map = map;
    r->open[r->depth].empty = true;
    return APIUM_OK;
}

static apium_status
read_item(struct reader *r)
{
    static const char *const words[] = { "null", NULL, "false", "true" };
    unsigned char tag = *r->at++;
    uint64_t n = 0;
    int size = 0;
    float single;
    double number;

    if (tag <= 0x7f || tag >= 0xe0) {
        put_int(r, tag <= 0x7f ? tag : (int)tag - 256);
        return APIUM_OK;
    }
    if (tag <= 0x8f)
        return open_container(r, tag & 0x0f, true);
    if (tag <= 0x9f)
        return open_container(r, tag & 0x0f, false);
    if (tag <= 0xbf)
        return put_text(r, tag & 0x1f, false);
    switch (tag) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
        put_scalar(r, words[tag - 0xc0]);
        return APIUM_OK;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        size = 1 << (tag - 0xc4);
        break;
    case 0xca:
    case 0xcb:
        size = tag == 0xca ? 4 : 8;
        break;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        size = 1 << (tag - 0xcc);
        break;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
        size = 1 << (tag - 0xd0);
        break;
    case 0xd9:
    case 0xda:
    case 0xdb:
        size = 1 << (tag - 0xd9);
        break;
    case 0xdc:
    case 0xdd:
    case 0xde:
    case 0xdf:
        size = tag & 1 ? 4 : 2;
        break;
    default:
        return malformed(r, tag == 0xc1 ? "the byte c1 has no meaning"
                                        : "an extension type stands for nothing in JSON");
    }
    if (!take_uint(r, size, &n))
        return malformed(r, "it ends in the middle of a value");
    if (tag <= 0xc6)
        return put_text(r, n, true);
    if (tag == 0xca) {
        uint32_t bits = (uint32_t)n;
        memcpy(&single, &bits, sizeof single);
        return put_float(r, (double)single);
    }
    if (tag == 0xcb) {
        memcpy(&number, &n, sizeof number);
        return put_float(r, number);
    }
    if (tag <= 0xcf) {
        char text[32];
        snprintf(text, sizeof text, "%" PRIu64, n);
        put_scalar(r, text);
    } else if (tag <= 0xd3) {
        put_int(r, size == 1   ? (int8_t)n
                   : size == 2 ? (int16_t)n
                   : size == 4 ? (int32_t)n
                               : (int64_t)n);
    } else if (tag <= 0xdb) {
        return put_text(r, n, false);
    } else {
        return open_container(r, n, tag >= 0xde);
    }
    return APIUM_OK;
}

apium_status
apm_msgpack_to_json(apm_str bytes, apm_arena *arena, apm_str *json, apium_error *err)
{
    apm_buf buf;
    struct reader r = { .at = (const unsigned char *)bytes.p,
                        .end = (const unsigned char *)bytes.p + bytes.len,
                        .out = &buf,
                        .arena = arena,
                        .err = err };
    apium_status st = APIUM_OK;

    apm_buf_init(&buf, APM_BUF_MAX);
    do {
        if (r.at == r.end)
            st = malformed(&r, "it ends too early");
        else
            st = read_item(&r);
    } while (st == APIUM_OK && r.depth > 0 && !buf.failed);
    if (st == APIUM_OK && r.at != r.end && !buf.failed)
        st = malformed(&r, "there is more behind the value");
    if (st != APIUM_OK) {
        apm_buf_clear(&buf);
        return st;
    }
    return apm_format_keep(&buf, arena, json, "msgpack", err);
}

/* A tag and a big-endian number of `size` bytes. */
static void
put_tagged(apm_buf *buf, unsigned tag, uint64_t n, int size)
{
    apm_buf_addc(buf, (char)tag);
    while (size--)
        apm_buf_addc(buf, (char)(n >> 8 * size));
}

/* A length in its shortest form: inside the tag `tiny` up to tiny_max, or behind tag, tag + 1, tag
 * + 2 in 1, 2, 4 bytes. A tag_8 of 0 is the lack of one. */
static void
put_length(apm_buf *buf, uint64_t n, unsigned tiny, unsigned tiny_max, unsigned tag_8,
           unsigned tag_16)
{
    if (tiny && n <= tiny_max)
        put_tagged(buf, tiny | (unsigned)n, 0, 0);
    else if (tag_8 && n <= UINT8_MAX)
        put_tagged(buf, tag_8, n, 1);
    else if (n <= UINT16_MAX)
        put_tagged(buf, tag_16, n, 2);
    else
        put_tagged(buf, tag_16 + 1, n, 4);
}

static void
put_int64(apm_buf *buf, int64_t n)
{
    if (n >= -32 && n <= INT8_MAX)
        put_tagged(buf, (unsigned char)n, 0, 0);
    else if (n >= 0)
        put_tagged(buf,
                   n <= UINT8_MAX    ? 0xcc
                   : n <= UINT16_MAX ? 0xcd
                   : n <= UINT32_MAX ? 0xce
                                     : 0xcf,
                   (uint64_t)n,
                   n <= UINT8_MAX    ? 1
                   : n <= UINT16_MAX ? 2
                   : n <= UINT32_MAX ? 4
                                     : 8);
    else
        put_tagged(buf,
                   n >= INT8_MIN    ? 0xd0
                   : n >= INT16_MIN ? 0xd1
                   : n >= INT32_MIN ? 0xd2
                                    : 0xd3,
                   (uint64_t)n,
                   n >= INT8_MIN    ? 1
                   : n >= INT16_MIN ? 2
                   : n >= INT32_MIN ? 4
                                    : 8);
}

static apium_status
write_int(apm_buf *buf, apm_json val, apium_error *err)
{
    int64_t n;
    char text[24], *end;

    if (apm_json_int64(val, "integer", &n, NULL) == APIUM_OK) {
        put_int64(buf, n);
        return APIUM_OK;
    }
    /* The upper half of 64 bits, the last that msgpack has. */
    if (val.text.p[0] != '-' && val.text.len <= 20) {
        memcpy(text, val.text.p, val.text.len);
        text[val.text.len] = '\0';
        errno = 0;
        uint64_t big = strtoull(text, &end, 10);
        if (errno == 0 && !*end) {
            put_tagged(buf, 0xcf, big, 8);
            return APIUM_OK;
        }
    }
    return apm_fail(err, APIUM_E_ENCODE,
                    "cannot encode in msgpack: an integer has more than 64 bits");
}

static apium_status
write_value(apm_buf *buf, const apm_token *token, apm_arena *arena, apium_error *err)
{
    apm_str text;
    double number;
    uint64_t bits;
    apium_status st;

    if (token->type == APM_T_BYTES) {
        if ((st = apm_token_bytes(token, arena, &text, err)) != APIUM_OK)
            return st;
        put_length(buf, text.len, 0, 0, 0xc4, 0xc5);
        apm_buf_adds(buf, text);
        return APIUM_OK;
    }
    switch (token->val.type) {
    case APM_JSON_NULL:
        apm_buf_addc(buf, (char)0xc0);
        return APIUM_OK;
    case APM_JSON_BOOL:
        apm_buf_addc(buf, token->val.text.p[0] == 't' ? (char)0xc3 : (char)0xc2);
        return APIUM_OK;
    case APM_JSON_INT:
        return write_int(buf, token->val, err);
    case APM_JSON_FLOAT:
        if ((st = apm_json_double(token->val, "number", &number, err)) != APIUM_OK)
            return st;
        memcpy(&bits, &number, sizeof bits);
        put_tagged(buf, 0xcb, bits, 8);
        return APIUM_OK;
    default:
        if ((st = apm_json_string(token->val, "string", arena, &text, err)) != APIUM_OK)
            return st;
        if (!apm_utf8_valid(text, false))
            return apm_fail(err, APIUM_E_ENCODE,
                            "cannot encode in msgpack: a string holds a lone surrogate");
        put_length(buf, text.len, 0xa0, 31, 0xd9, 0xda);
        apm_buf_adds(buf, text);
        return APIUM_OK;
    }
}

/* The number of items of each container, in the order in which they open: a length comes before the
 * items. */
static apium_status
count_items(apm_str json, uint32_t **out, apium_error *err)
{
    apm_tokens tokens = { .at = json.p, .end = json.p + json.len };
    uint32_t *counts = NULL, *more;
    size_t n = 0, room = 0, open[APM_JSON_DEPTH + 1];

    for (apm_token token = apm_token_next(&tokens); token.type != APM_T_END;
         token = apm_token_next(&tokens)) {
        bool opens = token.type == APM_T_OPEN_ARRAY || token.type == APM_T_OPEN_OBJECT;
        int parent = tokens.depth - opens;
        if (token.type != APM_T_CLOSE && token.type != APM_T_KEY && parent > 0)
            counts[open[parent]]++;
        if (!opens)
            continue;
        if (n == room) {
            room = room ? room * 2 : 64;
            if (!(more = realloc(counts, room * sizeof *counts))) {
                free(counts);
                return apm_fail(err, APIUM_E_NOMEM, "cannot encode in msgpack: out of memory");
            }
            counts = more;
        }
        counts[n] = 0;
        open[tokens.depth] = n++;
    }
    *out = counts;
    return APIUM_OK;
}

apium_status
apm_msgpack_from_json(apm_str json, apm_arena *arena, apm_str *bytes, apium_error *err)
{
    apm_tokens tokens = { .at = json.p, .end = json.p + json.len };
    uint32_t *counts = NULL;
    size_t n = 0;
    apm_json whole;
    apm_buf buf;
    apium_status st;

    if ((st = apm_json_parse(json, &whole, err)) != APIUM_OK ||
        (st = count_items(json, &counts, err)) != APIUM_OK)
        return st;
    apm_buf_init(&buf, APM_BUF_MAX);
    for (apm_token token = apm_token_next(&tokens); st == APIUM_OK && token.type != APM_T_END;
         token = apm_token_next(&tokens)) {
        if (token.type == APM_T_OPEN_ARRAY)
            put_length(&buf, counts[n++], 0x90, 15, 0, 0xdc);
        else if (token.type == APM_T_OPEN_OBJECT)
            put_length(&buf, counts[n++], 0x80, 15, 0, 0xde);
        else if (token.type != APM_T_CLOSE)
            st = write_value(&buf, &token, arena, err);
    }
    free(counts);
    if (st != APIUM_OK) {
        apm_buf_clear(&buf);
        return st;
    }
    return apm_format_keep(&buf, arena, bytes, "msgpack", err);
}
