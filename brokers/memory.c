/*
 * memory.c - the broker adapter for memory://name: queues in this process, shared by all its
 * loops. This is one loop's side of it; memory_queues.h is the store's. A delivery is a copy, so
 * user code never runs under the store's mutex.
 */
#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1

#include "brokers/memory_queues.h"
#include "core/base/clock.h"
#include "core/base/error.h"

#define BATCH_MAX   256
#define QUEUES_MAX  256
#define DEFAULT_MAX ((int64_t)128 << 20)

typedef struct consumed {
    mqueue *queue; /* NULL until it is declared */
    char *name;
    bool on;
} consumed;

typedef struct memory_broker memory_broker;

/* A loop handle outlives the broker by its closing. */
typedef struct ticker {
    uv_timer_t timer;
    memory_broker *broker;
    bool closed;
} ticker;

struct memory_broker {
    apm_broker base;
    apm_memory_listener on_wake, on_send;
    ticker *ticker;
    consumed queues[QUEUES_MAX];
    size_t n_queues, turn;
    bool turns, window_set, stopped, stopping;
    unsigned window;
    apm_done_cb *stop_done;
    void *stop_arg;
    apm_delivery *held;
    size_t n_held;
    desk desk;
};

typedef struct memory_delivery {
    apm_delivery base;
    int64_t tag;
} memory_delivery;

static apm_memory_store *
store_of(const memory_broker *b)
{
    return apm_memory_store_of(b->base.link);
}

static int64_t
max_bytes(const memory_broker *b)
{
    const apm_settings *settings = b->base.opts.settings;

    return settings && settings->max_message_bytes > 0 ? settings->max_message_bytes : DEFAULT_MAX;
}

static void
held_add(memory_broker *b, apm_delivery *delivery)
{
    delivery->prev = NULL;
    delivery->next = b->held;
    if (b->held)
        b->held->prev = delivery;
    b->held = delivery;
    b->n_held++;
}

static void
held_remove(memory_broker *b, apm_delivery *delivery)
{
    if (delivery->prev)
        delivery->prev->next = delivery->next;
    else
        b->held = delivery->next;
    if (delivery->next)
        delivery->next->prev = delivery->prev;
    delivery->prev = delivery->next = NULL;
    b->n_held--;
}

/* ---- Units ---- */

static apium_status
broker_publish(apm_broker *base, apm_unit *unit, const apm_route *route, const apm_message *msg,
               apium_error *err)
{
    memory_broker *b = (memory_broker *)base;
    int64_t size = (int64_t)(msg->body.len + msg->headers.len);
    const char *to = route->routing_key ? route->routing_key : "";

    if (size > max_bytes(b))
        return apm_fail(err, APIUM_E_TOOBIG,
                        "cannot publish to \"%s\": the message has %lld bytes, more than %lld", to,
                        (long long)size, (long long)max_bytes(b));
    apm_memory_op *op = apm_memory_publish_op(route, msg);
    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%s\": out of memory", to);
    apm_memory_add(unit, op);
    return APIUM_OK;
}

/* What was settled by a unit that failed may be settled again; it does not count in the window any
 * more. */
static apium_status
append_settlement(apm_unit *unit, apm_delivery *delivery, apm_memory_op *op, apium_error *err)
{
    memory_broker *b = (memory_broker *)delivery->broker;

    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot settle a message of \"%s\": out of memory",
                        delivery->queue);
    apm_memory_add(unit, op);
    if (delivery->hold == APM_HELD)
        held_remove(b, delivery);
    delivery->hold = APM_SETTLED;
    apm_memory_stir(b->base.link);
    return APIUM_OK;
}

static apium_status
broker_settle(apm_broker *base, apm_unit *unit, apm_delivery *delivery, apm_disposition how,
              const char *reason, apium_error *err)
{
    (void)base;
    if (delivery->hold == APM_LOST)
        return APIUM_OK;
    return append_settlement(
        unit, delivery, apm_memory_settle_op(((memory_delivery *)delivery)->tag, how, reason), err);
}

static apium_status
broker_park(apm_broker *base, apm_unit *unit, apm_delivery *delivery, int64_t due_us,
            apium_error *err)
{
    (void)base;
    if (delivery->hold == APM_LOST)
        return APIUM_OK;
    return append_settlement(unit, delivery,
                             apm_memory_park_op(((memory_delivery *)delivery)->tag, due_us), err);
}

/* Unsettled, it stays held until the broker is closed. */
static void
broker_free_delivery(apm_delivery *delivery)
{
    if (delivery->hold == APM_HELD)
        held_remove((memory_broker *)delivery->broker, delivery);
    apm_arena_clear(&delivery->arena);
    free(delivery);
}

/* ---- Receiving ---- */

