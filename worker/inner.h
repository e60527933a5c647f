/*
 * inner.h - what the stations of the worker share: the worker itself, and one request on its way through it.
 *
 *                    ┌────────── HELD ◀── eta near, or a broker that cannot park
 *   intake ──▶ gate ─┤             │ due
 *                    ├─▶ READY ◀───┘ ──▶ POOL ──▶ SETTLING ──▶ (freed)
 *                    └─▶ parked in the store, refused, expired: SETTLING at once
 *
 * Every apm_work is on exactly one of the worker's lists, the one of its station.
 */
#ifndef APM_WORKER_INNER_H
#define APM_WORKER_INNER_H

#include "backends/backend.h"
#include "brokers/broker.h"
#include "core/base/log.h"
#include "worker/pool.h"
#include "worker/worker.h"

typedef struct apm_series apm_series;   /* metrics.c: the counts of one task and queue */
typedef struct apm_metrics apm_metrics; /* of the worker; NULL without --http */

typedef enum apm_station {
    APM_AT_INTAKE,
    APM_AT_HELD,     /* waits here for its eta */
    APM_AT_READY,    /* waits for room in the pool */
    APM_AT_POOL,     /* in a slot: perhaps not begun, running */
    APM_AT_SETTLING, /* its settlement is on its way */
    APM_STATIONS,
} apm_station;

typedef struct apm_work {
    struct apm_worker *worker;
    apm_delivery *delivery;
    apm_request req;
    const apm_task_info *task; /* NULL when not registered */
    apm_job job;

    apm_station station;
    struct apm_work *prev, *next; /* of the station's list */
    size_t heap;                  /* position among the held, while there */
    int64_t
        due_us; /* wall time at which the held one is due: its eta, or its turn under a rate limit */
    bool for_rate; /* held for its turn, not for its eta */

    bool late;  /* acks_late */
    bool begun; /* seen to have begun */
    bool acked; /* the delivery's settlement was appended to a unit */
    bool ignore_result;
    /* 1 + position among w->due, 0 not there: an early ack or STARTED waits for the end of this turn */
    size_t due;
    unsigned units; /* units under way that mention this work */
    bool over;      /* nothing more to append: free when units is 0 */
    bool sends;     /* messages follow its outcome */
    /* The settlement's unit under way carries the delivery's too: refused together, due again together. */
    bool settled_with_it;
    bool failed_once; /* the store refused its settlement; a FAILURE in its place was tried */
    /* What was to follow could not be sent: the message is kept in the dead-letter place with this reason. */
    const char *doom;
    apm_unit *after;     /* two links: what is committed on the broker once the result is stored */
    apm_disposition how; /* of the delivery, with `after` */
    const char *why;     /* APM_REJECT's reason, in the delivery's arena */
    const struct apm_builtin *builtin; /* a task of Celery's own; NULL for most */
    /* An errback that is called here: no message brought it, nothing is settled or stored. */
    bool internal;
    struct apm_errbacks *errbacks; /* called when everything is settled; NULL for most */
    struct apm_join *join;         /* chords that wait for this work's return; NULL for most */
    bool chain_here;               /* no more of its chain is asked of the store */
    /* Holds the memory of the delivery that this work began under; freed with it. */
    struct apm_work *adopted;
    int64_t received_ms;
    apm_series *series; /* NULL: not counted */
    bool prefetched;    /* counted as waiting here */
} apm_work;

typedef struct apm_work_list {
    apm_work *head, *tail;
    size_t n;
} apm_work_list;

typedef enum apm_life {
    APM_STARTING, /* the pool comes up, nothing is consumed yet */
    APM_RUNNING,
    APM_WARM,    /* finishing what runs */
    APM_COLD,    /* killing what runs */
    APM_CLOSING, /* everything is settled: the pool and the links go */
    APM_GONE,
} apm_life;

