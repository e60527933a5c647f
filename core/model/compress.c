/*
 * compress.c - the compressions kombu has. What Celery calls gzip is a zlib stream (RFC 1950).
 * Unpacking grows its output step by step and stops at the caller's bound, so that a bomb costs no
 * more than that.
 */
#include "core/model/serializer.h"

#include <brotli/decode.h>
#include <brotli/encode.h>
#include <bzlib.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "core/base/error.h"

#define LZMA_MEMORY ((uint64_t)128 << 20) /* a decoder may use; preset 9 wants 65 MiB */
#define FIRST_CHUNK ((size_t)16 << 10)

/* Where a decoder writes: the free end of a buffer that grows by doubling. */
struct sink {
    apm_buf buf;
    size_t room;
};

/* Room for more. False when the bound is reached or memory is short. */
static char *
sink_next(struct sink *sink)
{
    size_t want = sink->buf.len < FIRST_CHUNK ? FIRST_CHUNK : sink->buf.len;

    /* One byte more than the bound tells "just fits" from "does not". */
    if (want > sink->buf.max - sink->buf.len)
        want = sink->buf.max - sink->buf.len;
    sink->room = want;
    return want ? apm_buf_reserve(&sink->buf, want) : NULL;
}

static apium_status
cannot_compress(apium_error *err, const char *how)
{
    return apm_fail(err, APIUM_E_ENCODE, "cannot compress with %s", how);
}

static apium_status
corrupt(apium_error *err, const char *how)
{
    return apm_fail(err, APIUM_E_DECODE, "cannot decompress: the data is no intact %s stream", how);
}

/* Why there is no room. */
static apium_status
no_room(const struct sink *sink, apium_error *err)
{
    if (sink->buf.failed && sink->buf.len < sink->buf.max)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    return apm_fail(err, APIUM_E_TOOBIG, "cannot decompress: more than %zu bytes come out",
                    sink->buf.max - 1);
}

static apium_status
zlib_pack(apm_str in, char *out, size_t *len, apium_error *err)
{
    uLongf n = *len;

    if (compress((Bytef *)out, &n, (const Bytef *)in.p, in.len) != Z_OK)
        return cannot_compress(err, "zlib");
    *len = n;
    return APIUM_OK;
}

static size_t
zlib_bound(size_t len)
{
    return compressBound(len);
}

static apium_status
zlib_unpack(apm_str in, struct sink *sink, apium_error *err)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)in.p, .avail_in = (uInt)in.len };
    apium_status st = APIUM_OK;
    int rc;

    /* 32: a real gzip header is accepted too; a foreign producer may take the name at its word. */
    if (inflateInit2(&z, MAX_WBITS + 32) != Z_OK)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    do {
        char *out = sink_next(sink);
        if (!out) {
            st = no_room(sink, err);
            break;
        }
        z.next_out = (Bytef *)out;
        z.avail_out = (uInt)sink->room;
        rc = inflate(&z, Z_NO_FLUSH);
        sink->buf.len += sink->room - z.avail_out;
        if (rc != Z_STREAM_END && (rc != Z_OK || (z.avail_in == 0 && z.avail_out != 0))) {
            st = corrupt(err, "zlib");
            break;
        }
    } while (rc != Z_STREAM_END);
    inflateEnd(&z);
    return st;
}

static size_t
bzip2_bound(size_t len)
{
    return len + len / 100 + 600;
}

static apium_status
bzip2_pack(apm_str in, char *out, size_t *len, apium_error *err)
{
    unsigned n = (unsigned)*len;

    if (BZ2_bzBuffToBuffCompress(out, &n, (char *)(uintptr_t)in.p, (unsigned)in.len, 9, 0, 0) !=
        BZ_OK)
        return cannot_compress(err, "bzip2");
    *len = n;
    return APIUM_OK;
}

static apium_status
bzip2_unpack(apm_str in, struct sink *sink, apium_error *err)
{
    bz_stream bz = { .next_in = (char *)(uintptr_t)in.p, .avail_in = (unsigned)in.len };
    apium_status st = APIUM_OK;
    int rc;

    if (BZ2_bzDecompressInit(&bz, 0, 0) != BZ_OK)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    do {
        if (!(bz.next_out = sink_next(sink))) {
            st = no_room(sink, err);
            break;
        }
        bz.avail_out = (unsigned)sink->room;
        rc = BZ2_bzDecompress(&bz);
        sink->buf.len += sink->room - bz.avail_out;
        if (rc != BZ_STREAM_END && (rc != BZ_OK || (bz.avail_in == 0 && bz.avail_out != 0))) {
            st = corrupt(err, "bzip2");
            break;
        }
    } while (rc != BZ_STREAM_END);
    BZ2_bzDecompressEnd(&bz);
    return st;
}

