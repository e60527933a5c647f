/*
 * settle.c - what an outcome causes: the result, follow-up messages, the delivery's settlement, as units.
 *
 * One link: everything is one unit. Two links: the result first, then the follow-ups and the acknowledgement, so that a loss
 * between them repeats the task (late) or leaves only what early acknowledgement leaves anyway.
 */
#include "worker/inner.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "worker/publish.h"
#include "worker/settle_inner.h"

/* ---- who waits for what ---- */

void
apm_settle_finish(apm_work *work)
{
    if (work->units || !work->over)
        return;
    apm_worker *w = work->worker;
    apm_work_free(work);
    apm_worker_progress(w);
}

/* A unit that carries nothing whose failure could be repaired: acks, states. */
static void
on_side_unit(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    if (status != APIUM_OK && status != APIUM_E_FENCED && status != APIUM_E_CLOSED)
        apm_log(APM_LOG_ERROR, "store.refused", "Cannot store the state of task %.*s[%.*s]: %s",
                APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), err->text);
    work->units--;
    apm_settle_finish(work);
}

void
apm_settle_side(apm_work *work, apm_unit *unit)
{
    work->units++;
    apm_unit_commit(unit, on_side_unit, work);
}

static void settlement_failed(apm_work *work, apium_status status, const apium_error *err);

static void
on_settled(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    work->units--;
    if (status != APIUM_OK) {
        settlement_failed(work, status, err);
        return;
    }
    work->over = true;
    apm_settle_finish(work);
}

static void
commit_settlement(apm_work *work, apm_unit *unit)
{
    work->units++;
    apm_unit_commit(unit, on_settled, work);
}

void
apm_settle_append(apm_work *work, apm_unit *unit, apm_disposition how, const char *why)
{
    apium_error err;
    if (work->acked)
        return;
    work->acked = true;
    if (apm_broker_settle(work->worker->broker, unit, work->delivery, how, why, &err) != APIUM_OK)
        apm_log(APM_LOG_ERROR, "delivery.unsettled",
                "Cannot settle the delivery of task %.*s[%.*s]: %s", APM_STR_ARG(work->req.task),
                APM_STR_ARG(work->req.id), err.text);
}

/* Two links: the result is stored, now the broker's part. */
static void
on_recorded(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    work->units--;
    if (status != APIUM_OK) {
        apm_unit_drop(work->after);
        work->after = NULL;
        settlement_failed(work, status, err);
        return;
    }
    apm_join_go(work);
}

void
apm_settle_last(apm_work *work)
{
    apm_unit *after = work->after;
    work->after = NULL;
    if (!after && !work->acked)
        after = apm_unit_new(work->worker->broker->link);
    if (!after) {
        work->over = true;
        apm_settle_finish(work);
        return;
    }
    if (!work->acked) {
        apm_settle_append(work, after, work->how, work->why);
        work->settled_with_it = true;
    }
    commit_settlement(work, after);
}

/* The store refused. Fenced: the task is somebody else's, and so is its outcome. Otherwise the failure to store becomes the
 * outcome; and if even that cannot be stored, the message is kept in the dead-letter place. */
static void
settlement_failed(apm_work *work, apium_status status, const apium_error *err)
{
    const apm_request *req = &work->req;
    if (status == APIUM_E_FENCED) {
        apm_log(APM_LOG_WARNING, "task.fenced",
                "The outcome of task %.*s[%.*s] was dropped: its delivery belongs to another node "
                "by now",
                APM_STR_ARG(req->task), APM_STR_ARG(req->id));
        work->over = true;
        apm_settle_finish(work);
        return;
    }
    if (status == APIUM_E_CLOSED && work->worker->life >= APM_CLOSING) {
        work->over = true;
        apm_settle_finish(work);
        return;
    }
    apm_log(APM_LOG_ERROR, "task.unsettled", "Cannot store the outcome of task %.*s[%.*s]: %s",
            APM_STR_ARG(req->task), APM_STR_ARG(req->id), err->text);
    if (work->settled_with_it) /* what was refused held the acknowledgement too: it is due again */
        work->acked = false;
    work->settled_with_it = false;
    if (work->failed_once) {
        apm_settle_delivery(work, APM_REJECT, err->text);
        return;
    }
    work->failed_once = true;
    if (work->sends) /* what was to follow is lost with this message: somebody may want to send it again */
        work->doom = apm_arena_str(&work->delivery->arena, apm_strz(err->text), NULL).p;
    apm_buf args;
    apm_buf_init(&args, 4096);
    apm_buf_addc(&args, '[');
    apm_json_add_stringz(&args, err->text);
    apm_buf_addc(&args, ']');
    const apm_outcome outcome = {
        .kind = APM_DONE_FAILURE,
        .exc = { APM_STR("BackendStoreError"), APM_STR("celery.exceptions"), apm_buf_str(&args) },
    };
    apm_settle(work, &outcome);
    apm_buf_clear(&args);
}

