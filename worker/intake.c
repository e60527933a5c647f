/*
 * intake.c - a delivery becomes a request, or is refused with a reason.
 *
 * Refusals follow Celery's classes (docs/protocol.md "Malformed messages"), but nothing that comes in ends the
 * process, and what is refused is kept in the broker's dead-letter place.
 */
#include "worker/builtin.h"
#include "worker/metrics.h"

#include <stdlib.h>

#include "core/base/clock.h"

/* A message that is no request. What of it could be read is used for the log and, for an unknown task, the result. */
static void
refuse_malformed(apm_work *work, apm_malformed how, const apium_error *err)
{
    apm_worker *w = work->worker;
    w->count.refused++;
    const apm_message *msg = &work->delivery->msg;
    const char *queue = work->delivery->queue;
    switch (how) {
    case APM_MAL_UNKNOWN:
        apm_log(APM_LOG_WARNING, "message.unknown",
                "Received and deleted unknown message.  Wrong destination?!? From queue %s: %s "
                "(kept in the dead-letter "
                "place). The full contents of the message body was: %.*s",
                queue, err->text, (int)(msg->body.len < 200 ? msg->body.len : 200),
                msg->body.p ? msg->body.p : "");
        break;
    case APM_MAL_BODY:
        apm_log(APM_LOG_CRITICAL, "message.undecodable",
                "Can't decode message body: %s (task %.*s[%.*s] from queue %s, kept in the "
                "dead-letter place)",
                err->text, APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), queue);
        break;
    default:
        apm_log(APM_LOG_ERROR, "message.invalid",
                "Received invalid task message: %s (task %.*s[%.*s] from queue %s, kept in the "
                "dead-letter place)",
                err->text, APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), queue);
    }
    apm_settle_delivery(work, APM_REJECT, err->text);
}

static void
refuse_unregistered(apm_work *work)
{
    apm_worker *w = work->worker;
    const apm_request *req = &work->req;
    w->count.refused++;
    apm_log_ctx ctx = { .task_id = req->id.p
                                       ? apm_arena_str(&work->delivery->arena, req->id, NULL).p
                                       : NULL };
    apm_log_task(APM_LOG_ERROR, &ctx, "task.unregistered",
                 "Received unregistered task of type '%.*s'. The message has been kept in the "
                 "dead-letter place. "
                 "Did you remember to put it into the module's table (-A)? id %.*s, queue %s",
                 APM_STR_ARG(req->task), APM_STR_ARG(req->id), work->delivery->queue);
    apm_settle_refused(work, "NotRegistered", "celery.exceptions", req->task);
}

static apm_tri
option(int of_task)
{
    return of_task == APIUM_ON ? APM_YES : of_task == APIUM_OFF ? APM_NO : APM_UNSET;
}

static bool
decide(apm_tri a, bool otherwise)
{
    return a == APM_UNSET ? otherwise : a == APM_YES;
}

void
apm_intake_options(apm_work *work)
{
    const apm_settings *s = work->worker->settings;
    const apm_task_info *task = work->task;
    const apm_request *req = &work->req;

    work->late = decide(option(task->acks_late), s->task_acks_late);
    work->ignore_result = req->ignore_result != APM_UNSET
                              ? req->ignore_result == APM_YES
                              : decide(option(task->ignore_result), s->task_ignore_result);
    work->job.req = req;
    work->job.task = task;
    work->job.time_limit_s = req->time_limit_s > 0  ? req->time_limit_s
                             : task->time_limit > 0 ? task->time_limit
                                                    : s->task_time_limit;
    work->job.soft_time_limit_s = req->soft_time_limit_s > 0  ? req->soft_time_limit_s
                                  : task->soft_time_limit > 0 ? task->soft_time_limit
                                                              : s->task_soft_time_limit;
}

/*
 * A redelivery of what is still running here: the connection was lost under it, or somebody took its lease. It is not run
 * twice: the running request goes on under the new delivery, which its outcome then settles.
 */