static size_t
lzma_bound(size_t len)
{
    return lzma_stream_buffer_bound(len);
}

static apium_status
lzma_pack(apm_str in, char *out, size_t *len, apium_error *err)
{
    size_t at = 0;

    if (lzma_easy_buffer_encode(LZMA_PRESET_DEFAULT, LZMA_CHECK_CRC64, NULL, (const uint8_t *)in.p,
                                in.len, (uint8_t *)out, &at, *len) != LZMA_OK)
        return cannot_compress(err, "lzma");
    *len = at;
    return APIUM_OK;
}

static apium_status
lzma_unpack(apm_str in, struct sink *sink, apium_error *err)
{
    lzma_stream lz = LZMA_STREAM_INIT;
    apium_status st = APIUM_OK;
    lzma_ret rc;

    if (lzma_auto_decoder(&lz, LZMA_MEMORY, 0) != LZMA_OK)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    lz.next_in = (const uint8_t *)in.p;
    lz.avail_in = in.len;
    do {
        char *out = sink_next(sink);
        if (!out) {
            st = no_room(sink, err);
            break;
        }
        lz.next_out = (uint8_t *)out;
        lz.avail_out = sink->room;
        rc = lzma_code(&lz, LZMA_FINISH);
        sink->buf.len += sink->room - lz.avail_out;
        if (rc == LZMA_MEMLIMIT_ERROR) {
            st = apm_fail(err, APIUM_E_TOOBIG,
                          "cannot decompress: the lzma stream wants too much memory");
            break;
        }
        if (rc != LZMA_STREAM_END && (rc != LZMA_OK || (lz.avail_in == 0 && lz.avail_out != 0))) {
            st = corrupt(err, "lzma");
            break;
        }
    } while (rc != LZMA_STREAM_END);
    lzma_end(&lz);
    return st;
}

static size_t
brotli_bound(size_t len)
{
    size_t bound = BrotliEncoderMaxCompressedSize(len);

    return bound ? bound : len + (len >> 8) + 1024;
}

static apium_status
brotli_pack(apm_str in, char *out, size_t *len, apium_error *err)
{
    /* Quality 5: the highest ones take a hundred times as long for a few per cent. */
    if (!BrotliEncoderCompress(5, BROTLI_DEFAULT_WINDOW, BROTLI_DEFAULT_MODE, in.len,
                               (const uint8_t *)in.p, len, (uint8_t *)out))
        return cannot_compress(err, "brotli");
    return APIUM_OK;
}

static apium_status
brotli_unpack(apm_str in, struct sink *sink, apium_error *err)
{
    BrotliDecoderState *state = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    const uint8_t *next_in = (const uint8_t *)in.p;
    size_t avail_in = in.len;
    apium_status st = APIUM_OK;
    BrotliDecoderResult rc;

    if (!state)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    do {
        uint8_t *out = (uint8_t *)sink_next(sink);
        if (!out) {
            st = no_room(sink, err);
            break;
        }
        size_t avail_out = sink->room;
        rc = BrotliDecoderDecompressStream(state, &avail_in, &next_in, &avail_out, &out, NULL);
        sink->buf.len += sink->room - avail_out;
        if (rc == BROTLI_DECODER_RESULT_ERROR || rc == BROTLI_DECODER_RESULT_NEEDS_MORE_INPUT) {
            st = corrupt(err, "brotli");
            break;
        }
    } while (rc != BROTLI_DECODER_RESULT_SUCCESS);
    BrotliDecoderDestroyInstance(state);
    return st;
}

static size_t
zstd_bound(size_t len)
{
    return ZSTD_compressBound(len);
}

static apium_status
zstd_pack(apm_str in, char *out, size_t *len, apium_error *err)
{
    size_t n = ZSTD_compress(out, *len, in.p, in.len, ZSTD_CLEVEL_DEFAULT);

    if (ZSTD_isError(n))
        return cannot_compress(err, "zstd");
    *len = n;
    return APIUM_OK;
}

