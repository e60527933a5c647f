/*
 * buf.h - a growing byte buffer with a limit from birth, that remembers failure.
 * Append as often as you like and ask once: after any failed append (no memory, limit) `failed` stays
 * set and further appends do nothing. `p` is terminated whenever it is not NULL; `len` excludes that NUL.
 */
#ifndef APM_BASE_BUF_H
#define APM_BASE_BUF_H

#include <stdarg.h>
#include <stdint.h>

#include "core/base/str.h"

#define APM_BUF_MAX ((size_t)256 << 20) /* the largest message or result we handle, in bytes */

typedef struct apm_buf {
    char *p;
    size_t len, cap, max;
    bool failed;
} apm_buf;

void apm_buf_init(apm_buf *buf, size_t max_bytes);
/* Release the storage; the buffer is as after apm_buf_init. A zeroed buffer may be cleared too. */
void apm_buf_clear(apm_buf *buf);
/* Forget the content and the failure, keep the storage. */
void apm_buf_reset(apm_buf *buf);
void apm_buf_addf(apm_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void apm_buf_addv(apm_buf *buf, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* What apm_buf_add() does when there is no room yet. */
void apm_buf_add_grown(apm_buf *buf, const void *p, size_t len);
/* What apm_buf_reserve() does then. */
char *apm_buf_reserve_grown(apm_buf *buf, size_t len);
/* Move the storage out: a terminated string for free(), NULL when any append failed. */
char *apm_buf_take(apm_buf *buf, size_t *len);

/* Inline, for most of what is written is a few bytes of known length. */
static inline void
apm_buf_add(apm_buf *buf, const void *p, size_t len)
{
    if (buf->failed || len >= buf->cap - buf->len) {
        apm_buf_add_grown(buf, p, len);
        return;
    }
    if (len > 0)
        memcpy(buf->p + buf->len, p, len);
    buf->len += len;
    buf->p[buf->len] = '\0';
}

/* Room for `len` more bytes at buf->p + buf->len, or NULL; add to buf->len what was used. */
static inline char *
apm_buf_reserve(apm_buf *buf, size_t len)
{
    if (buf->failed || len >= buf->cap - buf->len)
        return apm_buf_reserve_grown(buf, len);
    return buf->p + buf->len;
}

static inline void
apm_buf_addc(apm_buf *buf, char c)
{
    apm_buf_add(buf, &c, 1);
}

static inline void
apm_buf_addz(apm_buf *buf, const char *z)
{
    apm_buf_add(buf, z, strlen(z));
}

static inline void
apm_buf_adds(apm_buf *buf, apm_str s)
{
    apm_buf_add(buf, s.p, s.len);
}

static inline apm_str
apm_buf_str(const apm_buf *buf)
{
    return (apm_str){ buf->p ? buf->p : "", buf->len };
}

#endif
