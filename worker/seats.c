/*
 * seats.c - the processes of a pool, whatever they are: who belongs into which seat, when, and what
 * becomes of the jobs of one that died.
 */
#include <signal.h>
#include <sys/wait.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "worker/pool_inner.h"

/* How soon a seat gets its next process: one that died in a job, and one that died before it took
 * any (doubling). */
#define AGAIN_NS      (20 * INT64_C(1000000))
#define BACKOFF_NS    (100 * INT64_C(1000000))
#define BACKOFF_STEPS 7 /* 12.8 s */
/* So many processes may die with a job before its task is called: then it is lost like any other. */
#define UNTOUCHED_MAX 3

/* ---- deadlines ---- */

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Could a seat be filled now, were it time? */
static bool
can_fill(const apm_pool *pool)
{
    return pool->seating && !pool->stopping && !pool->slots.broken;
}

void
apm_pool_arm(apm_pool *pool)
{
    int64_t next = earlier(apm_limits_next(pool), pool->kind->next(pool));
    if (pool->closing)
        return;
    for (unsigned i = 0; i < pool->slots.seats; i++) {
        const apm_process *process = &pool->processes[i];
        if (process->life == APM_UP)
            next = earlier(next, earlier(process->kill_ns, process->bury_ns));
        else if (process->life == APM_ASKED ||
                 (process->life == APM_AWAY && process->wanted && can_fill(pool)))
            next = earlier(next, process->due_ns);
    }
    if (next == APM_NEVER) {
        uv_timer_stop(&pool->due);
        return;
    }
    /* At least 1 ms: a timer that starts itself again for now would keep the loop for itself. */
    int64_t wait_ns = next - apm_clock_ns();
    uv_update_time(pool->loop);
    (void)uv_timer_start(&pool->due, apm_pool_on_due,
                         wait_ns > 0 ? (uint64_t)(wait_ns + 999999) / 1000000 : 1, 0);
}

void
apm_pool_on_due(uv_timer_t *timer)
{
    apm_pool *pool = timer->data;
    int64_t now_ns = apm_clock_ns();

    apm_pool_poll(pool); /* what is over by now has met its limit */
    apm_limits_run(pool, now_ns);
    for (unsigned i = 0; i < pool->slots.seats; i++) {
        apm_process *process = &pool->processes[i];
        if (process->life == APM_UP && process->kill_ns <= now_ns) {
            process->kill_ns = APM_NEVER;
            (void)apm_process_signal(process, SIGKILL, 0);
        }
    }
    pool->kind->run(pool, now_ns);
    if (!pool->closing) {
        apm_pool_fill(pool);
        apm_pool_arm(pool);
    }
}

/* ---- processes come and go ---- */

void
apm_pool_fill(apm_pool *pool)
{
    int64_t now_ns = apm_clock_ns();
    if (!can_fill(pool))
        return;
    for (unsigned i = 0; i < pool->slots.seats; i++) {
        apm_process *process = &pool->processes[i];
        if (process->wanted && process->life == APM_AWAY && process->due_ns <= now_ns) {
            apm_slots_reseat(&pool->slots, process->seat);
            pool->kind->seat(pool, process);
        }
    }
}

void
apm_pool_end_if_empty(apm_pool *pool)
{
    if (!pool->stopping || pool->ending)
        return;
    for (unsigned i = 0; i < pool->slots.seats; i++)
        if (pool->processes[i].life != APM_AWAY)
            return;
    pool->ending = true;
    pool->kind->stop(pool, pool->now);
}

void
apm_pool_seated(apm_pool *pool, apm_process *process, int pid)
{
    process->life = APM_UP;
    process->pid = pid;
    process->up_ns = apm_clock_ns();
    process->kill_ns = process->bury_ns = APM_NEVER;
    process->asked = 0;
    process->heard = process->took = process->told = process->doomed = process->dead =
        process->orphan = false;
    pool->n_up++;
    pool->happened++;
    if (pool->events.on_process)
        pool->events.on_process(pool->events.arg, (int)process->seat, pid, true, -1, true);
    apm_pool_is_ready(pool);
    apm_pool_stir(pool);
}

void
apm_pool_unseated(apm_pool *pool, apm_process *process)
{
    unsigned steps = process->failures < BACKOFF_STEPS ? process->failures : BACKOFF_STEPS;
    process->failures++;
    process->life = APM_AWAY;
    process->due_ns = apm_clock_ns() + (BACKOFF_NS << steps);
    apm_pool_arm(pool);
    apm_pool_end_if_empty(pool);
}

