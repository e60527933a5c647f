/* pool.c - see pool.h. Jobs on their way through the slots, when to look at them, when to sleep. */
#include "worker/pool.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "worker/pool_inner.h"

#define SLOTS_PER_PROCESS 32
#define SLOTS_MIN         64
#define TICK_MAX_MS       50
#define LINGER_NS         50000 /* for so long a process that was woken is waited for in place ... */
#define QUICK_NS          20000 /* ... when the last job took less than this */
#define LINGER_DOUBT      6     /* after so many waits in vain only one of 64 turns waits */
#define TURNS             3 /* of a look: a state may name a job that a process has just begun */

#define OWN_HANDLES(pool)                                                                          \
    {                                                                                              \
        (uv_handle_t *)&(pool)->prepare, (uv_handle_t *)&(pool)->check,                            \
            (uv_handle_t *)&(pool)->busy, (uv_handle_t *)&(pool)->tick,                            \
            (uv_handle_t *)&(pool)->due                                                            \
    }

static const apm_pool_kind *const kinds[] = { &apm_pool_prefork, &apm_pool_threads,
                                              &apm_pool_solo };

/* ---- descriptors on the loop ---- */

static void
on_watch(uv_poll_t *poll, int status, int events)
{
    apm_watch *watch = poll->data;
    (void)status; /* an error of the descriptor: reading it tells */
    (void)events;
    watch->fn(watch);
}

static void on_tick(uv_timer_t *timer);

apm_watch *
apm_watch_open(apm_pool *pool, int fd, apm_watch_fn *fn, void *arg)
{
    apm_watch *watch = calloc(1, sizeof(*watch));
    if (!watch || uv_poll_init(pool->loop, &watch->poll, fd) != 0) {
        free(watch);
        close(fd);
        return NULL;
    }
    watch->poll.data = watch;
    watch->pool = pool;
    watch->fd = fd;
    watch->fn = fn;
    watch->arg = arg;
    pool->handles++;
    (void)uv_poll_start(&watch->poll, UV_READABLE, on_watch);
    return watch;
}

static void
on_watch_closed(uv_handle_t *handle)
{
    apm_watch *watch = handle->data;
    handle->data = watch->pool;
    apm_pool_handle_closed(handle);
    free(watch);
}

void
apm_watch_close(apm_watch **watch)
{
    if (!*watch)
        return;
    uv_close((uv_handle_t *)&(*watch)->poll, on_watch_closed);
    if (!(*watch)->lent)
        close((*watch)->fd);
    *watch = NULL;
}

static void
start_timer(uv_timer_t *timer, uv_timer_cb fn, uint64_t ms)
{
    (void)uv_timer_start(timer, fn, ms, 0);
}

/* ---- looking ---- */

/* Something happened, or is about to: look again soon. */
void
apm_pool_stir(apm_pool *pool)
{
    if (pool->waiting > 0 && (pool->tick_ms > 1 || !uv_is_active((uv_handle_t *)&pool->tick)))
        start_timer(&pool->tick, on_tick, 1);
    pool->tick_ms = 1;
}

void
apm_pool_forget(apm_pool *pool, apm_job *job)
{
    if (job->time_limit_s > 0 || job->soft_time_limit_s > 0)
        pool->limited--;
    pool->jobs[job->slot] = NULL;
}

/* The job of this slot is over. Its slot is free from here on. */
void
apm_pool_deliver(apm_pool *pool, apm_job *job, const apm_outcome *outcome)
{
    apm_pool_forget(pool, job);
    apm_slots_release(&pool->slots, job->slot);
    job->state = APM_JOB_OVER;
    pool->happened++;
    pool->quick = outcome->runtime_ns < QUICK_NS;
    pool->events.on_done(pool->events.arg, job, outcome);
}

