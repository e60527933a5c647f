/*
 * redis_fetch.c - taking batches from the queues' lists into `unacked`, in one script: there is no moment at which a
 * message is nowhere. The script moves elements unread, by joining strings, under tags of our own; what is no message is sorted
 * out here and buried by the next call.
 *
 * Further fetches are under way only while the lists hold more than one brings: a far server then has something to do meanwhile.
 * If an answer is lost with the connection, the next connection asks for its tags and adopts what is there: a fetch is never sent
 * twice.
 */
#include "brokers/redis.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "redis_fetch.lua.h"
#include "redis_adopt.lua.h"

#define BATCH_MAX 128 /* messages of one fetch */
#define BATCH_BYTES                                                                                \
    (1 << 20)       /* a fetch stops after so many bytes: more would leave the processor's cache */
#define POPS_MAX 32 /* messages taken off a list at once ... */
#define POPS_BYTES                                                                                 \
    (16                                                                                            \
     << 10) /* ... and their bytes: the server copies once more what this buffer of its does not hold */
#define FETCH_QUEUES                                                                               \
    64 /* that one fetch looks at: with hundreds their names cost more than all else */
#define SMALL_BYTES    4096
#define KEEP_BYTES     (16 << 10) /* a string of this length is worth more than an allocation */
#define SETTLING_MAX   512 /* settlements unheard of, beyond which nothing more is fetched ... */
#define SETTLING_FAR   128 /* ... and more for each millisecond to the server and back */
#define FETCHES_MAX    4   /* unanswered, of deep queues; and one more for each millisecond */
#define FURTHER_WORTH  64  /* messages that a further fetch may bring ... */
#define FURTHER_BYTES  (256 << 10) /* ... or so many bytes */
#define ERROR_PAUSE_MS 1000

static void
tag_prefix(const redis_broker *broker, uint64_t number, char out[TAG_MAX])
{
    snprintf(out, TAG_MAX, HELD_MARK "%s:%llu:", broker->run, (unsigned long long)number);
}

static void
feed_clock(redis_broker *broker, const redisReply *reply)
{
    apm_redis_clock_feed(broker->base.link, reply->element[0]->integer * INT64_C(1000000) +
                                                reply->element[1]->integer);
}

/* ---- deliveries ---- */

static void
hold(redis_broker *broker, redis_delivery *delivery)
{
    apm_delivery *base = &delivery->base;

    base->next = broker->held;
    base->prev = NULL;
    if (broker->held)
        broker->held->prev = base;
    broker->held = base;
    broker->n_held++;
}

void
redis_unhold(redis_delivery *delivery)
{
    redis_broker *broker = redis_of(delivery->base.broker);
    apm_delivery *base = &delivery->base;

    *(base->prev ? &base->prev->next : &broker->held) = base->next;
    if (base->next)
        base->next->prev = base->prev;
    base->prev = base->next = NULL;
    broker->n_held--;
}

/* The text of a string of an answer for as long as the arena lives: a copy, or when it is long the string itself, which the reply lacks
 * then. */
static apm_str
keep_text(redisReply *string, apm_arena *arena, bool *ok)
{
    apm_str text = { string->str, string->len };

    if (text.len < KEEP_BYTES || !apm_arena_adopt(arena, string->str))
        return apm_arena_str(arena, text, ok);
    string->str = NULL;
    return text;
}

/* A message under its tag as a delivery; NULL when it is none (it was refused) or without memory (the lease will give
 * it back). whole: the string of an answer that has this text and may be taken over; NULL: the text is copied. */
static redis_delivery *
deliver(redis_broker *broker, redis_queue *queue, apm_str text, redisReply *whole, const char *tag)
{
    redis_delivery *delivery = calloc(1, sizeof(*delivery));
    apium_error err;
    apm_str ignored;
    bool ok = true;

    if (!delivery)
        return NULL;
    if (text.len <
        SMALL_BYTES) /* the text, its body decoded, and what is made of them: one block */
        delivery->base.arena.next_block = text.len + 768;
    delivery->raw = whole ? keep_text(whole, &delivery->base.arena, &ok)
                          : apm_arena_str(&delivery->base.arena, text, &ok);
    if (!ok || apm_envelope_read(delivery->raw, &delivery->base.arena, &delivery->base.msg,
                                 &ignored, &err) != APIUM_OK) {
        if (!ok)
            apm_fail(&err, APIUM_E_NOMEM, "out of memory");
        if (err.status != APIUM_E_NOMEM)
            redis_refuse(broker, queue->name, text, tag, err.text);
        apm_arena_clear(&delivery->base.arena);
        free(delivery);
        return NULL;
    }
    delivery->base.broker = &broker->base;
    delivery->base.queue = queue->name;
    delivery->base.received_ms = apm_clock_ms();
    delivery->queue = queue;
    snprintf(delivery->tag, sizeof(delivery->tag), "%s", tag);
    return delivery;
}

