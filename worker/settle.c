/*
 * settle.c - what an outcome causes: the result, follow-up messages, the delivery's settlement, as units.
 *
 * One link: everything is one unit. Two links: the result first, then the follow-ups and the acknowledgement, so that a loss
 * between them repeats the task (late) or leaves only what early acknowledgement leaves anyway.
 */
#include "worker/inner.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "worker/errback.h"
#include "worker/publish.h"
#include "worker/settle_inner.h"

/* ---- who waits for what ---- */

void
apm_settle_finish(apm_work *work)
{
    if (work->units || !work->over)
        return;
    apm_worker *w = work->worker;
    if (work->errbacks)
        apm_errback_go(work);
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
    work->errbacks = NULL; /* this failure is not what is settled */
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

/* What becomes of the delivery (Celery's table: docs/protocol.md "Acknowledgement"). */
void
apm_settle_decide(apm_work *work, const apm_outcome *outcome)
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

/* ---- what is sent ---- */

/* Does the outcome return a part of a chord: its own, or that of a chain it ends? Then the delivery waits for the answer. */
static bool
may_return(const apm_work *work, const apm_outcome *outcome)
{
    if (outcome->kind == APM_DONE_RETRY || outcome->kind == APM_DONE_IGNORE ||
        outcome->kind == APM_DONE_REPLACED)
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
        return true;
    apm_emit_drop(emitting);
    if (outcome->kind == APM_DONE_SUCCESS || outcome->kind == APM_DONE_REPLACED) {
        follow_failed(work, &err);
        return false;
    }
    apm_log(APM_LOG_ERROR, "task.unfollowable", "Cannot call the errbacks of task %.*s[%.*s]: %s",
            APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), err.text);
    how = apm_sending_of(emitting);
    if (apm_follow_outcome(&how, &work->req, outcome, false, out, &err) != APIUM_OK) {
        apm_emit_drop(emitting);
        *out = (apm_follow){ .children = outcome->children };
    }
    return true;
}

void
apm_settle_count(apm_worker *w, apm_outcome_kind kind)
{
    switch (kind) {
    case APM_DONE_SUCCESS:
    case APM_DONE_REPLACED:
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
}

/* Both lists in one. */
static bool
merge_follow(apm_arena *arena, apm_follow *follow, const apm_follow *more)
{
    size_t unrun = follow->n_unrun + more->n_unrun, returns = follow->n_returns + more->n_returns;
    apm_unrun *all_unrun = apm_arena_alloc(arena, (unrun + 1) * sizeof(*all_unrun));
    apm_return *all_returns = apm_arena_alloc(arena, (returns + 1) * sizeof(*all_returns));
    if (!all_unrun || !all_returns)
        return false;
    if (follow->n_unrun)
        memcpy(all_unrun, follow->unrun, follow->n_unrun * sizeof(*all_unrun));
    if (more->n_unrun)
        memcpy(all_unrun + follow->n_unrun, more->unrun, more->n_unrun * sizeof(*all_unrun));
    if (follow->n_returns)
        memcpy(all_returns, follow->returns, follow->n_returns * sizeof(*all_returns));
    if (more->n_returns)
        memcpy(all_returns + follow->n_returns, more->returns,
               more->n_returns * sizeof(*all_returns));
    follow->unrun = all_unrun;
    follow->n_unrun = unrun;
    follow->returns = all_returns;
    follow->n_returns = returns;
    return true;
}

void
apm_settle_with(apm_work *work, const apm_outcome *outcome, apm_emitting *given,
                const apm_follow *more)
{
    apm_worker *w = work->worker;
    apium_error err;
    forget_due(work);
    work->settled_with_it = false;
    if (work->station != APM_AT_SETTLING)
        apm_work_move(work, APM_AT_SETTLING);
    apm_settle_decide(work, outcome);
    if (work->delivery)
        work->delivery->done = work->late;

    const bool goes_on =
        work->how != APM_RESTORE && !(outcome->kind == APM_DONE_REJECT && outcome->requeue);
    if (goes_on && apm_pieces_wanted(work, outcome, given, more))
        return;

    apm_outcome written;
    apm_follow next = { .children = outcome->children };
    apm_str state = apm_record_state(work, outcome, &written);
    bool counts = (goes_on && may_return(work, outcome)) || (more && more->n_returns);
    apm_emitting emitting = { .work = work, .joined = w->one_link && !counts };
    if (given && given->sent)
        emitting = *given;
    if (goes_on && !follow(work, outcome, &emitting, &next))
        return;
    if (more && !merge_follow(&work->delivery->arena, &next, more))
        goto no_memory;
    if (!apm_backend_can(w->backend, APM_BACKEND_BARRIER))
        next.n_returns = 0; /* celery.chord_unlock looks at the results */
    apm_errback_add(work, &next);
    if (more)
        apm_errback_add(work, more);
    written.children = next.children;
    bool record = apm_record_wanted(work, state), ack_due = !work->acked;
    bool marks = next.n_unrun && apm_record_stores(w);
    work->sends = outcome->kind == APM_DONE_RETRY || emitting.sent;

    if ((record || marks || next.n_returns) && !apm_emit_store(&emitting))
        goto no_memory;
    if (ack_due && (emitting.joined || !emitting.store) && !apm_emit_publish(&emitting))
        goto no_memory;
    if (record)
        apm_record_outcome(work, emitting.store, state, &written);
    if (marks)
        apm_record_unrun(work, emitting.store, &next);
    if (next.n_returns && !apm_join_returns(work, emitting.store, &next))
        goto no_memory;
    if (outcome->kind == APM_DONE_RETRY) {
        if (!apm_emit_publish(&emitting))
            goto no_memory;
        if (apm_retry_publish(work, emitting.publish, outcome, &err) != APIUM_OK) {
            apm_emit_drop(&emitting);
            settlement_failed(work, err.status, &err);
            return;
        }
    }
    if (emitting.store && !emitting.joined) {
        /* Early: what has begun is acknowledged whatever becomes of the result store. */
        if (ack_due && !work->late && work->how == APM_ACK && !next.n_returns) {
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
    if (ack_due) {
        apm_settle_append(work, emitting.publish, work->how, work->why);
        work->settled_with_it = true;
    }
    commit_settlement(work, emitting.publish);
    return;

no_memory:
    apm_emit_drop(&emitting);
    abandon(work);
}

void
apm_settle(apm_work *work, const apm_outcome *outcome)
{
    if (work->internal)
        apm_errback_done(work, outcome);
    else
        apm_settle_with(work, outcome, NULL, NULL);
}

void
apm_settle_step(apm_work *work, const apm_outcome *outcome, apm_emitting *emitting,
                const apm_follow *more)
{
    apm_outcome done = *outcome;
    done.runtime_ns = apm_clock_ns() - work->job.began_ns;
    apm_settle_count(work->worker, done.kind);
    apm_say_outcome(work, &done);
    apm_settle_with(work, &done, emitting, more);
    apm_worker_wake(work->worker);
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
