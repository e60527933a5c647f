/*
 * builtin.h - Celery's tasks that every worker is expected to know and that only move messages: celery.group, celery.chord,
 * celery.chunks, celery.chain, celery.accumulate. Current senders expand workflows themselves; these are for older ones.
 * celery.chord_unlock and celery.backend_cleanup ask the store, so the worker does them; celery.map and celery.starmap call user code.
 */
#ifndef APM_WORKFLOWS_BUILTIN_H
#define APM_WORKFLOWS_BUILTIN_H

#include "core/model/outcome.h"
#include "workflows/canvas.h"

/* Is it a task that apm_builtin_step() does? */
bool apm_builtin_is_step(apm_str task);

/*
 * What the request asks for is emitted, and *out is its outcome, which may be a failure: wrong arguments are a TypeError, a workflow that
 * cannot be sent a ValueError. Text lives in how's arena. An error is only that nothing can be told: no memory.
 */
apium_status
apm_builtin_step(apm_sending *how, const apm_request *req, apm_outcome *out, apium_error *err);

/* celery.accumulate(*args, index=None): all arguments, or one of them; as the outcome of the request. */
void apm_builtin_accumulate(const apm_request *req, apm_arena *arena, apm_outcome *out);

/* A FAILURE of one of Python's exceptions with a message. */
void apm_builtin_raise(apm_arena *arena, apm_outcome *out, const char *type, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* An argument by its position or its name, as Python binds it; NONE when it is not given. */
apm_json apm_builtin_arg(const apm_request *req, size_t position, const char *name);

#endif
