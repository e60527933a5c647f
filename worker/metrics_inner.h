/*
 * metrics_inner.h - what the files behind --http share: what is counted (counts.c), how the worker is (health.c), the server
 * that shows both (metrics.c).
 */
#ifndef APM_WORKER_METRICS_INNER_H
#define APM_WORKER_METRICS_INNER_H

#include "core/httpd/httpd.h"
#include "worker/metrics.h"

typedef struct apm_health apm_health;

struct apm_metrics {
    apm_worker *worker;
    apm_httpd *httpd;
    apm_series *series; /* by task and queue */
    uint64_t parked;
    apm_health *health;
};

/* counts.c: everything that was counted, in Prometheus' text. */
void apm_counts_write(apm_buf *buf, const apm_metrics *m);
void apm_counts_clear(apm_metrics *m);

/* health.c: the broker is asked, and the pool, every few seconds. */
apm_health *apm_health_open(apm_worker *w); /* NULL without memory */
void apm_health_close(apm_health *health);
/* What is not well, or NULL; the text lives until the next call. */
const char *apm_health_ailment(apm_health *health);
/* Queues as the broker told last; none when that is too long ago. */
const apm_queue_info *apm_health_queues(const apm_health *health, size_t *n);

#endif
