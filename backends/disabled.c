/* disabled.c - the result backend that keeps nothing: disabled://, and no result_backend at all. */
#include "backends/backend.h"
#include "core/base/error.h"

static apium_status
refuse(apium_error *err)
{
    return apm_fail(err, APIUM_E_UNSUPPORTED,
                    "cannot read results: no result backend is configured");
}

static apium_status
disabled_open(apm_backend *backend, apium_error *err)
{
    (void)backend;
    (void)err;
    return APIUM_OK;
}

static void
disabled_close(apm_backend *backend)
{
    (void)backend;
}

static apium_status
disabled_record(apm_backend *backend, apm_unit *unit, const apm_record *record, apium_error *err)
{
    (void)backend;
    (void)unit;
    (void)record;
    (void)err;
    return APIUM_OK;
}

/* There is no link and so nothing to wait for: these alone answer from inside the call. */
static void
disabled_fetch(apm_backend *backend, const char *task_id, apm_fetch_cb *done, void *arg)
{
    apium_error err;

    (void)backend;
    (void)task_id;
    (void)refuse(&err);
    done(arg, APM_STR_NONE, &err);
}

static apium_status
disabled_watch(apm_backend *backend, const char *task_id, apm_change_cb *on_change, void *arg,
               apium_error *err)
{
    (void)backend;
    (void)task_id;
    (void)on_change;
    (void)arg;
    return refuse(err);
}

static void
disabled_unwatch(apm_backend *backend, const char *task_id)
{
    (void)backend;
    (void)task_id;
}

static void
disabled_forget(apm_backend *backend, const char *task_id, apm_backend_done *done, void *arg)
{
    (void)backend;
    (void)task_id;
    if (done)
        done(arg, APIUM_OK, NULL);
}

static const char *const schemes[] = { "disabled", NULL };

const apm_backend_ops apm_disabled_backend = {
    .name = "disabled",
    .schemes = schemes,
    .size = sizeof(apm_backend),
    .features = APM_BACKEND_NONE,
    .open = disabled_open,
    .close = disabled_close,
    .record = disabled_record,
    .fetch = disabled_fetch,
    .watch = disabled_watch,
    .unwatch = disabled_unwatch,
    .forget = disabled_forget,
};
