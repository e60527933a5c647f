/*
 * redis_wait.c - waiting while the lists are empty, without popping: BLMOVE list list RIGHT RIGHT takes the oldest element
 * and puts it back where it was, so it changes nothing, and it wakes within a millisecond of a push. One
 * connection waits on each list (queue and priority step), on at most 64 of them, the most recently active; the other
 * lists, and all of them on a server before 6.2, are looked at now and then.
 */
#include "brokers/redis.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/ids.h"

#define MAX_WAITERS 64
#define BLOCK_S     25
#define AGAIN_MS    1000 /* a waiting connection that ended is opened again after so long */
#define MISS_MS                                                                                    \
    4 /* woken for nothing (another node was quicker): a random pause of up to so much */
#define POLL_MIN_MS 1  /* without waiters for all lists: look after 1 ms, then ever later */
#define OLD_MAX_MS  50 /* before 6.2 that is all there is, so look often */
#define REST_MIN_MS 50
#define REST_MAX_MS 1000
#define LISTS_A_MS                                                                                 \
    4 /* for each so many lists that nobody waits on a millisecond passes between looks */

struct redis_waiter {
    redis_broker *broker;
    redis_queue *queue;
    int step;
    apm_redis_conn *conn;
    bool blocked; /* a BLMOVE is under way */
    bool woken;   /* it answered; whether for something, the next fetch shows */
    int64_t not_before_ms;
};

typedef struct redis_wait {
    uv_timer_t poll;  /* looks at lists nobody waits on */
    uv_timer_t pause; /* wakes the loop, whose hook then arms who paused */
    unsigned handles;
    int64_t poll_ms;
    unsigned n;
    bool no_blmove; /* the server does not know it, or does not let us */
} redis_wait;

static void
on_poll(uv_timer_t *timer)
{
    redis_broker *broker = timer->data;
    broker->ready = true; /* the hook fetches before the loop sleeps */
}

static void
on_pause_over(uv_timer_t *timer)
{
    (void)timer;
}

static void
timer_in(uv_timer_t *timer, uv_timer_cb cb, int64_t ms)
{
    if (uv_is_active((uv_handle_t *)timer) && (int64_t)uv_timer_get_due_in(timer) <= ms)
        return;
    uv_update_time(timer->loop);
    uv_timer_start(timer, cb, (uint64_t)ms, 0);
}

static void
on_woken(void *arg, const redisReply *reply)
{
    redis_waiter *waiter = arg;
    redis_broker *broker = waiter->broker;

    waiter->blocked = false;
    if (!reply)
        return; /* the connection ended: on_ended follows, or we ended it */
    if (reply->type == REDIS_REPLY_ERROR) {
        if (strncmp(reply->str, "ERR unknown command", 19) == 0 ||
            strncmp(reply->str, "NOPERM", 6) == 0)
            broker->wait->no_blmove = true;
        waiter->not_before_ms =
            apm_clock_ms() + AGAIN_MS; /* WRONGTYPE and others: the fetch tells about it */
        return;
    }
    if (reply->type == REDIS_REPLY_STRING) {
        broker->ready = true;
        waiter->woken = true;
        redis_fetch_first(broker, waiter->queue);
    }
}

static void
block(redis_waiter *waiter)
{
    const char *list = waiter->queue->list[waiter->step];
    apm_buf cmd;

    apm_buf_init(&cmd, 1 << 20);
    apm_resp_open(&cmd, 6);
    apm_resp_addz(&cmd, "BLMOVE");
    apm_resp_addz(&cmd, list);
    apm_resp_addz(&cmd, list);
    apm_resp_addz(&cmd, "RIGHT");
    apm_resp_addz(&cmd, "RIGHT");
    apm_resp_int(&cmd, BLOCK_S);
    waiter->blocked = true;
    apm_redis_conn_send(waiter->conn, apm_buf_str(&cmd), BLOCK_S * 1000 + APM_REDIS_SILENCE_MS,
                        on_woken, waiter);
    apm_buf_clear(&cmd);
}

static void
on_ready(void *arg, apm_redis_conn *conn)
{
    redis_waiter *waiter = arg;
    (void)conn;
    block(waiter);
}

static void
on_ended(void *arg, apm_redis_conn *conn, const apium_error *err)
{
    redis_waiter *waiter = arg;
    (void)conn;
    (void)err;
    waiter->conn = NULL;
    waiter->not_before_ms = apm_clock_ms() + AGAIN_MS;
    waiter->broker->ready = true; /* while it was gone something may have come */
}

static void
waiter_free(redis_waiter *waiter)
{
    redis_broker *broker = waiter->broker;

    apm_redis_conn_close(waiter->conn);
    waiter->queue->waiter[waiter->step] = NULL;
    broker->wait->n--;
    free(waiter);
}

