/*
 * gate.c - when a request may run: expiry, eta, room in the pool; and how much the worker asks of the broker.
 *
 * A request with a far eta goes back into the store, parked, where the broker can do that: it costs no memory here and
 * survives us. Near ones, and all on a broker that cannot park, wait in a heap with one timer.
 */
#include "worker/builtin.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "worker/metrics.h"
#include "worker/rate.h"

/* Parking is two round trips; closer than this a request waits here. */
#define PARK_AHEAD_US (1500 * 1000)
/* With so many settlements unanswered the pool gets nothing new: the store is down or slow. */
#define MAX_SETTLING  8192
/* Short tasks: keep about this much work fetched ahead for each process, in nanoseconds, in requests and in bytes. */
#define AHEAD_NS      (20 * 1000 * 1000)
#define AHEAD_MAX     256
#define AHEAD_FAR     64 /* and so many more for each millisecond to the broker and back */
#define AHEAD_BYTES   (8 << 20)

/* ---- the heap of held requests ---- */

static bool
earlier(const apm_work *a, const apm_work *b)
{
    return a->due_us < b->due_us;
}

static void
heap_put(apm_worker *w, size_t at, apm_work *work)
{
    w->held[at] = work;
    work->heap = at;
}

static void
heap_up(apm_worker *w, size_t at)
{
    apm_work *work = w->held[at];
    while (at > 0 && earlier(work, w->held[(at - 1) / 2])) {
        heap_put(w, at, w->held[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_put(w, at, work);
}

static void
heap_down(apm_worker *w, size_t at)
{
    apm_work *work = w->held[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= w->n_held)
            break;
        if (child + 1 < w->n_held && earlier(w->held[child + 1], w->held[child]))
            child++;
        if (!earlier(w->held[child], work))
            break;
        heap_put(w, at, w->held[child]);
        at = child;
    }
    heap_put(w, at, work);
}

static bool
heap_add(apm_worker *w, apm_work *work)
{
    if (w->n_held == w->cap_held) {
        size_t cap = w->cap_held ? 2 * w->cap_held : 64;
        apm_work **held = realloc(w->held, cap * sizeof(*held));
        if (!held)
            return false;
        w->held = held;
        w->cap_held = cap;
    }
    heap_put(w, w->n_held++, work);
    heap_up(w, work->heap);
    w->n_held_eta += !work->for_rate;
    return true;
}

static void
heap_remove(apm_worker *w, apm_work *work)
{
    size_t at = work->heap;
    apm_work *last = w->held[--w->n_held];
    w->n_held_eta -= !work->for_rate;
    if (last == work)
        return;
    heap_put(w, at, last);
    heap_up(w, at);
    heap_down(w, last->heap);
}

static void on_eta(uv_timer_t *timer);
static bool wait_for_turn(apm_work *work);

static void
arm(apm_worker *w)
{
    if (!w->n_held) {
        uv_timer_stop(&w->eta_timer);
        return;
    }
    int64_t wait_us = w->held[0]->due_us - apm_clock_wall_us();
    int64_t wait_ms = wait_us <= 0 ? 0 : (wait_us + 999) / 1000;
    /* Wall clocks are set back and forth: look again every minute. */
    uv_update_time(&w->loop);
    uv_timer_start(&w->eta_timer, on_eta, (uint64_t)(wait_ms < 60000 ? wait_ms : 60000), 0);
}

static void
on_eta(uv_timer_t *timer)
{
    apm_worker *w = timer->data;
    int64_t now = apm_clock_wall_us();
    bool any = false;
    while (w->n_held && w->held[0]->due_us <= now) {
        apm_work *work = w->held[0];
        heap_remove(w, work);
        if (work->for_rate || !wait_for_turn(work))
            apm_work_move(work, APM_AT_READY);
        any = true;
    }
    arm(w);
    if (any) {
        apm_gate_window(w);
        apm_worker_wake(w);
    }
}

/* ---- deciding ---- */

static bool
expired(const apm_work *work)
{
    return work->req.expires_us != APM_TIME_NONE && apm_clock_wall_us() > work->req.expires_us;
}

static void
discard_expired(apm_work *work)
{
    work->worker->count.revoked++;
    apm_log(APM_LOG_INFO, "task.revoked", "Discarding revoked task: %.*s[%.*s] (expired)",
            APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id));
    const apm_outcome outcome = {
        .kind = APM_DONE_REVOKED,
        .exc = { APM_STR("TaskRevokedError"), APM_STR("celery.exceptions"),
                 APM_STR("[\"expired\"]") },
    };
    apm_settle(work, &outcome);
}

static void
on_parked(void *arg, apium_status status, const apium_error *err)
{
    apm_work *work = arg;
    apm_worker *w = work->worker;
    if (status != APIUM_OK && status != APIUM_E_FENCED && status != APIUM_E_CLOSED)
        apm_log(APM_LOG_ERROR, "task.park_failed", "Cannot park task %.*s[%.*s] until its eta: %s",
                APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), err->text);
    apm_work_free(work);
    apm_worker_progress(w);
}