static apium_status
zstd_unpack(apm_str in, struct sink *sink, apium_error *err)
{
    ZSTD_DStream *zs = ZSTD_createDStream();
    ZSTD_inBuffer input = { in.p, in.len, 0 };
    apium_status st = APIUM_OK;
    size_t rc;

    if (!zs)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    do {
        ZSTD_outBuffer output = { sink_next(sink), sink->room, 0 };
        if (!output.dst) {
            st = no_room(sink, err);
            break;
        }
        rc = ZSTD_decompressStream(zs, &output, &input);
        sink->buf.len += output.pos;
        if (ZSTD_isError(rc) || (rc != 0 && input.pos == input.size && output.pos < output.size)) {
            st = corrupt(err, "zstd");
            break;
        }
    } while (rc != 0);
    ZSTD_freeDStream(zs);
    return st;
}

static const struct compression {
    const char *mime, *aliases[2], *text;
    size_t (*bound)(size_t len);
    apium_status (*pack)(apm_str in, char *out, size_t *len, apium_error *err);
    apium_status (*unpack)(apm_str in, struct sink *sink, apium_error *err);
} compressions[] = {
    { "application/x-gzip", { "gzip", "zlib" }, "zlib", zlib_bound, zlib_pack, zlib_unpack },
    { "application/x-bz2", { "bzip2", "bzip" }, "bzip2", bzip2_bound, bzip2_pack, bzip2_unpack },
    { "application/x-lzma", { "lzma", "xz" }, "lzma", lzma_bound, lzma_pack, lzma_unpack },
    { "application/x-brotli",
      { "brotli", "brotli" },
      "brotli",
      brotli_bound,
      brotli_pack,
      brotli_unpack },
    { "application/zstd", { "zstd", "zstandard" }, "zstd", zstd_bound, zstd_pack, zstd_unpack },
};

static const struct compression *
find(apm_str name)
{
    for (size_t i = 0; i < sizeof compressions / sizeof *compressions; i++) {
        const struct compression *c = &compressions[i];
        if (apm_str_eqz(name, c->mime) || apm_str_eqz(name, c->aliases[0]) ||
            apm_str_eqz(name, c->aliases[1]))
            return c;
    }
    return NULL;
}

const char *
apm_compression_mime(apm_str name)
{
    const struct compression *c = find(name);

    return c ? c->mime : NULL;
}

static apium_status
unknown(apm_str name, apium_error *err)
{
    return apm_fail(err, APIUM_E_UNSUPPORTED, "unknown compression %.*s",
                    name.len < 60 ? (int)name.len : 60, name.p ? name.p : "");
}

apium_status
apm_compress(apm_str name, apm_str bytes, apm_arena *arena, apm_str *out, const char **mime,
             apium_error *err)
{
    const struct compression *c = find(name);
    apium_status st;

    if (!c)
        return unknown(name, err);
    if (bytes.len > APM_BUF_MAX)
        return apm_fail(err, APIUM_E_TOOBIG, "cannot compress more than %zu bytes", APM_BUF_MAX);
    size_t len = c->bound(bytes.len);
    char *room = apm_arena_bytes(arena, len);
    if (!room)
        return apm_fail(err, APIUM_E_NOMEM, "cannot compress: out of memory");
    if ((st = c->pack(bytes, room, &len, err)) != APIUM_OK)
        return st;
    *out = (apm_str){ room, len };
    *mime = c->mime;
    return APIUM_OK;
}

apium_status
apm_decompress(apm_str name, apm_str bytes, size_t max_bytes, apm_arena *arena, apm_str *out,
               apium_error *err)
{
    const struct compression *c = find(name);
    struct sink sink = { 0 };
    apium_status st;
    bool ok = true;

    if (!c)
        return unknown(name, err);
    if (bytes.len > APM_BUF_MAX)
        return apm_fail(err, APIUM_E_TOOBIG, "cannot decompress more than %zu bytes", APM_BUF_MAX);
    apm_buf_init(&sink.buf, max_bytes + 1);
    st = c->unpack(bytes, &sink, err);
    if (st == APIUM_OK && sink.buf.len > max_bytes)
        st = no_room(&sink, err);
    if (st == APIUM_OK) {
        *out = apm_arena_str(arena, apm_buf_str(&sink.buf), &ok);
        if (!ok)
            st = apm_fail(err, APIUM_E_NOMEM, "cannot decompress: out of memory");
    }
    apm_buf_clear(&sink.buf);
    return st;
}
