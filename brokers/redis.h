/*
 * brokers/redis.h - what the files of the Redis broker share; nobody else includes it, but tests that shorten its times.
 *
 * A message is at every instant in exactly one of: a queue's lists (one for each priority step), the `unacked` hash with
 * its index. Both are kombu's, shared with every Python node of the database. Moves between them are scripts.
 *
 *   redis.c        opening, declaring, publishing, settling; the table
 *   redis_fetch.c  taking batches from the lists into `unacked`, under tags of our own
 *   redis_wait.c   waiting without popping while the lists are empty
 *   redis_lease.c  renewing what we hold, taking back what the dead held, bringing parked entries back when due
 *   redis_dead.c   dead letters, and units of the broker's own
 *   redis_look.c   counting, purging, listing
 *
 *   tag of a held entry:    apium.r:<run>:<fetch>:<i>            run: random for each process start, never reused
 *   tag of a parked entry:  apium.e:<step>:<run>:<n>:<queue>     belongs to nobody; its score is its due time
 */
#ifndef APM_BROKERS_REDIS_H
#define APM_BROKERS_REDIS_H

#include "brokers/broker.h"
#include "core/link/redis.h"

#define MAX_STEPS   10
#define TAG_MAX     64    /* of a held entry */
#define DEAD_KEEP   10000 /* dead letters that stay */
#define HELD_MARK   "apium.r:"
#define PARKED_MARK "apium.e:"

typedef struct redis_waiter redis_waiter;
typedef struct redis_own redis_own;

typedef struct redis_queue {
    struct redis_queue *next;
    char *name;
    char *json;            /* the name as a JSON string */
    char *list[MAX_STEPS]; /* keys, with the global prefix */
    redis_waiter *waiter[MAX_STEPS];
    int64_t active_ms[MAX_STEPS]; /* when a message came from that list last; 0: never */
    bool consuming;
    bool bad;                     /* not a list: said once */
    uint64_t declared;            /* the link's epoch in which its binding was written */
    const apm_queue *declaration; /* as it was declared, to do it again; NULL: never */
} redis_queue;

typedef struct redis_delivery {
    apm_delivery base;
    redis_queue *queue;
    apm_str raw; /* the envelope as it came */
    char tag[TAG_MAX];
} redis_delivery;

/* A fetch under way, or one whose answer was lost. */
typedef struct redis_fetch {
    struct redis_broker *broker;
    struct redis_fetch *next;
    uint64_t number;
    unsigned count;
    int64_t sent_ns;
    size_t n_queues;
    redis_queue *queues[];
} redis_fetch;

typedef struct redis_times {
    int64_t renew_ms, lease_ms, sweep_ms,
        stale_ms; /* stale_ms: a score that did not move for so long is dead */
} redis_times;

typedef struct redis_broker {
    apm_broker base;
    int db;
    apm_redis_keys keys;
    char *unacked, *index, *dead, *prefix, *sep,
        *fanout; /* what keys borrows; the prefix of fanout channels */
    int steps[MAX_STEPS], n_steps;
    bool rotate, sorted; /* queue_order_strategy */
    char run[17];
    uint64_t fetch_no, park_no;
    apm_redis_hook hook;
    apm_link_watch watch;
    apm_arena names;

    redis_queue *queues; /* all that were ever named */
    redis_queue **order; /* the consuming ones, the next to be served first */
    size_t n_order;
    apm_delivery *held; /* unsettled */
    size_t n_held;
    size_t n_settling; /* settled, but not heard of */
    unsigned window;
    bool windowed;
    bool ready;             /* the lists may hold something */
    size_t quiet;           /* queues in a row that were looked at and hold nothing any more */
    size_t last_found;      /* messages of the last fetch */
    size_t mean_bytes;      /* of a message of the last fetch that brought some */
    int64_t pause_until_ms; /* after an error of the server */
    unsigned n_fetching;    /* unanswered fetches: one, more of deep queues */
    bool deep;              /* the last one left something behind */
    redis_fetch *orphans;   /* answers lost: what they took is to be adopted */
    unsigned adopting;
    size_t reserved; /* slots that a fetch or an orphan may fill */
    redis_own *own;  /* units of the broker's own under way; stop() waits for them */
    struct redis_wake {
        uv_async_t async;
    } * wake; /* to answer stop() from the loop */

    bool stopping, stopped_told;
    apm_done_cb *stop_done;
    void *stop_arg;

    struct redis_wait *wait;
    struct redis_lease *lease;
    redis_times times;
} redis_broker;

