/*
 * amqp.c - RabbitMQ as a broker: queues, deliveries, their settlement. The connection is core/link/amqp*.c; looking after queues is in
 * amqp_admin.c.
 *
 *   server ──▶ backlog ──window──▶ held ──settle──▶ unit ──▶ ack / reject
 *
 * The window is the server's (basic.qos) and ours: where the server counts for each consumer by itself (quorum queues, RabbitMQ
 * 4), what comes beyond the window waits in the backlog, unacknowledged, and is the first to go when it shrinks.
 */
#include "brokers/amqp.h"

#include <stdlib.h>

#include "core/base/clock.h"

#define BATCH_MAX  64
#define REASON_MAX 500

/* So many at a time, while so many are held anyway: the next are read a little later, together. RabbitMQ sends a few at a time, and
 * each few would make everybody turn: the loop, the pool, the result store. */
#define FLOOD   8
#define ENOUGH  64
#define REST_MS 2

static struct amqp_broker *
self_of(apm_broker *broker)
{
    return (struct amqp_broker *)broker;
}

/* ---- deliveries ---- */

struct amqp_delivery {
    apm_delivery base;
    apm_amqp_tag tag;
    apm_amqp_consumer *consumer;
    bool refused; /* never handed over: on its way to the dead-letter place, */
    bool stuck;   /* where it could not be kept */
    char why[160];
};

static struct amqp_delivery *
delivery_of_tag(apm_amqp_tag *tag)
{
    return (struct amqp_delivery *)((char *)tag - offsetof(struct amqp_delivery, tag));
}

static void
append(struct deliveries *list, apm_delivery *delivery)
{
    delivery->next = NULL;
    delivery->prev = list->last;
    if (list->last)
        list->last->next = delivery;
    else
        list->first = delivery;
    list->last = delivery;
    list->n++;
}

static void
take_out(struct deliveries *list, apm_delivery *delivery)
{
    if (delivery->prev)
        delivery->prev->next = delivery->next;
    else
        list->first = delivery->next;
    if (delivery->next)
        delivery->next->prev = delivery->prev;
    else
        list->last = delivery->prev;
    delivery->prev = delivery->next = NULL;
    list->n--;
}

static void
free_memory(struct amqp_delivery *d)
{
    apm_arena_clear(&d->base.arena);
    free(d);
}

/* Back to its queue, unseen by anybody. */
static void
give_back(struct amqp_delivery *d)
{
    if (apm_amqp_tag_release(&d->tag))
        free_memory(d);
}

static void
on_free(apm_amqp_tag *tag)
{
    free_memory(delivery_of_tag(tag));
}

static void
give_back_backlog(struct amqp_broker *self, const apm_amqp_consumer *only)
{
    for (apm_delivery *delivery = self->backlog.first, *next; delivery; delivery = next) {
        next = delivery->next;
        struct amqp_delivery *d = (struct amqp_delivery *)delivery;
        if (only && d->consumer != only)
            continue;
        take_out(&self->backlog, delivery);
        give_back(d);
    }
}

/* What the receiver can take now. */
static void
hand_over(struct amqp_broker *self)
{
    apm_delivery *batch[BATCH_MAX];
    int64_t now = apm_clock_ms();

    while (self->backlog.first && !self->stopping && !apm_amqp_congested(self->base.link)) {
        size_t n = 0;
        while (n < BATCH_MAX && self->backlog.first &&
               (self->window == 0 || self->held.n < self->window)) {
            apm_delivery *delivery = self->backlog.first;
            take_out(&self->backlog, delivery);
            append(&self->held, delivery);
            delivery->received_ms = now;
            batch[n++] = delivery;
        }
        if (n == 0)
            break;
        self->base.opts.on_batch(self->base.opts.arg, batch, n);
    }
}

static void
on_batch_end(apm_amqp_intake *intake)
{
    struct amqp_broker *self = intake->arg;
    hand_over(self);
    if (self->arrived >= FLOOD && self->held.n >= ENOUGH)
        apm_amqp_intake_rest(intake, REST_MS);
    self->arrived = 0;
}