/* Nobody saw these: back to where they came from, in their old order, without a mark. */
static void
give_back(redis_broker *broker, redis_delivery **batch, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        redis_delivery *delivery = batch[i];
        apm_unit *unit = apm_unit_new(broker->base.link);
        if (unit) {
            int step = redis_step_index(broker, delivery->base.msg.priority);
            apm_redis_unit_push(unit, broker->db, apm_strz(delivery->queue->list[step]), true,
                                delivery->raw);
            apm_redis_unit_ack(unit, &broker->keys, apm_strz(delivery->tag));
            redis_own_commit(broker, unit);
        }
        apm_arena_clear(&delivery->base.arena);
        free(delivery);
    }
}

static void
hand_over(redis_broker *broker, redis_delivery **batch, size_t n)
{
    size_t kept = 0;

    if (broker->stopping || !broker->base.opts.on_batch) {
        give_back(broker, batch, n);
        return;
    }
    for (size_t i = 0; i < n; i++) { /* a queue may have been cancelled meanwhile */
        if (batch[i]->queue->consuming)
            batch[kept++] = batch[i];
        else
            give_back(broker, &batch[i], 1);
    }
    for (size_t i = 0; i < kept; i++)
        hold(broker, batch[i]);
    if (kept)
        broker->base.opts.on_batch(broker->base.opts.arg, (apm_delivery **)batch, kept);
}

/* ---- fetching ---- */

/* The quickest answer tells the distance: others waited for their turn at the server. */
static void
feed_trip(redis_broker *broker, const redis_fetch *fetch)
{
    int64_t us = (apm_clock_ns() - fetch->sent_ns) / 1000;
    if (broker->base.trip_us == 0 || us < broker->base.trip_us)
        broker->base.trip_us = us;
}

/* Celery's order: a queue that was served goes to the end. */
static void
rotate(redis_broker *broker, const redis_queue *served)
{
    for (size_t i = 0; i < broker->n_order; i++) {
        if (broker->order[i] != served)
            continue;
        redis_queue *queue = broker->order[i];
        memmove(&broker->order[i], &broker->order[i + 1],
                (broker->n_order - i - 1) * sizeof(*broker->order));
        broker->order[broker->n_order - 1] = queue;
        return;
    }
}

void
redis_fetch_first(redis_broker *broker, const redis_queue *queue)
{
    if (!broker->rotate || broker->n_order <= FETCH_QUEUES)
        return;
    for (size_t i = 0; i < broker->n_order; i++) {
        if (broker->order[i] != queue)
            continue;
        redis_queue *first = broker->order[i];
        memmove(&broker->order[1], &broker->order[0], i * sizeof(*broker->order));
        broker->order[0] = first;
        return;
    }
}

/* Whether there may be something left, after a fetch; the queues that it emptied give way to those it did not look at. */
static void
look_on(redis_broker *broker, const redis_fetch *fetch, bool more)
{
    if (more)
        broker->quiet = 0;
    else
        broker->quiet = fetch->n_queues + (broker->last_found ? 0 : broker->quiet);
    broker->ready = more || broker->quiet < broker->n_order;
    if (!broker->ready)
        broker->quiet = 0;
    for (size_t i = 0; i < fetch->n_queues && broker->ready && !more; i++)
        rotate(broker, fetch->queues[i]);
}

