/*
 * broker.h - what a broker adapter supplies: queues of messages, deliveries and their settlement. Nothing of tasks.
 *
 * All calls are made on the loop of the link and do not block; answers come as callbacks on the loop, never from
 * inside the call. Callers use the apm_broker_* functions; the table of an adapter is filled at its foot.
 */
#ifndef APM_BROKERS_BROKER_H
#define APM_BROKERS_BROKER_H

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/link/link.h"
#include "core/model/message.h"
#include "core/model/route.h"

typedef struct apm_broker apm_broker;

enum {
    APM_BROKER_PRIORITY = 1u << 0,  /* priorities are honoured */
    APM_BROKER_LOW_FIRST = 1u << 1, /* the lowest number is served first (Redis), not the highest */
    APM_BROKER_PARK = 1u << 2,      /* can keep a delivery until a time: far etas cost no memory */
    APM_BROKER_FENCE =
        1u << 3, /* a settlement of a delivery that is not ours any more applies nothing */
    APM_BROKER_REPLIES = 1u << 4, /* direct reply queues: rpc:// works over it */
    APM_BROKER_LOCAL = 1u << 5,   /* lives in this process alone (memory://) */
    APM_BROKER_FANOUT = 1u << 6,  /* has exchanges whose messages reach every listener */
};

/*
 * A message as the broker handed it over. Made by the adapter, owned by whoever got it from on_batch; msg's text lives in its arena
 * (where the owner may keep what it derives from it). Settle it once, in a unit; free it when its settlement is done
 * and nothing else needs its text.
 */
typedef enum apm_hold {
    APM_HELD,    /* ours, unsettled */
    APM_SETTLED, /* a settlement was appended to a unit */
    APM_LOST,    /* not ours any more (on_lost was called): settling it does nothing to the store */
} apm_hold;

typedef struct apm_delivery {
    apm_broker *broker;
    apm_arena arena;
    apm_message msg;
    const char *queue; /* the queue it came from; lives as long as the broker */
    apm_hold hold;
    bool done; /* its task is over: the acknowledgement may be gathered for a few milliseconds */
    int64_t received_ms;              /* monotonic */
    struct apm_delivery *prev, *next; /* the adapter's list of what is held */
    void *owner;                      /* the receiver's; NULL at first */
    /* The adapter's tag follows in its own struct, of which this is the first member. */
} apm_delivery;

typedef enum apm_disposition {
    APM_ACK,    /* done with */
    APM_REJECT, /* refuse for good: kept in the dead-letter place with the reason */
    APM_REQUEUE, /* back to its queue, served last where the broker can choose: Reject(requeue=True) */
    APM_RESTORE, /* back to its queue, served next, marked redelivered: given back unstarted, or its process was lost */
} apm_disposition;

typedef struct apm_broker_opts {
    apm_settings *settings;
    const char *node; /* "celery@host": shown in consumer tags and locks where there is room */
    /* New deliveries; the receiver owns them all. */
    void (*on_batch)(void *arg, apm_delivery **batch, size_t n);
    /* A held delivery is not ours any more (lease or connection lost); hold is APM_LOST already. The receiver drops it if it had not
     * begun. May be called for several in a row. */
    void (*on_lost)(void *arg, apm_delivery *delivery);
    /* What was received is no message at all (not an envelope, over max_message_bytes): it is in the dead-letter place already. */
    void (*on_refused)(void *arg, const char *queue, apm_str raw, const char *why);
    /* A queue's consumer ended for another reason than ours, and was or will be set up again: a line for the log. */
    void (*on_notice)(void *arg, apm_log_level level, const char *text);
    void *arg;
} apm_broker_opts;

typedef struct apm_queue_info {
    const char *name;
    int64_t ready, unacked, parked, dead; /* messages; -1: this broker cannot tell */
    int64_t consumers;                    /* -1: cannot tell */
    /*
     * From when on the first message waits (wall, microseconds): the one that is served next of each priority, and of
     * those the one that waits longest. 0: none waits, or this broker cannot tell.
     */
    int64_t oldest_us;
} apm_queue_info;