/* The next letter in the order of the queues; with its place among them. */
static letter *
take_next(memory_broker *b, queues *all, consumed **from)
{
    for (size_t i = 0; i < b->n_queues; i++) {
        size_t at = b->turns ? (b->turn + i) % b->n_queues : i;
        consumed *queue = &b->queues[at];
        if (!queue->on ||
            (!queue->queue && !(queue->queue = apm_memory_find_queue(all, queue->name))))
            continue;
        letter *l = apm_memory_take_first(queue->queue);
        if (!l)
            continue;
        *from = queue;
        b->turn = (at + 1) % b->n_queues;
        return l;
    }
    return NULL;
}

static apm_delivery *
deliver(memory_broker *b, queues *all, letter *l, const consumed *from)
{
    memory_delivery *delivery = calloc(1, sizeof(*delivery));

    if (!delivery || !apm_memory_hold(all, l, b)) {
        free(delivery);
        return NULL;
    }
    if (!apm_memory_copy_message(&delivery->base.arena, &l->msg, &delivery->base.msg)) {
        apm_memory_let_go(all, l);
        apm_arena_clear(&delivery->base.arena);
        free(delivery);
        return NULL;
    }
    delivery->base.broker = &b->base;
    delivery->base.queue = from->name;
    delivery->base.hold = APM_HELD;
    delivery->base.received_ms = apm_clock_ms();
    delivery->base.msg.redelivered = l->redelivered;
    delivery->tag = l->tag;
    held_add(b, &delivery->base);
    return &delivery->base;
}

static void on_tick(uv_timer_t *timer);

static void
pump(memory_broker *b)
{
    apm_memory_store *store = store_of(b);
    queues *all = store->queues;
    apm_delivery *batch[BATCH_MAX];
    size_t n = 0;
    apm_str refused = APM_STR_NONE;
    const char *refused_from = NULL;
    char why[160];

    if (b->stopped || !b->window_set || !b->n_queues)
        return;
    pthread_mutex_lock(&store->mutex);
    apm_memory_wake_due(store, all);
    while (n < BATCH_MAX && (!b->window || b->n_held < b->window) && !refused_from) {
        consumed *from;
        letter *l = take_next(b, all, &from);
        if (!l)
            break;
        int64_t size = (int64_t)(l->msg.body.len + l->msg.headers.len);
        if (size > max_bytes(b)) {
            snprintf(why, sizeof(why),
                     "the message has %lld bytes, more than max_message_bytes %lld",
                     (long long)size, (long long)max_bytes(b));
            refused = apm_strz(strndup(l->msg.headers.p, l->msg.headers.len));
            refused_from = from->name;
            apm_memory_bury(all, l, why);
            continue;
        }
        apm_delivery *delivery = deliver(b, all, l, from);
        if (!delivery) {
            apm_memory_make_ready(store, l); /* no memory: it waits in its place */
            break;
        }
        batch[n++] = delivery;
    }
    bool more = refused_from || n == BATCH_MAX;
    if (all->parked.first) {
        int64_t left = (all->parked.first->due_us - apm_clock_wall_us() + 999) / 1000;
        uv_timer_start(&b->ticker->timer, on_tick, left > 0 ? (uint64_t)left : 0, 0);
    }
    pthread_mutex_unlock(&store->mutex);
    if (more)
        apm_memory_stir(b->base.link);
    if (refused_from && b->base.opts.on_refused)
        b->base.opts.on_refused(b->base.opts.arg, refused_from, refused, why);
    free((char *)(uintptr_t)refused.p);
    if (n)
        b->base.opts.on_batch(b->base.opts.arg, batch, n);
}

static void
on_tick(uv_timer_t *timer)
{
    ticker *t = timer->data;

    if (!t->closed)
        pump(t->broker);
}

static void
on_wake(void *arg)
{
    apm_memory_stir(((memory_broker *)arg)->base.link);
}

static void
on_send(void *arg)
{
    memory_broker *b = arg;
    ticker *t = b->ticker; /* tells whether a callback has closed the broker */

    if (b->stopping) {
        b->stopping = false;
        if (b->stop_done)
            b->stop_done(b->stop_arg, APIUM_OK, NULL);
    }
    if (!t->closed)
        apm_memory_answer(&b->desk, &t->closed);
    if (!t->closed)
        pump(b);
}

static apium_status
broker_consume(apm_broker *base, const apm_queue *queue, apium_error *err)
{
    memory_broker *b = (memory_broker *)base;
    size_t i = 0;

    while (i < b->n_queues && strcmp(b->queues[i].name, queue->name) != 0)
        i++;
    if (i == QUEUES_MAX)
        return apm_fail(err, APIUM_E_TOOBIG, "cannot consume from \"%s\": more than %d queues",
                        queue->name, QUEUES_MAX);
    if (i == b->n_queues) {
        char *name = strdup(queue->name);
        if (!name)
            return apm_fail(err, APIUM_E_NOMEM, "cannot consume from \"%s\": out of memory",
                            queue->name);
        b->queues[b->n_queues++] = (consumed){ .name = name };
    }
    b->queues[i].on = true;
    apm_memory_stir(base->link);
    return APIUM_OK;
}