static void
take_batch(redis_broker *broker, redis_fetch *fetch, const redisReply *reply)
{
    redis_delivery *batch[BATCH_MAX];
    size_t n = 0, bytes = 0;
    unsigned number = 0;
    char prefix[TAG_MAX], tag[TAG_MAX + 12];

    tag_prefix(broker, fetch->number, prefix);
    for (size_t i = 3; i + 1 < reply->elements && n < BATCH_MAX; i += 2) {
        long long at = reply->element[i]->integer / 16 - 11;
        redisReply *what = reply->element[i + 1];
        size_t q = (size_t)(at / (broker->n_steps + 1));
        int step = (int)(reply->element[i]->integer % 16) - 1;
        if (at < 0 || q >= fetch->n_queues || step < 0 || step >= broker->n_steps)
            continue;
        redis_queue *queue = fetch->queues[q];
        if (what->type == REDIS_REPLY_INTEGER && what->integer < 0) {
            if (!queue->bad)
                redis_notice(broker, APM_LOG_ERROR,
                             "cannot receive from \"%s\": its key is not a list", queue->name);
            queue->bad = true;
            continue;
        }
        snprintf(tag, sizeof(tag), "%s%u", prefix, ++number);
        queue->active_ms[step] = apm_clock_ms();
        if (broker->rotate)
            rotate(broker, queue);
        if (what->type == REDIS_REPLY_INTEGER) {
            char why[96];
            snprintf(why, sizeof(why),
                     "the message has %lld bytes, more than max_message_bytes (%lld)",
                     what->integer, (long long)redis_max_message(broker));
            redis_refuse(broker, queue->name, APM_STR_NONE, tag, why);
            continue;
        }
        bytes += what->len;
        redis_delivery *delivery =
            deliver(broker, queue, (apm_str){ what->str, what->len }, what, tag);
        if (delivery)
            batch[n++] = delivery;
    }
    broker->last_found = number;
    if (n)
        broker->mean_bytes = bytes / n + 1;
    hand_over(broker, batch, n);
}

static void
on_fetched(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_fetch *fetch = arg;
    redis_broker *broker = fetch->broker;

    broker->n_fetching--;
    broker->deep = false;
    if (err && err->status == APIUM_E_CLOSED) {
        fetch->next = broker->orphans; /* its slots stay reserved until we know */
        broker->orphans = fetch;
        return;
    }
    broker->reserved -= fetch->count;
    if (err || reply->type != REDIS_REPLY_ARRAY || reply->elements < 3) {
        redis_notice(broker, APM_LOG_ERROR, "cannot receive: %s",
                     err ? err->text : "an answer that makes no sense");
        broker->pause_until_ms = apm_clock_ms() + ERROR_PAUSE_MS;
    } else {
        feed_clock(broker, reply);
        feed_trip(broker, fetch);
        take_batch(broker, fetch, reply);
        broker->deep = reply->element[2]->integer != 0;
        look_on(broker, fetch, broker->deep);
    }
    free(fetch);
}

static redis_fetch *
fetch_new(redis_broker *broker, unsigned count)
{
    size_t n = broker->rotate && broker->n_order > FETCH_QUEUES ? FETCH_QUEUES : broker->n_order;
    redis_fetch *fetch = calloc(1, sizeof(*fetch) + n * sizeof(*fetch->queues));
    if (!fetch)
        return NULL;
    fetch->broker = broker;
    fetch->number = ++broker->fetch_no;
    fetch->count = count;
    fetch->sent_ns = apm_clock_ns();
    fetch->n_queues = n;
    memcpy(fetch->queues, broker->order, n * sizeof(*fetch->queues));
    return fetch;
}

/* Messages to take off a list at once: as many as the last ones would have been good for. */
static int64_t
pops(const redis_broker *broker)
{
    size_t n = broker->mean_bytes ? POPS_BYTES / broker->mean_bytes : 1;

    if (n < 2 || apm_redis_version(broker->base.link) < 602) /* RPOP has no count */
        return 1;
    return n < POPS_MAX ? (int64_t)n : POPS_MAX;
}

static void
send_fetch(redis_broker *broker, unsigned count)
{
    redis_fetch *fetch = fetch_new(broker, count);
    char prefix[TAG_MAX];

    if (!fetch)
        return;
    apm_redis_req *req = apm_redis_begin_script(broker->base.link, &redis_fetch_script, broker->db,
                                                APM_REDIS_UNACKED, on_fetched, fetch);
    if (!req) {
        free(fetch);
        return;
    }
    tag_prefix(broker, fetch->number, prefix);
    apm_redis_addz(req, broker->unacked);
    apm_redis_addz(req, broker->index);
    apm_redis_addz(req, prefix);
    apm_redis_addi(req, count);
    apm_redis_addi(req, redis_max_message(broker));
    apm_redis_addi(req, BATCH_BYTES);
    apm_redis_addi(req, broker->n_steps);
    apm_redis_addz(req, broker->rotate ? "1" : "0");
    apm_redis_addi(req, pops(broker));
    apm_redis_addi(req, (int64_t)fetch->n_queues);
    for (size_t i = 0; i < fetch->n_queues; i++) {
        apm_redis_addz(req, fetch->queues[i]->json);
        for (int s = 0; s < broker->n_steps; s++)
            apm_redis_addz(req,
                           redis_wait_holds(fetch->queues[i], s) ? "" : fetch->queues[i]->list[s]);
    }
    broker->n_fetching++;
    broker->reserved += count;
    apm_redis_send(broker->base.link, req, broker);
}

