/*
 * errback.h - errbacks that are functions of this worker: Celery's errback(request, exc, traceback). When the failure is settled they
 * go to the pool as requests of the worker's own: no message brings them, nothing is stored, nothing is acknowledged.
 */
#ifndef APM_WORKER_ERRBACK_H
#define APM_WORKER_ERRBACK_H

#include "worker/inner.h"
#include "workflows/follow.h"

/* Is the task such a function here? */
bool apm_errback_is_ours(const apm_worker *w, apm_str task);
/* Remember the calls of a failure until work is over; text lives in its delivery's arena. */
void apm_errback_add(apm_work *work, const apm_follow *follow);
/* The failure is settled: call them. */
void apm_errback_go(apm_work *work);
/* One has ended. */
void apm_errback_done(apm_work *call, const apm_outcome *outcome);

#endif