/* ---- appending ---- */

/* Store w->scratch as a state of req: the work's own request, or a step of its chain that will never run. */
static void
append_record(apm_work *work, apm_unit *unit, const apm_request *req, apm_str state)
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

static apm_result_opts
result_opts(const apm_worker *w)
{
    apm_result_opts opts = {
        .extended = w->settings->result_extended,
        .worker = w->node,
        .now_us = apm_clock_wall_us(),
    };
    (void)apm_zone_offset(w->settings->timezone, opts.now_us, &opts.zone_offset_s, NULL);
    return opts;
}

static bool
stores_results(const apm_worker *w)
{
    return !apm_backend_can(w->backend, APM_BACKEND_NONE);
}

/* The state that an outcome leaves, absent for none; and what of the outcome is written. */
static apm_str
state_of(const apm_work *work, const apm_outcome *outcome, apm_outcome *written)
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

static bool
wants_record(const apm_work *work, apm_str state)
{
    const apm_worker *w = work->worker;
    if (!apm_str_is(state) || !stores_results(w) || !apm_str_is(work->req.id))
        return false;
    if (!work->ignore_result)
        return true;
    int errors_too = work->task ? work->task->store_errors_even_if_ignored : APIUM_DEFAULT;
    return !apm_str_eqz(state, APM_STATE_SUCCESS) && !apm_str_eqz(state, APM_STATE_RETRY) &&
           (errors_too == APIUM_ON ||
            (errors_too == APIUM_DEFAULT && w->settings->task_store_errors_even_if_ignored));
}

/* What becomes of the delivery (Celery's table: docs/protocol.md "Acknowledgement"). */
static void
decide_disposition(apm_work *work, const apm_outcome *outcome)
{
    const apm_settings *s = work->worker->settings;
    int on_failure = work->task ? work->task->acks_on_failure_or_timeout : APIUM_DEFAULT;
    work->how = work->doom ? APM_REJECT : APM_ACK;
    work->why = work->doom;
    if (work->doom)
        return;
    switch (outcome->kind) {
    case APM_DONE_FAILURE:
        if (work->late && (on_failure == APIUM_OFF ||
                           (on_failure == APIUM_DEFAULT && !apm_settings_ack_on_failure(s)))) {
            work->how = APM_REJECT;
            work->why = "the task failed, and acks_on_failure_or_timeout is off";
        }
        break;
    case APM_DONE_TIMEOUT:
        if (work->late && (on_failure == APIUM_OFF ||
                           (on_failure == APIUM_DEFAULT && !apm_settings_ack_on_timeout(s))))
            work->how = APM_REQUEUE;
        break;
    case APM_DONE_LOST: {
        int give_back = work->task ? work->task->reject_on_worker_lost : APIUM_DEFAULT;
        if (work->late && (give_back == APIUM_ON ||
                           (give_back == APIUM_DEFAULT && s->task_reject_on_worker_lost) ||
                           work->worker->life == APM_COLD))
            work->how = APM_RESTORE;
        break;
    }
    case APM_DONE_REJECT:
        work->how = outcome->requeue ? APM_REQUEUE : APM_REJECT;
        if (!outcome->requeue) {
            apm_buf text;
            apm_buf_init(&text, 512);
            apm_exception_repr(&text, &outcome->exc);
            work->why = apm_arena_str(&work->delivery->arena, apm_buf_str(&text), NULL).p;
            apm_buf_clear(&text);
        }
        break;
    default:
        break;
    }
}

/* ---- the settlement ---- */

/* Without memory for a unit nothing can be told to the store: the lease gives the task to somebody else. */
static void
abandon(apm_work *work)
{
    apm_log(APM_LOG_CRITICAL, "task.no_memory",
            "Out of memory: the outcome of task %.*s[%.*s] is lost", APM_STR_ARG(work->req.task),
            APM_STR_ARG(work->req.id));
    work->over = true;
    apm_settle_finish(work);
}