/* A slot that is DONE. */
void
apm_pool_finish(apm_pool *pool, apm_job *job)
{
    apm_process *process = &pool->processes[job->process];
    apm_outcome outcome;
    apium_error err = { 0 };

    if (apm_slots_outcome(&pool->slots, job->slot, &pool->outcome, &err) != APIUM_OK ||
        apm_outcome_unpack(apm_buf_str(&pool->outcome), &outcome, &err) != APIUM_OK ||
        outcome.kind >= APM_DONE_LOST) {
        /* Somebody wrote over it, or memory is short. */
        outcome = (apm_outcome){
            .kind = APM_DONE_FAILURE,
            .exc = { APM_STR("RuntimeError"), APM_STR("builtins"),
                     APM_STR("[\"the task's outcome cannot be read from its pool process\"]") },
            .runtime_ns = apm_clock_ns() - job->began_ns,
        };
    }
    /* It sent them all before it was done: they are in the socket. */
    while (outcome.states > job->states && apm_pool_states(pool, process))
        ;
    if (job->terminated && !process->doomed)
        apm_slots_unhold(&pool->slots, process->seat); /* it survived the signal */
    apm_pool_deliver(pool, job, &outcome);
    if (pool->outcome.cap > 2 << 20)
        apm_buf_clear(&pool->outcome); /* a rare big one's storage is given back */
}

void
apm_pool_begin(apm_pool *pool, unsigned slot)
{
    apm_job *job = pool->jobs[slot];
    unsigned seat;
    apm_slot_state state = apm_slots_look(&pool->slots, slot, &seat);

    if (pool->slots.broken || pool->processes[seat].life != APM_UP) {
        pool->slots.broken = true;
        return;
    }
    int64_t now_ns = apm_clock_ns();
    int64_t began_ns = atomic_load_explicit(&pool->slots.slot[slot].began_ns, memory_order_acquire);
    pool->waiting--;
    pool->processes[seat].took = true;
    job->state = APM_JOB_RUNNING;
    job->process = (int)seat;
    job->pid = pool->processes[seat].pid;
    job->began_ns = began_ns > 0 && began_ns <= now_ns ? began_ns : now_ns;
    if (state == APM_SLOT_RUNNING)
        pool->running[pool->n_running++] = slot;
    pool->happened++;
    pool->events.on_begin(pool->events.arg, job);
    if (state == APM_SLOT_DONE)
        apm_pool_finish(pool, job);
    else if (pool->limited > 0)
        apm_pool_arm(pool);
}

/* Taken is not begun: a process that dies in between has done nothing yet. */
static void
begin_entered(apm_pool *pool)
{
    unsigned kept = 0, seat;
    for (unsigned i = 0; i < pool->n_taken && !pool->slots.broken; i++) {
        unsigned slot = pool->taken[i];
        if (apm_slots_look(&pool->slots, slot, &seat) == APM_SLOT_RUNNING &&
            !apm_slots_entered(&pool->slots, slot))
            pool->taken[kept++] = slot;
        else
            apm_pool_begin(pool, slot);
    }
    pool->n_taken = pool->slots.broken ? 0 : kept; /* broken: apm_pool_overwritten has them all */
}

void
apm_pool_poll(apm_pool *pool)
{
    int slot;
    unsigned seat;
    if (pool->polling || pool->ending)
        return;
    pool->polling = true;
    uint64_t before = pool->happened;
    for (int turn = 0; turn < TURNS && !pool->slots.broken; turn++) {
        bool unread = pool->unread;
        pool->unread = false;
        while (!pool->slots.broken && (slot = apm_slots_next_taken(&pool->slots)) >= 0)
            pool->taken[pool->n_taken++] = (unsigned)slot;
        begin_entered(pool);
        for (unsigned i = 0; i < pool->n_running && !pool->slots.broken;) {
            unsigned number = pool->running[i];
            if (apm_slots_look(&pool->slots, number, &seat) == APM_SLOT_DONE) {
                pool->running[i] = pool->running[--pool->n_running];
                apm_pool_finish(pool, pool->jobs[number]);
            } else {
                i++;
            }
        }
        /* States of a job whose begin we had not seen when we read them. */
        for (unsigned i = 0; unread && i < pool->slots.seated; i++)
            if (pool->processes[i].life == APM_UP)
                (void)apm_pool_states(pool, &pool->processes[i]);
        if (!pool->unread)
            break;
    }
    pool->polling = false;
    if (pool->happened != before || pool->unread)
        apm_pool_stir(pool);
    if (pool->slots.broken)
        apm_pool_overwritten(pool);
}