/* Into the store until its eta. False: it cannot be parked, hold it here. */
static bool
park(apm_work *work)
{
    apm_worker *w = work->worker;
    apm_unit *unit = apm_unit_new(w->broker->link);
    if (!unit)
        return false;
    apium_error err;
    if (apm_broker_park(w->broker, unit, work->delivery, work->req.eta_us, &err) != APIUM_OK) {
        apm_unit_drop(unit);
        return false;
    }
    apm_work_move(work, APM_AT_SETTLING);
    apm_unit_commit(unit, on_parked, work);
    return true;
}

static void
say_received(const apm_work *work, const char *more)
{
    if (!apm_log_on(APM_LOG_INFO))
        return;
    char id[64];
    snprintf(id, sizeof(id), "%.*s", APM_STR_ARG(work->req.id));
    const apm_log_ctx ctx = { .task_id = id, .task = work->task->name };
    apm_log_task(APM_LOG_INFO, &ctx, "task.received", "Task %.*s[%.*s] received%s",
                 APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), more);
}

void
apm_gate_enter(apm_work *work)
{
    apm_worker *w = work->worker;
    if (expired(work)) {
        say_received(work, "");
        discard_expired(work);
        return;
    }
    if (w->life != APM_RUNNING) { /* it was on its way when we began to stop */
        apm_settle_delivery(work, APM_RESTORE, NULL);
        return;
    }
    int64_t ahead_us =
        work->req.eta_us == APM_TIME_NONE ? 0 : work->req.eta_us - apm_clock_wall_us();
    if (ahead_us <= 0) {
        say_received(work, "");
        if (!wait_for_turn(work))
            apm_work_move(work, APM_AT_READY);
        apm_worker_wake(w);
        return;
    }
    if (ahead_us > PARK_AHEAD_US && apm_broker_can(w->broker, APM_BROKER_PARK) && park(work)) {
        say_received(work, ", parked until its eta");
        apm_metrics_parked(work);
        return;
    }
    say_received(work, "");
    work->due_us = work->req.eta_us;
    if (!heap_add(w, work)) {
        apm_settle_delivery(work, APM_RESTORE, NULL);
        return;
    }
    apm_work_move(work, APM_AT_HELD);
    arm(w);
    apm_gate_window(w);
}

/* A task with a rate limit takes a token; without one it is held until its turn. False: it may run now. */
static bool
wait_for_turn(apm_work *work)
{
    apm_worker *w = work->worker;
    const char *limit =
        work->task->rate_limit ? work->task->rate_limit : w->settings->task_default_rate_limit;
    if (!limit || w->settings->worker_disable_rate_limits)
        return false;
    int64_t now_us = apm_clock_wall_us();
    work->due_us = apm_rate_take(&w->rates, work->task, limit, now_us);
    work->for_rate = true;
    if (work->due_us <= now_us || !heap_add(w, work))
        return false;
    apm_work_move(work, APM_AT_HELD);
    arm(w);
    return true;
}

void
apm_gate_pass(apm_worker *w)
{
    if (!w->pool_ready || w->lists[APM_AT_SETTLING].n > MAX_SETTLING)
        return;
    bool any = false;
    for (apm_work *work = w->lists[APM_AT_READY].head; work && apm_pool_room(w->pool);) {
        apm_work *next = work->next;
        apium_error err;
        if (expired(work)) {
            discard_expired(work);
        } else if (work->builtin && work->builtin->start) {
            apm_builtin_start(work);
        } else {
            apium_status st = apm_pool_submit(w->pool, &work->job, &err);
            if (st == APIUM_E_BUSY)
                break;
            if (st == APIUM_OK) {
                apm_work_move(work, APM_AT_POOL);
                any = true;
            } else {
                apm_log(APM_LOG_ERROR, "task.unsubmittable",
                        "Cannot hand task %.*s[%.*s] to the pool: %s", APM_STR_ARG(work->req.task),
                        APM_STR_ARG(work->req.id), err.text);
                apm_settle_refused(work, "NotImplementedError", "builtins", apm_strz(err.text));
            }
        }
        work = next;
    }
    if (any)
        apm_pool_flush(w->pool);
}

