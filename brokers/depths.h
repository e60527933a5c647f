/* depths.h - queues in Prometheus' text: how much waits where, and how long. For a worker and for apium web. */
#ifndef APM_BROKERS_DEPTHS_H
#define APM_BROKERS_DEPTHS_H

#include "brokers/broker.h"

/* What the broker cannot tell is left out. */
void apm_depths_write(apm_buf *buf, const apm_queue_info *infos, size_t n);

#endif
