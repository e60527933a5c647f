/*
 * memory.c - the broker adapter for memory://name: queues in this process, shared by all its
 * loops.
 *
 * A letter (a message in the store) is in one place: in its queue's ready list of its rank, held
 * by a broker, parked, or dead. All of it is guarded by the store's mutex; a delivery is a copy,
 * so user code never runs under the mutex.
 */
#include <stdio.h>
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "brokers/broker.h"
#include "brokers/topic.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/link/memory.h"

#define DEAD_MAX    10000
#define BATCH_MAX   256
#define QUEUES_MAX  256
#define DEFAULT_MAX ((int64_t)128 << 20)
#define RANKS       10

/* ---- The store's part ---- */

typedef struct letter {
    struct letter *prev, *next; /* in its place */
    struct mqueue *queue;
    int64_t pos; /* orders a ready list */
    int rank;
    bool redelivered;
    int64_t tag;  /* while held: a number never used again */
    void *holder; /* the broker that holds it */
    int64_t due_us;
    const char *reason; /* when dead */
    int64_t died_us;
    apm_arena arena;
    apm_message msg;
    UT_hash_handle hh; /* of the held ones */
} letter;

typedef struct letters {
    letter *first, *last;
    int64_t n;
} letters;

typedef struct mqueue {
    char *name;
    letters ready[RANKS];
    int64_t held, parked, dead;
    struct mqueue *next;
} mqueue;

typedef struct binding {
    char *exchange, *key;
    apm_exchange_type type;
    mqueue *queue;
    struct binding *next;
} binding;

typedef struct queues {
    mqueue *first;
    binding *bindings;
    letter *held;   /* by tag */
    letters parked; /* by due time */
    letters dead;   /* oldest first */
    int64_t last_pos, last_tag;
} queues;

static void
insert_after(letters *list, letter *at, letter *l)
{
    l->prev = at;
    l->next = at ? at->next : list->first;
    if (l->next)
        l->next->prev = l;
    else
        list->last = l;
    if (at)
        at->next = l;
    else
        list->first = l;
    list->n++;
}

static void
take_out(letters *list, letter *l)
{
    if (l->prev)
        l->prev->next = l->next;
    else
        list->first = l->next;
    if (l->next)
        l->next->prev = l->prev;
    else
        list->last = l->prev;
    l->prev = l->next = NULL;
    list->n--;
}

/* In the order of positions; most go to the end. */
static void
make_ready(apm_memory_store *store, letter *l)
{
    letters *list = &l->queue->ready[l->rank];
    letter *at = list->last;

    while (at && at->pos > l->pos)
        at = at->prev;
    insert_after(list, at, l);
    apm_memory_touch(store, APM_MEMORY_WAKE);
}

static void
letter_free(letter *l)
{
    apm_arena_clear(&l->arena);
    free(l);
}

static mqueue *
find_queue(queues *all, const char *name)
{
    mqueue *queue = all->first;

    while (queue && strcmp(queue->name, name) != 0)
        queue = queue->next;
    return queue;
}

static mqueue *
ensure_queue(queues *all, const apm_queue *spec)
{
    mqueue *queue = find_queue(all, spec->name);
    const char *key = spec->routing_key ? spec->routing_key : "";

    if (!queue) {
        queue = calloc(1, sizeof(*queue));
        if (!queue || !(queue->name = strdup(spec->name))) {
            free(queue);
            return NULL;
        }
        queue->next = all->first;
        all->first = queue;
    }
    if (!spec->exchange || !*spec->exchange)
        return queue;
    for (binding *b = all->bindings; b; b = b->next) {
        if (b->queue == queue && strcmp(b->exchange, spec->exchange) == 0 &&
            strcmp(b->key, key) == 0) {
            b->type = spec->exchange_type;
            return queue;
        }
    }
    binding *b = calloc(1, sizeof(*b));
    if (!b || !(b->exchange = strdup(spec->exchange)) || !(b->key = strdup(key))) {
        if (b)
            free(b->exchange);
        free(b);
        return NULL;
    }
    b->type = spec->exchange_type;
    b->queue = queue;
    b->next = all->bindings;
    all->bindings = b;
    return queue;
}

static const char *
copy_z(apm_arena *arena, const char *z, bool *ok)
{
    return z ? apm_arena_str(arena, apm_strz(z), ok).p : NULL;
}