void
apm_pool_refused(apm_pool *pool, apm_process *process)
{
    process->life = APM_AWAY;
    process->due_ns = 0;
    apm_pool_arm(pool);
    apm_pool_end_if_empty(pool);
}

/* What a dead process had in its hands. */
static void
lose(apm_pool *pool, apm_job *job, int status)
{
    apm_outcome outcome;
    if (job->hard_sent)
        outcome = apm_outcome_timeout(job, &pool->outcome);
    else if (job->terminated)
        outcome = apm_outcome_terminated();
    else
        outcome = apm_outcome_lost(job, status, &pool->outcome);
    apm_pool_deliver(pool, job, &outcome);
}

/* A job without a slot, and memory is too short for another one. */
static void
give_up(apm_pool *pool, apm_job *job)
{
    job->began_ns = apm_clock_ns();
    const apm_outcome outcome = apm_outcome_lost(job, -1, &pool->outcome);
    job->state = APM_JOB_RUNNING;
    pool->events.on_begin(pool->events.arg, job);
    job->state = APM_JOB_OVER;
    pool->events.on_done(pool->events.arg, job, &outcome);
}

static void
put_again(apm_pool *pool, apm_job *job)
{
    apium_error err = { 0 };
    job->state = APM_JOB_NEW;
    if (apm_pool_submit(pool, job, &err) != APIUM_OK && !pool->stopping)
        give_up(pool, job);
}

/* What a dead process had taken: where the task was called, it has begun; the rest waits again. */
static void
sort_taken(apm_pool *pool, const apm_process *process)
{
    unsigned kept = 0, n = pool->n_taken, seat;
    pool->n_taken = 0;
    for (unsigned i = 0; i < n && !pool->slots.broken; i++) {
        unsigned slot = pool->taken[i];
        apm_job *job = pool->jobs[slot];
        apm_slot_state state = apm_slots_look(&pool->slots, slot, &seat);
        if (seat != process->seat) {
            pool->taken[kept++] = slot;
        } else if (state != APM_SLOT_RUNNING || apm_slots_entered(&pool->slots, slot) ||
                   job->terminated || pool->stopping || job->untouched >= UNTOUCHED_MAX) {
            apm_pool_begin(pool, slot);
        } else {
            job->untouched++;
            apm_pool_forget(pool, job);
            apm_slots_release(&pool->slots, slot);
            pool->waiting--;
            put_again(pool, job);
        }
    }
    pool->n_taken = kept;
}

void
apm_pool_bury(apm_pool *pool, const apm_process *process, int status)
{
    unsigned seat;
    sort_taken(pool, process);
    for (unsigned i = 0; i < pool->n_running;) {
        apm_job *job = pool->jobs[pool->running[i]];
        if (job->process != (int)process->seat) {
            i++;
            continue;
        }
        pool->running[i] = pool->running[--pool->n_running];
        if (apm_slots_look(&pool->slots, job->slot, &seat) == APM_SLOT_DONE)
            apm_pool_finish(pool, job);
        else
            lose(pool, job, status);
    }
}

void
apm_pool_died(apm_pool *pool, apm_process *process, int status)
{
    apm_pool_poll(pool);
    (void)apm_pool_states(pool, process);
    apm_pool_poll(pool);
    apm_pool_bury(pool, process, status);

    bool recycled = status >= 0 && WIFEXITED(status) && WEXITSTATUS(status) == APM_CHILD_RECYCLED &&
                    (pool->max_tasks > 0 || pool->max_memory_kib > 0);
    bool expected = process->told || process->doomed || recycled;
    int pid = process->pid;
    int64_t now_ns = apm_clock_ns();
    apm_watch_close(&process->exit);
    apm_watch_close(&process->sock);
    apm_states_clear(&process->states);
    process->life = APM_AWAY;
    pool->n_up--;
    if (expected || process->took) {
        process->failures = 0;
        process->due_ns = expected ? now_ns : process->up_ns + AGAIN_NS;
    } else {
        unsigned steps = process->failures < BACKOFF_STEPS ? process->failures : BACKOFF_STEPS;
        process->failures++;
        process->due_ns = now_ns + (BACKOFF_NS << steps);
    }
    pool->happened++;
    if (pool->events.on_process)
        pool->events.on_process(pool->events.arg, (int)process->seat, pid, false, status, expected);
    if (pool->slots.broken)
        apm_pool_overwritten(pool);
    apm_pool_flush(pool); /* it may have been woken for work that it did not take */
    apm_pool_fill(pool);
    apm_pool_arm(pool);
    apm_pool_end_if_empty(pool);
}

