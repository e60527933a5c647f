/* builtin.c - Celery's own tasks; see builtin.h */
#include "worker/builtin.h"

#include "core/base/clock.h"
#include "worker/settle_inner.h"
#include "workflows/builtin.h"
#include "workflows/pieces.h"

static void
start_step(apm_work *work)
{
    /* As a part of a chord its return is counted before anything it sent leaves. */
    apm_emitting emitting = { .work = work,
                              .joined = work->worker->one_link && !apm_str_is(work->req.chord) };
    apm_sending how = apm_sending_of(&emitting);
    apm_outcome outcome;
    apium_error err;
    if (apm_builtin_step(&how, &work->req, &outcome, &err) != APIUM_OK) {
        apm_emit_drop(&emitting);
        apm_settle_delivery(work, APM_RESTORE, NULL);
        return;
    }
    if (outcome.kind != APM_DONE_SUCCESS)
        apm_emit_drop(&emitting);
    apm_settle_step(work, &outcome, &emitting, NULL);
}

static void
on_cleaned(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    apm_outcome outcome = { .kind = APM_DONE_SUCCESS, .result = APM_STR("null") };
    work->units--;
    if (status != APIUM_OK)
        apm_builtin_raise(&work->delivery->arena, &outcome, "RuntimeError", "%s", err->text);
    apm_settle_step(work, &outcome, NULL, NULL);
}

/* Where the store lets results expire by itself there is nothing to do. */
static void
start_cleanup(apm_work *work)
{
    apm_backend *backend = work->worker->backend;
    if (backend->ops->cleanup) {
        work->units++;
        backend->ops->cleanup(backend, on_cleaned, work);
        return;
    }
    const apm_outcome outcome = { .kind = APM_DONE_SUCCESS, .result = APM_STR("null") };
    apm_settle_step(work, &outcome, NULL, NULL);
}

static const apm_builtin builtins[] = {
    { { .name = APM_CHAIN_MARK, .ignore_result = APIUM_ON }, apm_chain_start },
    { { .name = "celery.accumulate" }, start_step },
    { { .name = "celery.backend_cleanup" }, start_cleanup },
    { { .name = "celery.chain" }, start_step },
    { { .name = "celery.chord" }, start_step },
    { { .name = "celery.chord_unlock", .ignore_result = APIUM_ON }, apm_unlock_start },
    { { .name = "celery.chunks" }, start_step },
    { { .name = "celery.group" }, start_step },
    { { .name = "celery.map" }, NULL },
    { { .name = "celery.starmap" }, NULL },
};

const apm_builtin *
apm_builtin_find(apm_str task)
{
    if (task.len < 7 || (memcmp(task.p, "celery.", 7) != 0 && memcmp(task.p, "apium.", 6) != 0))
        return NULL;
    for (size_t i = 0; i < sizeof(builtins) / sizeof(builtins[0]); i++)
        if (apm_str_eqz(task, builtins[i].info.name))
            return &builtins[i];
    return NULL;
}

void
apm_builtin_start(apm_work *work)
{
    apm_work_move(work, APM_AT_SETTLING);
    work->begun = true;
    work->job.process = -1;
    work->job.began_ns = apm_clock_ns();
    work->builtin->start(work);
}
