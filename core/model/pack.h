/*
 * pack.h - values as flat bytes, in this machine's own byte order: for the shared memory between a
 * worker's processes, never for a wire. Whoever reads checks everything: after any short read `bad`
 * stays set and the values are zero.
 */
#ifndef APM_MODEL_PACK_H
#define APM_MODEL_PACK_H

#include "core/base/buf.h"

#define APM_PACK_ABSENT UINT32_MAX
/* Texts from this length on may follow the packed bytes instead of being copied into them. */
#define APM_PACK_BEHIND ((size_t)16 << 10)

typedef struct apm_unpack {
    const char *at, *end;
    bool bad;
} apm_unpack;

static inline void
apm_pack_bytes(apm_buf *buf, const void *p, size_t len)
{
    apm_buf_add(buf, p, len);
}

static inline void
apm_pack_u32(apm_buf *buf, uint32_t n)
{
    apm_buf_add(buf, &n, sizeof n);
}

/* A length and the text. */
static inline void
apm_pack_str(apm_buf *buf, apm_str s)
{
    apm_pack_u32(buf, apm_str_is(s) ? (uint32_t)s.len : APM_PACK_ABSENT);
    apm_buf_add(buf, s.p, s.len);
}

static inline void
apm_unpack_bytes(apm_unpack *in, void *out, size_t len)
{
    if (in->bad || (size_t)(in->end - in->at) < len) {
        in->bad = true;
        memset(out, 0, len);
        return;
    }
    memcpy(out, in->at, len);
    in->at += len;
}

static inline uint32_t
apm_unpack_u32(apm_unpack *in)
{
    uint32_t n;

    apm_unpack_bytes(in, &n, sizeof n);
    return n;
}

/* Borrowed from the bytes. */
static inline apm_str
apm_unpack_str(apm_unpack *in)
{
    uint32_t len = apm_unpack_u32(in);

    if (in->bad || len == APM_PACK_ABSENT)
        return APM_STR_NONE;
    if ((size_t)(in->end - in->at) < len) {
        in->bad = true;
        return APM_STR_NONE;
    }
    apm_str s = { in->at, len };
    in->at += len;
    return s;
}

#endif
