/* redis_reader.c - see redis_reader.h */
#include "core/link/redis_reader.h"

#include <stdlib.h>

#include "core/base/error.h"

#define LONG_BYTES (16 << 10) /* a string of which so much is missing is read to its place */
#define KEEP_BYTES (16 << 10) /* one of this length is worth more than an allocation */
#define STRING_MAX ((int64_t)512 << 20) /* Redis's own limit unless somebody raised it */
#define ARRAY_MAX  (16 << 20)

apium_status
apm_redis_reader_init(apm_redis_reader *reader, size_t size, apium_error *err)
{
    *reader = (apm_redis_reader){ .buf = malloc(size), .size = size };
    return reader->buf ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

void
apm_redis_reader_clear(apm_redis_reader *reader)
{
    if (reader->top)
        freeReplyObject(reader->top);
    free(reader->buf);
    *reader = (apm_redis_reader){ 0 };
}

/* How many bytes of the string are missing, with the line end behind it. */
static size_t
missing(const apm_redis_reader *reader)
{
    return reader->string ? reader->string->len + 2 - reader->have : 0;
}

char *
apm_redis_reader_room(apm_redis_reader *reader, size_t *len)
{
    if (missing(reader) >= LONG_BYTES) { /* nothing of it is in the buffer any more */
        *len = missing(reader);
        return reader->string->str + reader->have;
    }
    if (reader->at > 0) {
        memmove(reader->buf, reader->buf + reader->at, reader->end - reader->at);
        reader->end -= reader->at;
        reader->at = 0;
    }
    *len = reader->size - reader->end;
    return reader->buf + reader->end;
}

void
apm_redis_reader_read(apm_redis_reader *reader, size_t len)
{
    if (missing(reader) >= LONG_BYTES)
        reader->have += len;
    else
        reader->end += len;
}

/* ---- understanding ---- */

/* A line without its end; absent when it is not complete. */
static apium_status
take_line(apm_redis_reader *reader, apm_str *line, apium_error *err)
{
    const char *start = reader->buf + reader->at;
    size_t len = reader->end - reader->at;
    const char *end = len ? memchr(start, '\n', len) : NULL;

    *line = APM_STR_NONE;
    if (!end)
        return len < reader->size
                   ? APIUM_OK
                   : apm_fail(err, APIUM_E_DECODE, "Protocol error, a line of over %zu bytes", len);
    if (end == start || end[-1] != '\r')
        return apm_fail(err, APIUM_E_DECODE, "Protocol error, a line ends without CR");
    *line = (apm_str){ start, (size_t)(end - start) - 1 };
    reader->at += line->len + 2;
    return APIUM_OK;
}

static bool
read_number(apm_str text, int64_t *out)
{
    bool minus = text.len && text.p[0] == '-';
    size_t i = minus || (text.len && text.p[0] == '+');
    int64_t n = 0;

    if (i == text.len)
        return false;
    for (; i < text.len; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || __builtin_mul_overflow(n, 10, &n) ||
            (minus ? __builtin_sub_overflow(n, text.p[i] - '0', &n)
                   : __builtin_add_overflow(n, text.p[i] - '0', &n)))
            return false;
    }
    *out = n;
    return true;
}

static bool
set_text(redisReply *reply, apm_str text)
{
    reply->str = malloc(text.len + 1);
    if (!reply->str)
        return false;
    memcpy(reply->str, text.p, text.len);
    reply->str[text.len] = '\0';
    reply->len = text.len;
    return true;
}

