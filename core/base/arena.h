/*
 * arena.h - memory that dies together: what one delivery gave rise to lives in that delivery's arena.
 * Allocation is by bumping a pointer in blocks; there is no single free. All calls return NULL when memory
 * is short (the arena stays usable). Alignment is that of max_align_t for alloc, none for text.
 */
#ifndef APM_BASE_ARENA_H
#define APM_BASE_ARENA_H

#include "core/base/str.h"

typedef struct apm_arena_block apm_arena_block;
typedef struct apm_arena_foreign apm_arena_foreign;

typedef struct apm_arena {
    apm_arena_block *blocks;
    apm_arena_foreign *foreign; /* adopted */
    char *at, *end;
    size_t next_block; /* size of the next block in bytes, grows; 0 means the default, 1 KiB */
} apm_arena;

void *apm_arena_alloc(apm_arena *arena, size_t size); /* zeroed */
void *apm_arena_bytes(apm_arena *arena, size_t size); /* not zeroed, not aligned */
/* A terminated copy; absent stays absent. On failure absent too, and *ok (may be NULL) is set false. */
apm_str apm_arena_str(apm_arena *arena, apm_str s, bool *ok);
char *
apm_arena_printf(apm_arena *arena, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What malloc() gave dies with the arena from now on. False without memory. */
bool apm_arena_adopt(apm_arena *arena, void *p);
void apm_arena_clear(apm_arena *arena);

#endif
