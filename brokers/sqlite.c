/*
 * sqlite.c - the broker adapter for sqlite:///path, the side of the loop: when to ask for messages
 * and when to look after the file. What is asked is in sqlite_queues.h.
 *
 *   room in the window ─▶ receive ─▶ some ─▶ on_batch, and again while there is room
 *                                 ─▶ none ─▶ dry: listen to x-wake, look once more, then only when it is touched
 *
 * One receive is under way at a time, so that what the window lets in meanwhile is gathered. A
 * timer ticks every second while consuming: it looks when dry (a publisher may have died between
 * its commit and its touch), raises the beat every 15 s, sweeps every 5 s, and rings when the next
 * parked message is due.
 */
#include <stdio.h>
#include <stdlib.h>

#include "brokers/sqlite_queues.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"

#define TICK_MS     1000
#define SWEEP_MS    5000
#define RENEW_MS    15000
/* Our own last beat must not be older, or what we saw of others says nothing. */
#define BEATEN_MS   20000
#define BATCH_MAX   256
#define DEFAULT_MAX ((int64_t)128 << 20)

typedef struct consumed {
    char *name; /* kept until the end: deliveries point at it */
    bool on;
} consumed;

typedef struct sqlite_broker sqlite_broker;

/* A loop handle outlives the broker by its closing. */
typedef struct ticker {
    uv_timer_t timer;
    sqlite_broker *broker;
} ticker;

struct sqlite_broker {
    apm_broker base;
    apm_sqlite_listener on_wake, on_send;
    apm_link_watch watch;
    ticker *ticker;

    consumed *queues;
    size_t n_queues, turn;
    enum { TURNS, AS_GIVEN, SORTED } order;
    unsigned window;
    bool window_set, stopped, listening, dry;
    bool woken; /* x-wake was touched while a receive was under way: its "nothing" is old */
    apm_done_cb *stop_done;
    void *stop_arg;

    int64_t run, seq;
    bool registered;
    apm_delivery *held;
    size_t n_held;

    apm_sqlite_receive *receiving;
    apm_sqlite_tend *tending;
    bool tend_again, renew_next;
    apm_sqlite_seen seen[APM_SQLITE_SEEN_MAX];
    size_t n_seen;
    int64_t swept_ms, renewed_ms, beaten_ms; /* asked for, asked for, succeeded */
    int64_t next_due_us;                     /* 0: nothing is parked as far as we know */
    apm_sqlite_desk desk;
};

static void arm(sqlite_broker *b);
static void tend(sqlite_broker *b);

static int64_t
new_run(void)
{
    return (int64_t)(apm_random64() & (((uint64_t)1 << 61) - 1)) + 1;
}

static const char *
node_of(const sqlite_broker *b)
{
    return b->base.opts.node ? b->base.opts.node : "";
}

static int64_t
max_bytes(const sqlite_broker *b)
{
    const apm_settings *settings = b->base.opts.settings;

    return settings && settings->max_message_bytes > 0 ? settings->max_message_bytes : DEFAULT_MAX;
}

/* ---- What is held ---- */

static void
held_add(sqlite_broker *b, apm_delivery *delivery)
{
    delivery->prev = NULL;
    delivery->next = b->held;
    if (b->held)
        b->held->prev = delivery;
    b->held = delivery;
    b->n_held++;
}

static void
held_remove(sqlite_broker *b, apm_delivery *delivery)
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

/* Our run was declared dead (we hung for a minute) or its file is gone: begin a new life. */
static void
run_lost(sqlite_broker *b)
{
    apm_sqlite_op *retire = apm_sqlite_retire_op(b->run);

    if (retire)
        apm_sqlite_submit(b->base.link, retire, false); /* drops the lock of the old life */
    b->run = new_run();
    b->registered = false;
    for (apm_delivery *delivery = b->held; delivery; delivery = delivery->next)
        delivery->hold = APM_LOST;
    while (b->held) {
        apm_delivery *delivery = b->held;
        held_remove(b, delivery);
        if (b->base.opts.on_lost)
            b->base.opts.on_lost(b->base.opts.arg, delivery);
    }
}

/* ---- Receiving ---- */

static void
stop_is_done(sqlite_broker *b)
{
    apm_done_cb *done = b->stop_done;

    b->stop_done = NULL;
    if (done)
        done(b->stop_arg, APIUM_OK, NULL);
}

