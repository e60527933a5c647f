/*
 * apium/task.h - writing tasks: a handler, the table that names it, and what a handler may do with its task.
 *
 *     static apium_verdict
 *     add(apium_task *task)
 *     {
 *         int64_t x, y;
 *         if (!apium_args(task, "x:int y:int", &x, &y))
 *             return APIUM_FAILURE;             (a TypeError naming the argument is recorded already)
 *         return apium_return(task, apium_int(x + y));
 *     }
 *     static const apium_task_def tasks[] = { { .name = "tasks.add", .run = add }, { 0 } };
 *
 * A handler runs in a pool process (or thread) and may block; it gets an apium_task that is its own until it
 * returns. Names, defaults and meanings are Celery's.
 */
#ifndef APIUM_TASK_H
#define APIUM_TASK_H

#include <apium/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct apium_app apium_app;
typedef struct apium_task apium_task;

/* What a handler returns: what became of the task. The functions that decide it (apium_return, apium_raise,
 * apium_retry, apium_reject, apium_ignore) answer the verdict to return. */
typedef enum apium_verdict {
    APIUM_SUCCESS = 0, /* with the value of apium_return, or null */
    APIUM_FAILURE,     /* with the exception that was recorded, or a RuntimeError when none was */
    APIUM_RETRY,
    APIUM_REJECT,
    APIUM_IGNORE,
} apium_verdict;

typedef apium_verdict apium_handler(apium_task *task);

/* In a definition: leave it to the setting (zero), or decide. */
typedef enum apium_option { APIUM_DEFAULT = 0, APIUM_ON, APIUM_OFF } apium_option;

#define APIUM_UNLIMITED (-1)

/* One task. Zero in a field means Celery's default. All text and arrays must live as long as the program. */
typedef struct apium_task_def {
    const char *name;   /* "tasks.add"; NULL ends the table */
    apium_handler *run;

    /* retries */
    int max_retries;               /* 3; APIUM_UNLIMITED; use APIUM_NO_RETRIES for none */
    double default_retry_delay;    /* seconds; 180 */
    const char *const *autoretry_for; /* exception names ("ConnectionError", "mymod.Busy", "Exception" for all) that are
                                         retried instead of failing; ended by NULL */
    bool retry_backoff;            /* with autoretry_for and APIUM_BACKOFF: 1, 2, 4 ... seconds instead of default_retry_delay */
    double retry_backoff_factor;   /* seconds of the first delay; 1 */
    double retry_backoff_max;      /* ceiling in seconds; 600 */
    apium_option retry_jitter;     /* on */

    /* limits */
    double time_limit, soft_time_limit; /* seconds; 0: the settings' */
    const char *rate_limit;             /* "10/m" */
    void (*on_soft_limit)(apium_task *task); /* called from the soft limit's signal handler: async-signal-safe code only */

    /* behaviour */
    apium_option acks_late, ignore_result, track_started, reject_on_worker_lost, acks_on_failure_or_timeout,
        store_errors_even_if_ignored;
    const char *const *throws; /* expected exceptions: logged at INFO; ended by NULL */

    /* where it is sent by default (a route from task_routes goes before) */
    const char *queue, *exchange, *routing_key, *serializer, *compression;
    int priority;              /* 0..9; see has_priority */
    bool has_priority;
    double expires;            /* seconds; 0 none */

    /* hooks of this task; may be NULL */
    void (*on_success)(apium_task *task);
    void (*on_failure)(apium_task *task);
    void (*on_retry)(apium_task *task);
    const char *doc;           /* a line for `apium inspect registered` and the like */
} apium_task_def;

#define APIUM_NO_RETRIES (-2)

#ifdef __cplusplus
}
#endif
#endif