static inline redis_broker *
redis_of(apm_broker *broker)
{
    return (redis_broker *)broker;
}

/* redis.c */
int64_t redis_max_message(const redis_broker *broker);
redis_queue *redis_queue_get(redis_broker *broker, const char *name); /* NULL without memory */
/* The list suffix of a priority: "" or separator and step. */
apm_str redis_step_suffix(const redis_broker *broker, int priority, char out[64]);
int redis_step_index(const redis_broker *broker, int priority);
void redis_notice(redis_broker *broker, apm_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* redis_dead.c */
/* Keep what is no message in the dead-letter list and remove its entry, in a unit of its own. raw absent: it is too
 * big to have been fetched. */
void redis_refuse(redis_broker *broker, const char *queue, apm_str raw, const char *tag,
                  const char *why);
/* Commit a unit of the broker's own; stop() waits for it. */
void redis_own_commit(redis_broker *broker, apm_unit *unit);
/* The same; should the unit turn out unroutable, the message is buried as one for `queue` (NULL: no such provision). */
void redis_own_commit_or_bury(redis_broker *broker, apm_unit *unit, const char *queue, apm_str raw,
                              const char *tag);
/* The broker closes: what is under way is answered to nobody. */
void redis_own_orphan(redis_broker *broker);
/* Append the burial of a message. raw absent: the entry's own text, which was too big to fetch. */
void redis_bury(redis_broker *broker, apm_unit *unit, const char *queue, const char *reason,
                apm_str raw, const char *tag);
void redis_dead(apm_broker *broker, size_t limit, apm_dead_cb *done, void *arg);

/* redis_fetch.c */
void redis_fetch_pump(redis_broker *broker);
void redis_fetch_adopt(redis_broker *broker); /* the link is up: what became of lost fetches? */
void redis_fetch_clear(redis_broker *broker);
void redis_unhold(redis_delivery *delivery);
/* This queue is looked at by the next fetch. */
void redis_fetch_first(redis_broker *broker, const redis_queue *queue);
/* Split an entry of `unacked` written by an apium node: [message,"",queue]. */
bool redis_entry_split(apm_str entry, apm_str *message, apm_str *queue_json);

/* redis_wait.c */
apium_status redis_wait_open(redis_broker *broker);
void redis_wait_close(redis_broker *broker);
void redis_wait_arm(redis_broker *broker); /* the lists were empty */
/* Somebody waits on this list, so it is empty: when it is not he wakes. */
bool redis_wait_holds(const redis_queue *queue, int step);
void redis_wait_down(redis_broker *broker); /* the link is lost, or we stop */
void redis_wait_drop(redis_broker *broker, redis_queue *queue);

/* redis_lease.c */
apium_status redis_lease_open(redis_broker *broker);
void redis_lease_close(redis_broker *broker);
void redis_lease_up(redis_broker *broker);
void redis_lease_down(redis_broker *broker);
void redis_lease_parked(redis_broker *broker, int64_t due_us); /* we parked something ourselves */

/* redis_look.c */
void
redis_look(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done, void *arg);
void redis_inspect(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                   void *arg);
void redis_purge(apm_broker *broker, const char *queue, apm_count_cb *done, void *arg);
void redis_bindings(apm_broker *broker, apm_bindings_cb *done, void *arg);

/* For tests: how long leases last. */
void apm_redis_broker_times(apm_broker *broker, const redis_times *times);

extern const apm_broker_ops apm_redis_broker;

#endif
