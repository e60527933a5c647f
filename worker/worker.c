/*
 * worker.c - the worker's life: start the pool, open the links, consume, and stop in one of two ways.
 *
 * One libuv loop owns every connection, never runs user code (but for the solo and threads pools, in threads of their own) and never
 * waits for a peer. A turn of the loop gathers: deliveries come in, outcomes come in; then, before it sleeps, ready requests are
 * handed to the pool, due acks are appended, links and log are flushed.
 */
#include "worker/inner.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "core/base/clock.h"

#define STOP_PATIENCE_MS                                                                           \
    30000 /* settlements that cannot reach their store hold up a warm stop no longer than this */
#define COLD_PATIENCE_MS 5000

/* ---- the turn ---- */

static void
on_idle(uv_idle_t *idle)
{
    (void)idle; /* it exists to keep the loop from sleeping */
}

static void
on_prepare(uv_prepare_t *prepare)
{
    apm_worker *w = prepare->data;
    uv_idle_stop(&w->idle);
    if (w->pool_ready)
        apm_pool_poll(w->pool);
    if (w->pass_due) {
        w->pass_due = false;
        apm_gate_window(w);
        apm_gate_pass(w);
        apm_settle_turn(w);
    }
    apm_links_flush(w->links);
    apm_log_flush();
    w->turn_over = true;
}

static void
on_check(uv_check_t *check)
{
    apm_worker *w = check->data;
    w->turn_over = false;
}

void
apm_worker_wake(apm_worker *w)
{
    w->pass_due = true;
    if (w->turn_over)
        uv_idle_start(&w->idle, on_idle);
}

/* ---- life ---- */

typedef enum event {
    EV_READY,
    EV_TERM,
    EV_INT,
    EV_QUIT,
    EV_HUP,
    EV_IDLE,
    EV_GIVE_UP,
    EVENTS
} event;

typedef void action(apm_worker *w);

struct move {
    apm_life to;
    action *act;
};

static void happen(apm_worker *w, event ev);

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
    apm_log(APM_LOG_ERROR, "worker.stop_forced",
            "%zu settlements could not be delivered before the worker stopped",
            w->lists[APM_AT_SETTLING].n);
    w->forced = true;
    w->exit_code = APM_EXIT_FAILURE;
    happen(w, EV_IDLE);
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
    if (!w->pool_gone && w->pool)
        apm_pool_stop(w->pool, true, on_pool_gone, w);
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
    happen(w, EV_QUIT);
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

static void
end_pool(apm_worker *w)
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

static const struct move moves[APM_GONE + 1][EVENTS] = {
    [APM_STARTING][EV_READY] = { APM_RUNNING, start_consuming },
    [APM_STARTING][EV_TERM] = { APM_WARM, warm },
    [APM_STARTING][EV_INT] = { APM_WARM, warm_int },
    [APM_STARTING][EV_QUIT] = { APM_COLD, cold },
    [APM_STARTING][EV_HUP] = { APM_WARM, warm_hup },
    [APM_STARTING][EV_GIVE_UP] = { APM_COLD, give_up },
    [APM_RUNNING][EV_TERM] = { APM_WARM, warm }, /* finish what runs, give back what waits */
    [APM_RUNNING][EV_INT] = { APM_WARM, warm_int },
    [APM_RUNNING][EV_QUIT] = { APM_COLD, quit }, /* kill what runs, give back what may run again */
    [APM_RUNNING][EV_HUP] = { APM_WARM, warm_hup },
    [APM_RUNNING][EV_GIVE_UP] = { APM_COLD, give_up },
    [APM_WARM][EV_TERM] = { APM_COLD, cold },
    [APM_WARM][EV_INT] = { APM_COLD, quit_again },
    [APM_WARM][EV_QUIT] = { APM_COLD, cold },
    [APM_WARM][EV_GIVE_UP] = { APM_COLD, give_up },
    [APM_WARM][EV_IDLE] = { APM_CLOSING, end_pool },
    [APM_COLD][EV_IDLE] = { APM_CLOSING, end_pool },
};

