/* counts.c - what is counted of each task and queue: see metrics_inner.h. Names are celery-exporter's and Flower's where they have one. */
#include "worker/metrics_inner.h"

#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "core/base/clock.h"
#include "core/base/prom.h"

#define SERIES_MAX     2000 /* tasks times queues; what comes later is not counted */
#define EXCEPTIONS_MAX 30   /* told apart in one series; more are counted together */

static const double bounds[] = { 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5,
                                 0.75,  1,    2.5,   5,    7.5,   10,  60,   600 };
enum { BOUNDS = sizeof(bounds) / sizeof(*bounds) };

enum { RECEIVED, STARTED, SUCCEEDED, FAILED, RETRIED, REJECTED, REVOKED, COUNTS };

typedef struct histogram {
    uint64_t below[BOUNDS], n;
    double sum;
} histogram;

typedef struct failures {
    struct failures *next;
    uint64_t n;
    char type[];
} failures;

struct apm_series {
    uint64_t counts[COUNTS];
    failures *failed; /* counts[FAILED] by exception */
    int64_t waiting;  /* received, not started, without an eta */
    double waited_s;  /* the one that was started last */
    histogram runtime, held, queued;
    char *task, *queue;
    UT_hash_handle hh;
    char key[];
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

static void
note_failure(apm_series *s, apm_str type)
{
    failures *at, **end = &s->failed;
    size_t n = 0;
    if (!apm_str_is(type))
        type = APM_STR("");
    for (; (at = *end) && !apm_str_eqz(type, at->type); end = &at->next)
        if (++n >= EXCEPTIONS_MAX)
            type = APM_STR("others");
    if (!at && (at = calloc(1, sizeof(*at) + type.len + 1))) {
        memcpy(at->type, type.p, type.len);
        *end = at;
    }
    if (at)
        at->n++;
}

void
apm_metrics_received(apm_work *work)
{
    apm_metrics *m = work->worker->metrics;
    int64_t sent_us = work->delivery->msg.sent_us;
    if (!m || !work->task || work->internal)
        return;
    apm_series *s =
        series_of(m, work->task->name, work->delivery->queue ? work->delivery->queue : "");
    if (!(work->series = s))
        return;
    s->counts[RECEIVED]++;
    work->prefetched = work->req.eta_us == APM_TIME_NONE;
    s->waiting += work->prefetched;
    if (!sent_us)
        return;
    if (work->req.eta_us != APM_TIME_NONE && work->req.eta_us > sent_us)
        sent_us = work->req.eta_us;
    int64_t queued_us = apm_clock_wall_us() - sent_us;
    if (work->prefetched || queued_us >= 0) /* what came before its eta has not waited yet */
        observe(&s->queued, queued_us > 0 ? (double)queued_us / 1e6 : 0);
}

/* It waits here no more. */
static void
leave(apm_work *work)
{
    work->series->waiting -= work->prefetched;
    work->prefetched = false;
}

void
apm_metrics_begun(apm_work *work)
{
    if (!work->series)
        return;
    double held_s = (double)(apm_clock_ms() - work->delivery->received_ms) / 1000;
    work->series->counts[STARTED]++;
    observe(&work->series->held, held_s);
    if (work->prefetched)
        work->series->waited_s = held_s;
    leave(work);
}

void
apm_metrics_ended(apm_work *work, const apm_outcome *outcome)
{
    static const int count_of[] = {
        [APM_DONE_SUCCESS] = SUCCEEDED, [APM_DONE_REPLACED] = SUCCEEDED,
        [APM_DONE_FAILURE] = FAILED,    [APM_DONE_LOST] = FAILED,
        [APM_DONE_TIMEOUT] = FAILED,    [APM_DONE_RETRY] = RETRIED,
        [APM_DONE_REJECT] = REJECTED,   [APM_DONE_REVOKED] = REVOKED,
        [APM_DONE_IGNORE] = COUNTS,
    };
    int kind = count_of[outcome->kind];
    if (!work->series)
        return;
    if (kind != COUNTS)
        work->series->counts[kind]++;
    if (kind == FAILED)
        note_failure(work->series, outcome->exc.type);
    if (kind == SUCCEEDED && work->begun) /* as celery-exporter and Flower count it */
        observe(&work->series->runtime, (double)outcome->runtime_ns / 1e9);
}

void
apm_metrics_gone(apm_work *work)
{
    if (work->series && work->worker->metrics)
        leave(work);
}

void
apm_metrics_parked(const apm_work *work)
{
    if (work->worker->metrics)
        work->worker->metrics->parked++;
}

/* ---- showing ---- */

static void
add_labels(apm_buf *buf, const apm_metrics *m, const apm_series *s)
{
    apm_prom_label(buf, "name", s->task);
    apm_buf_addc(buf, ',');
    apm_prom_label(buf, "queue_name", s->queue);
    apm_buf_addc(buf, ',');
    apm_prom_label(buf, "hostname", m->worker->node);
}

static void
add_failures(apm_buf *buf, const apm_metrics *m, const apm_series *s)
{
    static const failures none = { 0 };
    for (const failures *at = s->failed ? s->failed : &none; at; at = at->next) {
        apm_buf_addz(buf, "celery_task_failed_total{");
        add_labels(buf, m, s);
        apm_buf_addc(buf, ',');
        apm_prom_label(buf, "exception", s->failed ? at->type : "");
        apm_buf_addf(buf, "} %llu\n", (unsigned long long)at->n);
    }
}

static void
add_counters(apm_buf *buf, const apm_metrics *m)
{
    static const char *const names[COUNTS] = { "received", "started",  "succeeded", "failed",
                                               "retried",  "rejected", "revoked" };
    for (int i = 0; i < COUNTS; i++) {
        char name[64], help[64];
        snprintf(name, sizeof(name), "celery_task_%s_total", names[i]);
        snprintf(help, sizeof(help), "Tasks that were %s.", names[i]);
        apm_prom_head(buf, name, "counter", help);
        for (const apm_series *s = m->series; s; s = s->hh.next) {
            if (i == FAILED) {
                add_failures(buf, m, s);
                continue;
            }
            apm_buf_addf(buf, "%s{", name);
            add_labels(buf, m, s);
            apm_buf_addf(buf, "} %llu\n", (unsigned long long)s->counts[i]);
        }
    }
}

static void
add_histogram(apm_buf *buf, const apm_metrics *m, const char *name, const char *help, size_t at)
{
    apm_prom_head(buf, name, "histogram", help);
    for (const apm_series *s = m->series; s; s = s->hh.next) {
        const histogram *h = (const histogram *)(const void *)((const char *)s + at);
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

/* Flower's, with the queue besides. */
static void
add_prefetched(apm_buf *buf, const apm_metrics *m, bool time)
{
    const char *name =
        time ? "flower_task_prefetch_time_seconds" : "flower_worker_prefetched_tasks";
    apm_prom_head(
        buf, name, "gauge",
        time ? "How long the task that was started last had waited here; 0 when none waits."
             : "Tasks without an eta that wait here to be started.");
    for (const apm_series *s = m->series; s; s = s->hh.next) {
        apm_buf_addf(buf, "%s{", name);
        apm_prom_label(buf, "task", s->task);
        apm_buf_addc(buf, ',');
        apm_prom_label(buf, "queue_name", s->queue);
        apm_buf_addc(buf, ',');
        apm_prom_label(buf, "worker", m->worker->node);
        apm_buf_addf(buf, "} %.9g\n", !time ? (double)s->waiting : s->waiting ? s->waited_s : 0);
    }
}

void
apm_counts_write(apm_buf *buf, const apm_metrics *m)
{
    add_counters(buf, m);
    add_histogram(buf, m, "celery_task_runtime", "Seconds that tasks ran which succeeded.",
                  offsetof(apm_series, runtime));
    add_histogram(
        buf, m, "apium_task_queued_seconds",
        "Seconds from a task's sending (or its eta) to its arrival here, where the broker "
        "knows.",
        offsetof(apm_series, queued));
    add_histogram(buf, m, "apium_task_held_seconds",
                  "Seconds from a task's arrival here to its start.", offsetof(apm_series, held));
    add_prefetched(buf, m, false);
    add_prefetched(buf, m, true);
}

void
apm_counts_clear(apm_metrics *m)
{
    apm_series *s, *next;
    HASH_ITER(hh, m->series, s, next)
    {
        HASH_DEL(m->series, s);
        while (s->failed) {
            failures *at = s->failed;
            s->failed = at->next;
            free(at);
        }
        free(s->task);
        free(s->queue);
        free(s);
    }
}