bool
apm_pool_states(apm_pool *pool, apm_process *process)
{
    apm_state_frame frame;
    unsigned seat;
    int got;
    if (!process->sock)
        return false;
    bool read = apm_states_read(&process->states, process->sock->fd, NULL);
    while ((got = apm_states_peek(&process->states, &frame)) == 1) {
        apm_job *job = frame.slot < pool->slots.n ? pool->jobs[frame.slot] : NULL;
        if (job && job->seq == frame.seq && job->state == APM_JOB_READY &&
            apm_slots_look(&pool->slots, frame.slot, &seat) > APM_SLOT_READY &&
            seat == process->seat) {
            /* It had begun before it said that, but after we looked. */
            pool->unread = true;
            return read;
        }
        if (job && job->seq == frame.seq && job->process == (int)process->seat) {
            job->states++;
            pool->happened++;
            if (pool->events.on_state)
                pool->events.on_state(pool->events.arg, job, frame.state, frame.meta);
        }
        apm_states_pop(&process->states);
    }
    if (got < 0) /* nonsense: something in there writes where it should not */
        (void)apm_process_signal(process, SIGKILL, 0);
    return read;
}

/* ---- sleeping ---- */

static inline void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void
say_asleep(apm_pool *pool)
{
    bool ticks = uv_is_active((uv_handle_t *)&pool->tick);
    pool->asleep = true;
    apm_slots_main_state(&pool->slots, ticks ? APM_MAIN_DOZES : APM_MAIN_SLEEPS);
}

static void
on_wake(apm_watch *watch)
{
    uint64_t count;
    (void)!read(watch->fd, &count, sizeof(count));
    apm_pool_poll(watch->pool);
    if (watch->pool->kind->woken)
        watch->pool->kind->woken(watch->pool);
}

static void
on_busy(uv_idle_t *idle)
{
    (void)idle; /* active, it keeps the loop from sleeping */
}

/* The loop is about to sleep: say so, then look once more. Who does something after that look wakes
 * us. */
static void
on_prepare(uv_prepare_t *prepare)
{
    apm_pool *pool = prepare->data;
    uint64_t before = pool->happened;

    if (pool->waiting == 0 && uv_is_active((uv_handle_t *)&pool->tick))
        uv_timer_stop(&pool->tick);
    /* Also when there is nothing to wait for: a later step of this turn may submit. */
    say_asleep(pool);
    if (pool->n_running + pool->waiting > 0)
        apm_pool_poll(pool);
    /* The worker may have run its own last step of this turn before ours: give it another turn. */
    if (pool->happened != before)
        uv_idle_start(&pool->busy, on_busy);
    else
        uv_idle_stop(&pool->busy);
}

bool
apm_pool_linger(apm_pool *pool)
{
    static long cpus;
    unsigned out = pool->waiting + pool->n_running;
    uint64_t before = pool->happened;

    if (!pool->quick || out == 0 || out > pool->n_up)
        return false;
    if (pool->rest) {
        pool->rest--;
        return false;
    }
    if (!cpus)
        cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (cpus < 2)
        return false;
    apm_slots_main_state(&pool->slots, APM_MAIN_AWAKE); /* nobody needs to wake us */
    int64_t until_ns = apm_clock_ns() + LINGER_NS;
    while (!apm_slots_any_done(&pool->slots) && apm_clock_ns() < until_ns)
        for (int i = 0; i < 16; i++)
            relax();
    if (apm_slots_any_done(&pool->slots)) {
        pool->missed = 0;
    } else {
        pool->missed += pool->missed < LINGER_DOUBT;
        pool->rest = 1u << pool->missed;
    }
    if (pool->asleep)
        say_asleep(pool);
    apm_pool_poll(pool);
    return pool->happened != before;
}

