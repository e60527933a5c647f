/*
 * amqp_publish.c - the messages of units on their way, and what became of them.
 *
 *   commit ─▶ units ──declared──▶ outbox ──window──▶ sent ──ack──▶ unit finished ─▶ its tags are settled, done()
 *                                   ▲                 │ nack: again, a little later
 *                                   └── channel lost ─┘ returned: the unit fails
 *
 * When the server closes the channel because of one message, it does not say which, and all that was sent behind it is gone. What
 * was in flight is then sent again one message at a time (`suspects`), so that the culprit is caught alone and only its unit fails.
 */
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/link/amqp_link.h"

#define UNSENT_MAX ((size_t)4 << 20) /* bytes waiting for the socket that are enough */
#define REFUSED_MAX                                                                                \
    3 /* times a message is sent again after a nack, or a return by the ladder of delays */
#define REFUSED_MS 200

/* ---- lists ---- */

static void
push(apm_amqp_pubs *list, apm_amqp_pub *pub)
{
    pub->next = NULL;
    *list->last = pub;
    list->last = &pub->next;
}

static apm_amqp_pub *
pop(apm_amqp_pubs *list)
{
    apm_amqp_pub *pub = list->first;

    if (pub && !(list->first = pub->next))
        list->last = &list->first;
    return pub;
}

/* Drop from a list what belongs to a unit that is given up. */
static void
drop_pubs_of(apm_amqp_link *link, apm_amqp_pubs *list, const apm_amqp_unit *unit)
{
    apm_amqp_pubs kept = { NULL, &kept.first };
    apm_amqp_pub *pub;

    while ((pub = pop(list))) {
        if (pub->unit == unit) {
            apm_amqp_pub_forgotten(link, pub);
            free(pub);
        } else {
            push(&kept, pub);
        }
    }
    if (kept.first) {
        list->first = kept.first;
        list->last = kept.last;
    }
}

/* A unit is given up: what was sent of it is still confirmed, to nobody; the rest is not sent. */
void
apm_amqp_publisher_drop(apm_amqp_link *link, apm_amqp_unit *unit)
{
    for (uint64_t i = link->sent_first; i < link->sent_next; i++) {
        apm_amqp_pub *pub = link->sent[i % APM_AMQP_CONFIRM_WINDOW];
        if (pub && pub->unit == unit) {
            apm_amqp_pub_forgotten(link, pub);
            pub->unit = NULL;
        }
    }
    drop_pubs_of(link, &link->outbox, unit);
    drop_pubs_of(link, &link->refused, unit);
}

/* ---- sending ---- */

static bool
declared(apm_amqp_link *link, const apm_amqp_unit *unit)
{
    bool all = true;

    for (apm_amqp_decl *decl = link->decls; decl; decl = decl->next)
        if (decl->required && decl->state != APM_AMQP_DECL_OK) {
            apm_amqp_decl_ask(decl);
            all = false;
        }
    for (unsigned i = 0; i < unit->n_needs; i++)
        if (unit->needs[i]->state != APM_AMQP_DECL_OK) {
            apm_amqp_decl_ask(unit->needs[i]);
            all = false;
        }
    return all;
}

/* Hand the publishes of units whose queues are declared to the outbox, in the order of commits. */
static void
fill_outbox(apm_amqp_link *link)
{
    while (link->unit_next && declared(link, link->unit_next)) {
        apm_amqp_unit *unit = link->unit_next;
        link->unit_next = unit->next;
        *link->outbox.last = unit->pubs;
        link->outbox.last = unit->pubs_tail;
        unit->pubs = NULL;
        unit->pubs_tail = &unit->pubs;
    }
}

static void
send_pub(apm_amqp_link *link, apm_amqp_pub *pub)
{
    link->sent[link->sent_next++ % APM_AMQP_CONFIRM_WINDOW] = pub;
    apm_amqp_send_method(&link->publisher, AMQP_BASIC_PUBLISH_METHOD,
                         &(amqp_basic_publish_t){
                             .exchange = apm_amqp_bytes(pub->exchange),
                             .routing_key = apm_amqp_bytes(pub->routing_key),
                             .mandatory = pub->mandatory,
                         });
    apm_amqp_send_content(&link->publisher, pub->header, pub->body);
}

void
apm_amqp_publisher_pump(apm_amqp_link *link)
{
    if (!link->confirming || link->publish.conn.blocked)
        return;
    uint64_t window = link->suspects > 0 ? 1 : APM_AMQP_CONFIRM_WINDOW;
    while (link->sent_next - link->sent_first < window &&
           apm_stream_unsent(link->publish.conn.stream) < UNSENT_MAX) {
        if (!link->outbox.first)
            fill_outbox(link);
        apm_amqp_pub *pub = pop(&link->outbox);
        if (!pub)
            break;
        send_pub(link, pub);
    }
}

