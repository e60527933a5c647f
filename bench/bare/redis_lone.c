/*
 * redis_lone - the bare round trips of one lone task on Redis, from sending it to having its result: the sender subscribes and
 * pushes; a waiting worker wakes (BLMOVE), takes the message with one script, stores and acknowledges with another, which
 * tells the sender. Two threads, each with blocking connections. Prints the median and the 99th percentile, in microseconds.
 *
 *     redis_lone PORT COUNT
 */
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "message.h"

static const char take_script[] =
    "local m = redis.call('RPOP', KEYS[1]) if not m then return false end redis.call('HSET', "
    "KEYS[2], ARGV[1], "
    "'['..m..',\"\",\"celery\"]') redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1]) return m";
static const char settle_script[] = "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then "
                                    "redis.call('SETEX', ARGV[2], 86400, ARGV[3]) "
                                    "redis.call('PUBLISH', ARGV[2], ARGV[3]) redis.call('ZREM', "
                                    "KEYS[2], ARGV[1]) redis.call('HDEL', KEYS[1], "
                                    "ARGV[1]) end return 1";

static int port;
static long total;

static redisContext *
connected(void)
{
    redisContext *redis = redisConnect("127.0.0.1", port);
    if (!redis || redis->err) {
        fprintf(stderr, "redis_lone: cannot connect\n");
        exit(1);
    }
    return redis;
}

static redisReply *
must(void *reply)
{
    redisReply *got = reply;
    if (!got || got->type == REDIS_REPLY_ERROR) {
        fprintf(stderr, "redis_lone: %s\n", got ? got->str : "the connection is lost");
        exit(1);
    }
    return got;
}

static void
load(redisContext *redis, const char *script, char sha[41])
{
    redisReply *reply = must(redisCommand(redis, "SCRIPT LOAD %s", script));
    snprintf(sha, 41, "%s", reply->str);
    freeReplyObject(reply);
}

static void *
work(void *arg)
{
    redisContext *waiting = connected(), *redis = connected();
    char take[41], settle[41], tag[32], key[80], doc[400];
    load(redis, take_script, take);
    load(redis, settle_script, settle);
    (void)arg;
    for (long n = 0; n < total; n++) {
        freeReplyObject(must(redisCommand(waiting, "BLMOVE lone lone RIGHT RIGHT 10")));
        snprintf(tag, sizeof(tag), "lone:%ld", n);
        redisReply *got = must(redisCommand(redis, "EVALSHA %s 3 lone unacked unacked_index %s %ld",
                                            take, tag, (long)time(NULL)));
        const char *id = got->str ? strstr(got->str, "\"id\": \"") : NULL;
        if (!id) {
            fprintf(stderr, "redis_lone: a message without an id\n");
            exit(1);
        }
        snprintf(key, sizeof(key), "celery-task-meta-%.36s", id + 7);
        snprintf(doc, sizeof(doc),
                 "{\"status\": \"SUCCESS\", \"result\": null, \"traceback\": null, \"children\": "
                 "[], \"date_done\": \"2026-11-22T07:18:45.184896+00:00\", \"task_id\": \"%.36s\"}",
                 id + 7);
        freeReplyObject(got);
        freeReplyObject(must(redisCommand(redis, "EVALSHA %s 2 unacked unacked_index %s %s %s",
                                          settle, tag, key, doc)));
    }
    redisFree(waiting);
    redisFree(redis);
    return NULL;
}

static int
by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int
main(int argc, char **argv)
{
    pthread_t worker;
    char text[MESSAGE_MAX], key[80];
    struct timespec begin, end;
    if (argc != 3) {
        fprintf(stderr, "usage: redis_lone PORT COUNT\n");
        return 2;
    }
    port = atoi(argv[1]);
    total = atol(argv[2]);
    redisContext *redis = connected(), *told = connected();
    double *took = calloc((size_t)total, sizeof(*took));
    if (!took || pthread_create(&worker, NULL, work, NULL) != 0)
        return 1;
    for (long n = 0; n < total; n++) {
        int len = message(text, n);
        void *reply;
        snprintf(key, sizeof(key), "celery-task-meta-00000000-0000-4000-8000-%012ld", n);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        freeReplyObject(must(redisCommand(told, "SUBSCRIBE %s", key)));
        freeReplyObject(must(redisCommand(redis, "LPUSH lone %b", text, (size_t)len)));
        if (redisGetReply(told, &reply) != REDIS_OK)
            return 1;
        clock_gettime(CLOCK_MONOTONIC, &end);
        freeReplyObject(must(reply));
        took[n] =
            (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) / 1e3;
    }
    pthread_join(worker, NULL);
    const size_t warm = (size_t)total / 10, rest = (size_t)total - warm;
    qsort(took + warm, rest, sizeof(*took), by_size);
    printf("%.1f %.1f\n", took[warm + rest / 2], took[warm + rest * 99 / 100]);
    free(took);
    redisFree(redis);
    redisFree(told);
    return 0;
}