static void
on_check(uv_check_t *check)
{
    apm_pool *pool = check->data;
    pool->asleep = false;
    apm_slots_main_state(&pool->slots, APM_MAIN_AWAKE);
    if (pool->n_running + pool->waiting > 0)
        apm_pool_poll(pool);
}

/* Begins, and outcomes that gather, are seen here without a wake-up for each. */
static void
on_tick(uv_timer_t *timer)
{
    apm_pool *pool = timer->data;
    uint64_t before = pool->happened;

    apm_pool_poll(pool);
    if (pool->waiting == 0 || pool->happened != before)
        return; /* stir has started it again */
    apm_slots_wake(&pool->slots);
    /* All processes run something that we know of: the first to end wakes us, for nothing else can
     * happen. */
    if (pool->tick_ms >= TICK_MAX_MS && pool->n_running >= pool->n_up)
        return;
    pool->tick_ms = pool->tick_ms * 2 < TICK_MAX_MS ? pool->tick_ms * 2 : TICK_MAX_MS;
    start_timer(timer, on_tick, pool->tick_ms);
}

void
apm_pool_is_ready(apm_pool *pool)
{
    if (pool->ready || pool->failed || pool->stopping)
        return;
    pool->ready = true;
    pool->happened++;
    if (pool->events.on_ready)
        pool->events.on_ready(pool->events.arg);
}

void
apm_pool_is_failed(apm_pool *pool, const apium_error *err)
{
    if (pool->failed || pool->stopping)
        return;
    pool->failed = true;
    pool->happened++;
    if (pool->events.on_failed)
        pool->events.on_failed(pool->events.arg, err);
}

/* ---- jobs ---- */

unsigned
apm_pool_room(const apm_pool *pool)
{
    if (pool->stopping || pool->rebuilding || pool->slots.broken)
        return 0;
    return apm_slots_room(&pool->slots);
}

unsigned
apm_pool_concurrency(const apm_pool *pool)
{
    return pool->concurrency;
}

/* What follows a task is the main process's business, and may be long: of a chain every step carries the rest. The process has
 * to know that it runs a part of a chord, no more. */
static apm_request
without_what_follows(const apm_request *req)
{
    apm_request lean = *req;
    lean.embed = lean.callbacks = lean.errbacks = lean.chain = APM_STR_NONE;
    if (apm_str_is(lean.chord))
        lean.chord = APM_STR("{}");
    return lean;
}

apium_status
apm_pool_submit(apm_pool *pool, apm_job *job, apium_error *err)
{
    assert(job->state == APM_JOB_NEW || job->state == APM_JOB_OVER);
    if (pool->stopping)
        return apm_fail(err, APIUM_E_CLOSED, "the pool is stopping");
    if (job->time_limit_s > 0 && !pool->kind->processes)
        return apm_fail(err, APIUM_E_UNSUPPORTED,
                        "a hard time limit (%g s) needs processes: a pool of %s cannot end a task",
                        job->time_limit_s, pool->kind->name);
    if (apm_pool_room(pool) == 0)
        return apm_fail(err, APIUM_E_BUSY, "the pool has no free slot");
    const apm_request lean = without_what_follows(job->req);
    apm_buf_reset(&pool->request);
    apm_str behind;
    apm_request_pack(&lean, &pool->request, &behind);
    if (pool->request.failed) {
        apm_buf_clear(&pool->request);
        return apm_fail(err, APIUM_E_TOOBIG,
                        "the request of task %.*s does not fit into a slot of the pool",
                        APM_STR_ARG(job->req->task));
    }
    uint32_t seq = pool->seq + 1 ? pool->seq + 1 : 1;
    apium_status st =
        apm_slots_push(&pool->slots, seq, apm_buf_str(&pool->request), behind, &job->slot, err);
    if (pool->request.cap > 1 << 20)
        apm_buf_clear(&pool->request);
    if (st != APIUM_OK)
        return st;
    pool->seq = seq;
    job->seq = seq;
    job->state = APM_JOB_READY;
    job->process = -1;
    job->pid = 0;
    job->began_ns = 0;
    job->soft_sent = job->hard_sent = false;
    job->terminated = 0;
    job->states = 0;
    pool->jobs[job->slot] = job;
    pool->waiting++;
    if (job->time_limit_s > 0 || job->soft_time_limit_s > 0)
        pool->limited++;
    return APIUM_OK;
}

