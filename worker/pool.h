/*
 * pool.h - what runs requests: processes (prefork), threads, solo. The main process's side of all
 * three.
 *
 *   main process                              pool processes (or threads)
 *   submit ─▶ [ ready ─▶ running ─▶ done ]  ◀── take the next ready slot by compare-and-swap,
 *                 ▲  shared memory              run it, leave the outcome; the next ...
 *   on_done ◀─────┘
 *
 * One queue of slots is shared by the whole pool, so no request waits while a process is idle. A
 * slot is taken back from `ready` by compare-and-swap as well: the worker stops, the id was
 * revoked, the lease is gone. Batches cost almost nothing: submit any number, then flush once;
 * wake-ups happen only when the other side sleeps. What is read from shared memory is checked like
 * any foreign input.
 */
#ifndef APM_WORKER_POOL_H
#define APM_WORKER_POOL_H

#include <uv.h>

#include "client/app.h"
#include "core/model/outcome.h"

typedef struct apm_pool apm_pool;
typedef struct apm_job apm_job;

/* What the worker must know of a registered task: the part of a definition that is decided in the
 * main process. For prefork it comes from the fork server, which alone loads the module. */
typedef struct apm_task_info {
    const char *name;
    double time_limit, soft_time_limit; /* seconds; 0 none */
    const char *rate_limit;
    int acks_late, ignore_result, track_started, reject_on_worker_lost, acks_on_failure_or_timeout,
        store_errors_even_if_ignored; /* apium_option */
    int max_retries;
    bool errback; /* called with the failed request, the exception and the traceback */
    /* where a retry goes when the definition says so; NULL none */
    const char *queue, *exchange, *routing_key;
} apm_task_info;

typedef enum apm_job_state {
    APM_JOB_NEW,     /* the worker's alone */
    APM_JOB_READY,   /* in a slot, not begun */
    APM_JOB_RUNNING, /* seen to have begun */
    APM_JOB_OVER,    /* on_done was called */
} apm_job_state;

/* A request in the pool's hands. Embedded in the worker's own struct; zero it, set the first group,
 * submit. */
struct apm_job {
    const apm_request *req; /* must live until on_done, on_lost or a successful take-back */
    const apm_task_info *task;
    double time_limit_s, soft_time_limit_s; /* effective; 0 none */

    apm_job_state state; /* read only from here on */
    int process;         /* index of the pool process (ForkPoolWorker-<process+1>) once RUNNING */
    int pid;             /* its pid (threads: the worker's) */
    int64_t began_ns;    /* monotonic */
    bool soft_sent, hard_sent;
    int terminated; /* the signal sent by apm_pool_terminate */
    unsigned slot;
    uint32_t seq;       /* Celery's job number */
    uint32_t states;    /* custom states seen */
    unsigned untouched; /* processes that died with it before its task was called */
};

/* All are called on the loop, never from inside a call of ours. */
typedef struct apm_pool_events {
    /* The pool can take work; the tasks are known (apm_pool_task). Called once. */
    void (*on_ready)(void *arg);
    /* Cannot start at all (the module does not load, no process can be made): give up. */
    void (*on_failed)(void *arg, const apium_error *err);
    /* The job was seen to have begun, its task was called: send its early ack, record STARTED. For jobs that began and
     * ended between two looks it is called right before on_done. Once per job. */
    void (*on_begin)(void *arg, apm_job *job);
    /* A custom state, in order, before the job's on_done. Text lives during the call. */
    void (*on_state)(void *arg, apm_job *job, apm_str state, apm_str meta);
    /* The job is over; outcome's text lives during the call only. LOST: its process died (exc is
     * WorkerLostError with Celery's text); TIMEOUT: hard limit (exc TimeLimitExceeded); REVOKED:
     * terminated. The job's storage is the worker's again. */
    void (*on_done)(void *arg, apm_job *job, const apm_outcome *outcome);
    /* A soft or hard limit was enforced: a line for the log. */
    void (*on_limit)(void *arg, apm_job *job, bool hard, double limit_s);
    /* A pool process came or went: a line for the log. status is waitpid's, -1 unknown;
     * expected: recycled or told to go. process -1: the fork server died, or runs again. */
    void (*on_process)(void *arg, int process, int pid, bool up, int status, bool expected);
    void *arg;
} apm_pool_events;

