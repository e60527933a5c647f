/*
 * apium/send.h - calling tasks: one by its name, or a signature, which is a call as data.
 *
 *     apium_run *run = NULL;
 *     if (apium_call(app, "tasks.add", apium_jsonf("[%d, %d]", 2, 3), NULL, &run, &err) !=
 *         APIUM_OK)
 *         fprintf(stderr, "%s\n", err.text);
 *
 * When a call answers APIUM_OK, the broker has the message (on RabbitMQ: confirmed). Inside a task
 * the new one becomes its child, as in Celery.
 */
#ifndef APIUM_SEND_H
#define APIUM_SEND_H

#include <apium/app.h>
#include <apium/result.h>
#include <apium/value.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The options of Celery's apply_async. Zero means: as the task's definition says, else the routes,
 * else the settings. Text is borrowed until the call returns.
 */
typedef struct apium_send_opts {
    const char *kwargs; /* JSON object: keyword arguments beside positional ones */

    /* when: seconds from now, or microseconds since 1970 UTC */
    double countdown;
    int64_t eta_us;
    double expires;
    int64_t expires_at_us;

    /* where */
    const char *queue, *exchange, *routing_key;
    int priority;      /* 0..9 */
    bool has_priority; /* obey a priority of 0 too */

    /* who */
    const char *task_id; /* made up when NULL */
    const char *shadow;  /* the name that logs and monitors show */
    const char *root_id, *parent_id;
    const char *reply_to;

    /* how */
    int64_t retries;
    double time_limit, soft_time_limit;
    apium_option ignore_result;
    const char *serializer;            /* "json", "yaml", "msgpack" */
    const char *compression;           /* "zlib", "bzip2", "zstd", "brotli", "lzma" */
    apium_option persistent;           /* off: the broker may forget it in a restart */
    const char *headers;               /* JSON object of headers of your own */
    const char *argsrepr, *kwargsrepr; /* what logs show in place of the arguments */

    /* what follows: a signature, or an array of them, as JSON in Celery's form */
    const char *link, *link_error;
} apium_send_opts;

/*
 * Call a task by its name. args is a JSON array of positional arguments, an object of keyword
 * arguments, or none (apium_null()). opts may be NULL, and so may run, for a caller who does not
 * care how it ends.
 *   APIUM_E_INVALID     arguments or options that no call can have
 *   APIUM_E_NOTFOUND    the queue may not be made up (task_create_missing_queues)
 *   APIUM_E_UNROUTABLE  no queue would receive it
 *   APIUM_E_CLOSED      the broker could not be reached for as long as the settings tell us to try
 *   APIUM_E_FAILED      with task_always_eager and task_eager_propagates: the task failed
 */
APIUM_API apium_status apium_call(apium_app *app, const char *task, apium_value args,
                                  const apium_send_opts *opts, apium_run **run, apium_error *err);

/*
 * Many calls without waiting for each: they travel together, some hundreds are on their way at a time, and the end of
 * the batch waits for all of them.
 *
 *     apium_batch *batch = NULL;
 *     size_t n = 0;
 *     st = apium_batch_new(app, &batch, &err);
 *     for (int i = 0; i < 100000 && st == APIUM_OK; i++)
 *         st = apium_batch_call(batch, "tasks.add", apium_jsonf("[%d, 1]", i), NULL, NULL, &err);
 *     if (st == APIUM_OK)
 *         st = apium_batch_end(batch, &n, &err);
 *     apium_batch_free(batch);
 *
 * A batch belongs to the thread that made it. What it has called may run before the batch is ended.
 */
typedef struct apium_batch apium_batch;

APIUM_API apium_status apium_batch_new(apium_app *app, apium_batch **out, apium_error *err);
/*
 * As apium_call(), but APIUM_OK only says that the call is on its way. It waits while too many are. What
 * is wrong with one call is answered here and harms no other; a failure of the broker is too, for calls
 * before this one: then nothing more is sent until apium_batch_end(). A few calls may wait for company
 * until the batch is ended.
 */
APIUM_API apium_status apium_batch_call(apium_batch *batch, const char *task, apium_value args,
                                        const apium_send_opts *opts, apium_run **run,
                                        apium_error *err);
/*
 * Wait until the broker has all of them; the first failure, if there was one. *sent, which may be NULL, is how
 * many it surely has, always. The batch can be used again afterwards.
 */
APIUM_API apium_status apium_batch_end(apium_batch *batch, size_t *sent, apium_error *err);
/* Release batch, which may be NULL. What was not waited for may arrive or not. */
APIUM_API void apium_batch_free(apium_batch *batch);

/*
 * A signature (apium_sig, named in apium/task.h) is a call that is not made yet, of one task or of a
 * workflow (apium/canvas.h).
 *
 * A signature of one task with a JSON template (see apium_jsonf) for its arguments; NULL when there
 * is no memory. What is wrong with the template is reported when the signature is used.
 */
APIUM_API apium_sig *
apium_sig_new(const char *task, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Release sig, which may be NULL; nothing happens to one that is a part of another. */
APIUM_API void apium_sig_free(apium_sig *sig);

/* Give it options; what an option of opts leaves at zero stays as it was. NULL passes through every
 * function. */
APIUM_API apium_sig *apium_sig_set(apium_sig *sig, const apium_send_opts *opts);
/* Give a task keyword arguments: a template for a JSON object. */
APIUM_API apium_sig *
apium_sig_kwargs(apium_sig *sig, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* As a callback it does not get the parent's result as its first argument. */
APIUM_API apium_sig *apium_sig_immutable(apium_sig *sig);
/*
 * What is called with its result, or when it fails, of any kind; takes `next` over. May be used several
 * times. Of a workflow, as in Celery: a chain's last step, a chord's body, a group's first member are
 * followed; the error of each step, of the body, of each member is reported.
 */
APIUM_API apium_sig *apium_sig_link(apium_sig *sig, apium_sig *next);
APIUM_API apium_sig *apium_sig_link_error(apium_sig *sig, apium_sig *next);

/*
 * Read a signature of any kind in Celery's JSON form, as any Celery writes it; members that are unknown
 * here are kept.
 *   APIUM_E_DECODE   it is no JSON
 *   APIUM_E_INVALID  it is no signature; err says which part is wrong, as "tasks[1].kwargs.body"
 */
APIUM_API apium_status apium_sig_parse(const char *json, apium_sig **out, apium_error *err);
/* Its JSON, for link and link_error or for keeping. Lives until sig changes. NULL when sig is
 * broken; err says how. */
APIUM_API const char *apium_sig_json(apium_sig *sig, apium_error *err);

/*
 * Send a signature of any kind, which is taken over also on failure; opts go before its own options, and
 * where they go in a workflow is as in Celery: task_id names its last task, countdown delays its first,
 * or each member of a group. As apium_call() otherwise.
 *   APIUM_E_INVALID      it is a part of another signature, has an id twice, is a group with links
 *   APIUM_E_UNSUPPORTED  a chord, and the result backend keeps nothing that could be gathered
 * Nothing has been sent then. When the broker is lost in the middle of a workflow of several messages,
 * the error says how many it has taken.
 */
APIUM_API apium_status apium_send(apium_app *app, apium_sig *sig, const apium_send_opts *opts,
                                  apium_run **run, apium_error *err);

#ifdef __cplusplus
}
#endif
#endif
