/* utf8.h - one character of UTF-8. WTF-8 is UTF-8 in which a surrogate may stand alone, in three bytes. */
#ifndef APM_BASE_UTF8_H
#define APM_BASE_UTF8_H

#include <stdint.h>

#include "core/base/str.h"

/* Length in bytes of the well-formed character at `at` (shortest form, at most U+10FFFF), 0 when there is none.
 * Encoded surrogates count as characters only with `surrogates`. */
static inline int
apm_utf8_len(const char *at, const char *end, bool surrogates)
{
    const unsigned char *p = (const unsigned char *)at;
    ptrdiff_t room = end - at;

    if (room <= 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || room < 2 || (p[1] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xe0)
        return 2;
    if (room < 3 || (p[2] & 0xc0) != 0x80)
        return 0;
    if (p[0] < 0xf0) {
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0 && !surrogates))
            return 0;
        return 3;
    }
    if (room < 4 || (p[3] & 0xc0) != 0x80 || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] >= 0x90))
        return 0;
    return 4;
}

/* The code point of a well-formed character of len bytes. */
static inline uint32_t
apm_utf8_point(const char *at, int len)
{
    const unsigned char *p = (const unsigned char *)at;

    switch (len) {
    case 2:
        return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    case 3:
        return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    case 4:
        return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    default:
        return p[0];
    }
}

/* Write a code point (a surrogate too) in 1 to 4 bytes; their number. */
static inline int
apm_utf8_put(uint32_t point, char out[4])
{
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    if (point < 0x800) {
        out[0] = (char)(0xc0 | point >> 6);
        out[1] = (char)(0x80 | (point & 0x3f));
        return 2;
    }
    if (point < 0x10000) {
        out[0] = (char)(0xe0 | point >> 12);
        out[1] = (char)(0x80 | (point >> 6 & 0x3f));
        out[2] = (char)(0x80 | (point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | point >> 18);
    out[1] = (char)(0x80 | (point >> 12 & 0x3f));
    out[2] = (char)(0x80 | (point >> 6 & 0x3f));
    out[3] = (char)(0x80 | (point & 0x3f));
    return 4;
}

#endif
