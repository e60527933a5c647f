/*
 * route.h - queues and where a task goes: task_queues, task_routes (globs and regular expressions),
 * the defaults.
 */
#ifndef APM_MODEL_ROUTE_H
#define APM_MODEL_ROUTE_H

#include "core/base/json.h"

typedef enum apm_exchange_type { APM_DIRECT, APM_TOPIC, APM_FANOUT, APM_HEADERS } apm_exchange_type;

/* A queue as it is declared; text lives as long as the settings. */
typedef struct apm_queue {
    const char *name;
    const char *exchange; /* default: the queue's name (the default queue: task_default_exchange) */
    apm_exchange_type exchange_type;
    const char *routing_key; /* default: the queue's name */
    int max_priority;        /* x-max-priority; 0 none */
    const char *queue_type;  /* "quorum" gives x-queue-type; NULL or "classic": no argument */
    const char *arguments;   /* JSON object of further arguments; NULL none */
    bool durable, auto_delete, exclusive; /* tasks: true, false, false */
    int64_t expires_ms;                   /* x-expires; 0 none */
} apm_queue;

/* Where one message goes. exchange "" is the default exchange: routing_key is the queue. */
typedef struct apm_route {
    /* Declared before the first publish; NULL: only exchange and routing key are known. */
    const apm_queue *queue;
    const char *exchange, *routing_key;
    apm_exchange_type exchange_type;
    bool mandatory; /* a task that no queue would take is an error at the sender */
} apm_route;

#endif