typedef struct apm_worker {
    uv_loop_t loop;
    apium_app *app;
    apm_settings *settings;
    const apm_worker_opts *opts;
    char node[256];

    apm_links *links;
    apm_broker *broker;
    apm_backend *backend;
    bool one_link; /* results and queue commit together */
    apm_pool *pool;
    bool pool_ready;
    bool known; /* what the result store can do */

    apm_work_list lists[APM_STATIONS];
    apm_work **held; /* heap by due_us */
    size_t n_held, cap_held;
    size_t n_held_eta;      /* of these, the ones that wait for their eta */
    struct apm_rate *rates; /* one for each task with a rate limit */
    apm_work **due;         /* begun in this turn; entries may be NULL */
    size_t n_due, cap_due;
    apm_buf scratch; /* documents are composed here */
    uv_timer_t eta_timer;

    uv_prepare_t prepare; /* the end of a turn: hand over, flush */
    uv_check_t check;
    uv_idle_t idle; /* active: do not sleep, the end of the turn has something to do */
    bool turn_over; /* between prepare and poll */
    bool pass_due;  /* ready work or due acks await the end of the turn */

    uv_signal_t signals[5];
    uv_timer_t stop_timer;
    apm_life life;
    int exit_code;
    bool restart;        /* HUP */
    bool stopping;       /* consuming was ended */
    bool broker_stopped; /* and nothing more can arrive */
    bool soft_over;      /* worker_soft_shutdown_timeout has passed */
    bool forced;         /* settlements were given up */
    bool pool_gone, closed;
    bool said_ready;
    bool gave_up; /* an error ends the worker: err says which */
    apium_error error;

    unsigned window; /* as last told to the broker */
    bool window_loose, window_set;
    int64_t avg_run_ns; /* moving average of run times, for the window of short tasks */
    int64_t avg_bytes;  /* and of the messages' bodies */
    apm_link_watch broker_watch, backend_watch;
    bool broker_was_up;

    apm_metrics *metrics;
    const apm_queue **queues; /* consumed */
    size_t n_queues, queues_open;

    struct {
        uint64_t received, succeeded, failed, retried, rejected, refused, revoked, lost, returned,
            link_errors;
    } count;
} apm_worker;

/* What happens to a worker; the table in life.c says what it means in each state. */
typedef enum apm_event {
    APM_EV_READY, /* every queue is open */
    APM_EV_TERM,
    APM_EV_INT,
    APM_EV_QUIT,
    APM_EV_HUP,
    APM_EV_IDLE,    /* stopping, and nothing is left to do */
    APM_EV_GIVE_UP, /* an error: w->error */
    APM_EVENTS,
} apm_event;

/* say.c */
void apm_say_outcome(apm_work *work, const apm_outcome *outcome);

/* life.c */
void apm_life_open(apm_worker *w); /* signals, timers */
void apm_life_event(apm_worker *w, apm_event ev);
/* End the pool, then close everything: the loop runs out. */
void apm_life_end_pool(apm_worker *w);
/* The worker cannot go on: remember why and stop. The first reason counts. */
void apm_worker_fail(apm_worker *w, const apium_error *err);

/* queues.c */
apium_status apm_queues_choose(apm_worker *w, apium_error *err);
void apm_queues_open(apm_worker *w);

/* works.c */
apm_work *apm_work_new(apm_worker *w, apm_delivery *delivery);
void apm_work_move(apm_work *work, apm_station to);
/* Release: off its list, the delivery too. */
void apm_work_free(apm_work *work);

/* intake.c: a delivery becomes a request, or is refused with a reason. */
void apm_intake_batch(void *worker, apm_delivery **batch, size_t n);
void apm_intake_lost(void *worker, apm_delivery *delivery);
void apm_intake_refused(void *worker, const char *queue, apm_str raw, const char *why);

/* gate.c: when a request may run. */
apium_status apm_gate_open(apm_worker *w, apium_error *err);
void apm_gate_close(apm_worker *w);
/* Decide for a new request: ready, held, parked, or discarded as expired. */
void apm_gate_enter(apm_work *work);
/* Hand ready requests to the pool while it has room. */
void apm_gate_pass(apm_worker *w);
/* Forget a request that is not ours any more and has not begun. */
void apm_gate_drop(apm_work *work);
/* Drop the errbacks that have not begun: nobody can be given them. */
void apm_gate_drop_internal(apm_worker *w);
/* Give back everything that has not begun: held, ready, and what the pool has not begun. */
void apm_gate_return_all(apm_worker *w);
/* Tell the broker how much we want to hold. */
void apm_gate_window(apm_worker *w);

/* The effective options of a call: message, then task, then settings. */
void apm_intake_options(apm_work *work);

/* settle.c: what an outcome causes. */
void apm_settle_begin(void *worker, apm_job *job);
void apm_settle_state(void *worker, apm_job *job, apm_str state, apm_str meta);
void apm_settle_done(void *worker, apm_job *job, const apm_outcome *outcome);
/* An outcome that the pool did not give: refused, expired, lost. work->how and why are chosen by the outcome. */
void apm_settle(apm_work *work, const apm_outcome *outcome);
/* The request cannot be run here: its result is a FAILURE with this exception and argument, the message is kept in the
 * dead-letter place, nothing follows. */
void apm_settle_refused(apm_work *work, const char *type, const char *module, apm_str argument);
/* Only the delivery: give back, refuse, ack; nothing is recorded. reason is copied; NULL but for APM_REJECT. */
void apm_settle_delivery(apm_work *work, apm_disposition how, const char *reason);
/* Send the early acks and STARTED records that became due in this turn. */
void apm_settle_turn(apm_worker *w);

/* worker.c: something awaits the end of the turn; and: something ended, perhaps the worker can stop. */
void apm_worker_wake(apm_worker *w);
void apm_worker_progress(apm_worker *w);

/* "ForkPoolWorker-3" for log lines. */
void apm_work_process(const apm_work *work, char out[32]);

#endif