/* Hand on what came, give back what nobody wants any more. The op owns neither afterwards. */
static void
hand_on(sqlite_broker *b, apm_sqlite_receive *op)
{
    apm_delivery *batch[BATCH_MAX];
    apm_sqlite_tag back[BATCH_MAX];
    size_t n = 0, n_back = 0, kept = 0;

    for (size_t i = 0; i < op->n_got; i++) {
        apm_sqlite_delivery *delivery = op->got[i];
        consumed *queue = NULL;
        for (size_t q = 0; q < b->n_queues && !queue; q++)
            if (strcmp(b->queues[q].name, op->queues[delivery->from]) == 0)
                queue = &b->queues[q];
        if (b->stopped || !queue || !queue->on) {
            back[n_back++] = delivery->tag;
            op->got[kept++] = delivery; /* freed with the op */
            continue;
        }
        delivery->base.broker = &b->base;
        delivery->base.queue = queue->name;
        delivery->base.hold = APM_HELD;
        delivery->base.received_ms = apm_clock_ms();
        held_add(b, &delivery->base);
        batch[n++] = &delivery->base;
    }
    op->n_got = kept;
    if (n_back) {
        apm_sqlite_op *untake = apm_sqlite_untake_op(back, n_back);
        if (untake)
            apm_sqlite_submit(b->base.link, untake, false);
    }
    if (n)
        b->base.opts.on_batch(b->base.opts.arg, batch, n);
}

static void
receive_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    apm_sqlite_receive *op = (apm_sqlite_receive *)base;
    sqlite_broker *b = op->owner;

    (void)err; /* the link has said what was wrong with the file; the next tick asks again */
    if (!b)
        return;
    b->receiving = NULL;
    if (status == APIUM_OK && op->lost) {
        run_lost(b);
    } else if (status == APIUM_OK) {
        b->registered = true;
        b->next_due_us = op->next_due_us;
        if (op->n_got == 0 && op->n_refused == 0) {
            b->dry = b->listening && !b->woken;
            if (!b->listening && !b->stopped) {
                b->listening = true; /* and look once more */
                apm_sqlite_listen(b->base.link, APM_SQLITE_WAKE, &b->on_wake);
            }
        }
        for (size_t i = 0; i < op->n_refused; i++)
            if (b->base.opts.on_refused)
                b->base.opts.on_refused(b->base.opts.arg, op->queues[op->refused[i].from],
                                        op->refused[i].raw, op->refused[i].why);
        /* Names of the queues in their places: the turn goes on behind the last one served. */
        for (size_t q = 0; q < b->n_queues; q++)
            if (strcmp(b->queues[q].name, op->queues[op->next_turn]) == 0)
                b->turn = q;
        arm(b);
        hand_on(b, op);
    } else {
        b->dry = true;
    }
    b->woken = false;
    if (b->stopped)
        stop_is_done(b);
    else
        apm_sqlite_stir(b->base.link);
}

static int
by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The queues in the order in which they are to be served now. */
static size_t
order_queues(const sqlite_broker *b, const char *names[APM_SQLITE_QUEUES_MAX])
{
    size_t n = 0;

    for (size_t i = 0; i < b->n_queues; i++) {
        const consumed *queue = &b->queues[b->order == TURNS ? (b->turn + i) % b->n_queues : i];
        if (queue->on)
            names[n++] = queue->name;
    }
    if (b->order == SORTED)
        qsort(names, n, sizeof(*names), by_name);
    return n;
}

static void
pump(sqlite_broker *b)
{
    const char *names[APM_SQLITE_QUEUES_MAX];
    size_t want = BATCH_MAX;

    if (b->stopped || !b->window_set || b->receiving || b->dry)
        return;
    if (b->window) {
        if (b->n_held >= b->window)
            return;
        want = b->window - b->n_held;
    }
    size_t n = order_queues(b, names);
    if (n == 0)
        return;
    apm_sqlite_run run = { .run = b->run, .registered = b->registered, .node = node_of(b) };
    apm_sqlite_receive *op =
        apm_sqlite_receive_new(&run, names, n, want < BATCH_MAX ? want : BATCH_MAX);
    if (!op)
        return; /* the tick tries again */
    op->owner = b;
    op->op.finish = receive_answered;
    op->seq = b->seq;
    op->turns = b->order == TURNS;
    op->max_bytes = max_bytes(b);
    b->seq += (int64_t)op->want;
    b->receiving = op;
    apm_sqlite_submit(b->base.link, &op->op, false);
}