static void
forget_due(apm_work *work)
{
    if (work->due)
        work->worker->due[work->due - 1] = NULL;
    work->due = 0;
}

void
apm_settle_records(apm_work *work, apm_unit *unit, const apm_follow *follow)
{
    apm_worker *w = work->worker;
    const apm_result_opts opts = result_opts(w);
    if (!stores_results(w))
        return;
    for (size_t i = 0; i < follow->n_unrun; i++) {
        const apm_outcome failed = { .kind = APM_DONE_FAILURE,
                                     .exc = follow->unrun[i].exc,
                                     .children = follow->unrun[i].children };
        apm_buf_reset(&w->scratch);
        apm_result_write(&w->scratch, &follow->unrun[i].req, &failed, &opts);
        append_record(work, unit, &follow->unrun[i].req, APM_STR(APM_STATE_FAILURE));
    }
}

static void
append_own_record(apm_work *work, apm_unit *unit, apm_str state, const apm_outcome *written)
{
    apm_worker *w = work->worker;
    const apm_result_opts opts = result_opts(w);
    apm_buf_reset(&w->scratch);
    apm_result_write(&w->scratch, &work->req, written, &opts);
    append_record(work, unit, &work->req, state);
}

/* ---- what is sent ---- */

static apm_unit *
unit_for(apm_emitting *emitting, apm_unit **mine, apm_unit **other, apm_link *link)
{
    if (!*mine && emitting->joined && *other)
        *mine = *other;
    if (!*mine)
        *mine = apm_unit_new(link);
    if (emitting->joined)
        *other = *mine;
    return *mine;
}

apm_unit *
apm_emit_store(apm_emitting *emitting)
{
    return unit_for(emitting, &emitting->store, &emitting->publish,
                    emitting->work->worker->backend->link);
}

apm_unit *
apm_emit_publish(apm_emitting *emitting)
{
    return unit_for(emitting, &emitting->publish, &emitting->store,
                    emitting->work->worker->broker->link);
}

static apium_status
emit(void *arg, const apm_canvas_op *op, apium_error *err)
{
    apm_emitting *emitting = arg;
    apm_backend *backend = emitting->work->worker->backend;
    apm_unit *unit =
        op->kind == APM_CANVAS_SIZE ? apm_emit_store(emitting) : apm_emit_publish(emitting);
    if (!unit)
        return apm_fail(err, APIUM_E_NOMEM, "cannot send a follow-up: out of memory");
    emitting->sent = true;
    return op->kind == APM_CANVAS_SIZE
               ? backend->ops->expect(backend, unit, op->group_id, op->size, err)
               : apm_follow_publish(emitting->work, unit, op->send, err);
}

apm_sending
apm_sending_of(apm_emitting *emitting)
{
    const apm_worker *w = emitting->work->worker;
    return (apm_sending){
        .arena = &emitting->work->delivery->arena,
        .now_us = apm_clock_wall_us(),
        .chords = apm_backend_can(w->backend, APM_BACKEND_BARRIER) ? APM_CHORDS_COUNTED
                  : w->backend->ops->features & (APM_BACKEND_NONE | APM_BACKEND_REPLY)
                      ? APM_CHORDS_REFUSED
                      : APM_CHORDS_POLLED,
        .store = w->backend->ops->name,
        .retry_interval_s = w->settings->result_chord_retry_interval,
        .emit = emit,
        .arg = emitting,
    };
}

static void
drop_emitted(apm_emitting *emitting)
{
    if (!emitting->joined)
        apm_unit_drop(emitting->publish);
    apm_unit_drop(emitting->store);
    emitting->store = emitting->publish = NULL;
}

/* Does the outcome return a part of a chord: its own, or that of a chain it ends? Then the delivery waits for the answer. */
static bool
may_return(const apm_work *work, const apm_outcome *outcome)
{
    if (outcome->kind == APM_DONE_RETRY || outcome->kind == APM_DONE_IGNORE)
        return false;
    return apm_str_is(work->req.chord) ||
           (outcome->kind != APM_DONE_SUCCESS && apm_str_is(work->req.chain) &&
            memmem(work->req.chain.p, work->req.chain.len, "\"chord\"", 7));
}

