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

/*
 * Sixteen characters at a time, where the processor can move bytes about by a table (SSSE3). Both give how much of the input they
 * have done; the rest, and what needs a look, is for the loops below.
 *
 * A character is told by its high half, which names a run of the alphabet: 2 "+/", 3 digits, 4 and 5 capitals, 6 and 7 small
 * letters. Adding the run's offset gives its value; "/" alone has another offset than its run.
 */
#if defined(__x86_64__) && defined(__GNUC__)
#include <tmmintrin.h>
#define WIDE 1

static bool
wide(void)
{
    static int can = -1;
    if (can < 0)
        can = __builtin_cpu_supports("ssse3") != 0;
    return can;
}

__attribute__((target("ssse3"))) static size_t
encode_wide(const unsigned char *in, size_t len, char *out)
{
    /* Three bytes into each four: b a c b, of which every six bits are then moved to the foot of a byte. */
    const __m128i spread = _mm_setr_epi8(1, 0, 2, 1, 4, 3, 5, 4, 7, 6, 8, 7, 10, 9, 11, 10);
    /* By run: capitals are found at 13, small letters at 0, digits at 1 to 10, then "+" and "/". */
    const __m128i offsets =
        _mm_setr_epi8('a' - 26, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52, '0' - 52,
                      '0' - 52, '0' - 52, '0' - 52, '0' - 52, '+' - 62, '/' - 63, 'A', 0, 0);
    size_t done = 0;

    for (; len - done >= 16; done += 12, out += 16) {
        __m128i v =
            _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(in + done)), spread);
        __m128i first_third = _mm_mulhi_epu16(_mm_and_si128(v, _mm_set1_epi32(0x0fc0fc00)),
                                              _mm_set1_epi32(0x04000040));
        __m128i second_fourth = _mm_mullo_epi16(_mm_and_si128(v, _mm_set1_epi32(0x003f03f0)),
                                                _mm_set1_epi32(0x01000010));
        __m128i six = _mm_or_si128(first_third, second_fourth);
        __m128i run = _mm_subs_epu8(six, _mm_set1_epi8(51));
        __m128i capital = _mm_cmpgt_epi8(_mm_set1_epi8(26), six);
        run = _mm_or_si128(run, _mm_and_si128(capital, _mm_set1_epi8(13)));
        _mm_storeu_si128((__m128i *)(void *)out, _mm_add_epi8(six, _mm_shuffle_epi8(offsets, run)));
    }
    return done;
}

__attribute__((target("ssse3"))) static size_t
decode_wide(const unsigned char *in, size_t len, unsigned char *out)
{
    /* A bit for each kind of high half; a character is foreign when its low half does not go with its high half. */
    const __m128i high_kind = _mm_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10,
                                            0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10);
    const __m128i low_refuses = _mm_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                                              0x11, 0x13, 0x1a, 0x1b, 0x1b, 0x1b, 0x1a);
    const __m128i offsets = _mm_setr_epi8(0, 63 - '/', 62 - '+', 52 - '0', -'A', -'A', 26 - 'a',
                                          26 - 'a', 0, 0, 0, 0, 0, 0, 0, 0);
    const __m128i pack = _mm_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    const __m128i half = _mm_set1_epi8(0x0f);
    size_t done = 0;

    for (; len - done >= 24;
         done += 16, out += 12) { /* sixteen bytes are written of which twelve count */
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(in + done));
        __m128i high = _mm_and_si128(_mm_srli_epi32(v, 4), half);
        __m128i foreign = _mm_and_si128(_mm_shuffle_epi8(low_refuses, _mm_and_si128(v, half)),
                                        _mm_shuffle_epi8(high_kind, high));
        if (_mm_movemask_epi8(_mm_cmpeq_epi8(foreign, _mm_setzero_si128())) != 0xffff)
            break;
        __m128i run = _mm_add_epi8(high, _mm_cmpeq_epi8(v, _mm_set1_epi8('/')));
        __m128i six = _mm_add_epi8(v, _mm_shuffle_epi8(offsets, run));
        __m128i twelve = _mm_maddubs_epi16(six, _mm_set1_epi32(0x01400140));
        __m128i all = _mm_madd_epi16(twelve, _mm_set1_epi32(0x00011000));
        _mm_storeu_si128((__m128i *)(void *)out, _mm_shuffle_epi8(all, pack));
    }
    return done;
}
#endif

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
#ifdef WIDE
    if (len >= 16 && wide()) {
        size_t done = encode_wide(in, len, out);
        in += done;
        len -= done;
        out += done / 3 * 4;
    }
#endif
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

#ifdef WIDE
    if (text.len >= 24 && wide()) {
        size_t done = decode_wide(in, text.len, to);
        in += done;
        to += done / 4 * 3;
    }
#endif
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
