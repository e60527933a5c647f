/* publish.h - messages that the worker itself sends: a task's next attempt, and what follows it. */
#ifndef APM_WORKER_PUBLISH_H
#define APM_WORKER_PUBLISH_H

#include "worker/inner.h"
#include "workflows/follow.h"

/* Append the publish of the next attempt, with the outcome's eta, number and changes, to the unit. */
apium_status
apm_retry_publish(apm_work *work, apm_unit *unit, const apm_outcome *outcome, apium_error *err);

/* Append the publish of a callback, an errback or the next step of a chain. */
apium_status
apm_follow_publish(apm_work *work, apm_unit *unit, const apm_sig_send *send, apium_error *err);

#endif