/* What follows cannot be: that is the task's failure. */
static void
follow_failed(apm_work *work, const apium_error *err)
{
    apm_buf args;
    apm_log(APM_LOG_ERROR, "task.unfollowable", "Cannot go on after task %.*s[%.*s]: %s",
            APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), err->text);
    apm_buf_init(&args, 4096);
    apm_buf_addc(&args, '[');
    apm_json_add_stringz(&args, err->text);
    apm_buf_addc(&args, ']');
    bool unsupported = err->status == APIUM_E_UNSUPPORTED;
    const apm_outcome outcome = {
        .kind = APM_DONE_FAILURE,
        .exc = { unsupported ? APM_STR("NotImplementedError") : APM_STR("ValueError"),
                 APM_STR("builtins"), apm_buf_str(&args) },
    };
    apm_settle(work, &outcome);
    apm_buf_clear(&args);
}

/* False: it was settled otherwise. */
static bool
follow(apm_work *work, const apm_outcome *outcome, apm_emitting *emitting, apm_follow *out)
{
    apium_error err;
    /* What never ran calls no errbacks, as in Celery. */
    bool errbacks =
        work->task && outcome->kind != APM_DONE_REJECT && outcome->kind != APM_DONE_REVOKED;
    apm_sending how = apm_sending_of(emitting);
    apium_status st = apm_follow_outcome(&how, &work->req, outcome, errbacks, out, &err);
    if (st == APIUM_OK)
        goto followed;
    drop_emitted(emitting);
    if (outcome->kind == APM_DONE_SUCCESS) {
        follow_failed(work, &err);
        return false;
    }
    apm_log(APM_LOG_ERROR, "task.unfollowable", "Cannot call the errbacks of task %.*s[%.*s]: %s",
            APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), err.text);
    how = apm_sending_of(emitting);
    if (apm_follow_outcome(&how, &work->req, outcome, false, out, &err) != APIUM_OK) {
        drop_emitted(emitting);
        *out = (apm_follow){ .children = outcome->children };
    }
followed:
    if (!apm_backend_can(work->worker->backend, APM_BACKEND_BARRIER))
        out->n_returns = 0; /* celery.chord_unlock looks at the results */
    return true;
}

void
apm_settle(apm_work *work, const apm_outcome *outcome)
{
    apm_worker *w = work->worker;
    apium_error err;
    forget_due(work);
    work->settled_with_it = false;
    if (work->station != APM_AT_SETTLING)
        apm_work_move(work, APM_AT_SETTLING);
    decide_disposition(work, outcome);

    apm_outcome written;
    apm_follow next = { .children = outcome->children };
    apm_str state = state_of(work, outcome, &written);
    bool goes_on =
        work->how != APM_RESTORE && !(outcome->kind == APM_DONE_REJECT && outcome->requeue);
    bool counts = goes_on && may_return(work, outcome);
    apm_emitting emitting = { .work = work, .joined = w->one_link && !counts };
    if (goes_on && !follow(work, outcome, &emitting, &next))
        return;
    written.children = next.children;
    bool record = wants_record(work, state), settle = !work->acked;
    bool marks = next.n_unrun && stores_results(w);
    work->sends = outcome->kind == APM_DONE_RETRY || emitting.sent;

    if ((record || marks || next.n_returns) && !apm_emit_store(&emitting))
        goto no_memory;
    if (settle && (emitting.joined || !emitting.store) && !apm_emit_publish(&emitting))
        goto no_memory;
    if (record)
        append_own_record(work, emitting.store, state, &written);
    if (marks)
        apm_settle_records(work, emitting.store, &next);
    if (next.n_returns && !apm_join_returns(work, emitting.store, &next))
        goto no_memory;
    if (outcome->kind == APM_DONE_RETRY) {
        if (!apm_emit_publish(&emitting))
            goto no_memory;
        if (apm_retry_publish(work, emitting.publish, outcome, &err) != APIUM_OK) {
            drop_emitted(&emitting);
            settlement_failed(work, err.status, &err);
            return;
        }
    }
    if (emitting.store && !emitting.joined) {
        /* Early: what has begun is acknowledged whatever becomes of the result store. */
        if (settle && !work->late && work->how == APM_ACK && !next.n_returns) {
            apm_unit *ack = apm_unit_new(w->broker->link);
            if (ack) {
                apm_settle_append(work, ack, APM_ACK, NULL);
                apm_settle_side(work, ack);
            }
        }
        work->after = emitting.publish;
        work->units++;
        apm_unit_commit(emitting.store, on_recorded, work);
        return;
    }
    if (!emitting.publish) {
        work->over = true;
        apm_settle_finish(work);
        return;
    }
    if (settle) {
        apm_settle_append(work, emitting.publish, work->how, work->why);
        work->settled_with_it = true;
    }
    commit_settlement(work, emitting.publish);
    return;

no_memory:
    drop_emitted(&emitting);
    abandon(work);
}

