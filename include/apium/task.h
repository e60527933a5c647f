/*
 * apium/task.h - writing tasks: a handler, the table that names it, and what a handler may do with
 * its task.
 *
 *     static apium_verdict
 *     add(apium_task *task)
 *     {
 *         int64_t x, y;
 *         if (!apium_args(task, "x:int y:int", &x, &y))
 *             return APIUM_FAILURE;      (a TypeError naming the argument is recorded already)
 *         return apium_return(task, apium_int(x + y));
 *     }
 *     static const apium_task_def tasks[] = { { .name = "tasks.add", .run = add }, { 0 } };
 *
 * A handler runs in a pool process (or thread) and may block; it gets an apium_task that is its own
 * until it returns. Text read from it lives as long. Names, defaults and meanings are Celery's.
 */
#ifndef APIUM_TASK_H
#define APIUM_TASK_H

#include <apium/status.h>
#include <apium/value.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct apium_app apium_app;
typedef struct apium_task apium_task;
typedef struct apium_sig apium_sig; /* apium/send.h */

/* What a handler returns: what became of the task. The functions that decide it (apium_return,
 * apium_raise, apium_retry, apium_reject, apium_ignore, apium_replace) answer the verdict to return; the last one
 * called counts. */
typedef enum apium_verdict {
    APIUM_SUCCESS = 0, /* with the value of apium_return, or null */
    APIUM_FAILURE,     /* with the exception that was recorded, or a RuntimeError when none was */
    APIUM_RETRY,
    APIUM_REJECT,
    APIUM_IGNORE,
    APIUM_REPLACED,
} apium_verdict;

typedef apium_verdict apium_handler(apium_task *task);

/* In a definition: leave it to the setting (zero), or decide. */
typedef enum apium_option { APIUM_DEFAULT = 0, APIUM_ON, APIUM_OFF } apium_option;

#define APIUM_UNLIMITED  (-1)
#define APIUM_NO_RETRIES (-2)

/* One task. Zero in a field means Celery's default. All text and arrays must live as long as the
 * program. */
typedef struct apium_task_def {
    const char *name; /* "tasks.add"; NULL ends the table */
    apium_handler *run;

    /* retries; delays in seconds */
    int max_retries;            /* 3; APIUM_UNLIMITED; APIUM_NO_RETRIES */
    double default_retry_delay; /* 180 */
    /* Exceptions that are retried instead of failing, ended by NULL: "ConnectionError",
     * "mymod.Busy". A builtin one stands for its subclasses too, "Exception" for all. */
    const char *const *autoretry_for;
    bool retry_backoff;          /* these wait 1, 2, 4 ... and not default_retry_delay */
    double retry_backoff_factor; /* the first delay of a back-off; 1 */
    double retry_backoff_max;    /* its ceiling; 600 */
    apium_option retry_jitter;   /* on: a random delay between none and the back-off's */

    /* limits */
    double time_limit, soft_time_limit; /* seconds; 0: the settings' */
    const char *rate_limit;             /* "10/m" */
    /* Called from the soft limit's signal handler: async-signal-safe code only. */
    void (*on_soft_limit)(apium_task *task);

    /* behaviour */
    apium_option acks_late, ignore_result, track_started, reject_on_worker_lost,
        acks_on_failure_or_timeout, store_errors_even_if_ignored;
    /* As link_error it is called in a process of the worker that saw the failure, with three
     * arguments: what failed (an object with its id, task, args, kwargs, root_id, parent_id, group
     * and retries), the exception (exc_type, exc_message, exc_module) and the traceback or null.
     * No message is sent and nothing is stored. Otherwise an errback is a task like any other, and
     * gets the failed id. Celery tells the two apart by the number of parameters. */
    bool errback;
    const char *const *throws; /* to be expected, so logged at INFO; named as in autoretry_for */

    /* how it is sent, unless the call says otherwise; as in Celery these go before task_routes */
    const char *queue, *exchange, *routing_key, *serializer, *compression;
    int priority;      /* 0..9 */
    bool has_priority; /* obey a priority of 0 too */
    double expires;    /* seconds; 0 none */

    /* called in the pool process after the handler; may be NULL */
    void (*on_success)(apium_task *task);
    void (*on_failure)(apium_task *task);
    void (*on_retry)(apium_task *task);
    const char *doc; /* a line about it, for people */
} apium_task_def;