/* ---- what the server says ---- */

/* False: it was sent often enough. */
static bool
again_later(apm_amqp_link *link, apm_amqp_pub *pub)
{
    if (!pub->unit || pub->refused >= REFUSED_MAX)
        return false;
    pub->refused++;
    pub->returned = false;
    pub->retry_at_ms = apm_clock_ms() + REFUSED_MS * pub->refused;
    push(&link->refused, pub);
    apm_amqp_wake(link);
    return true;
}

static void
refused(apm_amqp_link *link, apm_amqp_pub *pub)
{
    apium_error err;

    if (again_later(link, pub))
        return;
    apm_fail(
        &err, APIUM_E_BUSY,
        "cannot publish to \"%.*s\": the server refuses the message (nack): is the queue full?",
        APM_STR_ARG(pub->routing_key));
    apm_amqp_pub_resolved(link, pub, &err);
}

static void
confirm_one(apm_amqp_link *link, apm_amqp_pub *pub, bool ack)
{
    apium_error err;

    if (!ack) {
        refused(link, pub);
    } else if (pub->returned) {
        /* Of the ladder of delays we know that it is there; RabbitMQ 4 may answer a binding before it routes by it. */
        if (apm_str_eqz(pub->exchange, APM_AMQP_DELAY_EXCHANGE) && again_later(link, pub))
            return;
        apm_fail(&err, APIUM_E_UNROUTABLE,
                 "cannot publish to exchange \"%.*s\" with routing key \"%.*s\": no queue takes it",
                 APM_STR_ARG(pub->exchange), APM_STR_ARG(pub->routing_key));
        apm_amqp_pub_resolved(link, pub, &err);
    } else {
        apm_amqp_pub_resolved(link, pub, NULL);
    }
}

static void
on_confirm(apm_amqp_link *link, uint64_t number, bool multiple, bool ack)
{
    if (number == 0 && multiple)
        number = link->sent_next - 1;
    if (number < link->sent_first || number >= link->sent_next)
        return;
    for (uint64_t i = multiple ? link->sent_first : number; i <= number; i++) {
        apm_amqp_pub **slot = &link->sent[i % APM_AMQP_CONFIRM_WINDOW];
        apm_amqp_pub *pub = *slot;
        *slot = NULL;
        if (pub)
            confirm_one(link, pub, ack);
    }
    while (link->sent_first < link->sent_next &&
           !link->sent[link->sent_first % APM_AMQP_CONFIRM_WINDOW])
        link->sent_first++;
    apm_amqp_wake(link);
}

static void
on_method(apm_amqp_channel *channel, const amqp_method_t *method)
{
    apm_amqp_link *link = channel->arg;

    if (method->id == AMQP_BASIC_ACK_METHOD) {
        const amqp_basic_ack_t *ack = method->decoded;
        on_confirm(link, ack->delivery_tag, ack->multiple, true);
    } else if (method->id == AMQP_BASIC_NACK_METHOD) {
        const amqp_basic_nack_t *nack = method->decoded;
        on_confirm(link, nack->delivery_tag, nack->multiple, false);
    }
}

/* A message comes back just before its confirm, without its number: it is the oldest that looks like it. */
static void
on_content(apm_amqp_channel *channel, const apm_amqp_content *content)
{
    apm_amqp_link *link = channel->arg;
    const amqp_basic_return_t *ret = content->decoded;

    if (content->method != AMQP_BASIC_RETURN_METHOD)
        return;
    for (int exactly = 1; exactly >= 0; exactly--) {
        for (uint64_t i = link->sent_first; i < link->sent_next; i++) {
            apm_amqp_pub *pub = link->sent[i % APM_AMQP_CONFIRM_WINDOW];
            if (pub && pub->mandatory && !pub->returned &&
                apm_str_eq(pub->exchange, apm_amqp_str(ret->exchange)) &&
                apm_str_eq(pub->routing_key, apm_amqp_str(ret->routing_key)) &&
                apm_str_eq(pub->body, content->body) &&
                (!exactly || apm_str_eq(pub->header, content->header))) {
                pub->returned = true;
                return;
            }
        }
    }
}

static void
on_confirming(void *arg, apium_status status, const amqp_method_t *reply,
              const apm_amqp_content *content, const apium_error *err)
{
    apm_amqp_link *link = arg;

    (void)reply;
    (void)content;
    (void)err;
    if (status != APIUM_OK)
        return; /* closing, or the channel was closed, which asks again */
    link->confirming = true;
    link->sent_first = link->sent_next = 1;
    apm_amqp_wake(link);
}

