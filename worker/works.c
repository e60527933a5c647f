/* works.c - requests on their way: the lists of the stations; see inner.h. */
#include "worker/inner.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "worker/metrics.h"
#include "worker/settle_inner.h"

static void
list_remove(apm_work_list *list, apm_work *work)
{
    if (work->prev)
        work->prev->next = work->next;
    else
        list->head = work->next;
    if (work->next)
        work->next->prev = work->prev;
    else
        list->tail = work->prev;
    work->prev = work->next = NULL;
    list->n--;
}

static void
list_append(apm_work_list *list, apm_work *work)
{
    work->prev = list->tail;
    work->next = NULL;
    if (list->tail)
        list->tail->next = work;
    else
        list->head = work;
    list->tail = work;
    list->n++;
}

apm_work *
apm_work_new(apm_worker *w, apm_delivery *delivery)
{
    apm_work *work = calloc(1, sizeof(*work));
    if (!work)
        return NULL;
    work->worker = w;
    work->delivery = delivery;
    work->received_ms = apm_clock_ms();
    delivery->owner = work;
    list_append(&w->lists[APM_AT_INTAKE], work);
    return work;
}

void
apm_work_move(apm_work *work, apm_station to)
{
    list_remove(&work->worker->lists[work->station], work);
    work->station = to;
    list_append(&work->worker->lists[to], work);
}

void
apm_work_free(apm_work *work)
{
    apm_worker *w = work->worker;
    list_remove(&w->lists[work->station], work);
    apm_metrics_gone(work);
    apm_join_clear(work);
    apm_unit_drop(work->after);
    if (work->adopted)
        apm_work_free(work->adopted);
    if (work->internal) {
        apm_arena_clear(&work->delivery->arena);
        free(work->delivery);
    } else {
        apm_delivery_free(work->delivery);
    }
    free(work);
}

void
apm_work_process(const apm_work *work, char out[32])
{
    const char *kind = work->worker->settings->worker_pool;
    if (work->job.process < 0)
        snprintf(out, 32, "MainProcess");
    else if (strcmp(kind, "prefork") == 0)
        snprintf(out, 32, "ForkPoolWorker-%d", work->job.process + 1);
    else if (strcmp(kind, "threads") == 0)
        snprintf(out, 32, "ThreadPoolWorker-%d", work->job.process + 1);
    else
        snprintf(out, 32, "MainProcess");
}