/*
 * Arguments, by position and by name as a Python caller gives them. The specification lists the
 * parameters of the function in order, each followed by its type, and the variables are given in
 * the same order:
 *
 *     apium_args(task, "url:str timeout:float=1.5 mode:str='fast' tags:json? *rest",
 *                &url, &timeout, &mode, &tags, &rest)
 *
 *   type      variable         takes
 *   int       int64_t          an integer; beyond 64 bits: OverflowError
 *   float     double           a number
 *   number    apium_number     a number, told apart as int or float
 *   bool      bool             true or false
 *   str       const char *     a string without NUL characters, as UTF-8
 *   bytes     apium_text       a string of any characters, or what Python sends as bytes
 *   json      const char *     any value, as the JSON text that was sent
 *   array     const char *     the same, for arrays only
 *   object    const char *     the same, for objects only
 *   int[]     apium_ints       an array of integers; likewise
 *   float[]   apium_floats
 *   number[]  apium_numbers
 *   str[]     apium_strs
 *
 *   name:type=default  optional; the default is JSON, or text in single quotes: =5 =true ='fast'
 *                      =[1,2]. With =null, for the types that are pointers or arrays, None may be
 *                      given too, and is NULL; for json it is "null"
 *   name:type?         optional, and None may be given: the variable keeps what you put into it
 *   *name              the positional arguments that are left, as the text of a JSON array
 *   **name             the keyword arguments that are left, as the text of a JSON object
 *   *                  what follows can only be given by name
 *
 * What Python would raise is raised, in Python's words ("add() missing 1 required positional
 * argument: 'y'"): the answer is false, return APIUM_FAILURE. Variables are written when all
 * arguments are right, otherwise untouched.
 */
#define apium_args(task, ...) apium_args_at(task, __FILE__, __LINE__, __func__, __VA_ARGS__)
APIUM_API bool apium_args_at(apium_task *task, const char *file, int line, const char *func,
                             const char *spec, ...);

typedef struct apium_number {
    bool is_float;
    int64_t i; /* when it is an int */
    double d;  /* in both cases */
} apium_number;

typedef struct apium_text {
    const char *p; /* NULL when absent or None */
    size_t len;
} apium_text;

typedef struct apium_ints {
    const int64_t *items;
    size_t n;
} apium_ints;

typedef struct apium_floats {
    const double *items;
    size_t n;
} apium_floats;

typedef struct apium_numbers {
    const apium_number *items;
    size_t n;
} apium_numbers;

typedef struct apium_strs {
    const char *const *items;
    size_t n;
} apium_strs;

/* Succeed with a value. One that is no JSON makes the task fail with kombu's EncodeError. */
APIUM_API apium_verdict apium_return(apium_task *task, apium_value value);

/*
 * Fail with a Python exception: a builtin one with a message, or any one, by module and (qualified)
 * name, with its constructor's arguments as a JSON array:
 *     return apium_raise(task, "ValueError", "no such size: %d", size);
 *     return apium_raise_in(task, "billing.errors", "Declined", apium_jsonf("[%s, %d]", card, 51));
 */
