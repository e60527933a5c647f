/* hash.h - whether two texts are the same, without keeping either: 64 bits of FNV-1a. Not for foreign input that is to collide. */
#ifndef APM_BASE_HASH_H
#define APM_BASE_HASH_H

#include <stdint.h>

#include "core/base/str.h"

/* Never 0. */
static inline uint64_t
apm_hash(apm_str text)
{
    uint64_t hash = 14695981039346656037ull;
    for (size_t i = 0; i < text.len; i++)
        hash = (hash ^ (unsigned char)text.p[i]) * 1099511628211ull;
    return hash ? hash : 1;
}

#endif