/* ---- the dead-letter place ---- */

static const apm_queue dead_queue = {
    .name = AMQP_DEAD_QUEUE, .exchange = "", .routing_key = AMQP_DEAD_QUEUE, .durable = true
};

/* The message's headers and ours, which say why it is there. */
static void
write_dead_headers(apm_buf *buf, apm_str headers, const char *queue, const char *reason)
{
    apm_json_iter it;
    apm_json val;
    apm_str key;
    char why[REASON_MAX];

    snprintf(why, sizeof(why), "%s", reason ? reason : "");
    apm_buf_addc(buf, '{');
    if (apm_json_open(&it, headers, NULL) == APIUM_OK)
        while (apm_json_next(&it, &key, &val, NULL) > 0) {
            if (key.len > 9 && memcmp(key.p, "\"x-apium-", 9) == 0)
                continue;
            if (buf->len > 1)
                apm_buf_add(buf, ", ", 2);
            apm_buf_adds(buf, key);
            apm_buf_add(buf, ": ", 2);
            apm_buf_adds(buf, val.text);
        }
    /* Cut in the middle of a character it would be no text. */
    for (size_t len = strlen(why); len > 0 && !apm_utf8_valid((apm_str){ why, len }, true);)
        why[--len] = '\0';
    apm_json_add_key(buf, "x-apium-reason");
    apm_json_add_stringz(buf, why);
    apm_json_add_key(buf, "x-apium-queue");
    apm_json_add_stringz(buf, queue);
    apm_json_add_key(buf, "x-apium-at");
    apm_json_add_int(buf, apm_clock_wall_us());
    apm_buf_addc(buf, '}');
}

static apium_status
publish_dead(apm_unit *unit, const apm_message *msg, const char *queue, const char *reason,
             apium_error *err)
{
    apm_message copy = *msg;
    apm_buf headers;

    apm_buf_init(&headers, APM_BUF_MAX);
    write_dead_headers(&headers, msg->headers, queue, reason);
    copy.headers = apm_buf_str(&headers);
    copy.expiration = APM_STR_NONE;
    copy.delivery_mode = 2;
    apium_status st =
        headers.failed
            ? apm_fail(err, APIUM_E_NOMEM, "cannot keep a refused message: out of memory")
            : apm_amqp_publish_add(unit,
                                   &(apm_amqp_publish){
                                       .exchange = APM_STR(""),
                                       .routing_key = APM_STR(AMQP_DEAD_QUEUE),
                                       .mandatory = true,
                                       .needs = &dead_queue,
                                       .msg = &copy,
                                   },
                                   err);
    apm_buf_clear(&headers);
    return st;
}

/* It could not be kept, so it may not be acknowledged either; and given back it would come again at once, for ever. It stays
 * with us, unacknowledged, until the channel goes. */
static void
keep_stuck(struct amqp_delivery *d)
{
    d->stuck = true;
    append(&self_of(d->base.broker)->stuck, &d->base);
}

static void
on_refusal_done(void *arg, apium_status status, const apium_error *err)
{
    struct amqp_delivery *d = arg;
    struct amqp_broker *self = self_of(d->base.broker);

    (void)err;
    if (self) { /* not closed meanwhile */
        take_out(&self->refusing, &d->base);
        if (status != APIUM_OK && d->tag.intake) {
            keep_stuck(d);
            return;
        }
        if (status == APIUM_OK && self->base.opts.on_refused)
            self->base.opts.on_refused(self->base.opts.arg, d->base.queue, d->base.msg.body,
                                       d->why);
    }
    free_memory(d);
}

/* What came is nothing that we can hand over: keep it, be done with it, and tell. */
static void
refuse(struct amqp_broker *self, struct amqp_delivery *d, apm_str raw, const char *why)
{
    apm_message *msg = &d->base.msg;
    apm_unit *unit = apm_unit_new(self->base.link);
    bool memory = true;

    d->refused = true;
    snprintf(d->why, sizeof(d->why), "%s", why);
    msg->body = apm_arena_str(&d->base.arena, raw, &memory);
    if (!apm_str_is(msg->headers))
        msg->headers = APM_STR("{}");
    if (!unit || !memory || publish_dead(unit, msg, d->base.queue, why, NULL) != APIUM_OK) {
        apm_unit_drop(unit);
        keep_stuck(d);
        return;
    }
    append(&self->refusing, &d->base);
    apm_amqp_tag_settle(unit, &d->tag, APM_AMQP_REJECT);
    apm_unit_commit(unit, on_refusal_done, d);
}

