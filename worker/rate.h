/*
 * rate.h - rate limits ("10/m"): per worker and task, as Celery's: a token bucket of one, so no bursts; a request without a
 * token waits for its turn, first come first served.
 */
#ifndef APM_WORKER_RATE_H
#define APM_WORKER_RATE_H

#include "worker/pool.h"

typedef struct apm_rate apm_rate;

/* Take the next token of this task: the wall time at which it may run, now_us or later. *rates is the worker's list, grown as needed;
 * text is the limit (changing it changes the bucket). Without memory or with a bad limit: now_us. */
int64_t
apm_rate_take(apm_rate **rates, const apm_task_info *task, const char *text, int64_t now_us);
void apm_rate_free(apm_rate *rates);

#endif
