/*
 * memory.h - a link to a named store in this process's memory: memory://name. For tests and eager
 * runs.
 *
 * A store begins with the first link of its name and lasts until the process ends. One mutex
 * guards it, so links of several loops in several threads may share it. A unit is checked as a
 * whole, then applied as a whole, inside its commit; its answer comes later, on the loop.
 */
#ifndef APM_LINK_MEMORY_H
#define APM_LINK_MEMORY_H

#include <pthread.h>

#include "core/link/link.h"

extern const apm_link_ops apm_memory_kind;

typedef enum apm_memory_topic {
    APM_MEMORY_WAKE, /* messages became ready */
    APM_MEMORY_DONE, /* results were stored */
    APM_MEMORY_SEND, /* this loop is about to sleep */
    APM_MEMORY_TOPICS,
} apm_memory_topic;

typedef struct apm_memory_store {
    pthread_mutex_t mutex;
    char *name;
    void *queues, *results,
        *chords; /* the adapters'; made by whoever comes first, under the mutex */
    struct apm_memory_link *links;
    struct apm_memory_store *next;
} apm_memory_store;

typedef struct apm_memory_op apm_memory_op;
struct apm_memory_op {
    /* Under the mutex: could this be applied? Also the place to get the memory for it. May be
     * NULL. */
    apium_status (*check)(apm_memory_store *store, apm_memory_op *op, apium_error *err);
    /* Under the mutex, after every check of the unit. Cannot fail. */
    void (*apply)(apm_memory_store *store, apm_memory_op *op);
    void (*release)(apm_memory_op *op); /* NULL is free() */
    apm_memory_op *next;
};

typedef struct apm_memory_listener {
    void (*on_event)(void *arg);
    void *arg;
    struct apm_memory_listener *next;
} apm_memory_listener;

apm_memory_store *apm_memory_store_of(apm_link *link);
void apm_memory_add(apm_unit *unit, apm_memory_op *op);
void apm_memory_listen(apm_link *link, apm_memory_topic topic, apm_memory_listener *listener);
void apm_memory_unlisten(apm_link *link, apm_memory_topic topic, apm_memory_listener *listener);
/* Call the SEND listeners soon. */
void apm_memory_stir(apm_link *link);
/* Under the mutex: tell the listeners of every link, each on its loop. */
void apm_memory_touch(apm_memory_store *store, apm_memory_topic topic);

#endif
