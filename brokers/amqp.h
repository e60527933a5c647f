/* amqp.h - the RabbitMQ broker's inside, shared by amqp.c (messages) and amqp_admin.c (looking after queues). */
#ifndef APM_BROKERS_AMQP_H
#define APM_BROKERS_AMQP_H

#include "brokers/broker.h"
#include "core/link/amqp.h"

#define AMQP_DEAD_QUEUE "apium.dead" /* refused messages are kept here, with x-apium-* headers */

struct deliveries {
    apm_delivery *first, *last;
    size_t n;
};

struct amqp_broker {
    apm_broker base;
    apm_amqp_intake intake;     /* link NULL until something is consumed */
    struct deliveries backlog;  /* received, not handed over */
    struct deliveries held;     /* handed over, unsettled */
    struct deliveries refusing; /* on their way to the dead-letter place */
    struct deliveries stuck;    /* refused, and could not be kept elsewhere */
    unsigned arrived;           /* messages, since the last batch's end */
    unsigned window;
    bool window_loose, window_set, stopping;
    apm_done_cb *stop_done;
    void *stop_arg;
    struct amqp_question *questions; /* asked and not answered */
    apm_buf scratch;
};

extern const apm_broker_ops apm_amqp_broker;

void amqp_admin_declare(apm_broker *broker, const apm_queue *queue, apm_done_cb *done, void *arg);
void amqp_admin_look(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                     void *arg);
void amqp_admin_inspect(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                        void *arg);
void amqp_admin_purge(apm_broker *broker, const char *queue, apm_count_cb *done, void *arg);
void amqp_admin_dead(apm_broker *broker, size_t limit, apm_dead_cb *done, void *arg);
/* Call fn soon, unless the broker is closed before. */
void amqp_admin_later(struct amqp_broker *self, void (*fn)(void *arg), void *arg);
/* Nobody is told about what is still unanswered. */
void amqp_admin_close(struct amqp_broker *self);

#endif
