/* retry.h - the message of a task's next attempt. */
#ifndef APM_WORKER_RETRY_H
#define APM_WORKER_RETRY_H

#include "worker/inner.h"

/* Append the publish of the next attempt, with the outcome's eta, number and changes, to the unit. */
apium_status apm_retry_publish(apm_work *work, apm_unit *unit, const apm_outcome *outcome, apium_error *err);

#endif