/* What a line says; of a string and an array only how long they will be. */
static apium_status
begin(apm_redis_reader *reader, redisReply *reply, apm_str line, apium_error *err)
{
    const apm_str rest = { line.p + 1, line.len - 1 };
    int64_t n = 0;
    bool ok = true;

    if (!memchr("+-", line.p[0], 2) && !read_number(rest, &n))
        return apm_fail(err, APIUM_E_DECODE, "Protocol error, bad number");
    reply->type = REDIS_REPLY_NIL;
    switch (line.p[0]) {
    case '+':
    case '-':
        reply->type = line.p[0] == '+' ? REDIS_REPLY_STATUS : REDIS_REPLY_ERROR;
        ok = set_text(reply, rest);
        break;
    case ':':
        reply->type = REDIS_REPLY_INTEGER;
        reply->integer = n;
        break;
    case '$':
        if (n < -1 || n > STRING_MAX)
            return apm_fail(err, APIUM_E_DECODE, "Protocol error, a string of %lld bytes",
                            (long long)n);
        if (n < 0)
            break;
        reply->type = REDIS_REPLY_STRING;
        ok = (reply->str = malloc((size_t)n + 2)) != NULL; /* its line end is read there too */
        reply->len = (size_t)n;
        reader->string = reply;
        reader->have = 0;
        break;
    case '*':
        if (n < -1 || n > ARRAY_MAX)
            return apm_fail(err, APIUM_E_DECODE, "Protocol error, an array of %lld items",
                            (long long)n);
        if (n < 0)
            break;
        reply->type = REDIS_REPLY_ARRAY;
        if (n == 0)
            break;
        if (reader->depth == APM_REDIS_DEPTH)
            return apm_fail(err, APIUM_E_DECODE, "Protocol error, nested deeper than %d",
                            APM_REDIS_DEPTH);
        ok = (reply->element = calloc((size_t)n, sizeof(*reply->element))) != NULL;
        reply->elements = ok ? (size_t)n : 0;
        reader->stack[reader->depth].array = reply;
        reader->stack[reader->depth++].n = 0;
        break;
    }
    return ok ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "out of memory");
}

static void
place(apm_redis_reader *reader, redisReply *reply)
{
    if (!reader->depth) {
        reader->top = reply;
        return;
    }
    redisReply *array = reader->stack[reader->depth - 1].array;
    array->element[reader->stack[reader->depth - 1].n++] = reply;
}

/* Bytes of the string from the buffer. True: it is complete, which takes its line end off. */
static bool
fill_string(apm_redis_reader *reader)
{
    size_t len = reader->end - reader->at, want = missing(reader);

    if (len > want)
        len = want;
    if (len) {
        memcpy(reader->string->str + reader->have, reader->buf + reader->at, len);
        reader->at += len;
        reader->have += len;
    }
    return len == want;
}

apium_status
apm_redis_reader_next(apm_redis_reader *reader, redisReply **out, apium_error *err)
{
    apium_status st;
    apm_str line;

    *out = NULL;
    for (;;) {
        if (reader->string) {
            redisReply *string = reader->string;
            if (!fill_string(reader))
                return APIUM_OK;
            if (memcmp(string->str + string->len, "\r\n", 2) != 0)
                return apm_fail(err, APIUM_E_DECODE, "Protocol error, a string does not end");
            string->str[string->len] = '\0';
            reader->string = NULL;
        } else {
            if ((st = take_line(reader, &line, err)) != APIUM_OK || !apm_str_is(line))
                return st;
            if (!line.len || !memchr("+-:$*", line.p[0], 5))
                return apm_fail(err, APIUM_E_DECODE,
                                "Protocol error, got \"%.*s\" as reply type byte", line.len ? 1 : 0,
                                line.p);
            redisReply *reply = calloc(1, sizeof(*reply));
            if (!reply)
                return apm_fail(err, APIUM_E_NOMEM, "out of memory");
            place(reader, reply);
            if ((st = begin(reader, reply, line, err)) != APIUM_OK)
                return st;
            if (reader->string || (reply->type == REDIS_REPLY_ARRAY && reply->elements))
                continue;
        }
        while (reader->depth && reader->stack[reader->depth - 1].n ==
                                    reader->stack[reader->depth - 1].array->elements)
            reader->depth--;
        if (!reader->depth) {
            *out = reader->top;
            reader->top = NULL;
            return APIUM_OK;
        }
    }
}

apm_str
apm_redis_keep(const redisReply *string, apm_arena *arena, bool *ok)
{
    apm_str text = { string->str, string->len };

    if (text.len < KEEP_BYTES || !apm_arena_adopt(arena, string->str))
        return apm_arena_str(arena, text, ok);
    ((redisReply *)(uintptr_t)string)->str = NULL;
    return text;
}