static void
on_send(void *arg)
{
    pump(arg);
}

static void
on_wake(void *arg)
{
    sqlite_broker *b = arg;

    if (b->dry) {
        b->dry = false;
        pump(b);
    } else if (b->receiving) {
        b->woken = true;
    } else {
        /* Busy: our window is full. Being told of every message would only cost. */
        apm_sqlite_unlisten(b->base.link, APM_SQLITE_WAKE, &b->on_wake);
        b->listening = false;
    }
}

/* ---- Tending ---- */

static void
tend_answered(apm_sqlite_op *base, apium_status status, const apium_error *err)
{
    apm_sqlite_tend *op = (apm_sqlite_tend *)base;
    sqlite_broker *b = op->owner;

    (void)err;
    if (!b)
        return;
    b->tending = NULL;
    if (status == APIUM_OK) {
        memcpy(b->seen, op->seen, sizeof(b->seen));
        b->n_seen = op->n_seen;
        b->next_due_us = op->next_due_us;
        if (op->renew) {
            b->beaten_ms = apm_clock_ms();
            b->base.renewals++;
        }
        if (op->restored && b->base.opts.on_notice) {
            char text[128];
            snprintf(text, sizeof(text), "Restored %lld message(s) of a worker that died or hung",
                     (long long)op->restored);
            b->base.opts.on_notice(b->base.opts.arg, APM_LOG_WARNING, text);
        }
        if (op->lost)
            run_lost(b);
    }
    if (b->tend_again)
        tend(b);
    arm(b);
}

static void
tend(sqlite_broker *b)
{
    int64_t now = apm_clock_ms();

    b->tend_again = b->tending != NULL;
    if (b->tending)
        return;
    apm_sqlite_run run = { .run = b->run, .registered = b->registered };
    apm_sqlite_tend *op = apm_sqlite_tend_new(&run);
    if (!op)
        return;
    op->owner = b;
    op->op.finish = tend_answered;
    op->renew = b->registered && now - b->renewed_ms >= RENEW_MS;
    op->sweep = !b->stopped && now - b->swept_ms >= SWEEP_MS;
    if (op->renew)
        b->renewed_ms = now;
    if (op->sweep)
        b->swept_ms = now;
    if (now - b->beaten_ms > BEATEN_MS)
        b->n_seen = 0;
    memcpy(op->seen, b->seen, sizeof(op->seen));
    op->n_seen = b->n_seen;
    b->tending = op;
    apm_sqlite_submit(b->base.link, &op->op, false);
}

static void
on_tick(uv_timer_t *timer)
{
    sqlite_broker *b = ((ticker *)timer->data)->broker;
    int64_t now = apm_clock_ms();

    if (!b)
        return;
    if (b->stop_done && !b->receiving) {
        stop_is_done(b);
        return;
    }
    if (!b->n_queues)
        return;
    if (now - b->swept_ms >= SWEEP_MS || (b->registered && now - b->renewed_ms >= RENEW_MS) ||
        (b->next_due_us && b->next_due_us <= apm_clock_wall_us())) {
        b->next_due_us = 0; /* the answer tells */
        tend(b);
    }
    b->dry = false;
    apm_sqlite_stir(b->base.link);
    arm(b);
}

/* Set the timer to the next tick, or to when the next parked message is due. */
static void
arm(sqlite_broker *b)
{
    int64_t wait = TICK_MS;

    if (b->next_due_us) {
        int64_t left = (b->next_due_us - apm_clock_wall_us() + 999) / 1000;
        wait = left < wait ? (left > 0 ? left : 0) : wait;
    }
    uv_timer_start(&b->ticker->timer, on_tick, (uint64_t)wait, 0);
}

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    sqlite_broker *b = arg;

    (void)link;
    (void)why;
    if (!up && b->stop_done && b->receiving) {
        /* Nobody knows when it will be answered. Should it take something, the run's end gives
         * that back. */
        b->receiving->owner = NULL;
        b->receiving = NULL;
        uv_timer_start(&b->ticker->timer, on_tick, 0, 0);
    }
}

/* ---- The broker's life ---- */

