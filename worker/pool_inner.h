/*
 * pool_inner.h - the main process's side of a pool, as its files share it: pool.c (jobs, looking,
 * sleeping), limits.c (time limits and signals), prefork.c and threads.c (where the work is done).
 */
#ifndef APM_WORKER_POOL_INNER_H
#define APM_WORKER_POOL_INNER_H

#include <pthread.h>

#include "worker/child.h"
#include "worker/pool.h"
#include "worker/slots.h"
#include "worker/states.h"

#define APM_NEVER INT64_MAX /* as a deadline */

/* A descriptor on the loop; allocated, because a handle outlives what it stood for until its close
 * callback. */
typedef struct apm_watch apm_watch;
typedef void apm_watch_fn(apm_watch *watch);
struct apm_watch {
    uv_poll_t poll;
    apm_pool *pool;
    int fd;    /* ours: closed with the watch */
    bool lent; /* but for this: a thread may still write to it */
    apm_watch_fn *fn;
    void *arg;
};

/*
 *   AWAY ──ask──▶ ASKED ──it is there──▶ UP ──it is dead──▶ AWAY ...
 *    a seat without process: again from `due_ns` on, if it is wanted
 */
typedef enum apm_life { APM_AWAY, APM_ASKED, APM_UP } apm_life;

/* A seat and the process (or thread) in it. */
typedef struct apm_process {
    apm_pool *pool;
    unsigned seat;
    bool wanted; /* a process belongs here: false when the pool shrank or stops */
    apm_life life;
    int64_t due_ns;    /* AWAY: not before; ASKED: not later */
    unsigned failures; /* in a row that died without having taken a job */

    /* while UP */
    int pid;
    apm_watch *exit, *sock; /* prefork: the pidfd; the socket of its custom states */
    apm_states states;
    int64_t up_ns, kill_ns,
        bury_ns; /* deadlines, or APM_NEVER: SIGKILL follows SIGTERM; the status has to be here */
    uint32_t asked;   /* for a sign of life, under this number; 0 never */
    int64_t asked_ns; /* when */
    bool heard;       /* it has given one before */
    bool took;        /* a job, ever */
    bool told;        /* to leave */
    bool doomed;      /* a hard limit's SIGTERM was sent: it takes nothing any more */
    bool dead;        /* and only its status is missing */
    bool orphan;      /* its fork server died: its zombie comes to us */
    pthread_t thread;
    _Atomic int thread_over; /* 1 + exit code */
    int child_sock;          /* threads: the other end of sock */
    apm_child child;         /* threads: what it was started with */
} apm_process;

/* Where the work is done. */
typedef struct apm_pool_kind {
    const char *name;
    bool processes; /* they can be killed */
    /* Prepare; nothing is on the loop yet, and after a failure only `free` is called. */
    apium_status (*start)(apm_pool *pool, const apm_pool_opts *opts, apium_error *err);
    /* Put on the loop what has to be there. */
    bool (*open)(apm_pool *pool);
    /* Put a process into a seat that is AWAY: it becomes ASKED, and UP with apm_pool_seated (or
     * AWAY again). */
    void (*seat)(apm_pool *pool, apm_process *process);
    /* The eventfd was written to; may be NULL. */
    void (*woken)(apm_pool *pool);
    /* Something of the kind's own is due at `next`: `run` it. Deadlines on the monotonic clock in
     * ns. */
    int64_t (*next)(const apm_pool *pool);
    /* Ask for a sign of life what is not a process of the pool; and how long it has owed one. May be NULL. */
    void (*ask)(apm_pool *pool);
    int64_t (*silent_ms)(const apm_pool *pool);
    void (*run)(apm_pool *pool, int64_t now_ns);
    /* No process is left (or they cannot be killed, and it is `now`): end what remains; then
     * apm_pool_closed. Perhaps again with `now`. */
    void (*stop)(apm_pool *pool, bool now);
    void (*free)(apm_pool *pool);
} apm_pool_kind;

extern const apm_pool_kind apm_pool_prefork, apm_pool_threads, apm_pool_solo;

struct apm_pool {
    const apm_pool_kind *kind;
    void *self; /* the kind's */
    uv_loop_t *loop;
    apm_pool_events events;
    apium_app *app;
    char *hostname;
    int64_t max_tasks, max_memory_kib;