/* How long the first message waits, in seconds; false: none waits, or nobody knows. Clocks differ: never negative. */
static inline bool
apm_queue_age(const apm_queue_info *info, double *seconds)
{
    int64_t us = info->oldest_us ? apm_clock_wall_us() - info->oldest_us : 0;

    *seconds = us > 0 ? (double)us / 1e6 : 0;
    return info->oldest_us != 0;
}

typedef struct apm_binding {
    const char *queue, *exchange, *routing_key;
} apm_binding;

/* A message in the dead-letter place. */
typedef struct apm_dead {
    const char *queue, *reason;
    int64_t at_us;   /* wall */
    apm_str message; /* as JSON envelope text where the broker has it, else the body */
} apm_dead;

typedef void apm_done_cb(void *arg, apium_status status, const apium_error *err);
typedef void apm_count_cb(void *arg, apium_status status, int64_t count, const apium_error *err);
typedef void apm_infos_cb(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err);
typedef void
apm_bindings_cb(void *arg, const apm_binding *bindings, size_t n, const apium_error *err);
typedef void apm_dead_cb(void *arg, const apm_dead *dead, size_t n, const apium_error *err);

typedef struct apm_broker_ops {
    const char *name;
    const char *const *schemes; /* ended by NULL */
    size_t size;                /* of the adapter's broker, whose first member is an apm_broker */
    uint32_t features;

    /* broker->link and broker->opts are set. Nothing need be connected yet. */
    apium_status (*open)(apm_broker *broker, apium_error *err);
    /* Release everything from any state; held deliveries must have been given back or freed before. */
    void (*close)(apm_broker *broker);

    /* Declare a queue with its exchange and binding, with exactly Celery's flags. done may be NULL. Repeated by the adapter after a
     * reconnect where the server could have forgotten. */
    void (*declare)(apm_broker *broker, const apm_queue *queue, apm_done_cb *done, void *arg);
    /* Ask for deliveries from a queue (declared first). Survives reconnection. Several queues are served in Celery's fair order
     * (queue_order_strategy). */
    apium_status (*consume)(apm_broker *broker, const apm_queue *queue, apium_error *err);
    apium_status (*cancel)(apm_broker *broker, const char *queue, apium_error *err);
    /* At most `window` deliveries held unsettled at once, over all queues; 0 unlimited. What is SETTLED (its unit committed, answered
     * or not) does not count. `loose`: a guess, for short tasks: half of it is enough, and for a moment twice as many do no harm. Starts at 0
     * with consuming paused until it is set for the first time. */
    void (*window)(apm_broker *broker, unsigned window, bool loose);
    /* Stop receiving; what still arrives is given back by the adapter. done is called when nothing more can arrive. Settling goes on. */
    void (*stop)(apm_broker *broker, apm_done_cb *done, void *arg);

    /* Append to a unit of the broker's link; nothing happens until it is committed. msg and route are copied. The queue of a
     * route is declared first if this process has not yet. An unroutable mandatory message fails the unit: E_UNROUTABLE. */
    apium_status (*publish)(apm_broker *broker, apm_unit *unit, const apm_route *route,
                            const apm_message *msg, apium_error *err);
    /* Append the settlement of a held delivery (its hold becomes APM_SETTLED). With APM_BROKER_FENCE it is also the unit's
     * fence. reason is for APM_REJECT. A LOST one appends nothing and is fine. */
    apium_status (*settle)(apm_broker *broker, apm_unit *unit, apm_delivery *delivery,
                           apm_disposition how, const char *reason, apium_error *err);
    /* With APM_BROKER_PARK: append "keep it until due_us (wall), belonging to nobody"; it comes back through on_batch, of this or another
     * node, not as a redelivery. */
    apium_status (*park)(apm_broker *broker, apm_unit *unit, apm_delivery *delivery, int64_t due_us,
                         apium_error *err);
    /* Release a delivery's memory. */
    void (*free_delivery)(apm_delivery *delivery);

    /* Looking after queues. Text in the answers lives during the callback. `queues` NULL: all that are known. */
    void (*inspect)(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                    void *arg);
    /* The same of named queues, but only what is cheap enough to be asked every few seconds: `ready` and `oldest_us`; the others may be
     * -1. Its answer also says that the broker answers. */
    void (*look)(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                 void *arg);
    void (*purge)(apm_broker *broker, const char *queue, apm_count_cb *done,
                  void *arg);                                               /* parked ones too */
    void (*bindings)(apm_broker *broker, apm_bindings_cb *done, void *arg); /* NULL: cannot tell */
    void (*dead)(apm_broker *broker, size_t limit, apm_dead_cb *done, void *arg); /* newest first */
} apm_broker_ops;

