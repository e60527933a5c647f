/* record.c - which state an outcome leaves, and its document in a unit; see settle_inner.h */
#include "worker/settle_inner.h"

#include "core/base/clock.h"
#include "core/base/error.h"

/* Store w->scratch as a state of req: the work's own request, or a step of its chain that will never run. */
void
apm_record_append(apm_work *work, apm_unit *unit, const apm_request *req, apm_str state)
{
    apm_worker *w = work->worker;
    apium_error err;
    const apm_record record = {
        .task_id = req->id,
        .state = state,
        .doc = apm_buf_str(&w->scratch),
        .reply_to = req->reply_to,
        .correlation_id = apm_str_is(req->correlation_id) ? req->correlation_id : req->id,
    };
    apium_status st = w->scratch.failed
                          ? apm_fail(&err, APIUM_E_TOOBIG, "the result document cannot be composed")
                          : w->backend->ops->record(w->backend, unit, &record, &err);
    if (st != APIUM_OK)
        apm_log(APM_LOG_ERROR, "store.refused", "Cannot store the state of task %.*s[%.*s]: %s",
                APM_STR_ARG(req->task), APM_STR_ARG(req->id), err.text);
}

apm_result_opts
apm_record_opts(const apm_worker *w)
{
    apm_result_opts opts = {
        .extended = w->settings->result_extended,
        .worker = w->node,
        .now_us = apm_clock_wall_us(),
    };
    (void)apm_zone_offset(w->settings->timezone, opts.now_us, &opts.zone_offset_s, NULL);
    return opts;
}

bool
apm_record_stores(const apm_worker *w)
{
    return !apm_backend_can(w->backend, APM_BACKEND_NONE);
}

/* The state that an outcome leaves, absent for none; and what of the outcome is written. */
apm_str
apm_record_state(const apm_work *work, const apm_outcome *outcome, apm_outcome *written)
{
    *written = *outcome;
    switch (outcome->kind) {
    case APM_DONE_SUCCESS:
        return APM_STR(APM_STATE_SUCCESS);
    case APM_DONE_RETRY:
        return APM_STR(APM_STATE_RETRY);
    case APM_DONE_REVOKED:
        return APM_STR(APM_STATE_REVOKED);
    case APM_DONE_REJECT:
        if (outcome->requeue)
            return APM_STR_NONE;
        written->kind =
            APM_DONE_FAILURE; /* as Celery 5.6: Reject(requeue=False) is a failure too */
        return APM_STR(APM_STATE_FAILURE);
    case APM_DONE_IGNORE:
    case APM_DONE_REPLACED:
        return APM_STR_NONE;
    case APM_DONE_LOST:
        if (work->how == APM_RESTORE)
            return APM_STR_NONE;
        return APM_STR(APM_STATE_FAILURE);
    case APM_DONE_FAILURE:
    case APM_DONE_TIMEOUT:
        return APM_STR(APM_STATE_FAILURE);
    }
    return APM_STR_NONE;
}

bool
apm_record_wanted(const apm_work *work, apm_str state)
{
    const apm_worker *w = work->worker;
    if (!apm_str_is(state) || !apm_record_stores(w) || !apm_str_is(work->req.id))
        return false;
    if (!work->ignore_result)
        return true;
    int errors_too = work->task ? work->task->store_errors_even_if_ignored : APIUM_DEFAULT;
    return !apm_str_eqz(state, APM_STATE_SUCCESS) && !apm_str_eqz(state, APM_STATE_RETRY) &&
           (errors_too == APIUM_ON ||
            (errors_too == APIUM_DEFAULT && w->settings->task_store_errors_even_if_ignored));
}

void
apm_record_unrun(apm_work *work, apm_unit *unit, const apm_follow *follow)
{
    apm_worker *w = work->worker;
    const apm_result_opts opts = apm_record_opts(w);
    if (!apm_record_stores(w))
        return;
    for (size_t i = 0; i < follow->n_unrun; i++) {
        const apm_outcome failed = { .kind = APM_DONE_FAILURE,
                                     .exc = follow->unrun[i].exc,
                                     .children = follow->unrun[i].children };
        apm_buf_reset(&w->scratch);
        apm_result_write(&w->scratch, &follow->unrun[i].req, &failed, &opts);
        apm_record_append(work, unit, &follow->unrun[i].req, APM_STR(APM_STATE_FAILURE));
    }
}

void
apm_record_outcome(apm_work *work, apm_unit *unit, apm_str state, const apm_outcome *written)
{
    apm_worker *w = work->worker;
    const apm_result_opts opts = apm_record_opts(w);
    apm_buf_reset(&w->scratch);
    apm_result_write(&w->scratch, &work->req, written, &opts);
    apm_record_append(work, unit, &work->req, state);
}
