/*
 * metrics.c - counts and times for each task and queue, and how the worker is, over HTTP: /metrics for Prometheus and /healthz for
 * whoever restarts what is not well. Only with --http; names are those of celery-exporter where it has one.
 */
#include "worker/metrics.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/httpd/httpd.h"

#define SERIES_MAX 2000 /* tasks times queues; what comes later is not counted */

static const double bounds[] = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600 };
enum { BOUNDS = sizeof(bounds) / sizeof(*bounds) };

enum { RECEIVED, STARTED, SUCCEEDED, FAILED, RETRIED, REJECTED, REVOKED, COUNTS };

typedef struct histogram {
    uint64_t below[BOUNDS], n;
    double sum;
} histogram;

struct apm_series {
    uint64_t counts[COUNTS];
    histogram runtime, held;
    char *task, *queue;
    UT_hash_handle hh;
    char key[];
};

struct apm_metrics {
    apm_worker *worker;
    apm_httpd *httpd;
    apm_series *series;
};

/* ---- counting ---- */

static apm_series *
series_of(apm_metrics *m, const char *task, const char *queue)
{
    char key[512];
    apm_series *s;
    int len = snprintf(key, sizeof(key), "%s\n%s", task, queue);
    if (len < 0 || (size_t)len >= sizeof(key))
        return NULL;
    HASH_FIND_STR(m->series, key, s);
    if (s || HASH_COUNT(m->series) >= SERIES_MAX)
        return s;
    s = calloc(1, sizeof(*s) + (size_t)len + 1);
    if (!s)
        return NULL;
    memcpy(s->key, key, (size_t)len + 1);
    s->task = strdup(task);
    s->queue = strdup(queue);
    HASH_ADD_STR(m->series, key, s);
    if (!s->task || !s->queue || !s->hh.tbl) {
        if (s->hh.tbl)
            HASH_DEL(m->series, s);
        free(s->task);
        free(s->queue);
        free(s);
        return NULL;
    }
    return s;
}

static void
observe(histogram *h, double seconds)
{
    for (size_t i = 0; i < BOUNDS; i++)
        h->below[i] += seconds <= bounds[i];
    h->n++;
    h->sum += seconds;
}

void
apm_metrics_received(apm_work *work)
{
    apm_metrics *m = work->worker->metrics;
    if (!m || !work->task || work->internal)
        return;
    work->series =
        series_of(m, work->task->name, work->delivery->queue ? work->delivery->queue : "");
    if (work->series)
        work->series->counts[RECEIVED]++;
}

void
apm_metrics_begun(apm_work *work)
{
    if (!work->series)
        return;
    work->series->counts[STARTED]++;
    observe(&work->series->held, (double)(apm_clock_ms() - work->delivery->received_ms) / 1000);
}

void
apm_metrics_ended(const apm_work *work, const apm_outcome *outcome)
{
    static const int count_of[] = {
        [APM_DONE_SUCCESS] = SUCCEEDED, [APM_DONE_REPLACED] = SUCCEEDED,
        [APM_DONE_FAILURE] = FAILED,    [APM_DONE_LOST] = FAILED,
        [APM_DONE_TIMEOUT] = FAILED,    [APM_DONE_RETRY] = RETRIED,
        [APM_DONE_REJECT] = REJECTED,   [APM_DONE_REVOKED] = REVOKED,
        [APM_DONE_IGNORE] = COUNTS,
    };
    if (!work->series)
        return;
    if (count_of[outcome->kind] != COUNTS)
        work->series->counts[count_of[outcome->kind]]++;
    if (work->begun)
        observe(&work->series->runtime, (double)outcome->runtime_ns / 1e9);
}

/* ---- showing ---- */

static void
add_label(apm_buf *buf, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            apm_buf_addc(buf, '\\');
        if (*text == '\n')
            apm_buf_addz(buf, "\\n");
        else
            apm_buf_addc(buf, *text);
    }
}

static void
add_labels(apm_buf *buf, const apm_metrics *m, const apm_series *s)
{
    apm_buf_addz(buf, "name=\"");
    add_label(buf, s->task);
    apm_buf_addz(buf, "\",queue_name=\"");
    add_label(buf, s->queue);
    apm_buf_addz(buf, "\",hostname=\"");
    add_label(buf, m->worker->node);
    apm_buf_addc(buf, '"');
}