static void
on_open(apm_amqp_channel *channel)
{
    apm_amqp_link *link = channel->arg;

    /* A call of an earlier opening that was cut short is repeated by the channel: one is enough. */
    if (channel->calls)
        return;
    apm_amqp_call *call = apm_amqp_call_new(on_confirming, link);
    if (!call)
        return;
    apm_amqp_call_add(call, AMQP_CONFIRM_SELECT_METHOD, &(amqp_confirm_select_t){ 0 });
    apm_amqp_channel_ask(channel, call);
}

/* The channel is gone with all that was not confirmed: that goes first the next time, in its order. */
void
apm_amqp_publisher_lost(apm_amqp_link *link)
{
    apm_amqp_pubs again = { NULL, &again.first };

    link->confirming = false;
    for (uint64_t i = link->sent_first; i < link->sent_next; i++) {
        apm_amqp_pub **slot = &link->sent[i % APM_AMQP_CONFIRM_WINDOW];
        apm_amqp_pub *pub = *slot;
        *slot = NULL;
        if (!pub)
            continue;
        pub->returned = false;
        if (pub->unit)
            push(&again, pub);
        else
            free(pub);
    }
    link->sent_first = link->sent_next = 1;
    if (again.first) {
        *again.last = link->outbox.first;
        if (link->outbox.first)
            again.last = link->outbox.last;
        link->outbox.first = again.first;
        link->outbox.last = again.last;
    }
}

/* The last of it: nobody waits any more. */
void
apm_amqp_publisher_clear(apm_amqp_link *link)
{
    apm_amqp_pub *pub;

    while ((pub = pop(&link->outbox)) || (pub = pop(&link->refused)))
        free(pub);
}

bool
apm_amqp_publisher_tick(apm_amqp_link *link, int64_t now_ms)
{
    while (link->refused.first && link->refused.first->retry_at_ms <= now_ms) {
        push(&link->outbox, pop(&link->refused));
        apm_amqp_wake(link);
    }
    return link->refused.first != NULL;
}

/* Which of the messages in flight did the server close the channel for? NULL: it cannot be told yet. */
static apm_amqp_pub *
find_culprit(apm_amqp_link *link, const amqp_channel_close_t *close, unsigned *in_flight)
{
    apm_amqp_pub *named = NULL, *last = NULL;
    apm_str text = apm_amqp_str(close->reply_text);
    char quoted[260];

    *in_flight = 0;
    for (uint64_t i = link->sent_first; i < link->sent_next; i++) {
        apm_amqp_pub *pub = link->sent[i % APM_AMQP_CONFIRM_WINDOW];
        if (!pub)
            continue;
        ++*in_flight;
        last = pub;
        if (named || pub->exchange.len == 0 || close->reply_code != AMQP_NOT_FOUND)
            continue;
        int n = snprintf(quoted, sizeof(quoted), "'%.*s'",
                         APM_STR_ARG(pub->exchange)); /* "no exchange 'x' in vhost '/'" */
        if (memmem(text.p, text.len, quoted, (size_t)n))
            named = pub;
    }
    return *in_flight == 1 ? last : named;
}

static void
on_closed(apm_amqp_channel *channel, const amqp_channel_close_t *close, bool by_call)
{
    apm_amqp_link *link = channel->arg;
    apm_str text = apm_amqp_str(close->reply_text);
    unsigned in_flight = 0;
    apium_error err;

    apm_amqp_pub *culprit = by_call ? NULL : find_culprit(link, close, &in_flight);
    if (culprit) {
        for (uint64_t i = link->sent_first; i < link->sent_next; i++)
            if (link->sent[i % APM_AMQP_CONFIRM_WINDOW] == culprit)
                link->sent[i % APM_AMQP_CONFIRM_WINDOW] = NULL;
        apm_fail(&err, close->reply_code == AMQP_NOT_FOUND ? APIUM_E_UNROUTABLE : APIUM_E_REFUSED,
                 "cannot publish to exchange \"%.*s\" with routing key \"%.*s\": (%d) %.*s",
                 APM_STR_ARG(culprit->exchange), APM_STR_ARG(culprit->routing_key),
                 close->reply_code, APM_STR_ARG(text));
        apm_amqp_pub_resolved(link, culprit, &err);
    } else {
        link->suspects = in_flight;
    }
    apm_amqp_publisher_lost(link);
    apm_amqp_wake(link);
}

const apm_amqp_channel_ops apm_amqp_publisher_ops = {
    .on_open = on_open,
    .on_method = on_method,
    .on_content = on_content,
    .on_closed = on_closed,
};