struct apm_broker {
    const apm_broker_ops *ops;
    apm_link *link;
    apm_broker_opts opts;
    uint64_t renewals; /* of leases that succeeded, or of what shows others that this node lives */
    int64_t trip_us;   /* of the quickest answer on this connection; 0: not known, or no matter */
    const char *
        url; /* as it was opened, lives during open() only: the link may have been made for another path on its server */
};

/* All adapters built in, ended by NULL (brokers.c). */
extern const apm_broker_ops *const apm_brokers[];

/* Find the adapter for the URL's scheme, get its link from the set, open it. A producer passes opts without callbacks. Close with
 * apm_broker_close. */
apium_status apm_broker_open(apm_links *set, const char *url, const apm_broker_opts *opts,
                             apm_broker **out, apium_error *err);
void apm_broker_close(apm_broker *broker); /* NULL is fine */

/* Thin calls of the table: apm_broker_declare(broker, ...) and so on, so that nobody writes broker->ops->declare. */
static inline bool
apm_broker_can(const apm_broker *broker, uint32_t feature)
{
    return (broker->ops->features & feature) == feature;
}
/* How far away the server is, in whole milliseconds for a round trip, at most 4: what is under way at once grows with it. */
static inline unsigned
apm_broker_far(const apm_broker *broker)
{
    int64_t ms = broker->trip_us / 1000;
    return ms < 4 ? (unsigned)ms : 4;
}
static inline void
apm_broker_declare(apm_broker *broker, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    broker->ops->declare(broker, queue, done, arg);
}
static inline apium_status
apm_broker_consume(apm_broker *broker, const apm_queue *queue, apium_error *err)
{
    return broker->ops->consume(broker, queue, err);
}
static inline apium_status
apm_broker_cancel(apm_broker *broker, const char *queue, apium_error *err)
{
    return broker->ops->cancel(broker, queue, err);
}
static inline void
apm_broker_window(apm_broker *broker, unsigned window, bool loose)
{
    broker->ops->window(broker, window, loose);
}
static inline void
apm_broker_stop(apm_broker *broker, apm_done_cb *done, void *arg)
{
    broker->ops->stop(broker, done, arg);
}
static inline apium_status
apm_broker_publish(apm_broker *broker, apm_unit *unit, const apm_route *route,
                   const apm_message *msg, apium_error *err)
{
    return broker->ops->publish(broker, unit, route, msg, err);
}
static inline apium_status
apm_broker_settle(apm_broker *broker, apm_unit *unit, apm_delivery *delivery, apm_disposition how,
                  const char *reason, apium_error *err)
{
    return broker->ops->settle(broker, unit, delivery, how, reason, err);
}
static inline apium_status
apm_broker_park(apm_broker *broker, apm_unit *unit, apm_delivery *delivery, int64_t due_us,
                apium_error *err)
{
    return broker->ops->park(broker, unit, delivery, due_us, err);
}
static inline void
apm_delivery_free(apm_delivery *delivery)
{
    if (delivery)
        delivery->broker->ops->free_delivery(delivery);
}

#endif
