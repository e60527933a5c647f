/*
 * adapters.h - the servers that the contract suites run over, one row each. A row starts a server
 * of its own (on a free port of 127.0.0.1, in a temporary folder) and gives the URL; a new adapter
 * is one file with one row, named in adapters.c and meson.build.
 */
#ifndef APM_TESTS_ADAPTERS_H
#define APM_TESTS_ADAPTERS_H

#include <stdbool.h>
#include <stddef.h>

#define ADAPTER_SKIP 77 /* the server is not installed */

struct apm_broker;

typedef struct adapter {
    /* the argument of test_brokers and test_backends, and the name that meson shows */
    const char *name;
    bool broker, backend;
    /* A unit that publishes and acks happens as a whole or not at all, whatever dies. */
    bool atomic;
    /* Knows since when a message waits. */
    bool tells_age;
    /* The default exchange takes any name: the first message makes the queue. */
    bool any_name;
    /* As with Celery there: RETRY or STARTED replace no FAILURE. */
    bool ready_stays;
    /* Results do not expire while a test looks. */
    bool keeps;
    /* Watching is looking again and again: what is overwritten at once is not seen. */
    bool looked_at;
    /* Shorten what takes a minute in earnest; NULL: nothing does. */
    void (*hurry)(struct apm_broker *broker);
    /* Start the server and write its URL. 0, ADAPTER_SKIP, or 1 for a failure that was printed.
     * Called once, before any test. */
    int (*start)(char *url, size_t size);
    /* Stop it and remove what it left; called once, after the tests. */
    void (*stop)(void);
    /* Take every held message from its owner, as when a lease is over, behind the back of all
     * consumers; NULL: there is no way. */
    void (*steal)(const char *url);
} adapter;

/* Ended by NULL. */
extern const adapter *const adapters[];

/* NULL when there is none of that name. */
const adapter *adapter_find(const char *name);

#endif
