/*
 * run.h - running one request in this process: what a pool process, a thread and an eager call have
 * in common. Owns the apium_task handed to the handler; knows nothing of slots, brokers or
 * backends.
 */
#ifndef APM_CLIENT_RUN_H
#define APM_CLIENT_RUN_H

#include <stdatomic.h>

#include <apium/task.h>

#include "core/model/outcome.h"

/* Surroundings of one run, supplied by the pool. */
typedef struct apm_run_env {
    apium_app *app; /* for apium_send and apium_wait inside the task; connections open lazily */
    const char *hostname; /* node name */
    bool eager;
    /* Hand a custom state over; returns when it is on its way in order before the outcome. May be
     * NULL (states are dropped: eager without store). */
    apium_status (*report)(void *arg, apm_str state, apm_str meta, apium_error *err);
    void *arg;
    /* Set (to the reason below) when the task should stop: apium_should_stop() reads it. */
    const _Atomic int *stop;
} apm_run_env;

enum { APM_STOP_NO, APM_STOP_SOFT_LIMIT, APM_STOP_REVOKED, APM_STOP_SHUTDOWN };

/* Run req with def's handler and fill out; its text lives in the arena. Always gives an outcome: a
 * handler that returns APIUM_FAILURE without an exception, a wrong verdict, bad arguments all
 * become a FAILURE. When the soft limit was hit and the handler returned failure without another
 * exception: SoftTimeLimitExceeded. Calls the definition's hooks and the app's. */
void apm_run(const apm_run_env *env, const apium_task_def *def, const apm_request *req,
             apm_arena *arena, apm_outcome *out);

/* From the soft limit's signal handler: call the running task's on_soft_limit, if one runs in this
 * thread. */
void apm_run_soft_limit(void);

#endif
