/*
 * amqp_drain - the bare cost of a task on RabbitMQ: consume with a prefetch window, store a result document for each in Redis
 * (SETEX and PUBLISH, 32 pipelined), acknowledge those at once. No decoding, no task. What a worker is measured against.
 * Without results when REDIS_PORT is 0.
 *
 *     amqp_drain PORT QUEUE COUNT REDIS_PORT
 */
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "rabbit.h"

#define WINDOW    128
#define ACK_EVERY 32

/* The result document of a task, sent with its publication, both unanswered yet. */
static void
store(redisContext *redis, const amqp_basic_properties_t *in)
{
    char doc[512], key[80];
    snprintf(doc, sizeof(doc),
             "{\"status\": \"SUCCESS\", \"result\": null, \"traceback\": null, \"children\": "
             "[], \"date_done\": "
             "\"2026-11-22T07:18:45.184896+00:00\", \"task_id\": \"%.*s\"}",
             (int)in->correlation_id.len, (char *)in->correlation_id.bytes);
    snprintf(key, sizeof(key), "celery-task-meta-%.*s", (int)in->correlation_id.len,
             (char *)in->correlation_id.bytes);
    const char *set[] = { "SETEX", key, "86400", doc }, *tell[] = { "PUBLISH", key, doc };
    redisAppendCommandArgv(redis, 4, set, NULL);
    redisAppendCommandArgv(redis, 3, tell, NULL);
}

int
main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: amqp_drain PORT QUEUE COUNT REDIS_PORT\n");
        return 2;
    }
    long total = atol(argv[3]);
    amqp_connection_state_t conn = connected(atoi(argv[1]));
    amqp_basic_qos(conn, 1, 0, WINDOW, 0);
    must(amqp_get_rpc_reply(conn), "set the window");
    amqp_basic_consume(conn, 1, amqp_cstring_bytes(argv[2]), amqp_empty_bytes, 0, 0, 0,
                       amqp_empty_table);
    must(amqp_get_rpc_reply(conn), "consume");

    const bool results = atoi(argv[4]) != 0;
    redisContext *redis = results ? redisConnect("127.0.0.1", atoi(argv[4])) : NULL;
    if (results && (!redis || redis->err)) {
        fprintf(stderr, "amqp_drain: cannot connect to Redis\n");
        return 1;
    }
    int unstored = 0;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (long n = 1; n <= total; n++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(conn);
        must(amqp_consume_message(conn, &envelope, NULL, 0), "receive");
        if (results) {
            store(redis, &envelope.message.properties);
            unstored += 2;
        }
        if (n % ACK_EVERY == 0 || n == total)
            for (; unstored; unstored--) {
                void *reply;
                if (redisGetReply(redis, &reply) != REDIS_OK) {
                    fprintf(stderr, "amqp_drain: cannot store\n");
                    return 1;
                }
                freeReplyObject(reply);
            }
        if (n % ACK_EVERY == 0 || n == total)
            amqp_basic_ack(conn, 1, envelope.delivery_tag, 1);
        amqp_destroy_envelope(&envelope);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds =
        (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("%.0f\n", (double)total / seconds);
    if (redis)
        redisFree(redis);
    disconnect(conn);
    return 0;
}