#define apium_raise(task, ...)    apium_raise_at(task, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define apium_raise_in(task, ...) apium_raise_in_at(task, __FILE__, __LINE__, __func__, __VA_ARGS__)
APIUM_API apium_verdict apium_raise_at(apium_task *task, const char *file, int line,
                                       const char *func, const char *type, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
APIUM_API apium_verdict apium_raise_in_at(apium_task *task, const char *file, int line,
                                          const char *func, const char *module, const char *type,
                                          apium_value args);

/*
 * Try again later: after `countdown` seconds, or
 *   APIUM_BACKOFF        1, 2, 4 ... seconds, as the definition's retry_backoff_factor, _max and
 *                        retry_jitter say
 *   APIUM_DEFAULT_DELAY  the definition's default_retry_delay
 * The message says why and may be NULL. The cause is the exception that was raised before, else a
 * RuntimeError with the message, else none. When max_retries is used up the task fails with the
 * cause, without one with Celery's MaxRetriesExceededError.
 */
#define APIUM_BACKOFF          (-1.0)
#define APIUM_DEFAULT_DELAY    (-2.0)
#define apium_retry(task, ...) apium_retry_at(task, __FILE__, __LINE__, __func__, __VA_ARGS__)
APIUM_API apium_verdict apium_retry_at(apium_task *task, const char *file, int line,
                                       const char *func, double countdown, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

/* More of a retry's choices; zero leaves everything as it was. Text is borrowed until the call
 * returns. */
typedef struct apium_retry_opts {
    double countdown;   /* seconds, or a constant above; 0: the default delay */
    bool now;           /* at once */
    int64_t eta_us;     /* or a time: microseconds since 1970, UTC */
    int max_retries;    /* for this attempt only; APIUM_UNLIMITED, APIUM_NO_RETRIES */
    const char *args;   /* JSON array in place of the arguments */
    const char *kwargs; /* JSON object */
    const char *queue;
    int priority;
    bool has_priority; /* obey a priority of 0 too */
    double expires;    /* seconds from now */
    double time_limit, soft_time_limit;
    const char *headers; /* JSON object of user headers to add */
} apium_retry_opts;
APIUM_API apium_verdict apium_retry_with(apium_task *task, const apium_retry_opts *opts);

/* Refuse the message; with acks_late and requeue it is delivered again. fmt says why, and may be
 * NULL. */
APIUM_API apium_verdict apium_reject(apium_task *task, bool requeue, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Be done with it without storing any state. */
APIUM_API apium_verdict apium_ignore(apium_task *task);

/*
 * Become a workflow: sig goes on under this task's id (a chain's or chord's last task gets it), with
 * everything that was to follow, so whoever waits for this task waits for that. It is sent, together
 * with the acknowledgement, once the handler has returned. sig is taken over. A broken signature is a
 * failure of the task.
 */
APIUM_API apium_verdict apium_replace(apium_task *task, apium_sig *sig);
/*
 * Let sig join the header of the chord that this task is a part of: the body waits for it too, and
 * gets its result beside this task's. It is sent when this task has succeeded, so that the body never
 * waits for what was not sent. sig is taken over, also on failure.
 *   APIUM_E_INVALID  the task is not a part of a chord; sig is broken
 */
APIUM_API apium_status apium_add_to_chord(apium_task *task, apium_sig *sig, apium_error *err);

/*
 * Store a state of your own, with any JSON, while the task runs.
 *   APIUM_E_INVALID  not a state's name, or meta is no JSON
 */
APIUM_API apium_status apium_update_state(apium_task *task, const char *state, apium_value meta,
                                          apium_error *err);
/* PROGRESS with {"current": ..., "total": ...}, as Celery's users do it. */
APIUM_API apium_status apium_progress(apium_task *task, int64_t current, int64_t total,
                                      apium_error *err);

/* Should the handler give up soon, and why? Cheap: ask in every turn of a long loop. */
typedef enum apium_stop {
    APIUM_STOP_NO = 0,
    APIUM_STOP_SOFT_LIMIT, /* returning APIUM_FAILURE now gives SoftTimeLimitExceeded */
    APIUM_STOP_REVOKED,    /* somebody revoked the task */
    APIUM_STOP_SHUTDOWN,   /* the worker is going down cold */
} apium_stop;
APIUM_API apium_stop apium_should_stop(const apium_task *task);
/* Milliseconds until the soft time limit, without one until the hard one; never negative.
 * INT64_MAX: no limit. */
APIUM_API int64_t apium_time_left_ms(const apium_task *task);

/* The request. What was not given is NULL (-1 for numbers). */
APIUM_API apium_app *apium_task_app(const apium_task *task);
APIUM_API const char *apium_task_id(const apium_task *task);
APIUM_API const char *apium_task_name(const apium_task *task);
APIUM_API const char *apium_task_root_id(const apium_task *task);
APIUM_API const char *apium_task_parent_id(const apium_task *task);
APIUM_API const char *apium_task_group(const apium_task *task);
APIUM_API int64_t apium_task_retries(const apium_task *task);    /* 0 at the first attempt */
APIUM_API int apium_task_max_retries(const apium_task *task);    /* APIUM_UNLIMITED; 0 none */
APIUM_API int64_t apium_task_eta_us(const apium_task *task);     /* microseconds since 1970, UTC */
APIUM_API int64_t apium_task_expires_us(const apium_task *task); /* microseconds since 1970, UTC */
APIUM_API const char *apium_task_queue(const apium_task *task);  /* where exchange is "" */
APIUM_API const char *apium_task_exchange(const apium_task *task);
APIUM_API const char *apium_task_routing_key(const apium_task *task);
APIUM_API int apium_task_priority(const apium_task *task);
APIUM_API bool apium_task_redelivered(const apium_task *task);
APIUM_API bool apium_task_eager(const apium_task *task);
APIUM_API const char *apium_task_hostname(const apium_task *task); /* the node's name */
APIUM_API const char *apium_task_origin(const apium_task *task);   /* who sent it */
APIUM_API const char *apium_task_reply_to(const apium_task *task);
APIUM_API const char *apium_task_correlation_id(const apium_task *task);
APIUM_API const char *apium_task_args(const apium_task *task);    /* JSON array */
APIUM_API const char *apium_task_kwargs(const apium_task *task);  /* JSON object */
APIUM_API const char *apium_task_headers(const apium_task *task); /* JSON object */
/* One of the message's headers, as JSON. */
APIUM_API const char *apium_task_header(const apium_task *task, const char *name);

/* For hooks: how it went. NULL when it did not go that way. */
APIUM_API const char *apium_task_result(const apium_task *task);           /* JSON */
APIUM_API const char *apium_task_exception(const apium_task *task);        /* "ValueError" */
APIUM_API const char *apium_task_exception_module(const apium_task *task); /* "builtins" */
APIUM_API const char *apium_task_exception_args(const apium_task *task);   /* JSON array */

/* Memory that lives until the handler has returned; zeroed. NULL when there is none. */
APIUM_API void *apium_task_alloc(apium_task *task, size_t size);

#ifdef __cplusplus
}
#endif
#endif
