/*
 * life.c - from starting to gone: the table of what each signal does in each state, and the two ways of stopping.
 *
 * Warm: stop consuming, give back what has not begun, wait for what runs. Cold: kill what runs too; what may run again is given
 * back. In both the worker goes when every settlement is answered, or when its store has kept it waiting too long.
 */
#include "worker/inner.h"
#include "worker/metrics.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"

#define STOP_PATIENCE_MS                                                                           \
    30000 /* settlements that cannot reach their store hold up a warm stop no longer than this */
#define COLD_PATIENCE_MS 5000

typedef void action(apm_worker *w);

struct move {
    apm_life to;
    action *act;
};

static size_t
works_left(const apm_worker *w)
{
    size_t n = 0;
    for (int i = 0; i < APM_STATIONS; i++)
        n += w->lists[i].n;
    return n;
}

static void
close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void
close_all(apm_worker *w)
{
    if (w->closed)
        return;
    w->closed = true;
    apm_metrics_close(w);
    apm_broker_close(w->broker);
    apm_backend_close(w->backend);
    w->broker = NULL;
    w->backend = NULL;
    apm_links_free(w->links);
    for (size_t i = 0; i < sizeof(w->signals) / sizeof(w->signals[0]); i++)
        close_handle((uv_handle_t *)&w->signals[i]);
    close_handle((uv_handle_t *)&w->prepare);
    close_handle((uv_handle_t *)&w->check);
    close_handle((uv_handle_t *)&w->idle);
    close_handle((uv_handle_t *)&w->stop_timer);
    apm_gate_close(w);
}

static void
on_pool_gone(void *arg)
{
    apm_worker *w = arg;
    w->pool = NULL;
    w->pool_ready = false;
    w->pool_gone = true;
    apm_worker_progress(w);
}

static void
on_broker_stopped(void *arg, apium_status status, const apium_error *err)
{
    apm_worker *w = arg;
    (void)status;
    (void)err;
    w->broker_stopped = true;
    apm_worker_progress(w);
}

/* Units that cannot reach their store would keep us for ever: closing the links answers them. */
static void
on_stop_deadline(uv_timer_t *timer)
{
    apm_worker *w = timer->data;
    if (w->life == APM_WARM && w->lists[APM_AT_POOL].n) {
        uv_timer_start(timer, on_stop_deadline, STOP_PATIENCE_MS, 0);
        return;
    }
    if (works_left(w))
        apm_log(APM_LOG_ERROR, "worker.stop_forced",
                "%zu requests could not be settled before the worker stopped", works_left(w));
    else
        apm_log(APM_LOG_ERROR, "worker.stop_forced",
                "the broker has not answered for %d s: the worker stops without its word",
                STOP_PATIENCE_MS / 1000);
    w->forced = true;
    w->exit_code = APM_EXIT_FAILURE;
    apm_life_event(w, APM_EV_IDLE);
}

static void
stop_consuming(apm_worker *w)
{
    if (w->stopping)
        return;
    w->stopping = true;
    apm_broker_stop(w->broker, on_broker_stopped, w);
    if (w->pool_ready)
        apm_pool_poll(w->pool);
    apm_gate_return_all(w);
    uv_timer_start(&w->stop_timer, on_stop_deadline, STOP_PATIENCE_MS, 0);
    apm_worker_wake(w);
    apm_worker_progress(w);
}

static void
warm(apm_worker *w)
{
    printf("\nworker: Warm shutdown (MainProcess)\n");
    fflush(stdout);
    stop_consuming(w);
}

static void
warm_int(apm_worker *w)
{
    printf("\nworker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running "
           "tasks!\n");
    w->exit_code = APM_EXIT_FAILURE; /* as Celery 5.6 */
    warm(w);
}

static void
warm_hup(apm_worker *w)
{
    w->restart = true;
    warm(w);
}

static void
kill_pool(apm_worker *w)
{
    if (!w->pool_gone && w->pool) {
        apm_gate_drop_internal(w);
        apm_pool_stop(w->pool, true, on_pool_gone, w);
    }
    uv_timer_start(&w->stop_timer, on_stop_deadline, COLD_PATIENCE_MS, 0);
    apm_worker_progress(w);
}

static void
cold(apm_worker *w)
{
    printf("\nworker: Cold shutdown (MainProcess)\n");
    fflush(stdout);
    w->restart = false;
    stop_consuming(w);
    kill_pool(w);
}

static void
on_soft_over(uv_timer_t *timer)
{
    apm_worker *w = timer->data;
    w->soft_over = true;
    apm_life_event(w, APM_EV_QUIT);
}

/* QUIT from running: with worker_soft_shutdown_timeout the running tasks get that long first. */
static void
quit(apm_worker *w)
{
    double soft = w->settings->worker_soft_shutdown_timeout;
    if (soft > 0 && !w->soft_over && w->lists[APM_AT_POOL].n) {
        apm_log(APM_LOG_WARNING, "worker.soft_shutdown",
                "Initiating Soft Shutdown, terminating in %g seconds", soft);
        w->life = APM_WARM;
        stop_consuming(w);
        uv_timer_start(&w->stop_timer, on_soft_over, (uint64_t)(soft * 1000), 0);
        return;
    }
    cold(w);
}

static void
quit_again(apm_worker *w)
{
    w->exit_code = APM_EXIT_FAILURE;
    cold(w);
}