static apium_status
broker_open(apm_broker *base, apium_error *err)
{
    sqlite_broker *b = (sqlite_broker *)base;
    const apm_settings *settings = base->opts.settings;

    b->ticker = calloc(1, sizeof(*b->ticker));
    if (!b->ticker)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->link->shown);
    b->desk.link = base->link;
    b->ticker->broker = b;
    b->ticker->timer.data = b->ticker;
    uv_timer_init(apm_links_loop(base->link->set), &b->ticker->timer);
    if (settings && settings->queue_order_strategy)
        b->order = strcmp(settings->queue_order_strategy, "priority") == 0 ? AS_GIVEN
                   : strcmp(settings->queue_order_strategy, "sorted") == 0 ? SORTED
                                                                           : TURNS;
    b->run = new_run();
    b->beaten_ms = b->renewed_ms = apm_clock_ms();
    b->swept_ms = b->beaten_ms - SWEEP_MS; /* the first tick sweeps */
    b->on_wake = (apm_sqlite_listener){ .on_event = on_wake, .arg = b };
    b->on_send = (apm_sqlite_listener){ .on_event = on_send, .arg = b };
    b->watch = (apm_link_watch){ .on_event = on_link, .arg = b };
    apm_sqlite_schema(base->link, apm_sqlite_queues_schema);
    apm_sqlite_schema(base->link, apm_sqlite_queues_sent);
    apm_sqlite_listen(base->link, APM_SQLITE_SEND, &b->on_send);
    apm_link_watch_add(base->link, &b->watch);
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
    sqlite_broker *b = (sqlite_broker *)base;

    if (b->receiving)
        b->receiving->owner = NULL;
    if (b->tending)
        b->tending->owner = NULL;
    apm_sqlite_desk_clear(&b->desk);
    apm_link_watch_remove(base->link, &b->watch);
    apm_sqlite_unlisten(base->link, APM_SQLITE_SEND, &b->on_send);
    if (b->listening)
        apm_sqlite_unlisten(base->link, APM_SQLITE_WAKE, &b->on_wake);
    /* Also gives back what a receive under way may still take: it comes before this. */
    apm_sqlite_op *retire = b->n_queues ? apm_sqlite_retire_op(b->run) : NULL;
    if (retire)
        apm_sqlite_submit(base->link, retire, false);
    for (size_t i = 0; i < b->n_queues; i++)
        free(b->queues[i].name);
    free(b->queues);
    b->ticker->broker = NULL;
    uv_close((uv_handle_t *)&b->ticker->timer, ticker_closed);
}

static apium_status
broker_consume(apm_broker *base, const apm_queue *queue, apium_error *err)
{
    sqlite_broker *b = (sqlite_broker *)base;

    for (size_t i = 0; i < b->n_queues; i++) {
        if (strcmp(b->queues[i].name, queue->name) == 0) {
            b->queues[i].on = true;
            b->dry = false;
            apm_sqlite_stir(base->link);
            return APIUM_OK;
        }
    }
    if (b->n_queues == APM_SQLITE_QUEUES_MAX)
        return apm_fail(err, APIUM_E_TOOBIG, "cannot consume from \"%s\": more than %d queues",
                        queue->name, APM_SQLITE_QUEUES_MAX);
    consumed *more = realloc(b->queues, (b->n_queues + 1) * sizeof(*more));
    char *name = more ? strdup(queue->name) : NULL;
    if (more)
        b->queues = more;
    if (!name)
        return apm_fail(err, APIUM_E_NOMEM, "cannot consume from \"%s\": out of memory",
                        queue->name);
    b->queues[b->n_queues++] = (consumed){ name, true };
    b->dry = false;
    /* A first look around at once: a node that was killed is often started again. */
    uv_timer_start(&b->ticker->timer, on_tick, 0, 0);
    apm_sqlite_stir(base->link);
    return APIUM_OK;
}

