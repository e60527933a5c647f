/* metrics_none.c - metrics.h in a build without libmicrohttpd. */
#include "core/base/error.h"
#include "worker/metrics.h"

void
apm_metrics_received(apm_work *work)
{
    (void)work;
}

void
apm_metrics_begun(apm_work *work)
{
    (void)work;
}

void
apm_metrics_parked(const apm_work *work)
{
    (void)work;
}

void
apm_metrics_gone(apm_work *work)
{
    (void)work;
}

void
apm_metrics_ended(apm_work *work, const apm_outcome *outcome)
{
    (void)work;
    (void)outcome;
}

apium_status
apm_metrics_open(apm_worker *w, const char *address, apium_error *err)
{
    (void)w;
    return apm_fail(err, APIUM_E_UNSUPPORTED,
                    "cannot listen on %s: this build has no HTTP server (libmicrohttpd)", address);
}

void
apm_metrics_close(apm_worker *w)
{
    (void)w;
}
