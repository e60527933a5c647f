/* told.c - what the pool tells of a job: it has begun, reports a state, is done; and what is due at the end of a turn. */
#include "worker/settle_inner.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "worker/errback.h"
#include "worker/metrics.h"

#define LONG_NS (5 * 1000 * 1000)

static apm_work *
work_of(apm_job *job)
{
    return (apm_work *)((char *)job - offsetof(apm_work, job));
}

void
apm_settle_begin(void *worker, apm_job *job)
{
    apm_worker *w = worker;
    apm_work *work = work_of(job);
    work->begun = true;
    if (work->internal)
        return;
    apm_metrics_begun(work);
    if (work->late &&
        !(work->task->track_started == APIUM_ON ||
          (work->task->track_started == APIUM_DEFAULT && w->settings->task_track_started)))
        return;
    if (w->n_due == w->cap_due) {
        size_t cap = w->cap_due ? 2 * w->cap_due : 64;
        apm_work **due = realloc(w->due, cap * sizeof(*due));
        if (!due)
            return; /* its settlement will carry the ack */
        w->due = due;
        w->cap_due = cap;
    }
    w->due[w->n_due++] = work;
    work->due = w->n_due;
    apm_worker_wake(w);
}

void
apm_settle_turn(apm_worker *w)
{
    for (size_t i = 0; i < w->n_due; i++) {
        apm_work *work = w->due[i];
        if (!work)
            continue;
        work->due = 0;
        bool started =
            !work->ignore_result && apm_record_stores(w) &&
            (work->task->track_started == APIUM_ON ||
             (work->task->track_started == APIUM_DEFAULT && w->settings->task_track_started));
        apm_unit *ack = NULL, *state = NULL;
        if (!work->late && !work->acked)
            ack = apm_unit_new(w->broker->link);
        if (started)
            state = w->one_link && ack ? ack : apm_unit_new(w->backend->link);
        if (state) {
            const apm_result_opts opts = apm_record_opts(w);
            apm_buf meta;
            apm_buf_init(&meta, 1024);
            apm_buf_addf(&meta, "{\"pid\": %d, \"hostname\": ", work->job.pid);
            apm_json_add_stringz(&meta, w->node);
            apm_buf_addc(&meta, '}');
            apm_buf_reset(&w->scratch);
            apm_result_write_state(&w->scratch, &work->req, APM_STR(APM_STATE_STARTED),
                                   apm_buf_str(&meta), &opts);
            apm_record_append(work, state, &work->req, APM_STR(APM_STATE_STARTED));
            apm_buf_clear(&meta);
        }
        if (ack)
            apm_settle_append(work, ack, APM_ACK, NULL);
        if (state && state != ack)
            apm_settle_side(work, state);
        if (ack)
            apm_settle_side(work, ack);
    }
    w->n_due = 0;
}

void
apm_settle_state(void *worker, apm_job *job, apm_str state, apm_str meta)
{
    apm_worker *w = worker;
    apm_work *work = work_of(job);
    if (!apm_record_stores(w) || work->ignore_result)
        return;
    apm_unit *unit = apm_unit_new(w->backend->link);
    if (!unit)
        return;
    const apm_result_opts opts = apm_record_opts(w);
    apm_buf_reset(&w->scratch);
    apm_result_write_state(&w->scratch, &work->req, state, meta, &opts);
    apm_record_append(work, unit, &work->req, state);
    apm_settle_side(work, unit);
    apm_worker_wake(w);
}

void
apm_settle_done(void *worker, apm_job *job, const apm_outcome *outcome)
{
    apm_worker *w = worker;
    apm_work *work = work_of(job);
    if (work->internal) {
        apm_errback_done(work, outcome);
        return;
    }
    apm_settle_count(w, outcome->kind);
    int64_t run_ns = outcome->runtime_ns > 0 ? outcome->runtime_ns : 1;
    /* Quick to notice a long task, slow to believe in short ones; a few milliseconds may be the scheduler's. */
    int64_t share = !w->avg_run_ns ? 1 : run_ns > LONG_NS && run_ns > w->avg_run_ns ? 2 : 16;
    w->avg_run_ns += (run_ns - w->avg_run_ns) / share + 1;
    apm_settle_decide(work, outcome);
    apm_say_outcome(work, outcome);
    apm_settle(work, outcome);
    apm_worker_wake(w);
}
