/*
 * apium/result.h - the outcome of a task, as a backend remembers it. A run is a task that was
 * called; a result is what is known of it at one moment. Each belongs to whoever obtained it and is
 * released with its _free function. Strings read from one live exactly as long as it does.
 */
#ifndef APIUM_RESULT_H
#define APIUM_RESULT_H

#include <apium/app.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct apium_run apium_run;
typedef struct apium_result apium_result;

/* Open a run by the id of its task, whoever sent it. */
APIUM_API apium_status apium_run_of(apium_app *app, const char *task_id, apium_run **out,
                                    apium_error *err);
APIUM_API const char *apium_run_id(const apium_run *run);
/* Release run, which may be NULL; what it stands for goes on. */
APIUM_API void apium_run_free(apium_run *run);

/*
 * Wait until a task finishes, for at most timeout_ms; 0 only looks, -1 waits for ever.
 * On success *out is the caller's, whatever became of the task; on failure it is untouched.
 *   APIUM_E_TIMEOUT      still unfinished; asking again is reasonable
 *   APIUM_E_CLOSED       the backend went away and did not come back
 *   APIUM_E_UNSUPPORTED  results of this app, or of this task, are kept nowhere
 */
APIUM_API apium_status apium_wait(apium_run *run, int64_t timeout_ms, apium_result **out,
                                  apium_error *err);

/*
 * The same for callers who want the value or an error, as Celery's get().
 *   APIUM_E_FAILED   the task failed; err->text is its exception, "ValueError: no such size"
 *   APIUM_E_REVOKED  it was revoked, or had expired
 */
APIUM_API apium_status apium_get(apium_run *run, int64_t timeout_ms, apium_result **out,
                                 apium_error *err);

/* What is known now, in whatever state. A task that nothing is known of is PENDING, as in
 * Celery. */
APIUM_API apium_status apium_state(apium_run *run, apium_result **out, apium_error *err);

/* Delete what the backend remembers of it. */
APIUM_API apium_status apium_forget(apium_run *run, apium_error *err);

/* Release res, which may be NULL. */
APIUM_API void apium_result_free(apium_result *res);

APIUM_API const char *apium_result_id(const apium_result *res);
/* "PENDING", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED", or a state of the task's own. */
APIUM_API const char *apium_result_state(const apium_result *res);
APIUM_API bool apium_result_ready(const apium_result *res); /* SUCCESS, FAILURE or REVOKED */
APIUM_API bool apium_result_ok(const apium_result *res);    /* SUCCESS */

/* The return value as JSON text; what a state of the task's own came with; NULL when there is an
 * exception instead. */
APIUM_API const char *apium_result_json(const apium_result *res);

/* The exception of FAILURE, RETRY and REVOKED: "ValueError", "builtins", its constructor's
 * arguments as a JSON array. NULL when there is none. */
APIUM_API const char *apium_result_exception(const apium_result *res);
APIUM_API const char *apium_result_exception_module(const apium_result *res);
APIUM_API const char *apium_result_exception_args(const apium_result *res);
/* "ValueError: no such size", as Python's last line of a traceback. */
APIUM_API const char *apium_result_message(const apium_result *res);
APIUM_API const char *apium_result_traceback(const apium_result *res);

/* The tasks that it sent, as Celery's result tuples: JSON array text, NULL when not known. */
APIUM_API const char *apium_result_children(const apium_result *res);
/* When it finished: microseconds since 1970 UTC; -1 when it has not, or nobody knows. */
APIUM_API int64_t apium_result_date_done_us(const apium_result *res);

/* Stored always, or with the setting result_extended; NULL (-1) where not. */
APIUM_API const char *apium_result_parent_id(const apium_result *res);
APIUM_API const char *apium_result_group_id(const apium_result *res);
APIUM_API const char *apium_result_name(const apium_result *res);
APIUM_API const char *apium_result_args(const apium_result *res);   /* JSON */
APIUM_API const char *apium_result_kwargs(const apium_result *res); /* JSON */
APIUM_API const char *apium_result_worker(const apium_result *res);
APIUM_API const char *apium_result_queue(const apium_result *res);
APIUM_API int64_t apium_result_retries(const apium_result *res);

/* The whole document as it is stored; NULL for PENDING. */
APIUM_API const char *apium_result_document(const apium_result *res);

#ifdef __cplusplus
}
#endif
#endif