static void
happen(apm_worker *w, event ev)
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
        happen(w, EV_IDLE);
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
        happen(w, EV_TERM);
        break;
    case SIGINT:
        happen(w, EV_INT);
        break;
    case SIGQUIT:
        happen(w, EV_QUIT);
        break;
    case SIGHUP:
        happen(w, EV_HUP);
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

/* ---- links, queues ---- */

static void
fail(apm_worker *w, const apium_error *err)
{
    if (w->gave_up)
        return;
    w->gave_up = true;
    w->error = *err;
    happen(w, EV_GIVE_UP);
}

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    apm_worker *w = arg;
    bool is_broker = w->broker && link == w->broker->link;
    if (up) {
        apm_log(APM_LOG_INFO, "link.up", "Connected to %s", link->shown);
        if (is_broker)
            w->broker_was_up = true;
        return;
    }
    const apm_settings *s = w->settings;
    apm_log(APM_LOG_ERROR, "link.down", "consumer: %s", why ? why : "connection lost");
    bool retry_start = s->broker_connection_retry_on_startup == APM_UNSET
                           ? s->broker_connection_retry
                           : s->broker_connection_retry_on_startup == APM_YES;
    if (is_broker && ((!w->broker_was_up && !retry_start) ||
                      (w->broker_was_up && !s->broker_connection_retry))) {
        apium_error err;
        apm_fail(&err, APIUM_E_CLOSED,
                 "Retrying to establish a connection to the message broker after a connection loss "
                 "has been disabled "
                 "(%s=False). Shutting down... %s",
                 w->broker_was_up ? "broker_connection_retry"
                                  : "broker_connection_retry_on_startup",
                 why ? why : "");
        fail(w, &err);
    }
}

static void
say_ready(apm_worker *w)
{
    if (w->said_ready || w->queues_open < w->n_queues)
        return;
    w->said_ready = true;
    happen(w, EV_READY);
    apm_log(APM_LOG_INFO, "worker.ready", "%s ready.", w->node);
    if (w->opts->on_ready)
        w->opts->on_ready(w->opts->arg);
}

struct opening {
    apm_worker *w;
    const apm_queue *queue;
};

static void
on_purged(void *arg, apium_status status, int64_t count, const apium_error *err)
{
    struct opening *opening = arg;
    apm_worker *w = opening->w;
    const apm_queue *queue = opening->queue;
    free(opening);
    if (status == APIUM_OK)
        apm_log(APM_LOG_WARNING, "queue.purged", "purge: Erased %lld messages from the queue %s.",
                (long long)count, queue->name);
    else
        apm_log(APM_LOG_ERROR, "queue.unpurged", "Cannot purge the queue %s: %s", queue->name,
                err->text);
    apium_error why;
    if (w->stopping)
        return;
    if (apm_broker_consume(w->broker, queue, &why) != APIUM_OK) {
        fail(w, &why);
        return;
    }
    w->queues_open++;
    say_ready(w);
}

static void
on_declared(void *arg, apium_status status, const apium_error *err)
{
    struct opening *opening = arg;
    apm_worker *w = opening->w;
    if (w->stopping) {
        free(opening);
        return;
    }
    if (status != APIUM_OK) {
        free(opening);
        fail(w, err);
        return;
    }
    if (w->opts->purge) {
        w->broker->ops->purge(w->broker, opening->queue->name, on_purged, opening);
        return;
    }
    apium_error why;
    const apm_queue *queue = opening->queue;
    free(opening);
    if (apm_broker_consume(w->broker, queue, &why) != APIUM_OK) {
        fail(w, &why);
        return;
    }
    w->queues_open++;
    say_ready(w);
}