/* ---- receiving ---- */

static void
on_message(apm_amqp_intake *intake, apm_amqp_consumer *consumer,
           const amqp_basic_deliver_t *deliver, const apm_amqp_content *content)
{
    struct amqp_broker *self = intake->arg;
    struct amqp_delivery *d = calloc(1, sizeof(*d));
    apium_error err;
    bool memory = true;

    if (!d)
        return; /* unacknowledged: it comes again when the channel is opened anew */
    apm_message *msg = &d->base.msg;
    apm_arena *arena = &d->base.arena;
    d->base.broker = &self->base;
    d->base.queue = consumer->queue->name;
    d->consumer = consumer;
    apm_amqp_tag_hold(&d->tag, intake, consumer, deliver->delivery_tag);
    if (self->stopping || !consumer->wanted) {
        give_back(d);
        return;
    }
    /* One block for all its text, by a guess: headers grow a little as JSON. */
    arena->next_block = content->header.len * 2 + content->body.len + deliver->exchange.len +
                        deliver->routing_key.len + 256;
    apium_status st = apm_amqp_header_read(content->header, arena, &self->scratch, msg, &err);
    if (st == APIUM_E_DECODE) {
        refuse(self, d, content->body, err.text);
        return;
    }
    int64_t max = self->base.opts.settings->max_message_bytes;
    if (st == APIUM_OK && max > 0 && content->body.len > (size_t)max) {
        char why[120];
        snprintf(why, sizeof(why), "the body of %zu bytes is over max_message_bytes (%lld)",
                 content->body.len, (long long)max);
        refuse(self, d, content->body, why);
        return;
    }
    msg->exchange = apm_arena_str(arena, apm_amqp_str(deliver->exchange), &memory);
    msg->routing_key = apm_arena_str(arena, apm_amqp_str(deliver->routing_key), &memory);
    msg->body = apm_arena_str(arena, content->body, &memory);
    msg->redelivered = deliver->redelivered;
    if (st != APIUM_OK || !memory) {
        give_back(d);
        return;
    }
    append(&self->backlog, &d->base);
    self->arrived++;
}

static void
on_lost(apm_amqp_tag *tag)
{
    struct amqp_delivery *d = delivery_of_tag(tag);
    struct amqp_broker *self = self_of(d->base.broker);

    if (d->stuck) {
        take_out(&self->stuck, &d->base);
        free_memory(d);
        return;
    }
    if (d->refused || d->base.hold != APM_HELD)
        return; /* its unit is on the way, and answers */
    d->base.hold = APM_LOST;
    if (d->base.received_ms == 0) {
        take_out(&self->backlog, &d->base);
        free_memory(d);
        return;
    }
    take_out(&self->held, &d->base);
    if (self->base.opts.on_lost)
        self->base.opts.on_lost(self->base.opts.arg, &d->base);
}

static void
on_unsettled(apm_amqp_tag *tag)
{
    struct amqp_delivery *d = delivery_of_tag(tag);

    if (d->refused)
        return;
    d->base.hold = tag->intake ? APM_HELD : APM_LOST;
    if (tag->intake)
        append(&self_of(d->base.broker)->held, &d->base);
}

static void
on_notice(apm_amqp_intake *intake, apm_log_level level, const char *text)
{
    struct amqp_broker *self = intake->arg;

    if (self->base.opts.on_notice)
        self->base.opts.on_notice(self->base.opts.arg, level, text);
}

static const apm_amqp_intake_ops intake_ops = {
    .on_message = on_message,
    .on_batch_end = on_batch_end,
    .on_lost = on_lost,
    .on_unsettled = on_unsettled,
    .on_free = on_free,
    .on_notice = on_notice,
};

