/*
 * outcome.h - what running a request gave. Made by whoever ran it (a pool process, a thread,
 * eagerly), or by the main process for what the pool could not say (lost, timed out, expired,
 * revoked).
 */
#ifndef APM_MODEL_OUTCOME_H
#define APM_MODEL_OUTCOME_H

#include "core/model/request.h"

typedef enum apm_outcome_kind {
    APM_DONE_SUCCESS = 1,
    APM_DONE_FAILURE,
    APM_DONE_RETRY,
    APM_DONE_IGNORE,
    APM_DONE_REJECT,
    APM_DONE_REPLACED, /* a workflow goes on under its id: `replacement` */
    /* From here on the main process alone says so. */
    APM_DONE_LOST,    /* the pool process died: FAILURE WorkerLostError, or given back */
    APM_DONE_TIMEOUT, /* hard limit: FAILURE TimeLimitExceeded */
    APM_DONE_REVOKED, /* expired, revoked or terminated: REVOKED TaskRevokedError */
} apm_outcome_kind;

/* An exception as Celery stores it: {"exc_type", "exc_message": [args], "exc_module"}. */
typedef struct apm_exception {
    apm_str type;   /* "ValueError" */
    apm_str module; /* "builtins" */
    apm_str args;   /* JSON array text: ["boom", 42]; absent is [] */
} apm_exception;

typedef struct apm_outcome {
    apm_outcome_kind kind;
    apm_str result; /* SUCCESS: JSON text */
    /* Of FAILURE, RETRY (type absent: no cause), REJECT (its reason), LOST, TIMEOUT, REVOKED. */
    apm_exception exc;
    apm_str traceback; /* absent is null */
    bool expected; /* FAILURE by an exception the definition lists in `throws`: logged at INFO */
    bool requeue;  /* REJECT */
    int64_t retry_eta_us; /* RETRY: wall time of the next attempt */
    int64_t retries;      /* RETRY: the number of the next attempt, normally request's + 1 */
    /* RETRY: JSON object of changes for the next attempt ("args", "kwargs", "queue", "priority",
     * "expires_us", "headers", "time_limit", "soft_time_limit"); absent none. */
    apm_str retry_request;
    apm_str children; /* JSON array of result tuples of what the task itself sent; absent is [] */
    apm_str replacement; /* REPLACED: a signature, as JSON */
    /* SUCCESS: JSON array of signatures that join the header the task is a part of; absent none. */
    apm_str added;
    int64_t runtime_ns;
    uint32_t states; /* how many custom states the task reported before (pool bookkeeping) */
} apm_outcome;

/* To and from flat bytes, for a pool's slot. Reading checks lengths, and that JSON is JSON: what
 * comes out of shared memory is foreign input. behind: as with apm_request_pack. */
void apm_outcome_pack(const apm_outcome *outcome, apm_buf *out, apm_str *behind);
apium_status apm_outcome_unpack(apm_str bytes, apm_outcome *outcome, apium_error *err);

/* A copy whose text lives in the arena. False without memory. */
bool apm_outcome_keep(const apm_outcome *outcome, apm_arena *arena, apm_outcome *out);

/* "ValueError('boom', 42)", as Python's repr, for logs. */
void apm_exception_repr(apm_buf *buf, const apm_exception *exc);
/* The exception object of a result document. */
void apm_exception_json(apm_buf *buf, const apm_exception *exc);

#endif
