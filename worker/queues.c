/* queues.c - what the worker consumes: chosen from -Q, -X and the settings, declared, emptied if asked, opened. */
#include "worker/inner.h"

#include <stdio.h>
#include <stdlib.h>

static void
say_ready(apm_worker *w)
{
    if (w->said_ready || w->queues_open < w->n_queues)
        return;
    w->said_ready = true;
    apm_life_event(w, APM_EV_READY);
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
        apm_worker_fail(w, &why);
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
        apm_worker_fail(w, err);
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
        apm_worker_fail(w, &why);
        return;
    }
    w->queues_open++;
    say_ready(w);
}

void
apm_queues_open(apm_worker *w)
{
    for (size_t i = 0; i < w->n_queues; i++) {
        struct opening *opening = malloc(sizeof(*opening));
        apium_error err;
        if (!opening) {
            apm_fail(&err, APIUM_E_NOMEM, "cannot open the queue %s: out of memory",
                     w->queues[i]->name);
            apm_worker_fail(w, &err);
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
apium_status
apm_queues_choose(apm_worker *w, apium_error *err)
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
