/*
 * json_scan.h - what the files json*.c share, for nobody else: finding the next byte of a string that needs
 * a look, passing over a value that is known to be well-formed, and reading escapes.
 */
#ifndef APM_BASE_JSON_SCAN_H
#define APM_BASE_JSON_SCAN_H

#include "core/base/json.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* The first byte from `at` that is a quote, a backslash, a control character, or at least 0x80; or end. */
static inline const char *
apm_json_plain(const char *at, const char *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), escape = _mm_set1_epi8('\\'),
                  space = _mm_set1_epi8(' ');
    for (; end - at >= 16; at += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
        /* The comparison is signed: bytes from 0x80 on are below a space as well. */
        __m128i hit =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quote), _mm_cmpeq_epi8(v, escape)),
                         _mm_cmplt_epi8(v, space));
        int mask = _mm_movemask_epi8(hit);
        if (mask)
            return at + __builtin_ctz((unsigned)mask);
    }
#endif
    while (at < end && *at != '"' && *at != '\\' && (signed char)*at >= ' ')
        at++;
    return at;
}

static inline bool
apm_json_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static inline const char *
apm_json_space(const char *at, const char *end)
{
    while (at < end && apm_json_is_space(*at))
        at++;
    return at;
}

/* The type of a value by its first character; NONE for a character that begins no value. */
apm_json_type apm_json_type_at(const char *at, const char *end);

/* Behind the value at `at`, in text that has been validated. (On other text: somewhere up to end.) */
const char *apm_json_pass(const char *at, const char *end);

/* The members of a validated container, one by one, without judging them again; false behind the last. */
typedef struct apm_json_walk {
    const char *at, *end;
    bool object;
} apm_json_walk;

apm_json_walk apm_json_walk_open(apm_json val);
bool apm_json_walk_next(apm_json_walk *walk, apm_str *key, apm_json *val);

/* One character of a validated string's inside, escaped or not, as UTF-8; its length, 1 to 4. Moves *at. */
int apm_json_char(const char **at, const char *end, char out[4]);

/* What a number's text means to Python: correctly rounded, too large is infinite. False without memory. */
bool apm_json_number(apm_str text, double *out);

#define APM_DOUBLE_MAX 32
/* Python's repr of a finite number: "1e+22", "0.1", "-0.0", terminated; its length. */
int apm_double_repr(double value, char out[APM_DOUBLE_MAX]);

#endif
