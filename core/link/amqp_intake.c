/* amqp_intake.c - consumers on a channel of their own: declared, subscribed, subscribed anew; see amqp_link.h. */
#include <stdlib.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/link/amqp_link.h"

#define RETRY_MS     1000 /* after a consumer was refused; doubled each time */
#define RETRY_MAX_MS 30000

/* ---- consumers ---- */

static void start_consumer(apm_amqp_consumer *consumer);

static apm_amqp_side *
side_of(const apm_amqp_intake *intake)
{
    return &apm_amqp_link_of(intake->link)->consume;
}

static void notice(apm_amqp_intake *intake, apm_log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void
notice(apm_amqp_intake *intake, apm_log_level level, const char *fmt, ...)
{
    char text[400];
    va_list ap;

    if (!intake->ops->on_notice)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    intake->ops->on_notice(intake, level, text);
}

/* "apium-812-0.3": process, consumer, subscription. */
static void
name_subscription(apm_amqp_consumer *consumer)
{
    snprintf(consumer->tag, sizeof(consumer->tag), "apium-%ld-%d.%u", (long)getpid(),
             consumer->index, consumer->serial);
}

static apm_amqp_consumer *
find_consumer(apm_amqp_intake *intake, apm_str tag, unsigned *serial)
{
    char text[64];
    long pid;
    int index;

    for (apm_amqp_consumer *c = intake->consumers; c; c = c->next) {
        if (apm_str_eqz(tag, c->tag)) {
            *serial = c->serial;
            return c;
        }
    }
    /* What an earlier subscription of a consumer still had on its way. */
    snprintf(text, sizeof(text), "%.*s", APM_STR_ARG(tag));
    if (sscanf(text, "apium-%ld-%d.%u", &pid, &index, serial) != 3)
        return NULL;
    for (apm_amqp_consumer *c = intake->consumers; c; c = c->next)
        if (c->index == index)
            return c;
    return NULL;
}

static void
tell_if_quiet(apm_amqp_intake *intake)
{
    if (!intake->when_quiet)
        return;
    for (apm_amqp_consumer *c = intake->consumers; c; c = c->next)
        if (c->state != APM_AMQP_CONSUMER_OFF)
            return;
    void (*done)(void *) = intake->when_quiet;
    intake->when_quiet = NULL;
    done(intake->quiet_arg);
}

static void
retry_later(apm_amqp_consumer *consumer)
{
    int64_t wait = (int64_t)RETRY_MS << (consumer->failures < 5 ? consumer->failures : 5);

    consumer->state = APM_AMQP_CONSUMER_OFF;
    consumer->failures++;
    consumer->retry_at_ms = apm_clock_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
}

static void
on_cancelled(void *arg, apium_status status, const amqp_method_t *reply,
             const apm_amqp_content *content, const apium_error *err)
{
    apm_amqp_consumer *consumer = arg;

    (void)status;
    (void)reply;
    (void)content;
    (void)err;
    consumer->state = APM_AMQP_CONSUMER_OFF;
    if (consumer->wanted)
        start_consumer(consumer);
    tell_if_quiet(consumer->intake);
}

static void
stop_consumer(apm_amqp_consumer *consumer)
{
    consumer->retry_at_ms = 0;
    if (consumer->state != APM_AMQP_CONSUMER_ON)
        return; /* one that is starting is stopped once it is on */
    consumer->state = APM_AMQP_CONSUMER_STOPPING;
    apm_amqp_call *call = apm_amqp_call_new(on_cancelled, consumer);
    if (!call) {
        consumer->state = APM_AMQP_CONSUMER_ON;
        return;
    }
    apm_amqp_call_add(call, AMQP_BASIC_CANCEL_METHOD,
                      &(amqp_basic_cancel_t){ .consumer_tag = apm_amqp_bytesz(consumer->tag) });
    apm_amqp_channel_ask(&consumer->intake->channel, call);
    apm_amqp_wake(apm_amqp_link_of(consumer->intake->link));
}

static void
on_consuming(void *arg, apium_status status, const amqp_method_t *reply,
             const apm_amqp_content *content, const apium_error *err)
{
    apm_amqp_consumer *consumer = arg;
    apm_amqp_intake *intake = consumer->intake;

    (void)reply;
    (void)content;
    if (status == APIUM_OK) {
        consumer->state = APM_AMQP_CONSUMER_ON;
        consumer->failures = 0;
        if (!consumer->wanted)
            stop_consumer(consumer);
        else if (intake->ops->on_consuming)
            intake->ops->on_consuming(intake, consumer);
        return;
    }
    retry_later(consumer);
    if (consumer->wanted)
        notice(intake, APM_LOG_ERROR, "cannot consume from the queue \"%s\": %s",
               consumer->queue->name, err->text);
    tell_if_quiet(intake);
}

static void
subscribe(apm_amqp_consumer *consumer)
{
    apm_amqp_intake *intake = consumer->intake;

    apm_amqp_call *call = apm_amqp_call_new(on_consuming, consumer);
    if (!call) {
        retry_later(consumer);
        return;
    }
    consumer->state = APM_AMQP_CONSUMER_STARTING;
    consumer->serial++;
    apm_amqp_window_begin(consumer, call);
    name_subscription(consumer);
    apm_amqp_call_add(call, AMQP_BASIC_CONSUME_METHOD,
                      &(amqp_basic_consume_t){
                          .queue = apm_amqp_bytesz(consumer->queue->name),
                          .consumer_tag = apm_amqp_bytesz(consumer->tag),
                          .no_ack = intake->no_ack,
                      });
    apm_amqp_channel_ask(&intake->channel, call);
}

static void
on_declared(void *arg, apium_status status, const amqp_method_t *reply,
            const apm_amqp_content *content, const apium_error *err)
{
    apm_amqp_consumer *consumer = arg;
    apm_amqp_intake *intake = consumer->intake;

    (void)reply;
    (void)content;
    if (!consumer->wanted) {
        consumer->state = APM_AMQP_CONSUMER_OFF;
        tell_if_quiet(intake);
    } else if (status != APIUM_OK) {
        retry_later(consumer);
        notice(intake, APM_LOG_ERROR, "cannot declare the queue \"%s\": %s", consumer->queue->name,
               err->text);
    } else {
        subscribe(consumer);
        apm_amqp_wake(apm_amqp_link_of(intake->link));
    }
}

/* Declare, then subscribe. While the channel is closed its opening does it. */
static void
start_consumer(apm_amqp_consumer *consumer)
{
    apm_amqp_intake *intake = consumer->intake;
    apium_error err;

    consumer->retry_at_ms = 0;
    if (intake->paused || consumer->state != APM_AMQP_CONSUMER_OFF ||
        intake->channel.state != APM_AMQP_CHANNEL_OPEN)
        return;
    consumer->state = APM_AMQP_CONSUMER_DECLARING;
    apm_amqp_call *call = apm_amqp_call_new(on_declared, consumer);
    if (!call || apm_amqp_call_declare(call, consumer->queue, &err) != APIUM_OK) {
        apm_amqp_call_free(call);
        retry_later(consumer);
        return;
    }
    apm_amqp_link *link = apm_amqp_link_of(intake->link);
    if (apm_amqp_delays(consumer->queue) && !link->ladder_asked) {
        /* Python's producers send to it and leave its making to the workers. What is wrong with it they are told. */
        link->ladder_asked = true;
        apm_amqp_delays_ask(&link->consume.admin, NULL, NULL, &err);
    }
    apm_amqp_channel_ask(&link->consume.admin, call);
}

void
apm_amqp_intake_window(apm_amqp_intake *intake, unsigned window, bool loose)
{
    bool first = intake->paused;

    if (!first && window == intake->window && loose == intake->loose)
        return;
    intake->paused = false;
    apm_amqp_window_set(intake, window, loose);
    apm_amqp_wake(apm_amqp_link_of(intake->link)); /* what waits beyond the old window */
    if (first)
        for (apm_amqp_consumer *c = intake->consumers; c; c = c->next)
            if (c->wanted)
                start_consumer(c);
}

/* ---- the channel ---- */

static void
on_open(apm_amqp_channel *channel)
{
    apm_amqp_intake *intake = channel->arg;

    int64_t now = apm_clock_ms();

    apm_amqp_window_open(intake);
    /* One that was refused closed the channel, with all that the others held: it waits for its time. */
    for (apm_amqp_consumer *c = intake->consumers; c; c = c->next)
        if (c->wanted && c->retry_at_ms <= now)
            start_consumer(c);
}

/* All consumers are off; the channel's next opening starts them from their declaration. */
static void
consumers_lost(apm_amqp_intake *intake)
{
    for (apm_amqp_consumer *c = intake->consumers; c; c = c->next) {
        apm_amqp_channel_disown(&intake->channel, c);
        apm_amqp_channel_disown(&side_of(intake)->admin, c);
        c->state = APM_AMQP_CONSUMER_OFF;
        c->unsettled = 0;
    }
    apm_amqp_channel_forget(&intake->channel);
    apm_amqp_tags_lost(intake);
    apm_amqp_wake(apm_amqp_link_of(intake->link));
}

static void
on_closed(apm_amqp_channel *channel, const amqp_channel_close_t *close, bool by_call)
{
    apm_amqp_intake *intake = channel->arg;
    apm_str text = apm_amqp_str(close->reply_text);

    if (!by_call)
        notice(intake, APM_LOG_WARNING,
               "the server closed the consuming channel: (%d) %.*s. Consuming again",
               close->reply_code, (int)(text.len < 250 ? text.len : 250), text.p);
    consumers_lost(intake);
}

static void
on_method(apm_amqp_channel *channel, const amqp_method_t *method)
{
    apm_amqp_intake *intake = channel->arg;
    unsigned serial;

    if (method->id != AMQP_BASIC_CANCEL_METHOD)
        return;
    const amqp_basic_cancel_t *cancel = method->decoded;
    apm_amqp_consumer *consumer =
        find_consumer(intake, apm_amqp_str(cancel->consumer_tag), &serial);
    if (!consumer || serial != consumer->serial || consumer->state != APM_AMQP_CONSUMER_ON)
        return;
    consumer->state = APM_AMQP_CONSUMER_OFF;
    notice(intake, APM_LOG_WARNING,
           "the server cancelled our consumer of the queue \"%s\" (was it deleted?). Declaring it "
           "and consuming again",
           consumer->queue->name);
    if (consumer->wanted)
        start_consumer(consumer);
    tell_if_quiet(intake);
}

static void
on_content(apm_amqp_channel *channel, const apm_amqp_content *content)
{
    apm_amqp_intake *intake = channel->arg;
    const amqp_basic_deliver_t *deliver = content->decoded;
    unsigned serial;

    if (content->method != AMQP_BASIC_DELIVER_METHOD)
        return;
    apm_amqp_consumer *consumer =
        find_consumer(intake, apm_amqp_str(deliver->consumer_tag), &serial);
    if (consumer)
        intake->ops->on_message(intake, consumer, deliver, content);
}

static const apm_amqp_channel_ops intake_ops = {
    .on_open = on_open,
    .on_method = on_method,
    .on_content = on_content,
    .on_closed = on_closed,
};

/* ---- opening and closing ---- */

apium_status
apm_amqp_intake_open(apm_amqp_intake *intake, apm_link *base, const apm_amqp_intake_ops *ops,
                     void *arg, bool no_ack, bool heartbeat, apium_error *err)
{
    apm_amqp_link *link = apm_amqp_link_of(base);

    *intake = (apm_amqp_intake){ .ops = ops, .arg = arg, .no_ack = no_ack, .paused = !no_ack };
    apium_status st =
        apm_amqp_channel_init(&intake->channel, &link->consume.conn, &intake_ops, intake, err);
    if (st != APIUM_OK)
        return st;
    intake->link = base;
    intake->next = link->intakes;
    link->intakes = intake;
    if (heartbeat)
        link->consume.heartbeat_s = apm_links_settings(base->set)->broker_heartbeat;
    return APIUM_OK;
}

void
apm_amqp_intake_close(apm_amqp_intake *intake)
{
    if (!intake->link)
        return;
    apm_amqp_link *link = apm_amqp_link_of(intake->link);
    apm_amqp_tags_close(intake);
    intake->when_quiet = NULL;
    for (apm_amqp_intake **at = &link->intakes; *at; at = &(*at)->next) {
        if (*at == intake) {
            *at = intake->next;
            break;
        }
    }
    /* Nothing that was asked comes back to what is freed here. */
    for (apm_amqp_consumer *c = intake->consumers; c; c = c->next) {
        apm_amqp_channel_disown(&intake->channel, c);
        apm_amqp_channel_disown(&link->consume.admin, c);
    }
    apm_amqp_channel_clear(&intake->channel);
    for (apm_amqp_consumer *c = intake->consumers, *next; c; c = next) {
        next = c->next;
        free(c->queue);
        free(c);
    }
    free(intake->due);
    apm_amqp_wake(link);
    *intake = (apm_amqp_intake){ 0 };
}

apium_status
apm_amqp_intake_add(apm_amqp_intake *intake, const apm_queue *queue, apm_amqp_consumer **out,
                    apium_error *err)
{
    apm_amqp_link *link = apm_amqp_link_of(intake->link);
    apm_amqp_consumer *consumer, **last = &intake->consumers;

    for (; (consumer = *last); last = &consumer->next)
        if (strcmp(consumer->queue->name, queue->name) == 0)
            break;
    if (!consumer) {
        if (strlen(queue->name) > 255)
            return apm_fail(err, APIUM_E_INVALID,
                            "cannot consume from \"%.40s...\": AMQP has names of 255 bytes at most",
                            queue->name);
        consumer = calloc(1, sizeof(*consumer));
        if (consumer)
            consumer->queue = apm_amqp_queue_copy(queue);
        if (!consumer || !consumer->queue) {
            free(consumer);
            return apm_fail(err, APIUM_E_NOMEM, "cannot consume from \"%s\": out of memory",
                            queue->name);
        }
        consumer->intake = intake;
        consumer->index = intake->n_consumers++;
        *last = consumer;
    }
    consumer->wanted = true;
    apm_amqp_window_look(intake);
    apm_amqp_want(&link->consume);
    apm_amqp_channel_open(&intake->channel);
    start_consumer(consumer);
    *out = consumer;
    return APIUM_OK;
}

void
apm_amqp_intake_remove(apm_amqp_intake *intake, apm_amqp_consumer *consumer)
{
    (void)intake;
    consumer->wanted = false;
    stop_consumer(consumer);
}

void
apm_amqp_intake_rest(apm_amqp_intake *intake, unsigned ms)
{
    apm_amqp_conn *conn = intake->channel.conn;
    if (conn->stream)
        apm_stream_rest(conn->stream, ms);
}

void
apm_amqp_intake_when_quiet(apm_amqp_intake *intake, void (*done)(void *arg), void *arg)
{
    intake->when_quiet = done;
    intake->quiet_arg = arg;
    apm_amqp_wake(apm_amqp_link_of(intake->link));
}

/* ---- all of a link ---- */

void
apm_amqp_intakes_opened(apm_amqp_link *link)
{
    link->ladder_asked = false;
    for (apm_amqp_intake *intake = link->intakes; intake; intake = intake->next)
        apm_amqp_channel_open(&intake->channel);
}

void
apm_amqp_intakes_lost(apm_amqp_link *link)
{
    for (apm_amqp_intake *intake = link->intakes, *next; intake; intake = next) {
        next = intake->next;
        consumers_lost(intake);
    }
}

void
apm_amqp_intakes_notice(apm_amqp_link *link, apm_log_level level, const char *text)
{
    for (apm_amqp_intake *intake = link->intakes; intake; intake = intake->next)
        notice(intake, level, "%s", text);
}

void
apm_amqp_intakes_turn(apm_amqp_link *link)
{
    for (apm_amqp_intake *intake = link->intakes, *next; intake; intake = next) {
        next = intake->next;
        for (apm_amqp_consumer *c = intake->consumers; c; c = c->next)
            if (c->state == APM_AMQP_CONSUMER_ON && c->wanted && !apm_amqp_window_fits(c))
                stop_consumer(c); /* its answer starts it again */
        if (intake->ops->on_batch_end)
            intake->ops->on_batch_end(intake);
        tell_if_quiet(intake);
    }
}

void
apm_amqp_intakes_tick(apm_amqp_link *link, int64_t now_ms)
{
    for (apm_amqp_intake *intake = link->intakes; intake; intake = intake->next) {
        for (apm_amqp_consumer *c = intake->consumers; c; c = c->next)
            if (c->wanted && c->retry_at_ms > 0 && now_ms >= c->retry_at_ms)
                start_consumer(c);
        apm_amqp_window_look(intake);
    }
}

void
apm_amqp_intakes_batch_end(apm_amqp_link *link)
{
    for (apm_amqp_intake *intake = link->intakes, *next; intake; intake = next) {
        next = intake->next;
        if (intake->ops->on_batch_end)
            intake->ops->on_batch_end(intake);
    }
}