/* Make room by ending the wait on the list that was active longest ago, if that is longer ago than `active_ms`. */
static bool
make_room(redis_broker *broker, int64_t active_ms)
{
    redis_waiter *stalest = NULL;
    int64_t since = active_ms;

    for (size_t q = 0; q < broker->n_order; q++) {
        redis_queue *queue = broker->order[q];
        for (int s = 0; s < broker->n_steps; s++) {
            if (!queue->waiter[s] || queue->active_ms[s] >= since)
                continue;
            stalest = queue->waiter[s];
            since = queue->active_ms[s];
        }
    }
    if (!stalest)
        return false;
    waiter_free(stalest);
    return true;
}

/* A waiter for this list, if there may be one more. */
static redis_waiter *
waiter_get(redis_broker *broker, redis_queue *queue, int step)
{
    redis_waiter *waiter = queue->waiter[step];

    if (waiter || (broker->wait->n >= MAX_WAITERS && !make_room(broker, queue->active_ms[step])))
        return waiter;
    waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        return NULL;
    *waiter = (redis_waiter){ .broker = broker, .queue = queue, .step = step };
    queue->waiter[step] = waiter;
    broker->wait->n++;
    return waiter;
}

/* True when somebody waits, or soon will, on this list. */
static bool
wait_on(redis_broker *broker, redis_queue *queue, int step, int64_t now)
{
    redis_waiter *waiter = waiter_get(broker, queue, step);

    if (!waiter)
        return false;
    if (waiter->blocked)
        return true;
    if (waiter->woken &&
        !broker->last_found) /* others took what woke us all: do not come back all at once */
        waiter->not_before_ms = now + 1 + (int64_t)(apm_random_unit() * MISS_MS);
    waiter->woken = false;
    if (now < waiter->not_before_ms) {
        timer_in(&broker->wait->pause, on_pause_over, waiter->not_before_ms - now);
        return true;
    }
    if (!waiter->conn)
        waiter->conn =
            apm_redis_connect(broker->base.link, &(apm_redis_conn_opts){ .read_bytes = 16 * 1024,
                                                                         .on_ready = on_ready,
                                                                         .on_ended = on_ended,
                                                                         .arg = waiter });
    else if (apm_redis_conn_ready(waiter->conn))
        block(waiter);
    return waiter->conn != NULL;
}

bool
redis_wait_holds(const redis_queue *queue, int step)
{
    return queue->waiter[step] && queue->waiter[step]->blocked;
}

void
redis_wait_arm(redis_broker *broker)
{
    redis_wait *wait = broker->wait;
    int version = apm_redis_version(broker->base.link);
    bool old = wait->no_blmove || (version && version < 602);
    int64_t now = apm_clock_ms(), alone = 0; /* lists that nobody waits on */

    for (int s = 0; s < broker->n_steps && !old; s++)
        for (size_t q = 0; q < broker->n_order; q++)
            alone += !wait_on(broker, broker->order[q], s, now);
    if (!old && !alone) {
        wait->poll_ms = 0;
        return;
    }
    if (uv_is_active((uv_handle_t *)&wait->poll))
        return;
    if (broker->last_found)
        wait->poll_ms = 0;
    /* The longer a look takes, the rarer it is. */
    int64_t rest = alone / LISTS_A_MS, least = old ? POLL_MIN_MS : REST_MIN_MS,
            most = old                  ? OLD_MAX_MS
                   : rest < REST_MIN_MS ? REST_MIN_MS
                   : rest > REST_MAX_MS ? REST_MAX_MS
                                        : rest;
    wait->poll_ms = wait->poll_ms < least      ? least
                    : wait->poll_ms * 2 > most ? most
                                               : wait->poll_ms * 2;
    timer_in(&wait->poll, on_poll, wait->poll_ms);
}

void
redis_wait_down(redis_broker *broker)
{
    for (redis_queue *queue = broker->queues; queue; queue = queue->next)
        redis_wait_drop(broker, queue);
    uv_timer_stop(&broker->wait->poll);
    uv_timer_stop(&broker->wait->pause);
    broker->wait->no_blmove = false; /* the next server may know it */
}

void
redis_wait_drop(redis_broker *broker, redis_queue *queue)
{
    for (int s = 0; s < broker->n_steps; s++)
        if (queue->waiter[s])
            waiter_free(queue->waiter[s]);
}

apium_status
redis_wait_open(redis_broker *broker)
{
    broker->wait = calloc(1, sizeof(*broker->wait));
    if (!broker->wait)
        return APIUM_E_NOMEM;
    broker->wait->handles = 2;
    uv_timer_init(apm_links_loop(broker->base.link->set), &broker->wait->poll);
    uv_timer_init(apm_links_loop(broker->base.link->set), &broker->wait->pause);
    broker->wait->poll.data = broker;
    return APIUM_OK;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    redis_wait *wait = handle->data;
    if (--wait->handles == 0)
        free(wait);
}

void
redis_wait_close(redis_broker *broker)
{
    if (!broker->wait)
        return;
    redis_wait_down(broker);
    broker->wait->poll.data = broker->wait->pause.data = broker->wait;
    uv_close((uv_handle_t *)&broker->wait->poll, on_timer_closed);
    uv_close((uv_handle_t *)&broker->wait->pause, on_timer_closed);
    broker->wait = NULL;
}