void
apm_gate_drop(apm_work *work)
{
    if (work->station == APM_AT_HELD) {
        heap_remove(work->worker, work);
        arm(work->worker);
    }
    apm_work_free(work);
}

void
apm_gate_drop_internal(apm_worker *w)
{
    for (apm_work *work = w->lists[APM_AT_READY].head, *next; work; work = next) {
        next = work->next;
        if (work->internal)
            apm_work_free(work);
    }
    for (apm_work *work = w->lists[APM_AT_POOL].head, *next; work; work = next) {
        next = work->next;
        if (work->internal && !work->begun && apm_pool_take_back(w->pool, &work->job))
            apm_work_free(work);
    }
}

void
apm_gate_return_all(apm_worker *w)
{
    /* The last comes first: each goes to the front of its queue, so the order is kept. */
    for (apm_work *work = w->lists[APM_AT_READY].tail, *prev; work; work = prev) {
        prev = work->prev;
        if (work->internal)
            continue;
        w->count.returned++;
        apm_settle_delivery(work, APM_RESTORE, NULL);
    }
    for (apm_work *work = w->lists[APM_AT_POOL].tail, *prev; work; work = prev) {
        prev = work->prev;
        if (work->begun || work->internal || !apm_pool_take_back(w->pool, &work->job))
            continue;
        w->count.returned++;
        apm_settle_delivery(work, APM_RESTORE, NULL);
    }
    while (w->n_held) {
        apm_work *work = w->held[w->n_held - 1];
        heap_remove(w, work);
        w->count.returned++;
        if (work->for_rate || !apm_broker_can(w->broker, APM_BROKER_PARK) || !park(work))
            apm_settle_delivery(work, APM_RESTORE, NULL);
    }
    arm(w);
}

/* As Celery: concurrency x worker_prefetch_multiplier, and one more for each request that waits for its eta here. Unless the user
 * chose the multiplier, it grows while tasks are so short that a fetch would cost more than what it brings. */
void
apm_gate_window(apm_worker *w)
{
    const apm_settings *s = w->settings;
    if (!w->pool_ready || w->life != APM_RUNNING)
        return;
    int64_t each = s->worker_prefetch_multiplier;
    bool loose = false;
    if (each && !s->prefetch_multiplier_given && w->avg_run_ns > 0) {
        int64_t ahead = AHEAD_NS / w->avg_run_ns;
        int64_t most = AHEAD_MAX + AHEAD_FAR * (int64_t)apm_broker_far(w->broker);
        if (ahead > most)
            ahead = most;
        if (w->avg_bytes && ahead > AHEAD_BYTES / w->avg_bytes)
            ahead = AHEAD_BYTES / w->avg_bytes;
        /* Half of it has to be enough for all processes. */
        loose = ahead >= 2 * each && !w->n_held_eta;
        if (ahead > each)
            each = ahead;
    }
    unsigned window = 0;
    if (each) {
        int64_t held = (int64_t)w->n_held_eta;
        if (s->worker_eta_task_limit && held > s->worker_eta_task_limit)
            held = s->worker_eta_task_limit;
        window = (unsigned)((int64_t)apm_pool_concurrency(w->pool) * each + held);
    }
    if (w->window_set && window == w->window && loose == w->window_loose)
        return;
    w->window = window;
    w->window_loose = loose;
    w->window_set = true;
    apm_broker_window(w->broker, window, loose);
}

apium_status
apm_gate_open(apm_worker *w, apium_error *err)
{
    int rc = uv_timer_init(&w->loop, &w->eta_timer);
    if (rc < 0)
        return apm_fail_sys(err, -rc, "cannot make a timer");
    w->eta_timer.data = w;
    return APIUM_OK;
}

void
apm_gate_close(apm_worker *w)
{
    uv_close((uv_handle_t *)&w->eta_timer, NULL);
    free(w->held);
    w->held = NULL;
    apm_rate_free(w->rates);
}