void
apm_settle_refused(apm_work *work, const char *type, const char *module, apm_str argument)
{
    apm_buf args;
    apm_buf_init(&args, APM_BUF_MAX);
    apm_buf_addc(&args, '[');
    apm_json_add_string(&args, argument);
    apm_buf_addc(&args, ']');
    const apm_outcome outcome = {
        .kind = APM_DONE_REJECT,
        .exc = { apm_strz(type), apm_strz(module), apm_buf_str(&args) },
    };
    apm_settle(work, &outcome);
    apm_buf_clear(&args);
}

void
apm_settle_delivery(apm_work *work, apm_disposition how, const char *reason)
{
    apm_worker *w = work->worker;
    forget_due(work);
    if (work->station != APM_AT_SETTLING)
        apm_work_move(work, APM_AT_SETTLING);
    work->over = true;
    apm_unit *unit = work->acked ? NULL : apm_unit_new(w->broker->link);
    if (unit) {
        apm_settle_append(work, unit, how, reason);
        apm_settle_side(work, unit);
    } else {
        apm_settle_finish(work);
    }
}

/* ---- what the pool tells ---- */

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
            !work->ignore_result && stores_results(w) &&
            (work->task->track_started == APIUM_ON ||
             (work->task->track_started == APIUM_DEFAULT && w->settings->task_track_started));
        apm_unit *ack = NULL, *state = NULL;
        if (!work->late && !work->acked)
            ack = apm_unit_new(w->broker->link);
        if (started)
            state = w->one_link && ack ? ack : apm_unit_new(w->backend->link);
        if (state) {
            const apm_result_opts opts = result_opts(w);
            apm_buf meta;
            apm_buf_init(&meta, 1024);
            apm_buf_addf(&meta, "{\"pid\": %d, \"hostname\": ", work->job.pid);
            apm_json_add_stringz(&meta, w->node);
            apm_buf_addc(&meta, '}');
            apm_buf_reset(&w->scratch);
            apm_result_write_state(&w->scratch, &work->req, APM_STR(APM_STATE_STARTED),
                                   apm_buf_str(&meta), &opts);
            append_record(work, state, &work->req, APM_STR(APM_STATE_STARTED));
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
    if (!stores_results(w) || work->ignore_result)
        return;
    apm_unit *unit = apm_unit_new(w->backend->link);
    if (!unit)
        return;
    const apm_result_opts opts = result_opts(w);
    apm_buf_reset(&w->scratch);
    apm_result_write_state(&w->scratch, &work->req, state, meta, &opts);
    append_record(work, unit, &work->req, state);
    apm_settle_side(work, unit);
    apm_worker_wake(w);
}

void
apm_settle_done(void *worker, apm_job *job, const apm_outcome *outcome)
{
    apm_worker *w = worker;
    apm_work *work = work_of(job);
    switch (outcome->kind) {
    case APM_DONE_SUCCESS:
        w->count.succeeded++;
        break;
    case APM_DONE_RETRY:
        w->count.retried++;
        break;
    case APM_DONE_REJECT:
        w->count.rejected++;
        break;
    case APM_DONE_IGNORE:
        break;
    case APM_DONE_REVOKED:
        w->count.revoked++;
        break;
    default:
        w->count.failed++;
    }
    int64_t run_ns = outcome->runtime_ns > 0 ? outcome->runtime_ns : 1;
    /* Quick to notice a long task, slow to believe in short ones. */
    w->avg_run_ns = run_ns > w->avg_run_ns ? (w->avg_run_ns + run_ns) / 2 + 1
                                           : w->avg_run_ns - (w->avg_run_ns - run_ns) / 16;
    decide_disposition(work, outcome);
    apm_say_outcome(work, outcome);
    apm_settle(work, outcome);
    apm_worker_wake(w);
}
