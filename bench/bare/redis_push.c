/*
 * redis_push - the bare cost of publishing to Redis: LPUSH of a message as large as a call of tasks.noop, with ids of its own,
 * WINDOW of them unanswered at a time.
 *
 *     redis_push PORT QUEUE COUNT WINDOW
 */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "message.h"

int
main(int argc, char **argv)
{
    char text[MESSAGE_MAX];
    struct timespec begin, end;
    if (argc != 5) {
        fprintf(stderr, "usage: redis_push PORT QUEUE COUNT WINDOW\n");
        return 2;
    }
    long total = atol(argv[3]), window = atol(argv[4]);
    redisContext *redis = redisConnect("127.0.0.1", atoi(argv[1]));
    if (!redis || redis->err) {
        fprintf(stderr, "redis_push: cannot connect\n");
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long sent = 0, got = 0; got < total;) {
        for (; sent < total && sent - got < window; sent++) {
            int len = message(text, sent);
            const char *words[] = { "LPUSH", argv[2], text };
            size_t lens[] = { 5, strlen(argv[2]), (size_t)len };
            redisAppendCommandArgv(redis, 3, words, lens);
        }
        for (long until = sent - window / 2 > got ? sent - window / 2 : sent; got < until; got++) {
            void *reply;
            if (redisGetReply(redis, &reply) != REDIS_OK) {
                fprintf(stderr, "redis_push: %s\n", redis->errstr);
                return 1;
            }
            freeReplyObject(reply);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.0f\n", (double)total / ((double)(end.tv_sec - begin.tv_sec) +
                                      (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
    redisFree(redis);
    return 0;
}