static void
open_queues(apm_worker *w)
{
    for (size_t i = 0; i < w->n_queues; i++) {
        struct opening *opening = malloc(sizeof(*opening));
        apium_error err;
        if (!opening) {
            apm_fail(&err, APIUM_E_NOMEM, "cannot open the queue %s: out of memory",
                     w->queues[i]->name);
            fail(w, &err);
            return;
        }
        *opening = (struct opening){ w, w->queues[i] };
        apm_broker_declare(w->broker, w->queues[i], on_declared, opening);
    }
}

static bool
in_list(const char *list, const char *name)
{
    size_t len = strlen(name);
    while (list && *list) {
        size_t n = strcspn(list, ",");
        if (n == len && memcmp(list, name, n) == 0)
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

static apium_status
add_queue(apm_worker *w, const char *name, apium_error *err)
{
    if (in_list(w->opts->exclude, name))
        return APIUM_OK;
    const apm_queue *queue;
    apium_status st = apm_settings_queue(w->settings, name, &queue, err);
    if (st != APIUM_OK)
        return st;
    for (size_t i = 0; i < w->n_queues; i++)
        if (w->queues[i] == queue)
            return APIUM_OK;
    const apm_queue **queues = realloc(w->queues, (w->n_queues + 1) * sizeof(*queues));
    if (!queues)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open the queue \"%s\": out of memory", name);
    w->queues = queues;
    w->queues[w->n_queues++] = queue;
    return APIUM_OK;
}

/* -Q, else task_queues, else the default queue; less -X. */
static apium_status
choose_queues(apm_worker *w, apium_error *err)
{
    apium_status st = APIUM_OK;
    const char *list = w->opts->queues;
    if (list && *list) {
        while (*list && st == APIUM_OK) {
            char name[256];
            size_t n = strcspn(list, ",");
            if (n >= sizeof(name))
                return apm_fail(err, APIUM_E_CONFIG,
                                "cannot consume from \"%.60s...\": the queue's name is too long",
                                list);
            snprintf(name, sizeof(name), "%.*s", (int)n, list);
            if (n)
                st = add_queue(w, name, err);
            list += n + (list[n] == ',');
        }
    } else if (w->settings->n_task_queues) {
        for (size_t i = 0; i < w->settings->n_task_queues && st == APIUM_OK; i++)
            st = add_queue(w, w->settings->task_queues[i].name, err);
    } else {
        st = add_queue(w, w->settings->task_default_queue, err);
    }
    if (st == APIUM_OK && !w->n_queues)
        st = apm_fail(err, APIUM_E_CONFIG,
                      "cannot start the worker: no queue is left to consume from (-Q %s, -X %s)",
                      w->opts->queues ? w->opts->queues : "",
                      w->opts->exclude ? w->opts->exclude : "");
    return st;
}

static void
on_notice(void *arg, apm_log_level level, const char *text)
{
    (void)arg;
    apm_log(level, "broker.notice", "%s", text);
}

/* ---- the pool's news ---- */

static void
banner(const apm_worker *w)
{
    if (w->opts->quiet)
        return;
    char results[256] = "disabled://";
    if (w->settings->result_backend)
        apm_url_mask(w->settings->result_backend, results, sizeof(results));
    printf("\n apium %s  %s\n\n [config]\n .> app:         %s\n .> transport:   %s\n .> results:   "
           "  %s\n"
           " .> concurrency: %u (%s)\n .> commits:     %s\n\n [queues]\n",
           APIUM_VERSION, w->node, apm_app_name(w->app), w->broker->link->shown, results,
           apm_pool_concurrency(w->pool), w->settings->worker_pool,
           w->one_link ? "results and queue commit together"
                       : "result first, then follow-ups and acknowledgement");
    static const char *const types[] = { "direct", "topic", "fanout", "headers" };
    for (size_t i = 0; i < w->n_queues; i++)
        printf(" .> %-16s exchange=%s(%s) key=%s\n", w->queues[i]->name, w->queues[i]->exchange,
               types[w->queues[i]->exchange_type], w->queues[i]->routing_key);
    if (apm_log_on(APM_LOG_INFO)) {
        printf("\n [tasks]\n");
        for (size_t i = 0; apm_pool_task_at(w->pool, i); i++)
            printf("  . %s\n", apm_pool_task_at(w->pool, i)->name);
    }
    printf("\n");
    fflush(stdout);
}

static void
on_pool_ready(void *arg)
{
    apm_worker *w = arg;
    w->pool_ready = true;
    banner(w);
    apm_log(APM_LOG_INFO, "worker.commits", "%s",
            w->one_link ? "Results and queue are on one link: they commit together"
                        : "Results and queue are on two links: the result is stored first, then "
                          "the message is settled");
    if (!w->stopping)
        open_queues(w);
}

static void
on_pool_failed(void *arg, const apium_error *err)
{
    fail(arg, err);
}

static void
on_limit(void *arg, apm_job *job, bool hard, double limit_s)
{
    (void)arg;
    const apm_work *work = (const apm_work *)((const char *)job - offsetof(apm_work, job));
    if (hard)
        apm_log(APM_LOG_ERROR, "task.hard_limit", "Hard time limit (%gs) exceeded for %.*s[%.*s]",
                limit_s, APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id));
    else
        apm_log(APM_LOG_WARNING, "task.soft_limit", "Soft time limit (%gs) exceeded for %.*s[%.*s]",
                limit_s, APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id));
}

