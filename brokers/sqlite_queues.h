/*
 * sqlite_queues.h - queues in a SQLite file: the tables, and the operations on them as units carry
 * them. What `run` does here happens in the link's thread; brokers/sqlite.c is the side of the
 * loop.
 *
 *   publish ─▶ ready ──receive──▶ held ──ack──▶ gone
 *                ▲                 │ ├─reject─▶ dead
 *                ├──requeue, restore─┤
 *                └──due── parked ◀──park
 *
 * A message is a row of apium_messages, written once, and one small row that says where it is. A
 * held row names its owner: a run (one consuming broker, a random number) and that run's sequence
 * number; both are the fence of its settlement. A run is a row of apium_runs, a locked byte in the
 * lock file, and a beat that it raises every 15 s.
 */
#ifndef APM_BROKERS_SQLITE_QUEUES_H
#define APM_BROKERS_SQLITE_QUEUES_H

#include "brokers/broker.h"
#include "core/link/sqlite.h"

extern const char apm_sqlite_queues_schema[], apm_sqlite_queues_sent[];

typedef struct apm_sqlite_tag {
    int64_t id, run, seq;
} apm_sqlite_tag;

typedef struct apm_sqlite_delivery {
    apm_delivery base;
    apm_sqlite_tag tag;
    size_t from; /* which of the queues asked for */
} apm_sqlite_delivery;

/* Each makes an operation to be added to a unit, copying what it is given; NULL without memory. */
apm_sqlite_op *apm_sqlite_publish_op(const apm_route *route, const apm_message *msg);
apm_sqlite_op *apm_sqlite_settle_op(const apm_sqlite_tag *tag, apm_disposition how,
                                    const char *reason, const char *queue);
apm_sqlite_op *apm_sqlite_park_op(const apm_sqlite_tag *tag, int64_t due_us);

#define APM_SQLITE_QUEUES_MAX 256 /* consumed by one broker */

/* A run as its operations need it. */
typedef struct apm_sqlite_run {
    int64_t run;
    bool registered; /* its row was there when we last looked */
    const char *node;
} apm_sqlite_run;

/* Take messages. What comes out is set when the unit was OK. */
typedef struct apm_sqlite_receive {
    apm_sqlite_op op;
    void *owner; /* the broker; NULL once that is closed */
    /* in */
    apm_sqlite_run run;
    int64_t seq;         /* the first of `want` sequence numbers */
    const char **queues; /* in the order to be served */
    size_t n_queues;
    bool turns;  /* one from each in turn; otherwise each only when those before it are empty */
    size_t want; /* at most */
    int64_t max_bytes; /* bigger messages are refused */
    /* out */
    bool lost; /* the run's row is gone: whatever it held belongs to others */
    apm_sqlite_delivery **got;
    size_t n_got;
    size_t next_turn;    /* index of the queue whose turn is next */
    int64_t next_due_us; /* of what is parked; 0 none */
    struct apm_sqlite_refused {
        size_t from;
        char why[160];
        apm_str raw; /* its headers */
    } refused[8];
    size_t n_refused;
} apm_sqlite_receive;

apm_sqlite_receive *apm_sqlite_receive_new(const apm_sqlite_run *run, const char *const *queues,
                                           size_t n_queues, size_t want);

/* Look after the file: raise our beat, give back what dead runs held, make ready what is due. */
typedef struct apm_sqlite_seen {
    int64_t run, beat, since_ms;
} apm_sqlite_seen;

#define APM_SQLITE_SEEN_MAX 64

typedef struct apm_sqlite_tend {
    apm_sqlite_op op;
    void *owner;
    /* in */
    apm_sqlite_run run;
    bool renew; /* raise the beat */
    bool sweep; /* look for dead runs */
    /* in and out */
    /* Other runs, and since when their beat has not moved. */
    apm_sqlite_seen seen[APM_SQLITE_SEEN_MAX];
    size_t n_seen;
    /* out */
    bool lost;
    int64_t restored; /* messages taken from dead runs */
    int64_t next_due_us;
} apm_sqlite_tend;

apm_sqlite_tend *apm_sqlite_tend_new(const apm_sqlite_run *run);

/* The run ends: what it still holds goes back. */
apm_sqlite_op *apm_sqlite_retire_op(int64_t run);
/* Undo having taken these; they were never handed to anybody. */
apm_sqlite_op *apm_sqlite_untake_op(const apm_sqlite_tag *tags, size_t n);

/* Looking after queues: the questions of one broker that are not answered yet. */
typedef struct apm_sqlite_desk {
    apm_link *link;
    struct apm_sqlite_question *first;
} apm_sqlite_desk;

void
apm_sqlite_ask_declare(apm_sqlite_desk *desk, const apm_queue *queue, apm_done_cb *done, void *arg);
void apm_sqlite_ask_inspect(apm_sqlite_desk *desk, const char *const *names, size_t n,
                            apm_infos_cb *done, void *arg);
/* Of named queues `ready` and `oldest_us` alone. */
void apm_sqlite_ask_look(apm_sqlite_desk *desk, const char *const *names, size_t n,
                         apm_infos_cb *done, void *arg);
void apm_sqlite_ask_purge(apm_sqlite_desk *desk, const char *queue, apm_count_cb *done, void *arg);
void apm_sqlite_ask_bindings(apm_sqlite_desk *desk, apm_bindings_cb *done, void *arg);
void apm_sqlite_ask_dead(apm_sqlite_desk *desk, size_t limit, apm_dead_cb *done, void *arg);
/* Nobody wants the answers any more. */
void apm_sqlite_desk_clear(apm_sqlite_desk *desk);

/* A copy of what a declaration needs; NULL without memory. */
const apm_queue *apm_sqlite_queue_copy(apm_arena *arena, const apm_queue *queue);

#endif
