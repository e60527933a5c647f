/*
 * unlock.c - celery.chord_unlock: asks the store for every part of a header; when all are ready the body is sent, otherwise the task
 * comes back after a while. What it means is in workflows/unlock.h.
 */
#include "worker/builtin.h"

#include "core/base/clock.h"
#include "worker/settle_inner.h"
#include "workflows/builtin.h"
#include "workflows/unlock.h"

#define ASKED_AT_ONCE 64

struct unlocking {
    apm_unlock unlock;
    struct asked *asked; /* one a part */
    size_t at;           /* the next to ask for */
    size_t waiting;      /* answers that have not come */
    bool closed;         /* the store went away */
};

struct asked {
    apm_work *work;
    struct unlocking *unlocking;
    size_t index;
};

static void
fail(apm_work *work, const char *type, const char *text)
{
    apm_outcome outcome;
    apm_builtin_raise(&work->delivery->arena, &outcome, type, "%s", text);
    apm_settle_step(work, &outcome, NULL, NULL);
}

/* Look again later. */
static void
retry(apm_work *work, const apm_unlock *unlock)
{
    double interval = unlock->interval_s > 0 ? unlock->interval_s
                                             : work->worker->settings->result_chord_retry_interval;
    if (unlock->max_retries >= 0 && work->req.retries >= unlock->max_retries) {
        apm_outcome outcome;
        apm_builtin_raise(&work->delivery->arena, &outcome, "MaxRetriesExceededError",
                          "Can't retry celery.chord_unlock[%.*s]: the chord %.*s is not ready",
                          APM_STR_ARG(work->req.id), APM_STR_ARG(unlock->group_id));
        outcome.exc.module = APM_STR("celery.exceptions");
        apm_settle_step(work, &outcome, NULL, NULL);
        return;
    }
    const apm_outcome outcome = {
        .kind = APM_DONE_RETRY,
        .retries = work->req.retries + 1,
        .retry_eta_us = apm_clock_wall_us() + (int64_t)(interval * 1e6),
    };
    apm_settle_step(work, &outcome, NULL, NULL);
}

static void
finish(apm_work *work, struct unlocking *u)
{
    if (u->closed) {
        apm_settle_delivery(work, APM_RESTORE, NULL);
        return;
    }
    if (!apm_unlock_ready(&u->unlock)) {
        retry(work, &u->unlock);
        return;
    }
    apm_emitting emitting = { .work = work };
    apm_sending how = apm_sending_of(&emitting);
    apm_follow follow;
    apium_error err;
    apium_status st = apm_unlock_finish(&how, &u->unlock, &work->req, &follow, &err);
    if (st != APIUM_OK) {
        apm_emit_drop(&emitting);
        fail(work, "ValueError", err.text);
        return;
    }
    const apm_outcome outcome = { .kind = APM_DONE_SUCCESS, .result = APM_STR("null") };
    apm_settle_step(work, &outcome, &emitting, &follow);
}

static void ask_more(apm_work *work, struct unlocking *u);

static void
on_part(void *arg, apm_str doc, const apium_error *err)
{
    const struct asked *asked = arg;
    apm_work *work = asked->work;
    struct unlocking *u = asked->unlocking;
    u->waiting--;
    work->units--;
    if (err && err->status == APIUM_E_CLOSED)
        u->closed = true;
    else if (!err && apm_str_is(doc))
        apm_unlock_put(&u->unlock, asked->index, doc, &work->delivery->arena);
    ask_more(work, u);
}

/* One part that is not ready answers the question: no more are asked for. */
static bool
enough(const struct unlocking *u)
{
    if (u->closed || u->at == u->unlock.n_parts)
        return true;
    for (size_t i = 0; i + u->waiting < u->at; i++)
        if (!u->unlock.parts[i].ready)
            return true;
    return false;
}

static void
ask_more(apm_work *work, struct unlocking *u)
{
    apm_backend *backend = work->worker->backend;
    u->waiting++; /* not done while we ask, should an answer come at once */
    while (u->waiting <= ASKED_AT_ONCE && !enough(u)) {
        struct asked *asked = &u->asked[u->at];
        *asked = (struct asked){ work, u, u->at };
        const char *id = apm_arena_str(&work->delivery->arena, u->unlock.parts[u->at].id, NULL).p;
        u->at++;
        if (!id)
            continue;
        u->waiting++;
        work->units++;
        backend->ops->fetch(backend, id, on_part, asked);
    }
    if (--u->waiting == 0)
        finish(work, u);
}

void
apm_unlock_start(apm_work *work)
{
    apm_arena *arena = &work->delivery->arena;
    struct unlocking *u = apm_arena_alloc(arena, sizeof(*u));
    apium_error err;
    if (work->worker->backend->features & (APM_BACKEND_NONE | APM_BACKEND_REPLY)) {
        fail(work, "NotImplementedError",
             "the result backend of this worker keeps no results that could be looked at");
        return;
    }
    apium_status st = u ? apm_unlock_read(&work->req, arena, &u->unlock, &err) : APIUM_E_NOMEM;
    if (st == APIUM_OK &&
        !(u->asked = apm_arena_alloc(arena, (u->unlock.n_parts + 1) * sizeof(*u->asked))))
        st = APIUM_E_NOMEM;
    if (st == APIUM_E_NOMEM)
        apm_settle_delivery(work, APM_RESTORE, NULL);
    else if (st != APIUM_OK)
        fail(work, "TypeError", err.text);
    else
        ask_more(work, u);
}
