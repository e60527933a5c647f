/*
 * emit.c - where the messages and header sizes of an expansion go: units of the store and of the broker, one and the same where they
 * commit together; see settle_inner.h
 */
#include "worker/settle_inner.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "worker/errback.h"
#include "worker/publish.h"

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
        op->kind == APM_CANVAS_SEND ? apm_emit_publish(emitting) : apm_emit_store(emitting);
    if (!unit)
        return apm_fail(err, APIUM_E_NOMEM, "cannot send a follow-up: out of memory");
    emitting->sent = true;
    switch (op->kind) {
    case APM_CANVAS_SIZE:
        return backend->ops->expect(backend, unit, op->group_id, op->size, err);
    case APM_CANVAS_EXTEND:
        return backend->ops->extend(backend, unit, op->group_id, op->size, err);
    case APM_CANVAS_KEEP:
        return backend->ops->save_group(backend, unit, op->group_id, op->doc, err);
    default:
        return apm_follow_publish(emitting->work, unit, op->send, err);
    }
}

static bool
calls(void *arg, apm_str task)
{
    const apm_emitting *emitting = arg;
    return apm_errback_is_ours(emitting->work->worker, task);
}

apm_sending
apm_sending_of(apm_emitting *emitting)
{
    const apm_worker *w = emitting->work->worker;
    return (apm_sending){
        .arena = &emitting->work->delivery->arena,
        .now_us = apm_clock_wall_us(),
        .chords = apm_backend_can(w->backend, APM_BACKEND_BARRIER) ? APM_CHORDS_COUNTED
                  : w->backend->features & (APM_BACKEND_NONE | APM_BACKEND_REPLY)
                      ? APM_CHORDS_REFUSED
                      : APM_CHORDS_POLLED,
        .store = w->backend->ops->name,
        .retry_interval_s = w->settings->result_chord_retry_interval,
        .piece = w->backend->ops->save_group ? (size_t)w->settings->task_chain_piece_size : 0,
        .emit = emit,
        .calls = calls,
        .arg = emitting,
    };
}

void
apm_emit_drop(apm_emitting *emitting)
{
    if (!emitting->joined)
        apm_unit_drop(emitting->publish);
    apm_unit_drop(emitting->store);
    emitting->store = emitting->publish = NULL;
    emitting->sent = false;
}
