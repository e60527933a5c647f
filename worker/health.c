/*
 * health.c - is this worker well? It is when its broker has answered within the last seconds, and every process of its pool and the
 * fork server too. Nobody's word is taken for it: the broker is asked for the depths of our queues (which metrics show), the
 * pool for signs of life.
 *
 *   every TICK_MS:  broker ──look──▶ answered_ms      pool ──ask──▶ signs.c
 *   when asked:     older than BROKER_MS: not well    silent for POOL_MS: not well
 */
#include "worker/metrics_inner.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"

#define TICK_MS   2000
#define HASTE_MS  200  /* until the broker has answered */
#define BROKER_MS 7000 /* without an answer */
#define POOL_MS   5000
#define AGAIN_MS  10000 /* a question whose answer may be lost is asked once more */
#define OPEN_MAX  8     /* questions without an answer */

struct apm_health {
    apm_worker *worker; /* NULL: closed */
    uv_timer_t timer;
    unsigned open;
    int64_t asked_ms, answered_ms; /* the broker; 0: never */
    int64_t pool_ms;               /* asked */
    apm_queue_info *queues;        /* names are the worker's */
    size_t n_queues;
    char text[128];
};

static void
on_looked(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    apm_health *health = arg;
    const apm_worker *w = health->worker;
    health->open--;
    if (err)
        return;
    health->answered_ms = apm_clock_ms();
    for (size_t i = 0; i < n && i < w->n_queues; i++) {
        health->queues[i] = infos[i];
        health->queues[i].name = w->queues[i]->name;
        health->n_queues = i + 1;
    }
}

static void
ask_broker(apm_health *health)
{
    const apm_worker *w = health->worker;
    int64_t now = apm_clock_ms();
    if (!w->broker || !w->broker->link->up || w->broker_stopped || w->n_queues == 0)
        return;
    if (health->open && (now - health->asked_ms < AGAIN_MS || health->open >= OPEN_MAX))
        return;
    const char **names = calloc(w->n_queues, sizeof(*names));
    if (!names)
        return;
    for (size_t i = 0; i < w->n_queues; i++)
        names[i] = w->queues[i]->name;
    health->open++;
    health->asked_ms = now;
    w->broker->ops->look(w->broker, names, w->n_queues, on_looked, health);
    free(names);
}

static void
on_tick(uv_timer_t *timer)
{
    apm_health *health = timer->data;
    const apm_worker *w = health->worker;
    int64_t now = apm_clock_ms();
    bool fresh = health->answered_ms && now - health->answered_ms <= BROKER_MS;
    ask_broker(health);
    uv_timer_set_repeat(timer, fresh ? TICK_MS : HASTE_MS);
    if (w->pool && w->pool_ready && w->life == APM_RUNNING && now - health->pool_ms >= TICK_MS) {
        health->pool_ms = now;
        apm_pool_ask(w->pool);
    }
}

const char *
apm_health_ailment(apm_health *health)
{
    const apm_worker *w = health->worker;
    char who[96];
    if (w->life != APM_RUNNING)
        return w->life == APM_STARTING ? "starting" : "stopping";
    if (!w->broker || !w->broker->link->up)
        return "the broker cannot be reached";
    if (!w->pool_ready)
        return "the pool does not take work";
    if (!health->answered_ms)
        return "the broker has not answered yet";
    int64_t silent_ms = apm_clock_ms() - health->answered_ms;
    if (silent_ms > BROKER_MS) {
        snprintf(health->text, sizeof(health->text), "the broker has not answered for %lld s",
                 (long long)silent_ms / 1000);
        return health->text;
    }
    if (apm_pool_silent(w->pool, POOL_MS, who, sizeof(who))) {
        snprintf(health->text, sizeof(health->text), "%s", who);
        return health->text;
    }
    return NULL;
}

const apm_queue_info *
apm_health_queues(const apm_health *health, size_t *n)
{
    bool fresh = health->answered_ms && apm_clock_ms() - health->answered_ms <= BROKER_MS;
    *n = fresh ? health->n_queues : 0;
    return health->queues;
}

apm_health *
apm_health_open(apm_worker *w)
{
    apm_health *health = calloc(1, sizeof(*health));
    if (health && !(health->queues = calloc(w->n_queues + 1, sizeof(*health->queues)))) {
        free(health);
        return NULL;
    }
    if (!health)
        return NULL;
    health->worker = w;
    uv_timer_init(&w->loop, &health->timer);
    health->timer.data = health;
    uv_timer_start(&health->timer, on_tick, 0, HASTE_MS);
    return health;
}

static void
on_closed(uv_handle_t *handle)
{
    apm_health *health = handle->data;
    free(health->queues);
    free(health);
}

void
apm_health_close(apm_health *health)
{
    if (health)
        uv_close((uv_handle_t *)&health->timer, on_closed);
}