void
apm_pool_flush(apm_pool *pool)
{
    if (pool->waiting == 0)
        return;
    apm_slots_wake(&pool->slots);
    apm_pool_stir(pool);
    if (pool->asleep) /* our step of this turn is over: now there is something to wake us for */
        say_asleep(pool);
}

bool
apm_pool_take_back(apm_pool *pool, apm_job *job)
{
    if (job->state != APM_JOB_READY || !apm_slots_take_back(&pool->slots, job->slot))
        return false;
    apm_pool_forget(pool, job);
    pool->waiting--;
    job->state = APM_JOB_NEW;
    return true;
}

/* ---- the end ---- */

void
apm_pool_stop(apm_pool *pool, bool now, void (*stopped)(void *arg), void *arg)
{
    pool->stopping = true;
    pool->now = pool->now || now;
    pool->stopped = stopped;
    pool->stopped_arg = arg;
    if (pool->ending) {
        pool->kind->stop(pool, pool->now);
        return;
    }
    for (unsigned i = 0; i < pool->slots.n; i++)
        if (pool->jobs[i])
            (void)apm_pool_take_back(pool, pool->jobs[i]);
    for (unsigned i = 0; i < pool->slots.seats; i++) {
        apm_pool_dismiss(pool, &pool->processes[i]);
        if (pool->now)
            (void)apm_process_signal(&pool->processes[i], SIGKILL, 0);
    }
    if (pool->now && !pool->kind->processes) {
        apm_pool_poll(pool); /* what was taken and not yet seen is to be given up, too */
        pool->ending = true; /* threads cannot be killed: kind->stop leaves them to themselves */
        pool->kind->stop(pool, true);
    }
    apm_pool_end_if_empty(pool);
}

static void
free_pool(apm_pool *pool)
{
    if (pool->kind->free)
        pool->kind->free(pool);
    apm_slots_close(&pool->slots);
    for (unsigned i = 0; pool->processes && i < pool->slots.seats; i++)
        apm_states_clear(&pool->processes[i].states);
    free(pool->processes);
    free(pool->jobs);
    free(pool->running);
    free(pool->taken);
    free(pool->tasks);
    free(pool->hostname);
    apm_buf_clear(&pool->request);
    apm_buf_clear(&pool->outcome);
    free(pool);
}

void
apm_pool_handle_closed(uv_handle_t *handle)
{
    apm_pool *pool = handle->data;
    if (--pool->handles > 0 || !pool->closing)
        return;
    void (*stopped)(void *) = pool->stopped;
    void *arg = pool->stopped_arg;
    static apm_pool *all_abandoned; /* what threads still use is no leak */
    if (pool->abandoned) {
        pool->next_abandoned = all_abandoned;
        all_abandoned = pool;
    } else {
        free_pool(pool);
    }
    if (stopped)
        stopped(arg);
}

void
apm_pool_closed(apm_pool *pool)
{
    uv_handle_t *const own[] = OWN_HANDLES(pool);
    if (pool->closing)
        return;
    pool->closing = true;
    pool->wake->lent = pool->abandoned;
    apm_watch_close(&pool->wake);
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
        uv_close(own[i], apm_pool_handle_closed);
}

/* ---- start ---- */

static apium_status
find_kind(const char *name, const apm_pool_kind **kind, apium_error *err)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (strcmp(kinds[i]->name, name) == 0) {
            *kind = kinds[i];
            return APIUM_OK;
        }
    }
    return apm_fail(err, APIUM_E_CONFIG, "there is no pool \"%s\": prefork, threads or solo", name);
}