static bool
copy_message(apm_arena *arena, const apm_message *from, apm_message *to)
{
    bool ok = true;

    *to = (apm_message){
        .content_type = apm_arena_str(arena, from->content_type, &ok),
        .content_encoding = apm_arena_str(arena, from->content_encoding, &ok),
        .headers = apm_arena_str(arena, from->headers, &ok),
        .body = apm_arena_str(arena, from->body, &ok),
        .correlation_id = apm_arena_str(arena, from->correlation_id, &ok),
        .reply_to = apm_arena_str(arena, from->reply_to, &ok),
        .expiration = apm_arena_str(arena, from->expiration, &ok),
        .priority = from->priority,
        .delivery_mode = from->delivery_mode,
        .exchange = apm_arena_str(arena, from->exchange, &ok),
        .routing_key = apm_arena_str(arena, from->routing_key, &ok),
        .redelivered = from->redelivered,
    };
    return ok;
}

/* ---- The loop's part ---- */

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
    /* A flag of the function that calls back now: set when the broker is closed meanwhile. */
    bool *gone;
} ticker;

typedef struct question question;

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
    question *questions;
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

static void
bury(queues *all, letter *l, const char *reason)
{
    bool ok = true;

    l->reason = copy_z(&l->arena, reason, &ok);
    l->died_us = apm_clock_wall_us();
    l->queue->dead++;
    insert_after(&all->dead, all->dead.last, l);
    if (all->dead.n > DEAD_MAX) {
        letter *oldest = all->dead.first;
        take_out(&all->dead, oldest);
        oldest->queue->dead--;
        letter_free(oldest);
    }
}

/* ---- Publishing ---- */

typedef struct publish_op {
    apm_memory_op op;
    letter *letter;  /* the first copy */
    apm_queue queue; /* name NULL: not ours to declare */
    const char *exchange, *routing_key;
    bool mandatory;
    mqueue *to[64];
    letter *copies[64]; /* made by check, taken by apply */
    size_t n;
} publish_op;

static bool
add_target(publish_op *op, mqueue *queue)
{
    for (size_t i = 0; i < op->n; i++)
        if (op->to[i] == queue)
            return true;
    if (op->n == sizeof(op->to) / sizeof(op->to[0]))
        return true;
    letter *copy = op->letter;
    op->letter = NULL;
    if (!copy && ((copy = calloc(1, sizeof(*copy))) == NULL ||
                  !copy_message(&copy->arena, &op->copies[0]->msg, &copy->msg))) {
        if (copy)
            letter_free(copy);
        return false;
    }
    op->copies[op->n] = copy;
    op->to[op->n++] = queue;
    return true;
}

static apium_status
check_publish(apm_memory_store *store, apm_memory_op *base, apium_error *err)
{
    publish_op *op = (publish_op *)base;
    queues *all = store->queues;
    bool ok = !op->queue.name || ensure_queue(all, &op->queue);

    if (!*op->exchange) {
        mqueue *queue = find_queue(all, op->routing_key);
        ok = ok && (!queue || add_target(op, queue));
    } else {
        for (binding *b = all->bindings; b && ok; b = b->next)
            if (strcmp(b->exchange, op->exchange) == 0 &&
                apm_binding_match(b->type, b->key, op->routing_key))
                ok = add_target(op, b->queue);
    }
    if (!ok)
        return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%s\": out of memory",
                        op->routing_key);
    if (op->n == 0 && op->mandatory)
        return *op->exchange
                   ? apm_fail(
                         err, APIUM_E_UNROUTABLE,
                         "cannot publish: exchange \"%s\" has no queue for the routing key \"%s\"",
                         op->exchange, op->routing_key)
                   : apm_fail(err, APIUM_E_UNROUTABLE, "cannot publish: there is no queue \"%s\"",
                              op->routing_key);
    return APIUM_OK;
}

static void
apply_publish(apm_memory_store *store, apm_memory_op *base)
{
    publish_op *op = (publish_op *)base;
    queues *all = store->queues;

    for (size_t i = 0; i < op->n; i++) {
        letter *l = op->copies[i];
        int priority = l->msg.priority < 0 ? 0 : l->msg.priority > 9 ? 9 : l->msg.priority;
        l->queue = op->to[i];
        l->rank = 9 - priority;
        l->pos = ++all->last_pos;
        l->redelivered = l->msg.redelivered;
        make_ready(store, l);
    }
    op->n = 0;
}

