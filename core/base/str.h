/*
 * str.h - borrowed text: a pointer and a length, not terminated, never owned.
 * An absent value is {NULL, 0}; an empty one has a pointer. Ask apm_str_is() for "is there one".
 */
#ifndef APM_BASE_STR_H
#define APM_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct apm_str {
    const char *p;
    size_t len;
} apm_str;

#define APM_STR(literal) ((apm_str){ "" literal, sizeof(literal) - 1 })
#define APM_STR_NONE     ((apm_str){ NULL, 0 })
/* For printf's "%.*s". */
#define APM_STR_ARG(s)   (int)(s).len, (s).p ? (s).p : ""

static inline apm_str
apm_strz(const char *z)
{
    return z ? (apm_str){ z, strlen(z) } : APM_STR_NONE;
}

static inline bool
apm_str_is(apm_str s)
{
    return s.p != NULL;
}

static inline bool
apm_str_eq(apm_str a, apm_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.p, b.p, a.len) == 0);
}

static inline bool
apm_str_eqz(apm_str a, const char *z)
{
    return apm_str_eq(a, apm_strz(z));
}

#endif