static void
add_counters(apm_buf *buf, const apm_metrics *m)
{
    static const char *const names[COUNTS] = { "received", "started",  "succeeded", "failed",
                                               "retried",  "rejected", "revoked" };
    for (int i = 0; i < COUNTS; i++) {
        apm_buf_addf(buf,
                     "# HELP celery_task_%s_total Tasks that were %s.\n# TYPE celery_task_%s_total "
                     "counter\n",
                     names[i], names[i], names[i]);
        for (const apm_series *s = m->series; s; s = s->hh.next) {
            apm_buf_addf(buf, "celery_task_%s_total{", names[i]);
            add_labels(buf, m, s);
            apm_buf_addf(buf, "} %llu\n", (unsigned long long)s->counts[i]);
        }
    }
}

static void
add_histogram(apm_buf *buf, const apm_metrics *m, const char *name, const char *help, bool runtime)
{
    apm_buf_addf(buf, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    for (const apm_series *s = m->series; s; s = s->hh.next) {
        const histogram *h = runtime ? &s->runtime : &s->held;
        for (size_t i = 0; i <= BOUNDS; i++) {
            apm_buf_addf(buf, "%s_bucket{", name);
            add_labels(buf, m, s);
            if (i < BOUNDS)
                apm_buf_addf(buf, ",le=\"%g\"} %llu\n", bounds[i], (unsigned long long)h->below[i]);
            else
                apm_buf_addf(buf, ",le=\"+Inf\"} %llu\n", (unsigned long long)h->n);
        }
        apm_buf_addf(buf, "%s_sum{", name);
        add_labels(buf, m, s);
        apm_buf_addf(buf, "} %.9g\n%s_count{", h->sum, name);
        add_labels(buf, m, s);
        apm_buf_addf(buf, "} %llu\n", (unsigned long long)h->n);
    }
}

static void
add_gauge(apm_buf *buf, const apm_metrics *m, const char *name, const char *help, double value)
{
    apm_buf_addf(buf, "# HELP %s %s\n# TYPE %s gauge\n%s{hostname=\"", name, help, name, name);
    add_label(buf, m->worker->node);
    apm_buf_addf(buf, "\"} %.9g\n", value);
}

/* The broker is there and the pool takes work. (That the loop turns, the answer itself shows.) */
static const char *
ailment(const apm_worker *w)
{
    if (w->life != APM_RUNNING)
        return w->life == APM_STARTING ? "starting" : "stopping";
    if (!w->broker || !w->broker->link->up)
        return "the broker cannot be reached";
    return w->pool_ready ? NULL : "the pool does not take work";
}

static void
write_metrics(apm_buf *buf, const apm_metrics *m)
{
    const apm_worker *w = m->worker;
    size_t running = 0;
    for (const apm_work *work = w->lists[APM_AT_POOL].head; work; work = work->next)
        running += work->begun;
    add_counters(buf, m);
    add_histogram(buf, m, "celery_task_runtime", "Seconds that tasks ran.", true);
    add_histogram(buf, m, "apium_task_held", "Seconds from a task's arrival here to its start.",
                  false);
    add_gauge(buf, m, "celery_worker_up", "Whether it takes and runs tasks.", ailment(w) ? 0 : 1);
    add_gauge(buf, m, "celery_worker_tasks_active", "Tasks that run now.", (double)running);
    add_gauge(buf, m, "apium_worker_concurrency", "Tasks that may run at once.",
              w->pool ? (double)apm_pool_concurrency(w->pool) : 0);
    add_gauge(buf, m, "apium_worker_tasks_waiting", "Tasks here that wait for room in the pool.",
              (double)(w->lists[APM_AT_READY].n + w->lists[APM_AT_POOL].n - running));
    add_gauge(buf, m, "apium_worker_tasks_held", "Tasks here that wait for their time.",
              (double)w->lists[APM_AT_HELD].n);
    add_gauge(buf, m, "apium_worker_tasks_settling", "Tasks whose outcome is being stored.",
              (double)w->lists[APM_AT_SETTLING].n);
    add_gauge(buf, m, "apium_worker_broker_up", "Whether the broker can be reached.",
              w->broker && w->broker->link->up);
    add_gauge(buf, m, "apium_worker_backend_up", "Whether the result store can be reached.",
              w->backend && (!w->backend->link || w->backend->link->up));
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
        reply.type = "text/plain; version=0.0.4; charset=utf-8";
        write_metrics(&body, m);
    } else if (strcmp(path, "/healthz") == 0) {
        why = ailment(m->worker);
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
    apm_series *s, *next;
    if (!m)
        return;
    w->metrics = NULL;
    apm_httpd_close(m->httpd);
    HASH_ITER(hh, m->series, s, next)
    {
        HASH_DEL(m->series, s);
        free(s->task);
        free(s->queue);
        free(s);
    }
    free(m);
}