typedef struct apm_pool_opts {
    const char *kind; /* "prefork", "threads", "solo" */
    unsigned concurrency;
    apium_app *app;       /* settings; for threads and solo its tasks are run in this process */
    const char *hostname; /* node name */
    char *const
        *argv; /* how this program was started: prefork executes /proc/self/exe with it again */
    int64_t max_tasks_per_child; /* 0 none */
    int64_t max_memory_per_child_kib;
    apm_pool_events events;
} apm_pool_opts;

apium_status
apm_pool_start(uv_loop_t *loop, const apm_pool_opts *opts, apm_pool **out, apium_error *err);

/* NULL when not registered. Valid from on_ready on. */
const apm_task_info *apm_pool_task(const apm_pool *pool, apm_str name);
const apm_task_info *apm_pool_task_at(const apm_pool *pool, size_t n);

/* How many more jobs can be submitted now (slots free). */
unsigned apm_pool_room(const apm_pool *pool);
unsigned apm_pool_concurrency(const apm_pool *pool);
/* Put the job in a slot. E_BUSY without room; E_TOOBIG when it passes APM_BUF_MAX. Wake-ups wait
 * for apm_pool_flush. */
apium_status apm_pool_submit(apm_pool *pool, apm_job *job, apium_error *err);
void apm_pool_flush(apm_pool *pool);
/* Was the job taken back before it began? True: the job is the caller's again, no event follows.
 * False: it runs, or is over. */
bool apm_pool_take_back(apm_pool *pool, apm_job *job);
/* Look now at what has begun and ended since the last look, calling the events. (The pool does so
 * by itself too.) */
void apm_pool_poll(apm_pool *pool);
/* Before the loop sleeps: when few jobs are out, and the last was over in no time, wait for one in place, which costs less than falling
 * asleep and being woken. True: something happened. */
bool apm_pool_linger(apm_pool *pool);
/* Send a signal to the process that runs the job (revoke with terminate); the outcome will be
 * REVOKED. E_UNSUPPORTED for threads. */
apium_status apm_pool_terminate(apm_pool *pool, apm_job *job, int signum, apium_error *err);
/* Change the number of processes by n (pool_grow, pool_shrink, autoscale). */
apium_status apm_pool_resize(apm_pool *pool, int n, apium_error *err);
/* Ask every process for a sign of life, unless it owes one. And: who has not given one for longer than patience_ms? False:
 * nobody. */
void apm_pool_ask(apm_pool *pool);
bool apm_pool_silent(const apm_pool *pool, int64_t patience_ms, char *who, size_t size);
/* The index and pid of the n-th process; false past the end. */
bool apm_pool_process(const apm_pool *pool, size_t n, int *process, int *pid);

/*
 * Let running jobs finish (their on_done comes), start nothing new, then end the processes;
 * stopped(arg) is called when all are gone, and the pool is released then. Jobs that have not begun
 * are taken back, without an event: take them back before to know them. With `now`: processes are
 * killed, running jobs end with LOST; threads, which cannot be killed, are told to stop and left to
 * themselves. May be called again with `now`.
 */
void apm_pool_stop(apm_pool *pool, bool now, void (*stopped)(void *arg), void *arg);

/*
 * The fork server: this program, executed again with the same arguments and a mark in its
 * environment. Ask `wanted` before anything else in main() (it takes the mark away and protects the
 * descriptors that were inherited), set up the app as always, then stay in `main`, which returns an
 * exit code.
 */
bool apm_fork_server_wanted(void);
int apm_fork_server_main(apium_app *app);
/* Instead of it, when the app could not be set up (the module does not load): on_failed gets this
 * error. Returns an exit code. */
int apm_fork_server_fail(const apium_error *why);

#endif