/* ---- the broker's operations ---- */

static apium_status
open_broker(apm_broker *broker, apium_error *err)
{
    (void)err;
    apm_buf_init(&self_of(broker)->scratch, APM_BUF_MAX);
    return APIUM_OK;
}

static void
close_broker(apm_broker *broker)
{
    struct amqp_broker *self = self_of(broker);

    give_back_backlog(self, NULL);
    amqp_admin_close(self);
    apm_amqp_intake_close(&self->intake);
    for (apm_delivery *delivery = self->refusing.first; delivery; delivery = delivery->next)
        delivery->broker = NULL;
    while (self->stuck.first) {
        struct amqp_delivery *d = (struct amqp_delivery *)self->stuck.first;
        take_out(&self->stuck, &d->base);
        free_memory(d);
    }
    apm_buf_clear(&self->scratch);
}

/* The channel for consuming is opened by the first who needs it: a producer never does. */
static apium_status
need_intake(struct amqp_broker *self, apium_error *err)
{
    return self->intake.link ? APIUM_OK
                             : apm_amqp_intake_open(&self->intake, self->base.link, &intake_ops,
                                                    self, false, true, err);
}

static apium_status
consume(apm_broker *broker, const apm_queue *queue, apium_error *err)
{
    struct amqp_broker *self = self_of(broker);
    apm_amqp_consumer *consumer;

    apium_status st = need_intake(self, err);
    if (st != APIUM_OK)
        return st;
    self->stopping = false;
    if ((st = apm_amqp_intake_add(&self->intake, queue, &consumer, err)) != APIUM_OK)
        return st;
    if (self->window_set)
        apm_amqp_intake_window(&self->intake, self->window, self->window_loose);
    return APIUM_OK;
}

static apium_status
cancel(apm_broker *broker, const char *queue, apium_error *err)
{
    struct amqp_broker *self = self_of(broker);

    for (apm_amqp_consumer *c = self->intake.consumers; c; c = c->next) {
        if (strcmp(c->queue->name, queue) == 0) {
            apm_amqp_intake_remove(&self->intake, c);
            give_back_backlog(self, c);
            return APIUM_OK;
        }
    }
    return apm_fail(err, APIUM_E_NOTFOUND,
                    "cannot stop consuming from \"%s\": nothing consumes from it", queue);
}

static void
window(apm_broker *broker, unsigned n, bool loose)
{
    struct amqp_broker *self = self_of(broker);

    self->window = n;
    self->window_loose = loose;
    self->window_set = true;
    if (self->intake.link)
        apm_amqp_intake_window(&self->intake, n, loose);
}

static void
on_quiet(void *arg)
{
    struct amqp_broker *self = arg;
    apm_done_cb *done = self->stop_done;

    self->stop_done = NULL;
    if (done)
        done(self->stop_arg, APIUM_OK, NULL);
}

static void
stop(apm_broker *broker, apm_done_cb *done, void *arg)
{
    struct amqp_broker *self = self_of(broker);

    self->stopping = true;
    self->stop_done = done;
    self->stop_arg = arg;
    give_back_backlog(self, NULL);
    if (!self->intake.link) {
        amqp_admin_later(self, on_quiet, self);
        return;
    }
    for (apm_amqp_consumer *c = self->intake.consumers; c; c = c->next)
        apm_amqp_intake_remove(&self->intake, c);
    apm_amqp_intake_when_quiet(&self->intake, on_quiet, self);
}

/* Whole seconds until the task's time, as Celery counts them for the server to wait; 0: none, or not by the server. */
static int64_t
delay_of(const apm_route *route, const apm_message *msg)
{
    apm_arena arena = { 0 };
    apm_json headers;
    const char *text;
    int64_t eta, seconds = 0;

    if (!route->queue || !route->exchange || !*route->exchange || !apm_amqp_delays(route->queue))
        return 0;
    if (apm_json_parse(msg->headers, &headers, NULL) == APIUM_OK &&
        apm_json_cstr(apm_json_get(headers, "eta"), "eta", &arena, &text, NULL) == APIUM_OK &&
        apm_date_parse(apm_strz(text), 0, &eta, NULL) == APIUM_OK)
        seconds = (eta - apm_clock_wall_us()) / 1000000;
    apm_arena_clear(&arena);
    return seconds < 0 || seconds > APM_AMQP_DELAY_MAX_S ? 0 : seconds;
}

