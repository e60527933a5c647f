/* buf.c - see buf.h */
#include "core/base/buf.h"

#include <stdio.h>
#include <stdlib.h>

#define FIRST_CAP 256

void
apm_buf_init(apm_buf *buf, size_t max_bytes)
{
    *buf = (apm_buf){ .max = max_bytes };
}

void
apm_buf_clear(apm_buf *buf)
{
    free(buf->p);
    apm_buf_init(buf, buf->max);
}

void
apm_buf_reset(apm_buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->p)
        buf->p[0] = '\0';
}

/* Make room for len more bytes and the NUL behind them. */
static bool
grow(apm_buf *buf, size_t len)
{
    size_t max = buf->max ? buf->max : APM_BUF_MAX;

    if (buf->failed)
        return false;
    if (max > PTRDIFF_MAX / 2)
        max = PTRDIFF_MAX / 2; /* so that no sum below can wrap around */
    if (len > max || buf->len > max - len) {
        buf->failed = true;
        return false;
    }
    size_t need = buf->len + len + 1;
    if (need <= buf->cap)
        return true;
    size_t cap = buf->cap ? buf->cap : FIRST_CAP;
    while (cap < need)
        cap *= 2;
    if (cap > max + 1)
        cap = max + 1;
    char *p = realloc(buf->p, cap);
    if (!p) {
        buf->failed = true;
        return false;
    }
    buf->p = p;
    buf->cap = cap;
    return true;
}

char *
apm_buf_reserve_grown(apm_buf *buf, size_t len)
{
    return grow(buf, len) ? buf->p + buf->len : NULL;
}

void
apm_buf_add_grown(apm_buf *buf, const void *p, size_t len)
{
    if (!grow(buf, len))
        return;
    if (len > 0)
        memcpy(buf->p + buf->len, p, len);
    buf->len += len;
    buf->p[buf->len] = '\0';
}

void
apm_buf_addv(apm_buf *buf, const char *fmt, va_list ap)
{
    va_list again;

    if (!grow(buf, 0))
        return;
    va_copy(again, ap);
    size_t room = buf->cap - buf->len;
    int n = vsnprintf(buf->p + buf->len, room, fmt, ap);
    if (n >= 0 && (size_t)n >= room && grow(buf, (size_t)n))
        n = vsnprintf(buf->p + buf->len, (size_t)n + 1, fmt, again);
    va_end(again);
    if (n < 0)
        buf->failed = true;
    if (!buf->failed)
        buf->len += (size_t)n;
    buf->p[buf->len] = '\0';
}

void
apm_buf_addf(apm_buf *buf, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    apm_buf_addv(buf, fmt, ap);
    va_end(ap);
}

char *
apm_buf_take(apm_buf *buf, size_t *len)
{
    char *p = NULL;

    if (grow(buf, 0)) { /* an empty buffer gives an empty string */
        p = buf->p;
        p[buf->len] = '\0';
        if (len)
            *len = buf->len;
        buf->p = NULL;
    }
    apm_buf_clear(buf);
    return p;
}