void
apm_life_end_pool(apm_worker *w)
{
    uv_timer_stop(&w->stop_timer);
    if (w->pool_gone || !w->pool)
        close_all(w);
    else
        apm_pool_stop(w->pool, w->forced, on_pool_gone, w);
}

static void
give_up(apm_worker *w)
{
    w->exit_code = APM_EXIT_FAILURE;
    stop_consuming(w);
    kill_pool(w);
}

static void
start_consuming(apm_worker *w)
{
    apm_gate_window(w);
    apm_worker_wake(w);
}

static const struct move moves[APM_GONE + 1][APM_EVENTS] = {
    [APM_STARTING][APM_EV_READY] = { APM_RUNNING, start_consuming },
    [APM_STARTING][APM_EV_TERM] = { APM_WARM, warm },
    [APM_STARTING][APM_EV_INT] = { APM_WARM, warm_int },
    [APM_STARTING][APM_EV_QUIT] = { APM_COLD, cold },
    [APM_STARTING][APM_EV_HUP] = { APM_WARM, warm_hup },
    [APM_STARTING][APM_EV_GIVE_UP] = { APM_COLD, give_up },
    [APM_RUNNING][APM_EV_TERM] = { APM_WARM, warm }, /* finish what runs, give back what waits */
    [APM_RUNNING][APM_EV_INT] = { APM_WARM, warm_int },
    [APM_RUNNING][APM_EV_QUIT] = { APM_COLD,
                                   quit }, /* kill what runs, give back what may run again */
    [APM_RUNNING][APM_EV_HUP] = { APM_WARM, warm_hup },
    [APM_RUNNING][APM_EV_GIVE_UP] = { APM_COLD, give_up },
    [APM_WARM][APM_EV_TERM] = { APM_COLD, cold },
    [APM_WARM][APM_EV_INT] = { APM_COLD, quit_again },
    [APM_WARM][APM_EV_QUIT] = { APM_COLD, cold },
    [APM_WARM][APM_EV_GIVE_UP] = { APM_COLD, give_up },
    [APM_WARM][APM_EV_IDLE] = { APM_CLOSING, apm_life_end_pool },
    [APM_COLD][APM_EV_IDLE] = { APM_CLOSING, apm_life_end_pool },
};

void
apm_life_event(apm_worker *w, apm_event ev)
{
    const struct move *move = &moves[w->life][ev];
    if (!move->act)
        return;
    w->life = move->to;
    move->act(w);
}

void
apm_worker_progress(apm_worker *w)
{
    if (w->life == APM_CLOSING && w->pool_gone) {
        close_all(w);
        return;
    }
    if ((w->life == APM_WARM || w->life == APM_COLD) && w->broker_stopped && works_left(w) == 0)
        apm_life_event(w, APM_EV_IDLE);
}

static void
on_signal(uv_signal_t *handle, int signum)
{
    apm_worker *w = handle->data;
    const char *remap = getenv("REMAP_SIGTERM");
    if (signum == SIGTERM && remap && strcmp(remap, "SIGQUIT") == 0)
        signum = SIGQUIT;
    switch (signum) {
    case SIGTERM:
        apm_life_event(w, APM_EV_TERM);
        break;
    case SIGINT:
        apm_life_event(w, APM_EV_INT);
        break;
    case SIGQUIT:
        apm_life_event(w, APM_EV_QUIT);
        break;
    case SIGHUP:
        apm_life_event(w, APM_EV_HUP);
        break;
    case SIGUSR1:
        apm_log(APM_LOG_WARNING, "worker.state",
                "holding: %zu for their eta, %zu ready, %zu in the pool, %zu being settled; window "
                "%u; received %llu, succeeded %llu, "
                "failed %llu, retried %llu, rejected %llu, refused %llu",
                w->lists[APM_AT_HELD].n, w->lists[APM_AT_READY].n, w->lists[APM_AT_POOL].n,
                w->lists[APM_AT_SETTLING].n, w->window, (unsigned long long)w->count.received,
                (unsigned long long)w->count.succeeded, (unsigned long long)w->count.failed,
                (unsigned long long)w->count.retried, (unsigned long long)w->count.rejected,
                (unsigned long long)w->count.refused);
        for (apm_work *work = w->lists[APM_AT_POOL].head; work; work = work->next)
            if (work->begun)
                apm_log(APM_LOG_WARNING, "worker.state", "running: %.*s[%.*s] in pid %d for %.3fs",
                        APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), work->job.pid,
                        (double)(apm_clock_ns() - work->job.began_ns) / 1e9);
        break;
    default:
        break;
    }
}

void
apm_worker_fail(apm_worker *w, const apium_error *err)
{
    if (w->gave_up)
        return;
    w->gave_up = true;
    w->error = *err;
    apm_life_event(w, APM_EV_GIVE_UP);
}

void
apm_life_open(apm_worker *w)
{
    static const int signums[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 };
    uv_timer_init(&w->loop, &w->stop_timer);
    w->stop_timer.data = w;
    for (size_t i = 0; i < sizeof(signums) / sizeof(signums[0]); i++) {
        uv_signal_init(&w->loop, &w->signals[i]);
        w->signals[i].data = w;
        uv_signal_start(&w->signals[i], on_signal, signums[i]);
    }
    signal(SIGPIPE, SIG_IGN);
}