/*
 * The shared memory says what cannot be: user code has written over it. Nothing in it is certain
 * any more, so all processes go and it is made anew. What had not begun is put in again; what had
 * is lost, unless its outcome is there.
 */
void
apm_pool_overwritten(apm_pool *pool)
{
    apium_error err = { 0 };
    unsigned n = 0, seat;

    if (!pool->kind->processes) {
        (void)apm_fail(&err, APIUM_E_SYSTEM, "the memory of the pool was overwritten");
        apm_pool_is_failed(pool, &err);
        return;
    }
    for (unsigned i = 0; i < pool->slots.seated; i++)
        (void)apm_process_signal(&pool->processes[i], SIGKILL, 0);
    if (pool->n_up > 0)
        return; /* until the last is buried */
    apm_job *again[APM_SLOTS_MAX];
    pool->rebuilding = true; /* what a callback submitted now would be swept away */
    for (unsigned i = 0; i < pool->slots.n; i++) {
        apm_job *job = pool->jobs[i];
        if (!job)
            continue;
        pool->slots.broken = false;
        apm_slot_state state = apm_slots_look(&pool->slots, i, &seat);
        if (state == APM_SLOT_READY && !pool->slots.broken) {
            apm_pool_forget(pool, job);
            again[n++] = job;
            continue;
        }
        /* Its begin was not seen. */
        job->state = APM_JOB_RUNNING;
        job->process = (int)seat;
        job->pid = pool->processes[seat].pid;
        job->began_ns = apm_clock_ns();
        pool->events.on_begin(pool->events.arg, job);
        if (state == APM_SLOT_DONE && !pool->slots.broken)
            apm_pool_finish(pool, job);
        else
            lose(pool, job, -1);
    }
    apm_slots_reset(&pool->slots);
    pool->waiting = pool->n_taken = 0;
    pool->rebuilding = false;
    for (unsigned i = 0; i < n; i++)
        put_again(pool, again[i]);
}

bool
apm_pool_process(const apm_pool *pool, size_t n, int *process, int *pid)
{
    for (unsigned i = 0; i < pool->slots.seats; i++) {
        if (pool->processes[i].life != APM_UP || n-- > 0)
            continue;
        *process = (int)i;
        *pid = pool->processes[i].pid;
        return true;
    }
    return false;
}

void
apm_pool_dismiss(apm_pool *pool, apm_process *process)
{
    process->wanted = false;
    if (process->life == APM_UP) {
        process->told = true;
        apm_slots_command(&pool->slots, process->seat, APM_SEAT_LEAVE);
    }
}

bool
apm_pool_works(const apm_pool *pool, const apm_process *process)
{
    for (unsigned i = 0; i < pool->n_running; i++)
        if (pool->jobs[pool->running[i]]->process == (int)process->seat)
            return true;
    return false;
}

apium_status
apm_pool_resize(apm_pool *pool, int n, apium_error *err)
{
    int64_t wanted = (int64_t)pool->concurrency + n;
    if (pool->kind == &apm_pool_solo)
        return apm_fail(err, APIUM_E_UNSUPPORTED, "a solo pool is always one");
    if (wanted < 1 || wanted > (int64_t)pool->slots.seats)
        return apm_fail(err, APIUM_E_INVALID, "cannot make this a pool of %lld: it must be 1 to %u",
                        (long long)wanted, pool->slots.seats);
    pool->concurrency = (unsigned)wanted;
    for (unsigned i = 0; n > 0 && i < pool->slots.seats; i++) {
        if (!pool->processes[i].wanted) {
            pool->processes[i].wanted = true;
            n--;
        }
    }
    /* Those that have nothing to do go first, then the highest. */
    for (int idle = 1; idle >= 0; idle--)
        for (unsigned i = pool->slots.seats; n < 0 && i-- > 0;) {
            if (pool->processes[i].wanted && !(idle && apm_pool_works(pool, &pool->processes[i]))) {
                apm_pool_dismiss(pool, &pool->processes[i]);
                n++;
            }
        }
    apm_pool_arm(pool); /* on_due fills the seats: nothing is called from in here */
    return APIUM_OK;
}