    apm_slots slots;
    apm_job **jobs;               /* by slot */
    unsigned *running, n_running; /* slots whose job was seen to have begun */
    unsigned waiting;             /* slots whose job was not */
    unsigned *taken, n_taken; /* those of them that a process has, but has not called the task */
    unsigned limited;         /* jobs with a time limit */
    uint32_t seq;             /* of the last job: Celery's "Job: 17" */
    apm_process *processes;   /* by seat */
    unsigned concurrency, n_up;
    apm_task_info *tasks;
    size_t n_tasks;

    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t busy;  /* active: the loop does not sleep now */
    uv_timer_t tick; /* looks for what nobody wakes us for */
    uv_timer_t due;  /* limits, kills, new processes */
    apm_watch *wake;
    int wake_fd;
    unsigned tick_ms, handles;
    uint64_t happened; /* events so far */
    int64_t manned_ns; /* a process was up then; 0: nobody has asked */
    bool quick;        /* the last job took next to no time */
    unsigned missed,
        rest;        /* waits in place in a row that were in vain; how many we do without now */
    bool seating;    /* the kind can fill seats now */
    bool unread;     /* custom states wait for the begin of their job to be seen */
    bool asleep;     /* between our last step of a turn and the first of the next */
    bool rebuilding; /* after the memory was written over */
    bool polling, ready, failed, stopping, now, ending, closing;
    apm_pool *next_abandoned;
    bool abandoned; /* threads still use all this: it is never released */
    apm_buf request, outcome;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

/* ---- pool.c, for the others ---- */

/* Something happened, or is about to: look again soon. */
void apm_pool_stir(apm_pool *pool);
/* The task of the job in this slot, which a process has, was called: tell the worker. */
void apm_pool_begin(apm_pool *pool, unsigned slot);
/* The job has no slot any more, for the pool. */
void apm_pool_forget(apm_pool *pool, apm_job *job);
/* The job is over: its slot is free, the worker is told. */
void apm_pool_deliver(apm_pool *pool, apm_job *job, const apm_outcome *outcome);
/* The same with the outcome that is in its slot, which is DONE. */
void apm_pool_finish(apm_pool *pool, apm_job *job);
/* Read the custom states that came from this process and tell the worker. False: nothing came. */
bool apm_pool_states(apm_pool *pool, apm_process *process);

/* NULL without memory; the descriptor is closed in any case. */
apm_watch *apm_watch_open(apm_pool *pool, int fd, apm_watch_fn *fn, void *arg);
void apm_watch_close(apm_watch **watch);

/* The tasks are known and something works: tell the worker, once. */
void apm_pool_is_ready(apm_pool *pool);
void apm_pool_is_failed(apm_pool *pool, const apium_error *err);
/* The close callback of every handle that was counted in pool->handles; its data is the pool. */
void apm_pool_handle_closed(uv_handle_t *handle);
/* After kind->stop: nothing of the kind is left. */
void apm_pool_closed(apm_pool *pool);

/* ---- seats.c ---- */

/* The process of this seat is there. */
void apm_pool_seated(apm_pool *pool, apm_process *process, int pid);
/* It could not be made: again later. */
void apm_pool_unseated(apm_pool *pool, apm_process *process);
/* It is there, but not wanted any more, and was sent away. */
void apm_pool_refused(apm_pool *pool, apm_process *process);
/* It is dead; status is waitpid's, -1 unknown. What it had begun is lost, what it had finished is
 * delivered. */
void apm_pool_died(apm_pool *pool, apm_process *process, int status);
/* End the jobs that this dead process had begun. */
void apm_pool_bury(apm_pool *pool, const apm_process *process, int status);
/* Does this process run a job that was seen to begin? */
bool apm_pool_works(const apm_pool *pool, const apm_process *process);
/* Fill the seats whose time has come. */
void apm_pool_fill(apm_pool *pool);
/* Deadlines have changed. */
void apm_pool_arm(apm_pool *pool);
void apm_pool_on_due(uv_timer_t *timer);
/* No process belongs into this seat any more. */
void apm_pool_dismiss(apm_pool *pool, apm_process *process);
/* When the pool stops and nobody is left, let its kind end. */
void apm_pool_end_if_empty(apm_pool *pool);
/* The shared memory was written over: end all processes, then make it anew. */
void apm_pool_overwritten(apm_pool *pool);

/* ---- table.c ---- */

/* The table of tasks, allocated; the first one stays. */
void apm_pool_tasks(apm_pool *pool, apm_task_info *tasks, size_t n);

/* ---- limits.c ---- */

/* When the next limit is due. */
int64_t apm_limits_next(const apm_pool *pool);
void apm_limits_run(apm_pool *pool, int64_t now_ns);
/* Send a signal to the process; what is marked with a number means that job only. */
bool apm_process_signal(const apm_process *process, int signum, uint32_t seq);

/* Outcomes that the pool itself gives; their text is in buf. */
apm_outcome apm_outcome_lost(const apm_job *job, int status, apm_buf *buf);
apm_outcome apm_outcome_timeout(const apm_job *job, apm_buf *buf);
apm_outcome apm_outcome_terminated(void);

#endif