static apium_status
make(apm_pool *pool, const apm_pool_opts *opts, apium_error *err)
{
    unsigned slots = opts->concurrency * SLOTS_PER_PROCESS;
    slots = slots < SLOTS_MIN ? SLOTS_MIN : slots;
    unsigned seats = slots < APM_SEATS_MAX ? slots : APM_SEATS_MAX;
    apium_status st = apm_slots_create(&pool->slots, slots, seats, err);
    if (st != APIUM_OK)
        return st;
    pool->jobs = calloc(pool->slots.n, sizeof(*pool->jobs));
    pool->running = calloc(pool->slots.n, sizeof(*pool->running));
    pool->taken = calloc(pool->slots.n, sizeof(*pool->taken));
    pool->processes = calloc(seats, sizeof(*pool->processes));
    pool->hostname = strdup(opts->hostname ? opts->hostname : "");
    if (!pool->jobs || !pool->running || !pool->taken || !pool->processes || !pool->hostname)
        return apm_fail_sys(err, ENOMEM, "cannot make the pool");
    for (unsigned i = 0; i < seats; i++) {
        pool->processes[i].pool = pool;
        pool->processes[i].seat = i;
        pool->processes[i].wanted = i < opts->concurrency;
        pool->processes[i].child_sock = -1;
        apm_states_init(&pool->processes[i].states);
    }
    pool->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->wake_fd < 0)
        return apm_fail_sys(err, errno, "cannot make the pool's wake-up");
    return APIUM_OK;
}

apium_status
apm_pool_start(uv_loop_t *loop, const apm_pool_opts *opts, apm_pool **out, apium_error *err)
{
    const apm_pool_kind *kind = NULL;
    apium_status st = find_kind(opts->kind, &kind, err);
    if (st != APIUM_OK)
        return st;
    unsigned concurrency = kind == &apm_pool_solo ? 1 : opts->concurrency;
    if (concurrency < 1 || concurrency > APM_SEATS_MAX)
        return apm_fail(err, APIUM_E_CONFIG, "a pool of %u: concurrency must be 1 to %d",
                        concurrency, APM_SEATS_MAX);

    apm_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return apm_fail_sys(err, ENOMEM, "cannot make the pool");
    apm_pool_opts mine = *opts;
    mine.concurrency = concurrency;
    pool->kind = kind;
    pool->loop = loop;
    pool->events = opts->events;
    pool->app = opts->app;
    pool->max_tasks = opts->max_tasks_per_child;
    pool->max_memory_kib = opts->max_memory_per_child_kib;
    pool->concurrency = concurrency;
    pool->tick_ms = 1;
    pool->wake_fd = pool->slots.fd = -1;
    apm_buf_init(&pool->request, APM_SLOT_BIG);
    apm_buf_init(&pool->outcome, APM_SLOT_BIG);
    st = make(pool, &mine, err);
    if (st == APIUM_OK)
        st = kind->start(pool, &mine, err);
    if (st != APIUM_OK) {
        if (pool->wake_fd >= 0)
            close(pool->wake_fd);
        free_pool(pool);
        return st;
    }
    (void)uv_prepare_init(loop, &pool->prepare);
    (void)uv_check_init(loop, &pool->check);
    (void)uv_idle_init(loop, &pool->busy);
    (void)uv_timer_init(loop, &pool->tick);
    (void)uv_timer_init(loop, &pool->due);
    uv_handle_t *const own[] = OWN_HANDLES(pool);
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        own[i]->data = pool;
        pool->handles++;
    }
    (void)uv_prepare_start(&pool->prepare, on_prepare);
    (void)uv_check_start(&pool->check, on_check);
    pool->wake = apm_watch_open(pool, pool->wake_fd, on_wake, NULL);
    if (!pool->wake || !kind->open(pool)) {
        /* Hardly possible; the handles close when the loop turns. */
        pool->stopping = pool->ending = true;
        pool->kind->stop(pool, true);
        return apm_fail_sys(err, ENOMEM, "cannot watch the pool");
    }
    start_timer(&pool->due, apm_pool_on_due, 0);
    *out = pool;
    return APIUM_OK;
}