/* `queue`'s text is in the letter's arena, with the message's. */
static void
release_publish(apm_memory_op *base)
{
    publish_op *op = (publish_op *)base;

    for (size_t i = 0; i < op->n; i++)
        letter_free(op->copies[i]);
    if (op->letter)
        letter_free(op->letter);
    free(op);
}

static apium_status
broker_publish(apm_broker *base, apm_unit *unit, const apm_route *route, const apm_message *msg,
               apium_error *err)
{
    memory_broker *b = (memory_broker *)base;
    int64_t size = (int64_t)(msg->body.len + msg->headers.len);
    const char *to = route->routing_key ? route->routing_key : "";
    publish_op *op;
    bool ok = true;

    if (size > max_bytes(b))
        return apm_fail(err, APIUM_E_TOOBIG,
                        "cannot publish to \"%s\": the message has %lld bytes, more than %lld", to,
                        (long long)size, (long long)max_bytes(b));
    op = calloc(1, sizeof(*op));
    if (!op || !(op->letter = calloc(1, sizeof(*op->letter)))) {
        free(op);
        return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%s\": out of memory", to);
    }
    apm_arena *arena = &op->letter->arena;
    op->op = (apm_memory_op){ .check = check_publish,
                              .apply = apply_publish,
                              .release = release_publish };
    if (route->queue)
        op->queue = (apm_queue){
            .name = copy_z(arena, route->queue->name, &ok),
            .exchange = copy_z(arena, route->queue->exchange, &ok),
            .exchange_type = route->queue->exchange_type,
            .routing_key = copy_z(arena, route->queue->routing_key, &ok),
        };
    apm_message sent = *msg;
    sent.exchange = apm_strz(route->exchange ? route->exchange : "");
    sent.routing_key = apm_strz(to);
    ok = ok && copy_message(arena, &sent, &op->letter->msg);
    if (!ok) {
        release_publish(&op->op);
        return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%s\": out of memory", to);
    }
    op->exchange = op->letter->msg.exchange.p;
    op->routing_key = op->letter->msg.routing_key.p;
    op->mandatory = route->mandatory;
    apm_memory_add(unit, &op->op);
    return APIUM_OK;
}

/* ---- Settling ---- */

typedef struct settle_op {
    apm_memory_op op;
    int64_t tag;
    apm_disposition how;
    bool park;
    int64_t due_us;
    char reason[];
} settle_op;

static letter *
find_held(queues *all, int64_t tag)
{
    letter *l;

    HASH_FIND(hh, all->held, &tag, sizeof(tag), l);
    return l;
}

static void
let_go(queues *all, letter *l)
{
    HASH_DEL(all->held, l);
    l->holder = NULL;
    l->queue->held--;
}

static apium_status
check_settle(apm_memory_store *store, apm_memory_op *base, apium_error *err)
{
    const settle_op *op = (settle_op *)base;

    return find_held(store->queues, op->tag)
               ? APIUM_OK
               : apm_fail(err, APIUM_E_FENCED,
                          "cannot settle message %lld: it is not ours any more",
                          (long long)op->tag);
}

static void
park(apm_memory_store *store, queues *all, letter *l, int64_t due_us)
{
    letter *at = all->parked.last;

    l->due_us = due_us;
    while (at && at->due_us > due_us)
        at = at->prev;
    insert_after(&all->parked, at, l);
    l->queue->parked++;
    apm_memory_touch(store, APM_MEMORY_WAKE); /* whoever consumes sets its timer */
}

static void
apply_settle(apm_memory_store *store, apm_memory_op *base)
{
    settle_op *op = (settle_op *)base;
    queues *all = store->queues;
    letter *l = find_held(all, op->tag);

    if (!l)
        return; /* settled twice by one unit */
    let_go(all, l);
    if (op->park) {
        park(store, all, l, op->due_us);
        return;
    }
    switch (op->how) {
    case APM_ACK:
        letter_free(l);
        return;
    case APM_REJECT:
        bury(all, l, op->reason);
        return;
    case APM_REQUEUE:
        l->pos = ++all->last_pos;
        break;
    case APM_RESTORE:
        break;
    }
    l->redelivered = true;
    make_ready(store, l);
}

/* What was settled by a unit that failed may be settled again; it does not count in the window any
 * more. */