void
redis_fetch_pump(redis_broker *broker)
{
    const unsigned far = apm_broker_far(&broker->base);

    if (!broker->windowed || broker->stopping || !broker->n_order ||
        broker->n_fetching >= (broker->deep ? FETCHES_MAX + far : 1) || broker->orphans ||
        apm_clock_ms() < broker->pause_until_ms)
        return;
    if (!broker->ready) {
        redis_wait_arm(broker);
        return;
    }
    /* The window is free of what is settled, but the server may be slow to hear of it. */
    if (broker->n_settling >= SETTLING_MAX + far * SETTLING_FAR)
        return;
    size_t count = BATCH_MAX;
    if (broker->window) {
        size_t busy = broker->n_held + broker->reserved;
        count = busy < broker->window ? broker->window - busy : 0;
        if (count > BATCH_MAX)
            count = BATCH_MAX;
    }
    if (broker->mean_bytes && count > BATCH_BYTES / broker->mean_bytes + 1)
        count = BATCH_BYTES / broker->mean_bytes + 1;
    bool worth = count >= FURTHER_WORTH || count * broker->mean_bytes >= FURTHER_BYTES;
    if (broker->n_fetching ? worth : count > 0)
        send_fetch(broker, (unsigned)count);
}

/* ---- adopting ---- */

bool
redis_entry_split(apm_str entry, apm_str *message, apm_str *queue_json)
{
    static const char seam[] = ",\"\",\"";

    if (entry.len < 2 || entry.p[0] != '[' || entry.p[entry.len - 1] != ']')
        return false;
    /* The message may be anything, so the seam is looked for from the end. */
    for (size_t at = entry.len - sizeof(seam); at > 0; at--) {
        if (memcmp(entry.p + at, seam, sizeof(seam) - 1) != 0)
            continue;
        *message = (apm_str){ entry.p + 1, at - 1 };
        *queue_json = (apm_str){ entry.p + at + 4, entry.len - at - 5 };
        return true;
    }
    return false;
}

static void
on_adopted(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_fetch *fetch = arg;
    redis_broker *broker = fetch->broker;
    redis_delivery *batch[BATCH_MAX];
    char prefix[TAG_MAX], tag[TAG_MAX + 12];
    size_t n = 0;

    broker->adopting--;
    if (err && err->status == APIUM_E_CLOSED) {
        fetch->next = broker->orphans;
        broker->orphans = fetch;
        return;
    }
    broker->reserved -= fetch->count;
    tag_prefix(broker, fetch->number, prefix);
    for (size_t i = 2; reply && i + 1 < reply->elements && n < BATCH_MAX; i += 2) {
        const redisReply *entry = reply->element[i + 1];
        apm_str message, json;
        redis_queue *queue = NULL;
        if (entry->type != REDIS_REPLY_STRING ||
            !redis_entry_split((apm_str){ entry->str, (size_t)entry->len }, &message, &json))
            continue;
        for (size_t q = 0; q < fetch->n_queues; q++)
            if (apm_str_eqz(json, fetch->queues[q]->json))
                queue = fetch->queues[q];
        if (!queue)
            continue;
        snprintf(tag, sizeof(tag), "%s%lld", prefix, reply->element[i]->integer);
        redis_delivery *delivery = deliver(broker, queue, message, NULL, tag);
        if (delivery)
            batch[n++] = delivery;
    }
    broker->ready = true;
    hand_over(broker, batch, n);
    free(fetch);
}

void
redis_fetch_adopt(redis_broker *broker)
{
    redis_fetch *orphans = broker->orphans;

    broker->orphans = NULL;
    for (redis_fetch *next; orphans; orphans = next) {
        char prefix[TAG_MAX];
        next = orphans->next;
        apm_redis_req *req =
            apm_redis_begin_script(broker->base.link, &redis_adopt_script, broker->db,
                                   APM_REDIS_REPEAT | APM_REDIS_UNACKED, on_adopted, orphans);
        if (!req) {
            orphans->next = broker->orphans;
            broker->orphans = orphans;
            continue;
        }
        broker->adopting++;
        tag_prefix(broker, orphans->number, prefix);
        apm_redis_addz(req, broker->unacked);
        apm_redis_addz(req, broker->index);
        apm_redis_addz(req, prefix);
        apm_redis_addi(req, orphans->count);
        apm_redis_send(broker->base.link, req, broker);
    }
}

void
redis_fetch_clear(redis_broker *broker)
{
    for (redis_fetch *next; broker->orphans; broker->orphans = next) {
        next = broker->orphans->next;
        free(broker->orphans);
    }
}
