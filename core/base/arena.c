/* arena.c - see arena.h */
#include "core/base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FIRST_BLOCK 1024
#define LAST_BLOCK                                                                                 \
    ((size_t)64 << 10) /* blocks stop growing here; what is bigger has one of its own */

struct apm_arena_block {
    apm_arena_block *next;
    _Alignas(max_align_t) char data[];
};

struct apm_arena_foreign {
    apm_arena_foreign *next;
    void *p;
};

static apm_arena_block *
block_new(size_t size)
{
    if (size > SIZE_MAX - sizeof(apm_arena_block))
        return NULL;
    return malloc(sizeof(apm_arena_block) + size);
}

/* Memory for something that does not fit into the current block. */
static char *
spill(apm_arena *arena, size_t size)
{
    size_t block_size = arena->next_block ? arena->next_block : FIRST_BLOCK;
    apm_arena_block *block;

    if (size > (arena->blocks ? block_size / 4 : block_size)) {
        /* A block of its own, behind the current one, whose remaining room stays in use. */
        if (!(block = block_new(size)))
            return NULL;
        if (arena->blocks) {
            block->next = arena->blocks->next;
            arena->blocks->next = block;
        } else {
            block->next = NULL;
            arena->blocks = block;
        }
        return block->data;
    }
    if (!(block = block_new(block_size)))
        return NULL;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->at = block->data + size;
    arena->end = block->data + block_size;
    arena->next_block = block_size < LAST_BLOCK ? block_size * 2 : block_size;
    return block->data;
}

void *
apm_arena_bytes(apm_arena *arena, size_t size)
{
    if (size <= (size_t)(arena->end - arena->at)) {
        char *p = arena->at;
        /* An empty request in an arena without a block still deserves a pointer. */
        if (p) {
            arena->at += size;
            return p;
        }
    }
    return spill(arena, size);
}

void *
apm_arena_alloc(apm_arena *arena, size_t size)
{
    size_t off = (size_t)(-(uintptr_t)arena->at & (_Alignof(max_align_t) - 1));
    char *p;

    if (arena->at && off <= (size_t)(arena->end - arena->at) &&
        size <= (size_t)(arena->end - arena->at) - off) {
        p = arena->at + off;
        arena->at = p + size;
    } else if (!(p = spill(arena, size))) {
        return NULL;
    }
    return memset(p, 0, size);
}

apm_str
apm_arena_str(apm_arena *arena, apm_str s, bool *ok)
{
    if (!apm_str_is(s))
        return APM_STR_NONE;
    char *p = s.len < SIZE_MAX ? apm_arena_bytes(arena, s.len + 1) : NULL;
    if (!p) {
        if (ok)
            *ok = false;
        return APM_STR_NONE;
    }
    memcpy(p, s.p, s.len);
    p[s.len] = '\0';
    return (apm_str){ p, s.len };
}

char *
apm_arena_printf(apm_arena *arena, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : apm_arena_bytes(arena, (size_t)n + 1);
    if (!p)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(p, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return p;
}

bool
apm_arena_adopt(apm_arena *arena, void *p)
{
    apm_arena_foreign *foreign = apm_arena_alloc(arena, sizeof(*foreign));

    if (!foreign)
        return false;
    *foreign = (apm_arena_foreign){ arena->foreign, p };
    arena->foreign = foreign;
    return true;
}

void
apm_arena_clear(apm_arena *arena)
{
    for (apm_arena_foreign *foreign = arena->foreign; foreign; foreign = foreign->next)
        free(foreign->p);
    for (apm_arena_block *block = arena->blocks; block;) {
        apm_arena_block *next = block->next;
        free(block);
        block = next;
    }
    *arena = (apm_arena){ 0 };
}
