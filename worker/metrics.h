/* metrics.h - what a worker with --http counts and shows. Nothing is counted without it. */
#ifndef APM_WORKER_METRICS_H
#define APM_WORKER_METRICS_H

#include "worker/inner.h"

void apm_metrics_received(apm_work *work);
void apm_metrics_begun(apm_work *work);
void apm_metrics_ended(apm_work *work, const apm_outcome *outcome);
/* It was put back into the broker until its eta. */
void apm_metrics_parked(const apm_work *work);
/* It leaves the worker, whatever became of it. */
void apm_metrics_gone(apm_work *work);

/* Listen on ADDR:PORT. E_CONFIG when that is no address, E_UNSUPPORTED in a build without a server. */
apium_status apm_metrics_open(apm_worker *w, const char *address, apium_error *err);
void apm_metrics_close(apm_worker *w);

#endif