static apium_status
broker_cancel(apm_broker *base, const char *queue, apium_error *err)
{
    sqlite_broker *b = (sqlite_broker *)base;

    for (size_t i = 0; i < b->n_queues; i++) {
        if (strcmp(b->queues[i].name, queue) == 0 && b->queues[i].on) {
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
    sqlite_broker *b = (sqlite_broker *)base;

    (void)loose;
    b->window = window;
    b->window_set = true;
    apm_sqlite_stir(base->link);
}

static void
broker_stop(apm_broker *base, apm_done_cb *done, void *arg)
{
    sqlite_broker *b = (sqlite_broker *)base;

    b->stopped = true;
    b->stop_done = done;
    b->stop_arg = arg;
    if (b->receiving && base->link->up)
        return; /* its answer is the last */
    if (b->receiving) {
        b->receiving->owner = NULL;
        b->receiving = NULL;
    }
    uv_timer_start(&b->ticker->timer, on_tick, 0, 0);
}

/* ---- Units ---- */

static apium_status
broker_publish(apm_broker *base, apm_unit *unit, const apm_route *route, const apm_message *msg,
               apium_error *err)
{
    sqlite_broker *b = (sqlite_broker *)base;
    int64_t size = (int64_t)(msg->body.len + msg->headers.len);
    const char *to = route->routing_key ? route->routing_key : "";

    if (size > max_bytes(b))
        return apm_fail(err, APIUM_E_TOOBIG,
                        "cannot publish to \"%s\": the message has %lld bytes, more than %lld", to,
                        (long long)size, (long long)max_bytes(b));
    apm_sqlite_op *op = apm_sqlite_publish_op(route, msg);
    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%s\": out of memory", to);
    apm_sqlite_add(unit, op);
    return APIUM_OK;
}

static apium_status
append_settlement(apm_unit *unit, apm_delivery *delivery, apm_sqlite_op *op, apium_error *err)
{
    sqlite_broker *b = (sqlite_broker *)delivery->broker;

    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot settle a message of \"%s\": out of memory",
                        delivery->queue);
    apm_sqlite_add(unit, op);
    if (delivery->hold == APM_HELD) /* otherwise again, after a unit that failed */
        held_remove(b, delivery);
    delivery->hold = APM_SETTLED;
    apm_sqlite_stir(b->base.link); /* there is room in the window */
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
        unit, delivery,
        apm_sqlite_settle_op(&((apm_sqlite_delivery *)delivery)->tag, how, reason, delivery->queue),
        err);
}

static apium_status
broker_park(apm_broker *base, apm_unit *unit, apm_delivery *delivery, int64_t due_us,
            apium_error *err)
{
    sqlite_broker *b = (sqlite_broker *)base;

    if (delivery->hold == APM_LOST)
        return APIUM_OK;
    apium_status st = append_settlement(
        unit, delivery, apm_sqlite_park_op(&((apm_sqlite_delivery *)delivery)->tag, due_us), err);
    if (st == APIUM_OK && (!b->next_due_us || due_us < b->next_due_us)) {
        b->next_due_us = due_us;
        arm(b);
    }
    return st;
}

static void
broker_free_delivery(apm_delivery *delivery)
{
    if (delivery->hold == APM_HELD)
        held_remove((sqlite_broker *)delivery->broker, delivery); /* the run's end gives it back */
    apm_arena_clear(&delivery->arena);
    free(delivery);
}

/* ---- Looking after queues ---- */

static void
broker_declare(apm_broker *base, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    apm_sqlite_ask_declare(&((sqlite_broker *)base)->desk, queue, done, arg);
}

static void
broker_inspect(apm_broker *base, const char *const *names, size_t n, apm_infos_cb *done, void *arg)
{
    apm_sqlite_ask_inspect(&((sqlite_broker *)base)->desk, names, n, done, arg);
}

static void
broker_look(apm_broker *base, const char *const *names, size_t n, apm_infos_cb *done, void *arg)
{
    apm_sqlite_ask_look(&((sqlite_broker *)base)->desk, names, n, done, arg);
}

static void
broker_purge(apm_broker *base, const char *queue, apm_count_cb *done, void *arg)
{
    apm_sqlite_ask_purge(&((sqlite_broker *)base)->desk, queue, done, arg);
}

static void
broker_bindings(apm_broker *base, apm_bindings_cb *done, void *arg)
{
    apm_sqlite_ask_bindings(&((sqlite_broker *)base)->desk, done, arg);
}

static void
broker_dead(apm_broker *base, size_t limit, apm_dead_cb *done, void *arg)
{
    apm_sqlite_ask_dead(&((sqlite_broker *)base)->desk, limit, done, arg);
}

static const char *const schemes[] = { "sqlite", NULL };

const apm_broker_ops apm_sqlite_broker = {
    .name = "sqlite",
    .schemes = schemes,
    .size = sizeof(sqlite_broker),
    .features = APM_BROKER_PRIORITY | APM_BROKER_PARK | APM_BROKER_FENCE,
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
    .look = broker_look,
    .purge = broker_purge,
    .bindings = broker_bindings,
    .dead = broker_dead,
};
