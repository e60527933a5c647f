/*
 * side.h - one side of a contract test: a loop with its links, a broker, a backend, and what they
 * have said. Several sides in one process take turns. Whatever a test waits for has a deadline.
 */
#ifndef APM_TESTS_SIDE_H
#define APM_TESTS_SIDE_H

#include "backends/backend.h"
#include "brokers/broker.h"
#include "suite.h"

#define WAIT_MS 20000

typedef struct side {
    uv_loop_t loop;
    apm_settings settings;
    apm_links *links;
    apm_broker *broker;
    apm_backend *backend;

    apm_delivery *got[4096]; /* received, not yet asked for */
    size_t n_got;
    size_t received, batches; /* ever */
    apm_delivery *lost[64];
    size_t n_lost;
    size_t n_refused;
    char refused_why[256];
    struct side *next;
} side;

/* The URL that this binary runs over, and its row; NULL where there is no table of adapters. */
extern char side_url[512];
extern const struct adapter *side_adapter;

/* Open the loop and the links; patience_ms as apm_links_new. */
side *side_new(int64_t patience_ms);
/* The same with a broker, a backend or both opened on side_url. */
side *side_with(bool broker, bool backend);
/* Close everything and run the loop to its end. */
void side_free(side *s);

/* Memory that is wanted until the test's process ends; gives p back. */
void *side_keep(void *p);

/* In a forked child: the sides are the parent's. */
void sides_forked(void);

/* One turn of every open side's loop; waits a little when nothing happens. */
void sides_turn(void);

/* Turn until expr holds. */
#define run_until(expr)                                                                            \
    do {                                                                                           \
        int64_t run_end_ = (int64_t)(uv_hrtime() / 1000000) + WAIT_MS;                             \
        while (!(expr)) {                                                                          \
            ck_assert_msg((int64_t)(uv_hrtime() / 1000000) < run_end_, "waited in vain for: %s",   \
                          #expr);                                                                  \
            sides_turn();                                                                          \
        }                                                                                          \
    } while (0)

/* Turn for that long: only to see that something does *not* happen. */
void run_for(int64_t ms);

/* A queue of that test alone; `what` tells several apart. Lives until the process ends. */
const apm_queue *side_queue(const char *what);
/* Straight to the queue, by the default exchange. */
apm_route side_route(const apm_queue *queue);
/* Where no queue is. */
apm_route side_nowhere(const char *key);
/* A message with that body. */
apm_message side_message(const char *body);

/* Declare a queue, consume from it with that window. */
void side_consume(side *s, const apm_queue *queue, unsigned window);
/* Commit a unit and wait for its fate. */
apium_status side_commit(apm_unit *unit, apium_error *err);
apium_status side_publish(side *s, const apm_queue *queue, const char *body, apium_error *err);
apium_status
side_publish_message(side *s, const apm_route *route, const apm_message *msg, apium_error *err);
/* The next delivery; waits. */
apm_delivery *side_receive(side *s);
/* Settle in a unit of its own, wait, and free the delivery. */
apium_status side_settle(side *s, apm_delivery *delivery, apm_disposition how, const char *reason,
                         apium_error *err);
/* The counts of one queue. */
apm_queue_info side_inspect(side *s, const apm_queue *queue);
apm_queue_info side_look(side *s, const apm_queue *queue);

bool body_is(const apm_delivery *delivery, const char *body);

#endif