static apium_status
append_settlement(apm_unit *unit, apm_delivery *delivery, settle_op with, const char *reason,
                  apium_error *err)
{
    memory_broker *b = (memory_broker *)delivery->broker;
    settle_op *op;

    if (delivery->hold == APM_LOST)
        return APIUM_OK;
    if (!reason)
        reason = "";
    op = calloc(1, sizeof(*op) + strlen(reason) + 1);
    if (!op)
        return apm_fail(err, APIUM_E_NOMEM, "cannot settle a message of \"%s\": out of memory",
                        delivery->queue);
    *op = with;
    op->op = (apm_memory_op){ .check = check_settle, .apply = apply_settle };
    op->tag = ((memory_delivery *)delivery)->tag;
    memcpy(op->reason, reason, strlen(reason) + 1);
    apm_memory_add(unit, &op->op);
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
    return append_settlement(unit, delivery, (settle_op){ .how = how }, reason, err);
}

static apium_status
broker_park(apm_broker *base, apm_unit *unit, apm_delivery *delivery, int64_t due_us,
            apium_error *err)
{
    (void)base;
    return append_settlement(unit, delivery, (settle_op){ .park = true, .due_us = due_us }, NULL,
                             err);
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

static void
wake_due(apm_memory_store *store, queues *all)
{
    int64_t now = apm_clock_wall_us();

    for (letter *l; (l = all->parked.first) && l->due_us <= now;) {
        take_out(&all->parked, l);
        l->queue->parked--;
        make_ready(store, l);
    }
}

static letter *
take_first(mqueue *queue)
{
    for (int rank = 0; rank < RANKS; rank++) {
        letter *l = queue->ready[rank].first;
        if (l) {
            take_out(&queue->ready[rank], l);
            return l;
        }
    }
    return NULL;
}

/* The next letter in the order of the queues; with its place among them. */
static letter *
take_next(memory_broker *b, queues *all, consumed **from)
{
    for (size_t i = 0; i < b->n_queues; i++) {
        size_t at = b->turns ? (b->turn + i) % b->n_queues : i;
        consumed *queue = &b->queues[at];
        if (!queue->on || (!queue->queue && !(queue->queue = find_queue(all, queue->name))))
            continue;
        letter *l = take_first(queue->queue);
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

    l->tag = ++all->last_tag;
    if (delivery)
        HASH_ADD(hh, all->held, tag, sizeof(l->tag), l);
    if (!delivery || !l->hh.tbl) {
        free(delivery);
        return NULL;
    }
    l->holder = b;
    l->queue->held++;
    if (!copy_message(&delivery->base.arena, &l->msg, &delivery->base.msg)) {
        let_go(all, l);
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
    wake_due(store, all);
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
            refused =
                (apm_str){ strndup(l->msg.headers.p, l->msg.headers.len), l->msg.headers.len };
            refused_from = from->name;
            bury(all, l, why);
            continue;
        }
        apm_delivery *delivery = deliver(b, all, l, from);
        if (!delivery) {
            make_ready(store, l); /* no memory: it waits in its place */
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
    memory_broker *b = ((ticker *)timer->data)->broker;

    if (b)
        pump(b);
}

static void
on_wake(void *arg)
{
    apm_memory_stir(((memory_broker *)arg)->base.link);
}

static void answer_questions(memory_broker *b);

static void
on_send(void *arg)
{
    memory_broker *b = arg;
    bool gone = false;

    b->ticker->gone = &gone;
    if (b->stopping) {
        b->stopping = false;
        if (b->stop_done)
            b->stop_done(b->stop_arg, APIUM_OK, NULL);
    }
    if (!gone)
        answer_questions(b);
    if (!gone)
        pump(b);
    if (!gone)
        b->ticker->gone = NULL;
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
broker_window(apm_broker *base, unsigned window)
{
    memory_broker *b = (memory_broker *)base;

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

/* A question waits for the loop to be idle, so that its answer does not come from inside the call.
 */
struct question {
    enum { DECLARE, INSPECT, PURGE, BINDINGS, DEAD } what;
    apm_arena arena;
    apm_queue declare;
    const char **names;
    size_t n, limit;
    bool all;
    union {
        apm_done_cb *done;
        apm_count_cb *count;
        apm_infos_cb *infos;
        apm_bindings_cb *bindings;
        apm_dead_cb *dead;
    } answer;
    void *arg;
    question *next;
};

static const apium_error *
no_memory(apium_error *err)
{
    apm_fail(err, APIUM_E_NOMEM, "cannot look after queues: out of memory");
    return err;
}

static void
count_queue(const mqueue *queue, apm_queue_info *info)
{
    info->consumers = -1;
    if (!queue)
        return;
    for (int rank = 0; rank < RANKS; rank++)
        info->ready += queue->ready[rank].n;
    info->unacked = queue->held;
    info->parked = queue->parked;
    info->dead = queue->dead;
}

static void
answer_inspect(queues *all, pthread_mutex_t *mutex, question *q)
{
    apium_error err;
    size_t n = 0;
    bool ok = true;

    for (mqueue *queue = all->first; q->all && queue; queue = queue->next)
        q->n++;
    apm_queue_info *infos = apm_arena_alloc(&q->arena, (q->n + 1) * sizeof(*infos));
    for (mqueue *queue = all->first; infos && q->all && queue; queue = queue->next) {
        infos[n].name = copy_z(&q->arena, queue->name, &ok);
        count_queue(queue, &infos[n++]);
    }
    for (; infos && !q->all && n < q->n; n++) {
        infos[n].name = q->names[n];
        count_queue(find_queue(all, q->names[n]), &infos[n]);
    }
    pthread_mutex_unlock(mutex);
    if (infos && ok)
        q->answer.infos(q->arg, infos, n, NULL);
    else
        q->answer.infos(q->arg, NULL, 0, no_memory(&err));
}

static void
answer_purge(queues *all, pthread_mutex_t *mutex, question *q)
{
    mqueue *queue = find_queue(all, q->names[0]);
    int64_t count = 0;

    for (letter *l; queue && (l = take_first(queue)); count++)
        letter_free(l);
    for (letter *l = all->parked.first, *next; l; l = next) {
        next = l->next;
        if (l->queue != queue)
            continue;
        take_out(&all->parked, l);
        queue->parked--;
        letter_free(l);
        count++;
    }
    pthread_mutex_unlock(mutex);
    q->answer.count(q->arg, APIUM_OK, count, NULL);
}

static void
answer_bindings(queues *all, pthread_mutex_t *mutex, question *q)
{
    size_t n = 0;
    bool ok = true;
    apium_error err;

    for (binding *b = all->bindings; b; b = b->next)
        n++;
    apm_binding *out = apm_arena_alloc(&q->arena, (n + 1) * sizeof(*out));
    n = 0;
    for (binding *b = all->bindings; out && b; b = b->next)
        out[n++] = (apm_binding){
            .queue = copy_z(&q->arena, b->queue->name, &ok),
            .exchange = copy_z(&q->arena, b->exchange, &ok),
            .routing_key = copy_z(&q->arena, b->key, &ok),
        };
    pthread_mutex_unlock(mutex);
    if (out && ok)
        q->answer.bindings(q->arg, out, n, NULL);
    else
        q->answer.bindings(q->arg, NULL, 0, no_memory(&err));
}

static void
answer_dead(queues *all, pthread_mutex_t *mutex, question *q)
{
    size_t n = 0, max = q->limit < (size_t)all->dead.n ? q->limit : (size_t)all->dead.n;
    apm_dead *out = apm_arena_alloc(&q->arena, (max + 1) * sizeof(*out));
    bool ok = true;
    apium_error err;
    apm_buf buf;

    apm_buf_init(&buf, APM_BUF_MAX);
    for (letter *l = all->dead.last; out && l && n < max; l = l->prev, n++) {
        apm_buf_reset(&buf);
        apm_envelope_write(&buf, &l->msg, "dead");
        out[n] = (apm_dead){
            .queue = copy_z(&q->arena, l->queue->name, &ok),
            .reason = copy_z(&q->arena, l->reason ? l->reason : "", &ok),
            .at_us = l->died_us,
            /* What cannot be an envelope (headers that are no JSON text) is shown as it is. */
            .message = apm_arena_str(&q->arena, buf.failed ? l->msg.body : apm_buf_str(&buf), &ok),
        };
    }
    apm_buf_clear(&buf);
    pthread_mutex_unlock(mutex);
    if (out && ok)
        q->answer.dead(q->arg, out, n, NULL);
    else
        q->answer.dead(q->arg, NULL, 0, no_memory(&err));
}

static void
answer_declare(queues *all, pthread_mutex_t *mutex, question *q)
{
    apium_error err;
    bool ok = ensure_queue(all, &q->declare) != NULL;

    pthread_mutex_unlock(mutex);
    if (q->answer.done)
        q->answer.done(q->arg, ok ? APIUM_OK : APIUM_E_NOMEM, ok ? NULL : no_memory(&err));
}

static void
question_free(question *q)
{
    apm_arena_clear(&q->arena);
    free(q);
}

static void
answer_questions(memory_broker *b)
{
    static void (*const answers[])(queues *, pthread_mutex_t *, question *) = {
        [DECLARE] = answer_declare,   [INSPECT] = answer_inspect, [PURGE] = answer_purge,
        [BINDINGS] = answer_bindings, [DEAD] = answer_dead,
    };
    apm_memory_store *store = store_of(b);
    bool *gone = b->ticker->gone;

    while (!*gone && b->questions) {
        question *q = b->questions;
        b->questions = q->next;
        pthread_mutex_lock(&store->mutex);
        answers[q->what](store->queues, &store->mutex, q); /* unlocks before it calls back */
        question_free(q);
    }
}

static void
ask(memory_broker *b, question with, const char *const *names)
{
    question *q = calloc(1, sizeof(*q));
    bool ok = q != NULL;

    if (ok) {
        *q = with;
        q->all = !names;
        if (names && (q->names = apm_arena_alloc(&q->arena, (q->n + 1) * sizeof(*q->names))))
            for (size_t i = 0; i < q->n; i++)
                q->names[i] = copy_z(&q->arena, names[i], &ok);
        ok = ok && (!names || q->names);
        q->declare.name = copy_z(&q->arena, with.declare.name, &ok);
        q->declare.exchange = copy_z(&q->arena, with.declare.exchange, &ok);
        q->declare.routing_key = copy_z(&q->arena, with.declare.routing_key, &ok);
    }
    if (!ok) { /* answered from inside the call: there is nothing to keep the question in */
        apium_error err;
        (void)no_memory(&err);
        if (q)
            question_free(q);
        if (with.what == DECLARE && with.answer.done)
            with.answer.done(with.arg, APIUM_E_NOMEM, &err);
        else if (with.what == INSPECT)
            with.answer.infos(with.arg, NULL, 0, &err);
        else if (with.what == PURGE)
            with.answer.count(with.arg, APIUM_E_NOMEM, 0, &err);
        else if (with.what == BINDINGS)
            with.answer.bindings(with.arg, NULL, 0, &err);
        else if (with.what == DEAD)
            with.answer.dead(with.arg, NULL, 0, &err);
        return;
    }
    question **at = &b->questions;
    while (*at)
        at = &(*at)->next;
    *at = q;
    apm_memory_stir(b->base.link);
}

static void
broker_declare(apm_broker *base, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    ask((memory_broker *)base,
        (question){ .what = DECLARE, .declare = *queue, .answer.done = done, .arg = arg }, NULL);
}

static void
broker_inspect(apm_broker *base, const char *const *names, size_t n, apm_infos_cb *done, void *arg)
{
    ask((memory_broker *)base,
        (question){ .what = INSPECT, .n = names ? n : 0, .answer.infos = done, .arg = arg }, names);
}

static void
broker_purge(apm_broker *base, const char *queue, apm_count_cb *done, void *arg)
{
    ask((memory_broker *)base,
        (question){ .what = PURGE, .n = 1, .answer.count = done, .arg = arg }, &queue);
}

static void
broker_bindings(apm_broker *base, apm_bindings_cb *done, void *arg)
{
    ask((memory_broker *)base, (question){ .what = BINDINGS, .answer.bindings = done, .arg = arg },
        NULL);
}

static void
broker_dead(apm_broker *base, size_t limit, apm_dead_cb *done, void *arg)
{
    ask((memory_broker *)base,
        (question){ .what = DEAD, .limit = limit, .answer.dead = done, .arg = arg }, NULL);
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

/* Everything it holds, its settlements that failed included. */
static void
give_back(memory_broker *b)
{
    apm_memory_store *store = store_of(b);
    queues *all = store->queues;

    pthread_mutex_lock(&store->mutex);
    for (letter *l = all->held, *next; l; l = next) {
        next = l->hh.next;
        if (l->holder != b)
            continue;
        let_go(all, l);
        l->redelivered = true;
        make_ready(store, l);
    }
    pthread_mutex_unlock(&store->mutex);
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
    if (b->ticker->gone)
        *b->ticker->gone = true;
    while (b->questions) {
        question *q = b->questions;
        b->questions = q->next;
        question_free(q);
    }
    give_back(b);
    for (size_t i = 0; i < b->n_queues; i++)
        free(b->queues[i].name);
    b->ticker->broker = NULL;
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
    .purge = broker_purge,
    .bindings = broker_bindings,
    .dead = broker_dead,
};
