/*
 * batch.c - many calls without waiting for each; see apium/send.h.
 *
 *   call ─▶ the open unit ─▶ full: committed, and its answer is awaited later ─▶ at most so many unanswered
 */
#include <apium/send.h>

#include <stdlib.h>

#include "client/app.h"
#include "client/conn.h"
#include "client/send.h"
#include "client/task.h"
#include "core/base/error.h"

#define UNIT_MESSAGES  64
#define UNIT_BYTES     (1 << 20)
#define UNITS_MAX      6                /* unanswered at a time */
#define BYTES_UNDERWAY (8 * UNIT_BYTES) /* of them together */

/* A unit that was committed. */
struct underway {
    apm_answer *answer;
    size_t n, bytes;
};

struct apium_batch {
    apium_app *app;
    apm_conn *conn;
    apm_broker *broker;
    apm_unit *unit;                   /* open; NULL: none */
    size_t n, bytes;                  /* in it */
    struct underway under[UNITS_MAX]; /* a ring: the oldest at `first` */
    size_t first, n_under, bytes_under;
    size_t sent;
    apium_error failed; /* of the broker, the first */
    bool has_failed;
};

apium_status
apium_batch_new(apium_app *app, apium_batch **out, apium_error *err)
{
    apm_conn *conn;
    apm_broker *broker;
    apium_batch *batch;

    apium_status st = apm_conn_get(app, &conn, err);
    if (st == APIUM_OK && !apm_app_settings(app)->task_always_eager)
        st = apm_conn_broker(conn, &broker, err);
    else
        broker = NULL;
    if (st != APIUM_OK)
        return st;
    if (!(batch = calloc(1, sizeof(*batch))))
        return apm_fail(err, APIUM_E_NOMEM, "cannot begin a batch: out of memory");
    batch->app = app;
    batch->conn = conn;
    batch->broker = broker;
    *out = batch;
    return APIUM_OK;
}

static void
note_failure(apium_batch *batch, apium_status st, const apium_error *why)
{
    if (batch->has_failed)
        return;
    batch->has_failed = true;
    batch->failed = *why;
    apm_fail(&batch->failed, st, "cannot send a batch: %s", why->text);
    batch->failed.retriable = why->retriable;
    batch->failed.sys = why->sys;
}

/* The oldest unit's answer. */
static void
await_oldest(apium_batch *batch)
{
    struct underway *oldest = &batch->under[batch->first];
    apium_error why;

    apium_status st = apm_answer_wait(batch->conn, &oldest->answer, &why);
    if (st == APIUM_OK)
        batch->sent += oldest->n;
    else
        note_failure(batch, st, &why);
    apm_answer_free(oldest->answer);
    batch->bytes_under -= oldest->bytes;
    batch->first = (batch->first + 1) % UNITS_MAX;
    batch->n_under--;
}

/* Send the open unit off, without waiting for it. */
static void
send_off(apium_batch *batch)
{
    const bool never = false;
    apm_answer *answer = apm_answer_new();
    apium_error why;

    if (!batch->unit || !answer) {
        apm_answer_free(answer);
        apm_unit_drop(batch->unit);
        if (batch->unit)
            note_failure(batch, apm_fail(&why, APIUM_E_NOMEM, "out of memory"), &why);
    } else {
        while (batch->n_under == UNITS_MAX ||
               (batch->n_under && batch->bytes_under + batch->bytes > BYTES_UNDERWAY))
            await_oldest(batch);
        batch->under[(batch->first + batch->n_under++) % UNITS_MAX] =
            (struct underway){ .answer = answer, .n = batch->n, .bytes = batch->bytes };
        batch->bytes_under += batch->bytes;
        apm_unit_commit(batch->unit, apm_answer_done, answer);
        apm_conn_turn(batch->conn, &never, 0);
    }
    batch->unit = NULL;
    batch->n = batch->bytes = 0;
}

/* Put a call into the open unit; that of others is untouched when it cannot be. */
static apium_status
put(apium_batch *batch, apm_call *call, apium_run *run, apium_error *err)
{
    if (!batch->unit && !(batch->unit = apm_unit_new(batch->broker->link)))
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    apium_status st =
        apm_call_put(batch->conn, call, run, batch->broker, batch->unit, &batch->bytes, err);
    if (st != APIUM_OK)
        return st;
    batch->n++;
    if (batch->n >= UNIT_MESSAGES || batch->bytes >= UNIT_BYTES)
        send_off(batch);
    return APIUM_OK;
}

apium_status
apium_batch_call(apium_batch *batch, const char *task, apium_value args,
                 const apium_send_opts *opts, apium_run **out, apium_error *err)
{
    apium_run *run = NULL;
    apm_call call;
    apium_error why;

    if (batch->has_failed) {
        apium_value_free(args);
        if (err)
            *err = batch->failed;
        return batch->failed.status;
    }
    apium_status st = apm_call_make(batch->app, &call, task, args, opts, err);
    if (st != APIUM_OK)
        goto out;
    if (!batch->broker || apm_call_is_eager(batch->app, &call)) {
        st = apm_call_go(batch->app, &call, out, &why);
        batch->sent += st == APIUM_OK;
    } else {
        if (out)
            st = apm_run_new(batch->app, call.req.id, &run, &why);
        if (run)
            run->ignored = call.ignored;
        if (st == APIUM_OK)
            st = put(batch, &call, run, &why);
        if (st == APIUM_OK && out) {
            *out = run;
            run = NULL;
        }
    }
    if (st != APIUM_OK)
        apm_call_refused(err, st, task, &why);
    else if (apm_task_current())
        apm_task_add_child(apm_task_current(), call.req.id);
out:
    apium_run_free(run);
    apm_arena_clear(&call.arena);
    return st;
}

apium_status
apium_batch_end(apium_batch *batch, size_t *sent, apium_error *err)
{
    if (batch->unit && !batch->n) { /* every call that was to go into it was refused */
        apm_unit_drop(batch->unit);
        batch->unit = NULL;
    }
    if (batch->unit)
        send_off(batch);
    while (batch->n_under)
        await_oldest(batch);
    apium_status st = batch->has_failed ? batch->failed.status : APIUM_OK;
    if (batch->has_failed && err)
        *err = batch->failed;
    if (sent)
        *sent = batch->sent;
    batch->has_failed = false;
    batch->sent = 0;
    return st;
}

void
apium_batch_free(apium_batch *batch)
{
    if (!batch)
        return;
    apm_unit_drop(batch->unit);
    for (; batch->n_under; batch->n_under--) {
        apm_answer *answer = batch->under[batch->first].answer;
        if (answer->done)
            apm_answer_free(answer);
        else
            answer->abandoned = true;
        batch->first = (batch->first + 1) % UNITS_MAX;
    }
    free(batch);
}
