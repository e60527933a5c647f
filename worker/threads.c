/*
 * threads.c - pools without processes: threads, and solo, which is one thread. The same slots and
 * the same loop of work, in memory that happens to be shared with nobody. A thread cannot be
 * killed: no hard limits, no terminate, and a stop `now` leaves what runs to itself.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/run.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/log.h"
#include "worker/forkserver.h"
#include "worker/pool_inner.h"

struct threads {
    pthread_mutex_t lock;
    apium_app *app;
    unsigned started; /* threads between the two hooks, which are called once for the process */
};

static bool
enter(struct threads *self)
{
    const apium_hooks *hooks = apm_app_hooks(self->app);
    apium_error err = { 0 };
    bool ok = true;

    pthread_mutex_lock(&self->lock);
    if (self->started == 0 && hooks->process_start &&
        hooks->process_start(self->app, &err) != APIUM_OK) {
        apm_log(APM_LOG_ERROR, "pool.start", "the hook process_start failed: %s", err.text);
        ok = false;
    }
    self->started += ok;
    pthread_mutex_unlock(&self->lock);
    return ok;
}

static void
leave(struct threads *self)
{
    const apium_hooks *hooks = apm_app_hooks(self->app);

    apm_app_thread_end(self->app);
    pthread_mutex_lock(&self->lock);
    if (--self->started == 0 && hooks->process_stop)
        hooks->process_stop(self->app);
    pthread_mutex_unlock(&self->lock);
}

static void *
thread_main(void *arg)
{
    apm_process *process = arg;
    struct threads *self = process->pool->self;
    uint64_t one = 1;
    int code = APM_CHILD_NO_START;

    if (enter(self)) {
        code = apm_child_run(&process->child);
        leave(self);
    }
    atomic_store(&process->thread_over, 1 + code);
    (void)!write(process->child.wake_fd, &one, sizeof(one));
    return NULL;
}

static void
on_sock(apm_watch *watch)
{
    apm_pool_poll(watch->pool);
    (void)apm_pool_states(watch->pool, watch->arg);
}

static apium_status
threads_start(apm_pool *pool, const apm_pool_opts *opts, apium_error *err)
{
    const apm_settings *settings = apm_app_settings(opts->app);
    apm_buf buf;
    apm_task_info *tasks = NULL;
    size_t n = 0;

    if (settings->task_time_limit > 0)
        return apm_fail(
            err, APIUM_E_UNSUPPORTED,
            "task_time_limit needs processes: a pool of %s cannot end a task (soft limits work)",
            opts->kind);
    struct threads *self = calloc(1, sizeof(*self));
    if (!self)
        return apm_fail_sys(err, ENOMEM, "cannot make the pool");
    (void)pthread_mutex_init(&self->lock, NULL);
    self->app = opts->app;
    pool->self = self;
    /* The way of the fork server's table, so that both are the same. */
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_fs_table_write(opts->app, &buf);
    apium_status st = buf.failed ? apm_fail_sys(err, ENOMEM, "cannot keep the table of tasks")
                                 : apm_fs_table_read(apm_buf_str(&buf), &tasks, &n, err);
    apm_buf_clear(&buf);
    if (st == APIUM_OK)
        apm_pool_tasks(pool, tasks, n);
    return st;
}

static bool
threads_open(apm_pool *pool)
{
    pool->seating = true;
    return true;
}

static void
threads_seat(apm_pool *pool, apm_process *process)
{
    int pair[2];
    sigset_t all, old;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        apm_pool_unseated(pool, process);
        return;
    }
    apm_states_clear(&process->states);
    process->sock = apm_watch_open(pool, pair[0], on_sock, process);
    process->child_sock = pair[1];
    process->child = (apm_child){
        .slots = &pool->slots,
        .seat = process->seat,
        .sock = pair[1],
        .wake_fd = pool->wake_fd,
        .app = pool->app,
        .hostname = pool->hostname,
    };
    atomic_store(&process->thread_over, 0);
    /* Signals are for the loop's thread. */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int sys = process->sock ? pthread_create(&process->thread, NULL, thread_main, process) : ENOMEM;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (sys) {
        apm_watch_close(&process->sock);
        close(pair[1]);
        if (!pool->ready && pool->n_up == 0) {
            apium_error err = { 0 };
            (void)apm_fail_sys(&err, sys, "cannot start a pool thread");
            apm_pool_is_failed(pool, &err);
        }
        apm_pool_unseated(pool, process);
        return;
    }
    apm_pool_seated(pool, process, getpid());
}

/* A thread that ends says so by the eventfd. */
static void
threads_woken(apm_pool *pool)
{
    for (unsigned i = 0; i < pool->slots.seated; i++) {
        apm_process *process = &pool->processes[i];
        int over = process->life == APM_UP ? atomic_load(&process->thread_over) : 0;
        if (over == 0)
            continue;
        (void)pthread_join(process->thread, NULL);
        close(process->child_sock); /* what it wrote stays readable */
        process->child_sock = -1;
        apm_pool_died(pool, process, (over - 1) << 8);
    }
}

static int64_t
threads_next(const apm_pool *pool)
{
    (void)pool;
    return APM_NEVER;
}

static void
threads_run(apm_pool *pool, int64_t now_ns)
{
    (void)pool;
    (void)now_ns;
}

static void
threads_stop(apm_pool *pool, bool now)
{
    for (unsigned i = 0; i < pool->slots.seated && now; i++) {
        apm_process *process = &pool->processes[i];
        if (process->life != APM_UP)
            continue;
        /* It cannot be killed: its job is given up, and what it uses stays until the program ends. */
        (void)pthread_detach(process->thread);
        apm_watch_close(&process->sock);
        apm_pool_bury(pool, process, -1);
        pool->abandoned = true;
    }
    /* Only then is it asked to stop: what it answers to that is no outcome of its job. */
    for (unsigned i = 0; i < pool->slots.n && pool->abandoned; i++)
        atomic_store(&pool->slots.slot[i].stop, APM_STOP_SHUTDOWN);
    apm_pool_closed(pool);
}

static void
threads_free(apm_pool *pool)
{
    struct threads *self = pool->self;
    if (!self)
        return;
    (void)pthread_mutex_destroy(&self->lock);
    free(self);
}

const apm_pool_kind apm_pool_threads = {
    .name = "threads",
    .start = threads_start,
    .open = threads_open,
    .seat = threads_seat,
    .woken = threads_woken,
    .next = threads_next,
    .run = threads_run,
    .stop = threads_stop,
    .free = threads_free,
};

const apm_pool_kind apm_pool_solo = {
    .name = "solo",
    .start = threads_start,
    .open = threads_open,
    .seat = threads_seat,
    .woken = threads_woken,
    .next = threads_next,
    .run = threads_run,
    .stop = threads_stop,
    .free = threads_free,
};
