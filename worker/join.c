/*
 * join.c - chords: the parts that a settlement returns, and what a complete header causes.
 *
 *   unit: results, returns ──▶ which headers are complete now? ──none──▶ the delivery
 *                                   │ each in turn
 *                                   ▼
 *          ask for its parts ──▶ body, or its failure ──▶ [reserve] ▸ [sizes] ▸ [publish] ▸ [claim, results, returns to upper chords] ──▶ again
 *
 * On one link the brackets are one unit, so a body is sent exactly once. Over two links the body is published (if it is a workflow,
 * after the sizes of the headers in it, which their last parts must find), then the header is claimed: a death between them sends the
 * body again under the same id, never not at all. The delivery is settled after all of it, so a part that is acknowledged late and dies
 * on the way is run again, returns again, and finds the header complete again. A store that can is told before whose the header is, by
 * the part's id, which is the same when it returns again: then two parts that find it complete at once do not both publish.
 */
#include "worker/errback.h"
#include "worker/settle_inner.h"

#include "core/base/error.h"

#define MAX_ASKED 32 /* bits of an answer */

struct apm_join {
    apm_return asked[MAX_ASKED]; /* of the unit under way */
    size_t n_asked;
    uint32_t completed;
    apm_return *ready; /* complete headers, each to be handled in its turn */
    size_t n_ready, cap_ready, at;
    apm_return part;       /* the one whose body is under way */
    apm_gathered gathered; /* its results so far */
    apium_status amiss;    /* they cannot be gathered: why */
    apium_error why;
    /* Two links: what follows, one after the other. */
    apm_unit *steps[4];
    size_t n_steps, step;
    bool reserves;    /* the first of them is to reserve the header */
    bool body_failed; /* its failure is under way, not its body */
    bool settles;     /* the unit under way settles the delivery too */
};

static void go_on(apm_work *work);

static void
give_up(apm_work *work)
{
    work->over =
        true; /* unsettled: the lease gives a part that is acknowledged late to somebody else */
    apm_settle_finish(work);
}

static void
say_failed(const apm_work *work, const char *text)
{
    const apm_return *part = &work->join->part;
    apm_log(APM_LOG_ERROR, "chord.failed", "Chord %.*s raised: %s", APM_STR_ARG(part->group_id),
            text);
}

static void
drop_steps(struct apm_join *join)
{
    while (join->step < join->n_steps)
        apm_unit_drop(join->steps[join->step++]);
}

void
apm_join_clear(apm_work *work)
{
    if (!work->join)
        return;
    apm_gather_clear(&work->join->gathered);
    drop_steps(work->join);
}

bool
apm_join_returns(apm_work *work, apm_unit *unit, const apm_follow *follow)
{
    apm_worker *w = work->worker;
    apium_error err;
    if (!apm_backend_can(w->backend, APM_BACKEND_BARRIER))
        return true;
    if (!work->join && !(work->join = apm_arena_alloc(&work->delivery->arena, sizeof(*work->join))))
        return false;
    struct apm_join *join = work->join;
    join->n_asked = 0;
    join->completed = 0;
    unit->completed = &join->completed;
    for (size_t i = 0; i < follow->n_returns; i++) {
        const apm_return *r = &follow->returns[i];
        const apm_part part = {
            .group_id = r->group_id, .task_id = r->task_id, .index = r->index, .member = r->member
        };
        apium_status st =
            join->n_asked < MAX_ASKED
                ? w->backend->ops->arrive(w->backend, unit, &part, &err)
                : apm_fail(&err, APIUM_E_TOOBIG, "one failure is that of parts of too many chords");
        if (st == APIUM_OK)
            join->asked[join->n_asked++] = *r;
        else
            apm_log(APM_LOG_ERROR, "chord.uncounted",
                    "Cannot count task %.*s as a part of chord %.*s: %s", APM_STR_ARG(r->task_id),
                    APM_STR_ARG(r->group_id), err.text);
    }
    return true;
}

/* What the store answered: these headers are complete. */
static bool
absorb(apm_work *work)
{
    struct apm_join *join = work->join;
    for (size_t i = 0; i < join->n_asked; i++) {
        if (!(join->completed >> i & 1))
            continue;
        if (join->n_ready == join->cap_ready) {
            size_t cap = join->cap_ready ? 2 * join->cap_ready : 4;
            apm_return *ready = apm_arena_alloc(&work->delivery->arena, cap * sizeof(*ready));
            if (!ready)
                return false;
            if (join->n_ready)
                memcpy(ready, join->ready, join->n_ready * sizeof(*ready));
            join->ready = ready;
            join->cap_ready = cap;
        }
        join->ready[join->n_ready++] = join->asked[i];
    }
    join->n_asked = 0;
    return true;
}

