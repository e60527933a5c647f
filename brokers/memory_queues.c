/* memory_queues.c - the queues of a store in memory; see memory_queues.h. All of it runs under the
 * store's mutex, but for the *_op functions, which only make operations. */
#include <stdlib.h>

#define HASH_NONFATAL_OOM 1

#include "brokers/memory_queues.h"
#include "brokers/topic.h"
#include "core/base/clock.h"
#include "core/base/error.h"

#define DEAD_MAX 10000

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

void
apm_memory_take_out(letters *list, letter *l)
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
void
apm_memory_make_ready(apm_memory_store *store, letter *l)
{
    letters *list = &l->queue->ready[l->rank];
    letter *at = list->last;

    while (at && at->pos > l->pos)
        at = at->prev;
    insert_after(list, at, l);
    apm_memory_touch(store, APM_MEMORY_WAKE);
}

void
apm_memory_letter_free(letter *l)
{
    apm_arena_clear(&l->arena);
    free(l);
}

mqueue *
apm_memory_find_queue(queues *all, const char *name)
{
    mqueue *queue = all->first;

    while (queue && strcmp(queue->name, name) != 0)
        queue = queue->next;
    return queue;
}

mqueue *
apm_memory_ensure_queue(queues *all, const apm_queue *spec)
{
    mqueue *queue = apm_memory_find_queue(all, spec->name);
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

const char *
apm_memory_copy_z(apm_arena *arena, const char *z, bool *ok)
{
    return z ? apm_arena_str(arena, apm_strz(z), ok).p : NULL;
}

bool
apm_memory_copy_message(apm_arena *arena, const apm_message *from, apm_message *to)
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
        .sent_us = from->sent_us,
    };
    return ok;
}

void
apm_memory_bury(queues *all, letter *l, const char *reason)
{
    bool ok = true;

    l->reason = apm_memory_copy_z(&l->arena, reason, &ok);
    l->died_us = apm_clock_wall_us();
    l->queue->dead++;
    insert_after(&all->dead, all->dead.last, l);
    if (all->dead.n > DEAD_MAX) {
        letter *oldest = all->dead.first;
        apm_memory_take_out(&all->dead, oldest);
        oldest->queue->dead--;
        apm_memory_letter_free(oldest);
    }
}

void
apm_memory_wake_due(apm_memory_store *store, queues *all)
{
    int64_t now = apm_clock_wall_us();

    for (letter *l; (l = all->parked.first) && l->due_us <= now;) {
        apm_memory_take_out(&all->parked, l);
        l->queue->parked--;
        apm_memory_make_ready(store, l);
    }
}

letter *
apm_memory_take_first(mqueue *queue)
{
    for (int rank = 0; rank < RANKS; rank++) {
        letter *l = queue->ready[rank].first;
        if (l) {
            apm_memory_take_out(&queue->ready[rank], l);
            return l;
        }
    }
    return NULL;
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
                  !apm_memory_copy_message(&copy->arena, &op->copies[0]->msg, &copy->msg))) {
        if (copy)
            apm_memory_letter_free(copy);
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
    bool ok = !op->queue.name || apm_memory_ensure_queue(all, &op->queue);

    if (!*op->exchange) {
        mqueue *queue = apm_memory_find_queue(all, op->routing_key);
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
        apm_memory_make_ready(store, l);
    }
    op->n = 0;
}

/* `queue`'s text is in the letter's arena, with the message's. */
static void
release_publish(apm_memory_op *base)
{
    publish_op *op = (publish_op *)base;

    for (size_t i = 0; i < op->n; i++)
        apm_memory_letter_free(op->copies[i]);
    if (op->letter)
        apm_memory_letter_free(op->letter);
    free(op);
}

apm_memory_op *
apm_memory_publish_op(const apm_route *route, const apm_message *msg)
{
    publish_op *op = calloc(1, sizeof(*op));
    bool ok = true;

    if (!op || !(op->letter = calloc(1, sizeof(*op->letter)))) {
        free(op);
        return NULL;
    }
    apm_arena *arena = &op->letter->arena;
    op->op = (apm_memory_op){ .check = check_publish,
                              .apply = apply_publish,
                              .release = release_publish };
    if (route->queue)
        op->queue = (apm_queue){
            .name = apm_memory_copy_z(arena, route->queue->name, &ok),
            .exchange = apm_memory_copy_z(arena, route->queue->exchange, &ok),
            .exchange_type = route->queue->exchange_type,
            .routing_key = apm_memory_copy_z(arena, route->queue->routing_key, &ok),
        };
    apm_message sent = *msg;
    sent.exchange = apm_strz(route->exchange ? route->exchange : "");
    sent.routing_key = apm_strz(route->routing_key ? route->routing_key : "");
    sent.sent_us = apm_clock_wall_us();
    ok = ok && apm_memory_copy_message(arena, &sent, &op->letter->msg);
    if (!ok) {
        release_publish(&op->op);
        return NULL;
    }
    op->exchange = op->letter->msg.exchange.p;
    op->routing_key = op->letter->msg.routing_key.p;
    op->mandatory = route->mandatory;
    return &op->op;
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

void
apm_memory_let_go(queues *all, letter *l)
{
    HASH_DEL(all->held, l);
    l->holder = NULL;
    l->queue->held--;
}

bool
apm_memory_hold(queues *all, letter *l, void *holder)
{
    l->tag = ++all->last_tag;
    HASH_ADD(hh, all->held, tag, sizeof(l->tag), l);
    if (!l->hh.tbl)
        return false;
    l->holder = holder;
    l->queue->held++;
    return true;
}

void
apm_memory_give_back(apm_memory_store *store, void *holder)
{
    queues *all = store->queues;

    for (letter *l = all->held, *next; l; l = next) {
        next = l->hh.next;
        if (l->holder != holder)
            continue;
        apm_memory_let_go(all, l);
        l->redelivered = true;
        apm_memory_make_ready(store, l);
    }
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
    apm_memory_let_go(all, l);
    if (op->park) {
        park(store, all, l, op->due_us);
        return;
    }
    switch (op->how) {
    case APM_ACK:
        apm_memory_letter_free(l);
        return;
    case APM_REJECT:
        apm_memory_bury(all, l, op->reason);
        return;
    case APM_REQUEUE:
        l->pos = ++all->last_pos;
        break;
    case APM_RESTORE:
        break;
    }
    l->redelivered = true;
    apm_memory_make_ready(store, l);
}

static settle_op *
settle_new(int64_t tag, const char *reason)
{
    settle_op *op = calloc(1, sizeof(*op) + strlen(reason) + 1);

    if (op) {
        op->op = (apm_memory_op){ .check = check_settle, .apply = apply_settle };
        op->tag = tag;
        memcpy(op->reason, reason, strlen(reason) + 1);
    }
    return op;
}

apm_memory_op *
apm_memory_settle_op(int64_t tag, apm_disposition how, const char *reason)
{
    settle_op *op = settle_new(tag, reason ? reason : "");

    if (!op)
        return NULL;
    op->how = how;
    return &op->op;
}

apm_memory_op *
apm_memory_park_op(int64_t tag, int64_t due_us)
{
    settle_op *op = settle_new(tag, "");

    if (!op)
        return NULL;
    op->park = true;
    op->due_us = due_us;
    return &op->op;
}