static void
on_process(void *arg, int process, int pid, bool up, int status, bool expected)
{
    (void)arg;
    if (up)
        apm_log(APM_LOG_DEBUG, "pool.process_up", "Process 'ForkPoolWorker-%d' pid:%d started",
                process + 1, pid);
    else if (expected)
        apm_log(APM_LOG_DEBUG, "pool.process_down", "Process 'ForkPoolWorker-%d' pid:%d ended",
                process + 1, pid);
    else if (status != -1 && WIFSIGNALED(status))
        apm_log(APM_LOG_ERROR, "pool.process_lost",
                "Process 'ForkPoolWorker-%d' pid:%d exited with 'signal %d (SIG%s)'", process + 1,
                pid, WTERMSIG(status),
                sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?");
    else
        apm_log(APM_LOG_ERROR, "pool.process_lost",
                "Process 'ForkPoolWorker-%d' pid:%d exited with 'exitcode %d'", process + 1, pid,
                status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* ---- start ---- */

static apium_status
start_pool(apm_worker *w, apium_error *err)
{
    const apm_settings *s = w->settings;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const apm_pool_opts opts = {
        .kind = s->worker_pool,
        .concurrency = (unsigned)(s->worker_concurrency > 0 ? s->worker_concurrency : cpus > 0 ? cpus : 1),
        .app = w->app,
        .hostname = w->node,
        .argv = w->opts->argv,
        .max_tasks_per_child = s->worker_max_tasks_per_child,
        .max_memory_per_child_kib = s->worker_max_memory_per_child,
        .events = {
            .on_ready = on_pool_ready,
            .on_failed = on_pool_failed,
            .on_begin = apm_settle_begin,
            .on_state = apm_settle_state,
            .on_done = apm_settle_done,
            .on_limit = on_limit,
            .on_process = on_process,
            .arg = w,
        },
    };
    return apm_pool_start(&w->loop, &opts, &w->pool, err);
}

static apium_status
open_links(apm_worker *w, apium_error *err)
{
    const char *url =
        w->settings->broker_read_url ? w->settings->broker_read_url : w->settings->broker_url;
    const apm_broker_opts opts = {
        .settings = w->settings,
        .node = w->node,
        .on_batch = apm_intake_batch,
        .on_lost = apm_intake_lost,
        .on_refused = apm_intake_refused,
        .on_notice = on_notice,
        .arg = w,
    };
    w->links = apm_links_new(&w->loop, w->settings, -1);
    if (!w->links)
        return apm_fail(err, APIUM_E_NOMEM, "cannot start the worker: out of memory");
    apium_status st = apm_broker_open(w->links, url, &opts, &w->broker, err);
    if (st == APIUM_OK)
        st = apm_backend_open(w->links, w->settings->result_backend, url, &w->backend, err);
    if (st != APIUM_OK)
        return st;
    if (strcmp(w->settings->worker_pool, "prefork") == 0 &&
        apm_broker_can(w->broker, APM_BROKER_LOCAL))
        apm_log(APM_LOG_WARNING, "worker.local_broker",
                "The broker %s lives in this process alone: only tasks sent by this process arrive",
                w->broker->link->shown);
    w->one_link = w->backend->link == w->broker->link;
    w->broker_watch = (apm_link_watch){ .on_event = on_link, .arg = w };
    apm_link_watch_add(w->broker->link, &w->broker_watch);
    if (w->backend->link && !w->one_link) {
        w->backend_watch = (apm_link_watch){ .on_event = on_link, .arg = w };
        apm_link_watch_add(w->backend->link, &w->backend_watch);
    }
    return APIUM_OK;
}

static void
init_handles(apm_worker *w)
{
    static const int signums[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 };
    uv_prepare_init(&w->loop, &w->prepare);
    uv_check_init(&w->loop, &w->check);
    uv_idle_init(&w->loop, &w->idle);
    uv_timer_init(&w->loop, &w->stop_timer);
    w->prepare.data = w->check.data = w->idle.data = w->stop_timer.data = w;
    for (size_t i = 0; i < sizeof(signums) / sizeof(signums[0]); i++) {
        uv_signal_init(&w->loop, &w->signals[i]);
        w->signals[i].data = w;
        uv_signal_start(&w->signals[i], on_signal, signums[i]);
    }
    signal(SIGPIPE, SIG_IGN);
}

int
apm_worker_run(apium_app *app, const apm_worker_opts *opts, apium_error *err)
{
    apm_worker *w = calloc(1, sizeof(*w));
    if (!w) {
        apm_fail(err, APIUM_E_NOMEM, "cannot start the worker: out of memory");
        return APM_EXIT_FAILURE;
    }
    *w = (apm_worker){ .app = app, .settings = apm_app_settings(app), .opts = opts };
    apm_buf_init(&w->scratch, APM_BUF_MAX);

    int code = APM_EXIT_FAILURE;
    int rc;
    apium_error why = { 0 };
    if (apm_node_name(opts->node, w->node, sizeof(w->node), err) != APIUM_OK ||
        choose_queues(w, err) != APIUM_OK)
        goto out;
    if ((rc = uv_loop_init(&w->loop)) < 0) {
        apm_fail_sys(err, -rc, "cannot make an event loop");
        goto out;
    }
    init_handles(w);
    apium_status st = apm_gate_open(w, &why);
    /* The pool comes first: its processes inherit nothing of our connections. */
    if (st == APIUM_OK)
        st = start_pool(w, &why);
    if (st == APIUM_OK)
        st = open_links(w, &why);
    if (st != APIUM_OK) {
        w->gave_up = true;
        w->error = why;
        w->exit_code = APM_EXIT_FAILURE;
        w->stopping = w->broker_stopped = true;
        w->life = APM_CLOSING;
        end_pool(w);
    } else {
        uv_prepare_start(&w->prepare, on_prepare);
        uv_check_start(&w->check, on_check);
    }
    uv_run(&w->loop, UV_RUN_DEFAULT);
    apm_log_flush();
    uv_loop_close(&w->loop);
    code = w->restart ? APM_EXIT_RESTART : w->exit_code;
    if (w->gave_up && err)
        *err = w->error;
out:
    apm_buf_clear(&w->scratch);
    free(w->due);
    free(w->queues);
    free(w);
    return code;
}
