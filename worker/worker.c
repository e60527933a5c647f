/*
 * worker.c - the worker's life: start the pool, open the links, consume, and stop in one of two ways.
 *
 * One libuv loop owns every connection, never runs user code (but for the solo and threads pools, in threads of their own) and never
 * waits for a peer. A turn of the loop gathers: deliveries come in, outcomes come in; then, before it sleeps, ready requests are
 * handed to the pool, due acks are appended, links and log are flushed.
 */
#include "worker/inner.h"
#include "worker/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "core/base/clock.h"
#include "worker/heap.h"

/* ---- the turn ---- */

static void
on_idle(uv_idle_t *idle)
{
    (void)idle; /* it exists to keep the loop from sleeping */
}

static void
pass(apm_worker *w)
{
    if (w->pass_due) {
        w->pass_due = false;
        apm_gate_window(w);
        apm_gate_pass(w);
        apm_settle_turn(w);
    }
    apm_links_flush(w->links);
}

static void
on_prepare(uv_prepare_t *prepare)
{
    apm_worker *w = prepare->data;
    uv_idle_stop(&w->idle);
    if (w->pool_ready)
        apm_pool_poll(w->pool);
    pass(w);
    if (w->pool_ready && apm_pool_linger(w->pool))
        pass(w);
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

/* Consume once the pool can run what comes, and it is known what the result store can do: on that depends what a task causes. */
static void
open_queues(apm_worker *w)
{
    if (!w->pool_ready || w->known || w->stopping ||
        apm_backend_can(w->backend, APM_BACKEND_UNKNOWN))
        return;
    w->known = true;
    apm_queues_open(w);
}

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    apm_worker *w = arg;
    bool is_broker = w->broker && link == w->broker->link;
    if (up)
        open_queues(w);
    if (up) {
        if (why)
            apm_log(APM_LOG_INFO, "link.up", "%s", why);
        else
            apm_log(APM_LOG_INFO, "link.up", "Connected to %s", link->shown);
        if (is_broker)
            w->broker_was_up = true;
        return;
    }
    const apm_settings *s = w->settings;
    w->count.link_errors++;
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
        apm_worker_fail(w, &err);
    }
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
    open_queues(w);
}

static void
on_pool_failed(void *arg, const apium_error *err)
{
    apm_worker_fail(arg, err);
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
    char name[32] = "ForkServer";
    (void)arg;
    if (process >= 0)
        snprintf(name, sizeof(name), "ForkPoolWorker-%d", process + 1);
    if (up)
        apm_log(APM_LOG_DEBUG, "pool.process_up", "Process '%s' pid:%d started", name, pid);
    else if (expected)
        apm_log(APM_LOG_DEBUG, "pool.process_down", "Process '%s' pid:%d ended", name, pid);
    else if (status != -1 && WIFSIGNALED(status))
        apm_log(APM_LOG_ERROR, "pool.process_lost",
                "Process '%s' pid:%d exited with 'signal %d (SIG%s)'", name, pid, WTERMSIG(status),
                sigabbrev_np(WTERMSIG(status)) ? sigabbrev_np(WTERMSIG(status)) : "?");
    else
        apm_log(APM_LOG_ERROR, "pool.process_lost", "Process '%s' pid:%d exited with 'exitcode %d'",
                name, pid, status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : -1);
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
    uv_prepare_init(&w->loop, &w->prepare);
    uv_check_init(&w->loop, &w->check);
    uv_idle_init(&w->loop, &w->idle);
    w->prepare.data = w->check.data = w->idle.data = w;
    apm_life_open(w);
}

int
apm_worker_run(apium_app *app, const apm_worker_opts *opts, apium_error *err)
{
    apm_heap_keep();
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
        apm_queues_choose(w, err) != APIUM_OK)
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
    if (st == APIUM_OK && opts->http)
        st = apm_metrics_open(w, opts->http, &why);
    if (st != APIUM_OK) {
        w->gave_up = true;
        w->error = why;
        w->exit_code = APM_EXIT_FAILURE;
        w->stopping = w->broker_stopped = true;
        w->life = APM_CLOSING;
        apm_life_end_pool(w);
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