/* ---- the body, or its failure ---- */

static void on_claimed(void *arg, apium_status status, const apium_error *err);

static void
on_step(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    struct apm_join *join = work->join;
    const bool may_refuse = join->step == join->n_steps || (join->reserves && join->step == 1);
    if (status == APIUM_OK && join->step < join->n_steps) {
        apm_unit_commit(join->steps[join->step++], on_step, work);
        return;
    }
    drop_steps(join);
    /* A place that is not there is no header that somebody else has taken. */
    on_claimed(work, status == APIUM_E_NOTFOUND && !may_refuse ? APIUM_E_REFUSED : status, err);
}

static bool
reserve(apm_work *work, apium_error *err)
{
    apm_backend *backend = work->worker->backend;
    struct apm_join *join = work->join;
    apm_unit *unit = apm_unit_new(backend->link);
    if (!unit || backend->ops->reserve(backend, unit, join->part.group_id, join->part.task_id,
                                       err) != APIUM_OK) {
        apm_unit_drop(unit);
        return false;
    }
    join->steps[join->n_steps++] = unit;
    join->reserves = true;
    return true;
}

/* Commit what follows the header: the claim, what was emitted, results and returns. */
static void
commit_body(apm_work *work, apm_emitting *emitting, const apm_follow *follow)
{
    apm_worker *w = work->worker;
    struct apm_join *join = work->join;
    apium_error err;
    const bool apart = emitting->publish && !emitting->joined;
    apm_unit *sizes = NULL;
    join->step = join->n_steps = 0;
    join->reserves = false;
    if (apart) {
        sizes = emitting->store;
        emitting->store = NULL;
    }
    apm_unit *store = apm_emit_store(emitting);
    if (!store || (!emitting->joined && w->backend->ops->reserve && !reserve(work, &err)) ||
        w->backend->ops->claim(w->backend, store, join->part.group_id, &err) != APIUM_OK ||
        !apm_join_returns(work, store, follow)) {
        apm_emit_drop(emitting);
        apm_unit_drop(sizes);
        drop_steps(join);
        say_failed(work, "out of memory");
        give_up(work);
        return;
    }
    apm_record_unrun(work, store, follow);
    apm_errback_add(work, follow);
    join->settles = emitting->joined && !join->n_asked && join->at == join->n_ready && !work->acked;
    if (join->settles)
        apm_settle_append(work, store, work->how, work->why);
    work->units++;
    if (sizes)
        join->steps[join->n_steps++] = sizes;
    if (apart)
        join->steps[join->n_steps++] = emitting->publish;
    join->steps[join->n_steps++] = store;
    apm_unit_commit(join->steps[join->step++], on_step, work);
}

static void
fail_body(apm_work *work, const char *what, const char *text)
{
    struct apm_join *join = work->join;
    apm_arena *arena = &work->delivery->arena;
    apm_emitting emitting = { .work = work, .joined = work->worker->one_link };
    apm_sending how = apm_sending_of(&emitting);
    apm_follow follow;
    apium_error err;
    apm_buf args;

    say_failed(work, text);
    if (join->body_failed) { /* not even that can be stored */
        join->body_failed = false;
        go_on(work);
        return;
    }
    join->body_failed = true;
    apm_buf_init(&args, 4096);
    apm_buf_addf(&args, "%s: %s", what, text);
    apm_str message = apm_arena_str(arena, apm_buf_str(&args), NULL);
    apm_buf_reset(&args);
    apm_buf_addc(&args, '[');
    if (apm_str_is(message))
        apm_json_add_string(&args, message);
    apm_buf_addc(&args, ']');
    const apm_exception exc = { APM_STR("ChordError"), APM_STR("celery.exceptions"),
                                apm_arena_str(arena, apm_buf_str(&args), NULL) };
    apm_buf_clear(&args);
    how.root_id = apm_str_is(work->req.root_id) ? work->req.root_id : work->req.id;
    how.parent_id = work->req.id;
    if (apm_follow_body_failed(&how, join->part.body, &exc, &exc, &follow, &err) != APIUM_OK) {
        apm_emit_drop(&emitting);
        say_failed(work, err.text);
        join->body_failed = false;
        go_on(work);
        return;
    }
    commit_body(work, &emitting, &follow);
}

