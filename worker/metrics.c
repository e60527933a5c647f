/*
 * metrics.c - what --http serves: /metrics for Prometheus and /healthz for whoever restarts what is not well. Only with --http;
 * names are those of celery-exporter and Flower where they have one.
 */
#include "worker/metrics_inner.h"

#include <stdio.h>
#include <stdlib.h>

#include "brokers/depths.h"
#include "core/base/error.h"
#include "core/base/prom.h"

static void
add_one(apm_buf *buf, const apm_metrics *m, const char *name, const char *type, const char *help,
        double value)
{
    apm_prom_one(buf, name, type, help, "hostname", m->worker->node, value);
}

static void
add_links(apm_buf *buf, const apm_metrics *m)
{
    const apm_worker *w = m->worker;
    add_one(buf, m, "apium_worker_broker_up", "gauge", "Whether the broker can be reached.",
            w->broker && w->broker->link->up);
    add_one(buf, m, "apium_worker_backend_up", "gauge", "Whether the result store can be reached.",
            w->backend && (!w->backend->link || w->backend->link->up));
    add_one(buf, m, "apium_worker_link_errors_total", "counter",
            "Times that a connection to broker or result store was lost or could not be made.",
            (double)w->count.link_errors);
    add_one(buf, m, "apium_worker_lease_renewals_total", "counter",
            "Renewals of what this worker holds, where the broker has leases.",
            w->broker ? (double)w->broker->renewals : 0);
    add_one(buf, m, "apium_worker_deliveries_lost_total", "counter",
            "Messages that were somebody else's again before they were settled.",
            (double)w->count.lost);
    add_one(buf, m, "apium_worker_messages_refused_total", "counter",
            "Messages that were no tasks, or of tasks that are not registered.",
            (double)w->count.refused);
}

static void
add_stations(apm_buf *buf, const apm_metrics *m)
{
    const apm_worker *w = m->worker;
    size_t running = 0, processes = 0;
    int process, pid;
    for (const apm_work *work = w->lists[APM_AT_POOL].head; work; work = work->next)
        running += work->begun;
    while (w->pool && apm_pool_process(w->pool, processes, &process, &pid))
        processes++;
    add_one(buf, m, "celery_worker_tasks_active", "gauge", "Tasks that run now.", (double)running);
    add_one(buf, m, "apium_worker_concurrency", "gauge", "Tasks that may run at once.",
            w->pool ? (double)apm_pool_concurrency(w->pool) : 0);
    add_one(buf, m, "apium_worker_pool_processes", "gauge",
            "Processes or threads of the pool that are there.", (double)processes);
    add_one(buf, m, "apium_worker_tasks_waiting", "gauge",
            "Tasks here that wait for room in the pool.",
            (double)(w->lists[APM_AT_READY].n + w->lists[APM_AT_POOL].n - running));
    add_one(buf, m, "apium_worker_tasks_held", "gauge",
            "Tasks here that wait for their eta, or for their turn under a rate limit.",
            (double)w->lists[APM_AT_HELD].n);
    add_one(buf, m, "apium_worker_tasks_parked_total", "counter",
            "Tasks that were put back into the broker until their eta.", (double)m->parked);
    add_one(buf, m, "apium_worker_tasks_settling", "gauge", "Tasks whose outcome is being stored.",
            (double)w->lists[APM_AT_SETTLING].n);
}

static void
write_metrics(apm_buf *buf, const apm_metrics *m)
{
    size_t n;
    const apm_queue_info *queues = apm_health_queues(m->health, &n);
    apm_counts_write(buf, m);
    add_one(buf, m, "celery_worker_up", "gauge", "Whether it takes and runs tasks: /healthz.",
            apm_health_ailment(m->health) ? 0 : 1);
    add_stations(buf, m);
    add_links(buf, m);
    apm_depths_write(buf, queues, n);
}

static void
on_request(void *arg, apm_http_req *req)
{
    const apm_metrics *m = arg;
    const char *path = apm_http_target(req), *why;
    apm_buf body;
    apm_http_reply reply = { .status = 200, .type = "text/plain; charset=utf-8", .take = &body };
    apm_buf_init(&body, APM_BUF_MAX);
    if (strcmp(apm_http_method(req), "GET") != 0 && strcmp(apm_http_method(req), "HEAD") != 0) {
        reply.status = 405;
        apm_buf_addz(&body, "GET /metrics or /healthz\n");
    } else if (strcmp(path, "/metrics") == 0) {
        reply.type = APM_PROM_TYPE;
        write_metrics(&body, m);
    } else if (strcmp(path, "/healthz") == 0) {
        why = apm_health_ailment(m->health);
        reply.status = why ? 503 : 200;
        apm_buf_addf(&body, "%s\n", why ? why : "ok");
    } else {
        reply.status = 404;
        apm_buf_addz(&body, "GET /metrics or /healthz\n");
    }
    apm_http_answer(req, &reply);
    apm_buf_clear(&body);
}

/* ---- its life ---- */

/* "127.0.0.1:9100", "[::1]:9100", ":9100" on this machine alone. */
static apium_status
read_address(const char *text, char addr[64], int *port, apium_error *err)
{
    const char *colon = strrchr(text, ':');
    size_t len = colon ? (size_t)(colon - text) : 0;
    char *end;
    long n = colon ? strtol(colon + 1, &end, 10) : -1;
    if (!colon || colon[1] == '\0' || *end || n < 0 || n > 65535 || len >= 64)
        return apm_fail(err, APIUM_E_CONFIG, "cannot listen on \"%s\": expected ADDR:PORT", text);
    if (len > 1 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    snprintf(addr, 64, "%.*s", (int)len, len ? text : "127.0.0.1");
    if (!len)
        snprintf(addr, 64, "127.0.0.1");
    *port = (int)n;
    return APIUM_OK;
}

apium_status
apm_metrics_open(apm_worker *w, const char *address, apium_error *err)
{
    char addr[64];
    int port = 0;
    apium_status st = read_address(address, addr, &port, err);
    if (st != APIUM_OK)
        return st;
    apm_metrics *m = calloc(1, sizeof(*m));
    if (!m)
        return apm_fail(err, APIUM_E_NOMEM, "cannot listen on %s: out of memory", address);
    m->worker = w;
    const apm_httpd_opts opts = {
        .addr = addr,
        .port = port,
        .max_connections = 64,
        .max_body_bytes = 4096,
        .on_request = on_request,
        .arg = m,
    };
    st = apm_httpd_open(&w->loop, &opts, &m->httpd, err);
    if (st == APIUM_OK && !(m->health = apm_health_open(w))) {
        apm_httpd_close(m->httpd);
        st = apm_fail(err, APIUM_E_NOMEM, "cannot listen on %s: out of memory", address);
    }
    if (st != APIUM_OK) {
        free(m);
        return st;
    }
    w->metrics = m;
    apm_log(APM_LOG_INFO, "worker.http", "Metrics on http://%s%s%s:%d/metrics",
            strchr(addr, ':') ? "[" : "", addr, strchr(addr, ':') ? "]" : "",
            apm_httpd_port(m->httpd));
    return APIUM_OK;
}

void
apm_metrics_close(apm_worker *w)
{
    apm_metrics *m = w->metrics;
    if (!m)
        return;
    w->metrics = NULL;
    apm_httpd_close(m->httpd);
    apm_health_close(m->health);
    apm_counts_clear(m);
    free(m);
}
