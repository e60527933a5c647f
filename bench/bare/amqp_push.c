/*
 * amqp_push - the bare cost of publishing to RabbitMQ with confirms: persistent messages as large as a call of tasks.noop, WINDOW of
 * them unconfirmed at a time.
 *
 *     amqp_push PORT QUEUE COUNT WINDOW
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "message.h"
#include "rabbit.h"

/* Up to which delivery tag the broker has them. */
static unsigned long
confirmed(amqp_connection_state_t conn)
{
    amqp_frame_t frame;
    do {
        amqp_maybe_release_buffers(conn);
        if (amqp_simple_wait_frame(conn, &frame) != AMQP_STATUS_OK ||
            (frame.frame_type == AMQP_FRAME_METHOD &&
             frame.payload.method.id != AMQP_BASIC_ACK_METHOD)) {
            fprintf(stderr, "amqp_push: no confirm\n");
            exit(1);
        }
    } while (frame.frame_type != AMQP_FRAME_METHOD);
    return ((amqp_basic_ack_t *)frame.payload.method.decoded)->delivery_tag;
}

int
main(int argc, char **argv)
{
    char text[MESSAGE_MAX];
    struct timespec begin, end;
    if (argc != 5) {
        fprintf(stderr, "usage: amqp_push PORT QUEUE COUNT WINDOW\n");
        return 2;
    }
    unsigned long total = strtoul(argv[3], NULL, 10), window = strtoul(argv[4], NULL, 10);
    amqp_connection_state_t conn = connected(atoi(argv[1]));
    amqp_confirm_select(conn, 1);
    must(amqp_get_rpc_reply(conn), "ask for confirms");
    clock_gettime(CLOCK_MONOTONIC, &begin);
    /* Confirms may come out of their order: they are counted by tags, which is exact with one classic queue. */
    for (unsigned long sent = 0, got = 0; got < total;) {
        if (sent < total && sent - got < window) {
            int len = message(text, (long)sent);
            amqp_basic_properties_t out = {
                ._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
                .content_type = amqp_cstring_bytes("application/json"),
                .delivery_mode = 2,
            };
            amqp_bytes_t body = { .len = (size_t)len, .bytes = text };
            if (amqp_basic_publish(conn, 1, amqp_empty_bytes, amqp_cstring_bytes(argv[2]), 1, 0,
                                   &out, body) != AMQP_STATUS_OK) {
                fprintf(stderr, "amqp_push: cannot publish\n");
                return 1;
            }
            sent++;
            continue;
        }
        unsigned long upto = confirmed(conn);
        got = upto > got ? upto : got;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%.0f\n", (double)total / ((double)(end.tv_sec - begin.tv_sec) +
                                      (double)(end.tv_nsec - begin.tv_nsec) / 1e9));
    disconnect(conn);
    return 0;
}