static apium_status
publish(apm_broker *broker, apm_unit *unit, const apm_route *route, const apm_message *msg,
        apium_error *err)
{
    apm_amqp_publish publish_ = {
        .exchange = apm_strz(route->exchange ? route->exchange : ""),
        .routing_key = apm_strz(route->routing_key ? route->routing_key : ""),
        .mandatory = route->mandatory,
        .needs = route->queue,
        .msg = msg,
    };
    int64_t seconds = delay_of(route, msg);
    apm_buf key;

    (void)broker;
    if (seconds == 0)
        return apm_amqp_publish_add(unit, &publish_, err);
    apm_buf_init(&key, 1024);
    if (apm_amqp_delay_key(&key, seconds, route->routing_key) == APIUM_OK) {
        publish_.delayed = true;
        publish_.exchange = APM_STR(APM_AMQP_DELAY_EXCHANGE);
        publish_.routing_key = apm_buf_str(&key);
    }
    apium_status st = apm_amqp_publish_add(unit, &publish_, err);
    apm_buf_clear(&key);
    return st;
}

static apium_status
settle(apm_broker *broker, apm_unit *unit, apm_delivery *delivery, apm_disposition how,
       const char *reason, apium_error *err)
{
    struct amqp_broker *self = self_of(broker);
    struct amqp_delivery *d = (struct amqp_delivery *)delivery;
    apium_status st;

    if (delivery->hold == APM_LOST)
        return APIUM_OK;
    if (delivery->hold == APM_SETTLED)
        return apm_fail(err, APIUM_E_INVALID, "cannot settle a message twice");
    if (how == APM_REJECT &&
        (st = publish_dead(unit, &delivery->msg, delivery->queue, reason, err)) != APIUM_OK)
        return st;
    take_out(&self->held, delivery);
    delivery->hold = APM_SETTLED;
    d->tag.patient = delivery->done && how == APM_ACK;
    apm_amqp_tag_settle(unit, &d->tag,
                        how == APM_ACK      ? APM_AMQP_ACK
                        : how == APM_REJECT ? APM_AMQP_REJECT
                                            : APM_AMQP_REQUEUE);
    return APIUM_OK;
}

static apium_status
park(apm_broker *broker, apm_unit *unit, apm_delivery *delivery, int64_t due_us, apium_error *err)
{
    (void)broker;
    (void)unit;
    (void)delivery;
    (void)due_us;
    return apm_fail(err, APIUM_E_UNSUPPORTED, "RabbitMQ cannot keep a message until a time");
}

static void
free_delivery(apm_delivery *delivery)
{
    struct amqp_delivery *d = (struct amqp_delivery *)delivery;

    if (delivery->hold == APM_HELD)
        take_out(&self_of(delivery->broker)->held, delivery);
    give_back(d); /* nothing is sent for what was settled or lost */
}

static const char *const schemes[] = { "amqp", "amqps", "pyamqp", NULL };

const apm_broker_ops apm_amqp_broker = {
    .name = "amqp",
    .schemes = schemes,
    .size = sizeof(struct amqp_broker),
    .features = APM_BROKER_PRIORITY | APM_BROKER_REPLIES | APM_BROKER_FANOUT,
    .open = open_broker,
    .close = close_broker,
    .declare = amqp_admin_declare,
    .consume = consume,
    .cancel = cancel,
    .window = window,
    .stop = stop,
    .publish = publish,
    .settle = settle,
    .park = park,
    .free_delivery = free_delivery,
    .inspect = amqp_admin_inspect,
    .look = amqp_admin_look,
    .purge = amqp_admin_purge,
    .dead = amqp_admin_dead,
};