static bool
adopted_by_running(apm_worker *w, apm_delivery *delivery, const apm_request *req)
{
    if (!req->redelivered)
        return false;
    for (apm_work *at = w->lists[APM_AT_POOL].head; at; at = at->next) {
        if (!at->begun || at->req.retries != req->retries || !apm_str_eq(at->req.id, req->id))
            continue;
        /* The old delivery's memory holds the running request's text: the two deliveries change places, so that the
         * work settles the new one and the old memory lives as long as the work. */
        apm_log(APM_LOG_INFO, "task.readopted",
                "Task %.*s[%.*s] was delivered again while it runs here: not started twice",
                APM_STR_ARG(req->task), APM_STR_ARG(req->id));
        apm_work *shadow = apm_work_new(w, delivery);
        if (!shadow)
            return false;
        shadow->req = *req;
        shadow->task = at->task;
        if (at->acked) { /* early ack: it began, and this message has no other purpose */
            apm_settle_delivery(shadow, APM_ACK, NULL);
            return true;
        }
        shadow->delivery = at->delivery;
        at->delivery = delivery;
        shadow->delivery->owner = shadow;
        delivery->owner = at;
        at->adopted = shadow; /* freed with it */
        apm_work_move(shadow, APM_AT_SETTLING);
        shadow->over = true;
        return true;
    }
    return false;
}

static void
receive(apm_worker *w, apm_delivery *delivery)
{
    const int64_t bytes = (int64_t)delivery->msg.body.len;
    w->count.received++;
    w->avg_bytes += (bytes - w->avg_bytes) / (bytes > w->avg_bytes ? 2 : 16);
    apm_decode_opts opts = { .accept = w->settings->accept_content };
    (void)apm_zone_offset(w->settings->timezone, apm_clock_wall_us(), &opts.naive_offset_s, NULL);
    apm_request req;
    apm_malformed how = APM_MAL_NONE;
    apium_error err;
    apium_status st = apm_request_read(&delivery->msg, &opts, &delivery->arena, &req, &how, &err);

    if (st == APIUM_OK && adopted_by_running(w, delivery, &req))
        return;
    apm_work *work = apm_work_new(w, delivery);
    if (!work) { /* no memory for it: the lease or the connection's end gives it to somebody else */
        apm_log(APM_LOG_ERROR, "message.no_memory",
                "Out of memory: a message from %s stays unsettled", delivery->queue);
        return;
    }
    work->req = req;
    if (apm_str_is(req.task) && !(work->task = apm_pool_task(w->pool, req.task)) &&
        (work->builtin = apm_builtin_find(req.task)))
        work->task = &work->builtin->info;
    if (st == APIUM_E_NOMEM) {
        apm_settle_delivery(work, APM_RESTORE, NULL);
        return;
    }
    if (st != APIUM_OK && how != APM_MAL_NONE && apm_str_is(req.task) && apm_str_is(req.id) &&
        !work->task) {
        refuse_unregistered(work); /* the name is judged before the body, as Celery does */
        return;
    }
    if (st != APIUM_OK) {
        refuse_malformed(work, how, &err);
        return;
    }
    if (!work->task) {
        refuse_unregistered(work);
        return;
    }
    apm_metrics_received(work);
    apm_intake_options(work);
    apm_gate_enter(work);
}

void
apm_intake_batch(void *worker, apm_delivery **batch, size_t n)
{
    apm_worker *w = worker;
    for (size_t i = 0; i < n; i++)
        receive(w, batch[i]);
    apm_worker_wake(w);
}

/* The delivery is somebody else's by now. What has not begun is dropped; what runs goes on, and its settlement will find
 * that it is fenced (or be adopted by a redelivery). */
void
apm_intake_lost(void *worker, apm_delivery *delivery)
{
    apm_worker *w = worker;
    apm_work *work = delivery->owner;
    w->count.lost++;
    if (!work || work->delivery != delivery)
        return;
    switch (work->station) {
    case APM_AT_POOL:
        if (!apm_pool_take_back(w->pool, &work->job))
            return;
        /* fall through */
    case APM_AT_HELD:
    case APM_AT_READY:
        apm_gate_drop(work);
        apm_worker_progress(w);
        return;
    default:
        return;
    }
}

void
apm_intake_refused(void *worker, const char *queue, apm_str raw, const char *why)
{
    apm_worker *w = worker;
    w->count.received++;
    w->count.refused++;
    apm_log(APM_LOG_ERROR, "message.refused",
            "Received something that is no message from queue %s: %s (kept in the dead-letter "
            "place). It begins: %.*s",
            queue, why, (int)(raw.len < 120 ? raw.len : 120), raw.p ? raw.p : "");
}