static void
on_claimed(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    struct apm_join *join = work->join;
    bool settled = join->settles;
    work->units--;
    join->settles = false;
    if (status == APIUM_OK) {
        join->body_failed = false;
        if (settled || !absorb(work)) {
            work->over = true;
            apm_settle_finish(work);
            return;
        }
        go_on(work);
        return;
    }
    if (status == APIUM_E_FENCED ||
        (status == APIUM_E_CLOSED && work->worker->life >= APM_CLOSING)) {
        give_up(work);
        return;
    }
    if (settled) /* refused with the rest: due again */
        work->acked = false;
    join->n_asked = 0;
    if (status != APIUM_E_NOTFOUND) {
        fail_body(work, "Callback error", err->text);
        return;
    }
    apm_log(APM_LOG_DEBUG, "chord.claimed", "Chord %.*s was completed by another of its parts",
            APM_STR_ARG(join->part.group_id));
    join->body_failed = false;
    go_on(work);
}

/* All parts were gathered, or why not. */
static void
gathered(apm_work *work, apium_status status, const apium_error *err)
{
    struct apm_join *join = work->join;
    work->units--;
    if (status != APIUM_OK)
        apm_gather_clear(&join->gathered);
    if (status == APIUM_E_CLOSED || status == APIUM_E_NOMEM) {
        say_failed(work, err->text);
        give_up(work);
        return;
    }
    if (status == APIUM_E_NOTFOUND) { /* taken meanwhile */
        go_on(work);
        return;
    }
    if (status != APIUM_OK) {
        fail_body(work, "Join error", err->text);
        return;
    }
    apm_emitting emitting = { .work = work, .joined = work->worker->one_link };
    apm_sending how = apm_sending_of(&emitting);
    apm_follow follow;
    apium_error why;
    if (apm_follow_complete(&how, &join->part, &work->req, &join->gathered, &follow, &why) !=
        APIUM_OK) {
        apm_emit_drop(&emitting);
        fail_body(work, "Callback error", why.text);
        return;
    }
    commit_body(work, &emitting, &follow);
}

static void
on_parts(void *arg, const apm_parts *parts, const apium_error *err)
{
    apm_work *work = arg;
    struct apm_join *join = work->join;
    if (!parts) {
        gathered(work, err->status, err);
        return;
    }
    if (join->amiss == APIUM_OK && !join->gathered.arena)
        join->amiss =
            apm_gather_init(&join->gathered, &work->delivery->arena, parts->tree, &join->why);
    if (join->amiss == APIUM_OK)
        join->amiss = apm_gather_add(&join->gathered, parts->members, parts->n, &join->why);
    if (!parts->more)
        gathered(work, join->amiss, &join->why);
}

/* The next complete header, or the end. */
static void
go_on(apm_work *work)
{
    apm_worker *w = work->worker;
    struct apm_join *join = work->join;
    if (join->at == join->n_ready) {
        apm_settle_last(work);
        return;
    }
    join->part = join->ready[join->at++];
    const char *group_id = apm_arena_str(&work->delivery->arena, join->part.group_id, NULL).p;
    if (!group_id) {
        give_up(work);
        return;
    }
    work->units++;
    join->amiss = APIUM_OK;
    w->backend->ops->parts(w->backend, group_id, on_parts, work);
}

/* The callbacks of the part that completed a header have left, and now the body's turn comes. Where they could not, the message is
 * kept with the reason; the chord has all it needs. */
static void
on_followed(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    work->units--;
    if (status == APIUM_E_FENCED ||
        (status == APIUM_E_CLOSED && work->worker->life >= APM_CLOSING)) {
        give_up(work);
        return;
    }
    if (status != APIUM_OK) {
        apm_log(APM_LOG_ERROR, "task.unsettled", "Cannot send what follows task %.*s[%.*s]: %s",
                APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), err->text);
        work->how = APM_REJECT;
        work->why = apm_arena_str(&work->delivery->arena, apm_strz(err->text), NULL).p;
    }
    go_on(work);
}

void
apm_join_go(apm_work *work)
{
    if (!work->join) {
        apm_settle_last(work);
    } else if (!absorb(work)) {
        give_up(work);
    } else if (work->join->n_ready && work->after) {
        apm_unit *after = work->after;
        work->after = NULL;
        work->units++;
        apm_unit_commit(after, on_followed, work);
    } else {
        go_on(work);
    }
}
