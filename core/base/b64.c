/* b64.c - see b64.h */
#include "core/base/b64.h"

#include "core/base/error.h"

static const char digits[64] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#define NO 0xff /* not in the alphabet; bits 6 and 7 tell it from every value */
static const unsigned char
    values
        [256] = {
#define R4(x)  x, x, x, x
#define R16(x) R4(x), R4(x), R4(x), R4(x)
            R16(NO), R16(NO), R4(NO),  R4(NO),  NO,      NO,      NO,      62,
            NO,      NO,      NO,      63, /* + / */
            52,      53,      54,      55,      56,      57,      58,      59,
            60,      61,      NO,      NO,      NO,      NO,      NO,      NO, /* 0-9 */
            NO,      0,       1,       2,       3,       4,       5,       6,
            7,       8,       9,       10,      11,      12,      13,      14, /* A-O */
            15,      16,      17,      18,      19,      20,      21,      22,
            23,      24,      25,      NO,      NO,      NO,      NO,      NO, /* P-Z */
            NO,      26,      27,      28,      29,      30,      31,      32,
            33,      34,      35,      36,      37,      38,      39,      40, /* a-o */
            41,      42,      43,      44,      45,      46,      47,      48,
            49,      50,      51,      NO,      NO,      NO,      NO,      NO, /* p-z */
            R16(NO), R16(NO), R16(NO), R16(NO), R16(NO), R16(NO), R16(NO), R16(NO),
#undef R4
#undef R16
        };

void
apm_b64_add(apm_buf *buf, const void *p, size_t len)
{
    const unsigned char *in = p;
    char *out = len <= SIZE_MAX / 2 ? apm_buf_reserve(buf, APM_B64_LEN(len)) : NULL;

    if (!out) {
        buf->failed = true;
        return;
    }
    buf->len += APM_B64_LEN(len);
    for (; len >= 3; len -= 3, in += 3, out += 4) {
        uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
        out[0] = digits[v >> 18];
        out[1] = digits[v >> 12 & 63];
        out[2] = digits[v >> 6 & 63];
        out[3] = digits[v & 63];
    }
    if (len > 0) {
        uint32_t v = (uint32_t)in[0] << 16 | (len > 1 ? (uint32_t)in[1] << 8 : 0);
        out[0] = digits[v >> 18];
        out[1] = digits[v >> 12 & 63];
        out[2] = len > 1 ? digits[v >> 6 & 63] : '=';
        out[3] = '=';
        out += 4;
    }
    *out = '\0';
}

/*
 * What is left once the fast loop has met padding or foreign characters, one character at a time. As
 * Python does, padding counts only where it completes a group, and then ends the text.
 */
static apium_status
decode_slowly(const unsigned char *in, const unsigned char *end, unsigned char **out,
              apium_error *err)
{
    unsigned char *to = *out;
    uint32_t group = 0;
    int have = 0, pads = 0;

    for (; in < end; in++) {
        if (*in == '=') {
            if (have >= 2 && have + ++pads >= 4) {
                *to++ = (unsigned char)(group >> (have == 2 ? 4 : 10));
                if (have == 3)
                    *to++ = (unsigned char)(group >> 2);
                *out = to;
                return APIUM_OK;
            }
            continue;
        }
        unsigned char v = values[*in];
        if (v == NO)
            continue;
        pads = 0;
        group = group << 6 | v;
        if (++have == 4) {
            *to++ = (unsigned char)(group >> 16);
            *to++ = (unsigned char)(group >> 8);
            *to++ = (unsigned char)group;
            have = 0;
            group = 0;
        }
    }
    if (have == 1)
        return apm_fail(err, APIUM_E_DECODE, "cannot decode base64: one character too many");
    if (have > 0)
        return apm_fail(err, APIUM_E_DECODE, "cannot decode base64: incorrect padding");
    *out = to;
    return APIUM_OK;
}

apium_status
apm_b64_decode(apm_str text, void *out, size_t *out_len, apium_error *err)
{
    const unsigned char *in = (const unsigned char *)text.p, *end = in + text.len;
    unsigned char *to = out;

    for (; end - in >= 4; in += 4, to += 3) {
        uint32_t a = values[in[0]], b = values[in[1]], c = values[in[2]], d = values[in[3]];
        if ((a | b | c | d) & 0xc0)
            break;
        uint32_t v = a << 18 | b << 12 | c << 6 | d;
        to[0] = (unsigned char)(v >> 16);
        to[1] = (unsigned char)(v >> 8);
        to[2] = (unsigned char)v;
    }
    apium_status st = decode_slowly(in, end, &to, err);
    if (st == APIUM_OK)
        *out_len = (size_t)(to - (unsigned char *)out);
    return st;
}