static apium_status
broker_cancel(apm_broker *base, const char *queue, apium_error *err)
{
    memory_broker *b = (memory_broker *)base;

    for (size_t i = 0; i < b->n_queues; i++) {
        if (b->queues[i].on && strcmp(b->queues[i].name, queue) == 0) {
            b->queues[i].on = false;
            return APIUM_OK;
        }
    }
    return apm_fail(err, APIUM_E_NOTFOUND, "cannot stop consuming from \"%s\": it is not consumed",
                    queue);
}

static void
broker_window(apm_broker *base, unsigned window, bool loose)
{
    memory_broker *b = (memory_broker *)base;

    (void)loose;
    b->window = window;
    b->window_set = true;
    apm_memory_stir(base->link);
}

static void
broker_stop(apm_broker *base, apm_done_cb *done, void *arg)
{
    memory_broker *b = (memory_broker *)base;

    b->stopped = b->stopping = true;
    b->stop_done = done;
    b->stop_arg = arg;
    apm_memory_stir(base->link);
}

/* ---- Looking after queues ---- */

static void
broker_declare(apm_broker *base, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    apm_memory_ask_declare(&((memory_broker *)base)->desk, queue, done, arg);
}

static void
broker_inspect(apm_broker *base, const char *const *names, size_t n, apm_infos_cb *done, void *arg)
{
    apm_memory_ask_inspect(&((memory_broker *)base)->desk, names, n, done, arg);
}

static void
broker_purge(apm_broker *base, const char *queue, apm_count_cb *done, void *arg)
{
    apm_memory_ask_purge(&((memory_broker *)base)->desk, queue, done, arg);
}

static void
broker_bindings(apm_broker *base, apm_bindings_cb *done, void *arg)
{
    apm_memory_ask_bindings(&((memory_broker *)base)->desk, done, arg);
}

static void
broker_dead(apm_broker *base, size_t limit, apm_dead_cb *done, void *arg)
{
    apm_memory_ask_dead(&((memory_broker *)base)->desk, limit, done, arg);
}

/* ---- Its life ---- */

static apium_status
broker_open(apm_broker *base, apium_error *err)
{
    memory_broker *b = (memory_broker *)base;
    const apm_settings *settings = base->opts.settings;
    apm_memory_store *store = store_of(b);

    pthread_mutex_lock(&store->mutex);
    if (!store->queues)
        store->queues = calloc(1, sizeof(queues));
    bool ok = store->queues && (b->ticker = calloc(1, sizeof(*b->ticker)));
    pthread_mutex_unlock(&store->mutex);
    if (!ok)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->link->shown);
    b->desk.link = base->link;
    b->ticker->broker = b;
    b->ticker->timer.data = b->ticker;
    uv_timer_init(apm_links_loop(base->link->set), &b->ticker->timer);
    b->turns = !settings || !settings->queue_order_strategy ||
               strcmp(settings->queue_order_strategy, "round_robin") == 0;
    b->on_wake = (apm_memory_listener){ .on_event = on_wake, .arg = b };
    b->on_send = (apm_memory_listener){ .on_event = on_send, .arg = b };
    apm_memory_listen(base->link, APM_MEMORY_WAKE, &b->on_wake);
    apm_memory_listen(base->link, APM_MEMORY_SEND, &b->on_send);
    return APIUM_OK;
}

static void
ticker_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
broker_close(apm_broker *base)
{
    memory_broker *b = (memory_broker *)base;

    apm_memory_unlisten(base->link, APM_MEMORY_WAKE, &b->on_wake);
    apm_memory_unlisten(base->link, APM_MEMORY_SEND, &b->on_send);
    apm_memory_desk_clear(&b->desk);
    pthread_mutex_lock(&store_of(b)->mutex);
    apm_memory_give_back(store_of(b), b);
    pthread_mutex_unlock(&store_of(b)->mutex);
    for (size_t i = 0; i < b->n_queues; i++)
        free(b->queues[i].name);
    b->ticker->closed = true;
    uv_close((uv_handle_t *)&b->ticker->timer, ticker_closed);
}

static const char *const schemes[] = { "memory", NULL };

const apm_broker_ops apm_memory_broker = {
    .name = "memory",
    .schemes = schemes,
    .size = sizeof(memory_broker),
    .features = APM_BROKER_PRIORITY | APM_BROKER_PARK | APM_BROKER_FENCE | APM_BROKER_LOCAL,
    .open = broker_open,
    .close = broker_close,
    .declare = broker_declare,
    .consume = broker_consume,
    .cancel = broker_cancel,
    .window = broker_window,
    .stop = broker_stop,
    .publish = broker_publish,
    .settle = broker_settle,
    .park = broker_park,
    .free_delivery = broker_free_delivery,
    .inspect = broker_inspect,
    .look = broker_inspect, /* nothing here is dear */
    .purge = broker_purge,
    .bindings = broker_bindings,
    .dead = broker_dead,
};
