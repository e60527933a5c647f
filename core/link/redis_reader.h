/*
 * redis_reader.h - what a Redis server says, from bytes to replies (RESP 2). The replies are hiredis's own, for
 * freeReplyObject(). What hiredis's reader does besides is copying: into a buffer of its own, and out of it. Here a socket
 * reads long strings right to where they stay.
 */
#ifndef APM_LINK_REDIS_READER_H
#define APM_LINK_REDIS_READER_H

#include <hiredis/hiredis.h>

#include <apium/status.h>

#include "core/base/arena.h"

#define APM_REDIS_DEPTH 9 /* arrays in arrays */

typedef struct apm_redis_reader {
    char *buf; /* what was read and is not understood yet: from `at` to `end` */
    size_t size, at, end;
    redisReply *top; /* the reply that is being made */
    struct {
        redisReply *array;
        size_t n; /* items that are there */
    } stack[APM_REDIS_DEPTH];
    int depth;
    redisReply *string; /* the one whose bytes are coming, NULL none; `have` of them are there */
    size_t have;
} apm_redis_reader;

/* size: how much to read at once, and the longest line. E_NOMEM. */
apium_status apm_redis_reader_init(apm_redis_reader *reader, size_t size, apium_error *err);
void apm_redis_reader_clear(apm_redis_reader *reader);
/* Where the next bytes go; then say how many came. All replies that are complete were taken before. */
char *apm_redis_reader_room(apm_redis_reader *reader, size_t *len);
void apm_redis_reader_read(apm_redis_reader *reader, size_t len);
/* The next reply, for freeReplyObject(); NULL as long as it is not complete. After an error the reader is of no use. */
apium_status apm_redis_reader_next(apm_redis_reader *reader, redisReply **out, apium_error *err);

/* The text of a string of an answer, for as long as the arena lives: a copy, or when it is long the string itself, which the reply
 * lacks then. */
apm_str apm_redis_keep(const redisReply *string, apm_arena *arena, bool *ok);

#endif
