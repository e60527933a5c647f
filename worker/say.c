/* say.c - the line that the log has for an outcome, in Celery's words. */
#include "worker/inner.h"
#include "worker/metrics.h"

#include <stdio.h>

#include "core/base/clock.h"

void
apm_say_outcome(apm_work *work, const apm_outcome *outcome)
{
    apm_log_level level = outcome->kind == APM_DONE_REJECT ? APM_LOG_WARNING : APM_LOG_INFO;
    if ((outcome->kind == APM_DONE_FAILURE && !outcome->expected) ||
        outcome->kind == APM_DONE_LOST || outcome->kind == APM_DONE_TIMEOUT)
        level = APM_LOG_ERROR;
    apm_metrics_ended(work, outcome);
    if (!apm_log_on(level))
        return;

    char process[32], id[64];
    apm_work_process(work, process);
    snprintf(id, sizeof(id), "%.*s", APM_STR_ARG(work->req.id));
    const apm_log_ctx ctx = { .process = process,
                              .task_id = id,
                              .task = work->task ? work->task->name : NULL };
    const apm_str name = work->req.task, tid = work->req.id;
    apm_buf text;
    apm_buf_init(&text, 16384);
    if (outcome->kind == APM_DONE_SUCCESS) {
        apm_json result;
        if (apm_json_parse(outcome->result, &result, NULL) == APIUM_OK)
            apm_json_repr(&text, result, false, 1024);
    } else if (apm_str_is(outcome->exc.type)) {
        apm_exception_repr(&text, &outcome->exc);
    }
    apm_str shown = apm_buf_str(&text);
    double runtime = (double)outcome->runtime_ns / 1e9;
    switch (outcome->kind) {
    case APM_DONE_SUCCESS:
        apm_log_task(level, &ctx, "task.succeeded", "Task %.*s[%.*s] succeeded in %.9gs: %.*s",
                     APM_STR_ARG(name), APM_STR_ARG(tid), runtime, APM_STR_ARG(shown));
        break;
    case APM_DONE_FAILURE:
        apm_log_task(level, &ctx, "task.failed", "Task %.*s[%.*s] raised %s: %.*s%s%.*s",
                     APM_STR_ARG(name), APM_STR_ARG(tid),
                     outcome->expected ? "expected" : "unexpected", APM_STR_ARG(shown),
                     outcome->traceback.len ? "\n" : "", APM_STR_ARG(outcome->traceback));
        break;
    case APM_DONE_RETRY: {
        double wait = (double)(outcome->retry_eta_us - apm_clock_wall_us()) / 1e6;
        apm_log_task(level, &ctx, "task.retried", "Task %.*s[%.*s] retry: Retry in %.3gs%s%.*s",
                     APM_STR_ARG(name), APM_STR_ARG(tid), wait > 0 ? wait : 0,
                     shown.len ? ": " : "", APM_STR_ARG(shown));
        break;
    }
    case APM_DONE_IGNORE:
    case APM_DONE_REPLACED:
        apm_log_task(level, &ctx, "task.ignored", "Task %.*s[%.*s] ignored", APM_STR_ARG(name),
                     APM_STR_ARG(tid));
        break;
    case APM_DONE_REJECT:
        apm_log_task(level, &ctx, "task.rejected", "Task %.*s[%.*s] reject requeue=%s: %.*s",
                     APM_STR_ARG(name), APM_STR_ARG(tid), outcome->requeue ? "True" : "False",
                     APM_STR_ARG(shown));
        break;
    default:
        apm_log_task(level, &ctx, outcome->kind == APM_DONE_REVOKED ? "task.revoked" : "task.lost",
                     "Task %.*s[%.*s] raised unexpected: %.*s%s", APM_STR_ARG(name),
                     APM_STR_ARG(tid), APM_STR_ARG(shown),
                     outcome->kind == APM_DONE_LOST && work->how == APM_RESTORE
                         ? " (given back to its queue)"
                         : "");
    }
    apm_buf_clear(&text);
}
