/*
 * redis_drain - the bare cost of a task on Redis: take messages from a list into `unacked`, store a result document for
 * each with SETEX and PUBLISH, acknowledge. One connection, pipelined, no decoding, no task. What a worker is measured against.
 *
 *     redis_drain PORT QUEUE COUNT BATCH results|none
 */
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH_MAX 128

static const char fetch_script[] =
    "local out = {} for i = 1, tonumber(ARGV[3]) do local m = redis.call('RPOP', KEYS[1]) if not m "
    "then break end "
    "redis.call('HSET', KEYS[2], ARGV[1]..i, '['..m..',\"\",\"celery\"]') redis.call('ZADD', "
    "KEYS[3], ARGV[2], ARGV[1]..i) "
    "out[#out+1] = m end return out";
static const char settle_script[] =
    "for i = 1, #ARGV, 3 do if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then "
    "redis.call('SETEX', ARGV[i+1], 86400, ARGV[i+2]) redis.call('PUBLISH', ARGV[i+1], ARGV[i+2]) "
    "redis.call('ZREM', KEYS[2], ARGV[i]) redis.call('HDEL', KEYS[1], ARGV[i]) end end return 1";

static const char ack_script[] =
    "for i = 1, #ARGV do if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then redis.call('ZREM', "
    "KEYS[2], ARGV[i]) redis.call('HDEL', KEYS[1], ARGV[i]) end end return 1";

static redisReply *
must(redisReply *reply, redisContext *redis)
{
    if (!reply || reply->type == REDIS_REPLY_ERROR) {
        fprintf(stderr, "redis_drain: %s\n", reply ? reply->str : redis->errstr);
        exit(1);
    }
    return reply;
}

/* The value of `"id": "` in an envelope: the 36 bytes after it. */
static void
find_id(const char *message, size_t len, char id[37])
{
    const char *at = memmem(message, len, "\"id\": \"", 7);
    if (!at || (size_t)(message + len - at) < 43) {
        fprintf(stderr, "redis_drain: a message without an id\n");
        exit(1);
    }
    memcpy(id, at + 7, 36);
    id[36] = 0;
}

int
main(int argc, char **argv)
{
    const int batch_size = argc == 6 ? atoi(argv[4]) : 0;
    if (batch_size < 1 || batch_size > BATCH_MAX) {
        fprintf(stderr, "usage: redis_drain PORT QUEUE COUNT BATCH results|none\n");
        return 2;
    }
    const bool results = strcmp(argv[5], "none") != 0;
    long left = atol(argv[3]), total = left;
    redisContext *redis = redisConnect("127.0.0.1", atoi(argv[1]));
    if (!redis || redis->err) {
        fprintf(stderr, "redis_drain: cannot connect\n");
        return 1;
    }
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int call = 0; left > 0; call++) {
        char prefix[32];
        snprintf(prefix, sizeof(prefix), "bare:%d:", call);
        redisReply *batch =
            must(redisCommand(redis, "EVAL %s 3 %s unacked unacked_index %s %ld %d", fetch_script,
                              argv[2], prefix, (long)time(NULL), batch_size),
                 redis);
        static char text[BATCH_MAX][3][512];
        const char *args[5 + 3 * BATCH_MAX] = { "EVAL", results ? settle_script : ack_script, "2",
                                                "unacked", "unacked_index" };
        int n = 5;
        for (size_t i = 0; i < batch->elements; i++) {
            char id[37];
            find_id(batch->element[i]->str, batch->element[i]->len, id);
            snprintf(text[i][0], 512, "%s%zu", prefix, i + 1);
            snprintf(text[i][1], 512, "celery-task-meta-%s", id);
            snprintf(text[i][2], 512,
                     "{\"status\": \"SUCCESS\", \"result\": null, \"traceback\": null, "
                     "\"children\": [], \"date_done\": "
                     "\"2026-11-22T07:18:45.184896+00:00\", \"task_id\": \"%s\"}",
                     id);
            for (int k = 0; k < (results ? 3 : 1); k++)
                args[n++] = text[i][k];
        }
        left -= (long)batch->elements;
        if (batch->elements)
            freeReplyObject(must(redisCommandArgv(redis, n, args, NULL), redis));
        freeReplyObject(batch);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%.0f\n", (double)total / seconds);
    redisFree(redis);
    return 0;
}
