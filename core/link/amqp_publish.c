/*
 * amqp_publish.c - units on their way: what they publish, and what became of it.
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

#define UNSENT_MAX                                                                                 \
    ((size_t)4 << 20)    /* bytes that wait in the socket's buffer before we go on publishing */
#define REFUSED_MAX    3 /* times a message is sent again after a nack */
#define REFUSED_MS     200
#define CONGESTED_SIZE ((size_t)64 << 20)
#define CONGESTED      100000

static apm_amqp_unit *
unit_of(apm_unit *unit)
{
    return (apm_amqp_unit *)unit;
}

static apm_amqp_link *
link_of(const apm_amqp_unit *unit)
{
    return apm_amqp_link_of(unit->head.link);
}

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
drop_pubs_of(apm_amqp_pubs *list, const apm_amqp_unit *unit)
{
    apm_amqp_pubs kept = { NULL, &kept.first };
    apm_amqp_pub *pub;

    while ((pub = pop(list))) {
        if (pub->unit == unit)
            free(pub);
        else
            push(&kept, pub);
    }
    if (kept.first) {
        list->first = kept.first;
        list->last = kept.last;
    }
}

/* ---- making a unit ---- */

apm_unit *
apm_amqp_unit_new(apm_link *link)
{
    apm_amqp_unit *unit = calloc(1, sizeof(*unit));

    if (!unit)
        return NULL;
    unit->head.link = link;
    unit->pubs_tail = &unit->pubs;
    unit->tags_tail = &unit->tags;
    return &unit->head;
}

void
apm_amqp_unit_free(apm_amqp_unit *unit)
{
    for (apm_amqp_pub *pub = unit->pubs, *next; pub; pub = next) {
        next = pub->next;
        free(pub);
    }
    free(unit->needs);
    free(unit);
}

void
apm_amqp_unit_drop(apm_unit *head)
{
    apm_amqp_unit *unit = unit_of(head);

    unit->failed = true;
    apm_amqp_tags_unit_done(unit);
    apm_amqp_unit_free(unit);
}

static apium_status
add_need(apm_amqp_unit *unit, apm_amqp_decl *decl, apium_error *err)
{
    for (unsigned i = 0; i < unit->n_needs; i++)
        if (unit->needs[i] == decl)
            return APIUM_OK;
    if (unit->n_needs == unit->cap_needs) {
        unsigned cap = unit->cap_needs ? 2 * unit->cap_needs : 4;
        apm_amqp_decl **more = realloc(unit->needs, cap * sizeof(*more));
        if (!more)
            return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%s\": out of memory",
                            decl->queue->name);
        unit->needs = more;
        unit->cap_needs = cap;
    }
    unit->needs[unit->n_needs++] = decl;
    return APIUM_OK;
}

static apium_status
add_needs(apm_amqp_unit *unit, const apm_amqp_publish *publish, apium_error *err)
{
    apm_amqp_link *link = link_of(unit);
    apm_amqp_decl *decl;
    apium_status st = APIUM_OK;

    if (publish->needs && (st = apm_amqp_decl_get(link, publish->needs, &decl, err)) == APIUM_OK)
        st = add_need(unit, decl, err);
    if (st == APIUM_OK && publish->delayed &&
        (st = apm_amqp_decl_ladder(link, &decl, err)) == APIUM_OK)
        st = add_need(unit, decl, err);
    return st;
}

static apm_str
copy_to(char **at, apm_str text)
{
    apm_str copy = { *at, text.len };

    if (text.len > 0)
        memcpy(*at, text.p, text.len);
    *at += text.len;
    return copy;
}

apium_status
apm_amqp_publish_add(apm_unit *head, const apm_amqp_publish *publish, apium_error *err)
{
    apm_amqp_unit *unit = unit_of(head);
    apm_amqp_link *link = link_of(unit);
    apm_buf *header = &link->scratch;
    apium_error why;

    if (publish->routing_key.len > 255 || publish->exchange.len > 255)
        return apm_fail(
            err, APIUM_E_INVALID,
            "cannot publish to \"%.40s...\": exchange and routing key have 255 bytes at most",
            publish->routing_key.len > 255 ? publish->routing_key.p : publish->exchange.p);
    apm_buf_reset(header);
    apium_status st = apm_amqp_header_write(header, publish->msg, &why);
    if (st != APIUM_OK)
        return apm_fail(err, st, "cannot publish to \"%.*s\": %s",
                        APM_STR_ARG(publish->routing_key), why.text);
    /* It has to fit into one frame: the protocol cannot split it. */
    if (header->len > link->publish.conn.frame_max - 32)
        return apm_fail(
            err, APIUM_E_TOOBIG,
            "cannot publish to \"%.*s\": the headers are %zu bytes, over the server's %u",
            APM_STR_ARG(publish->routing_key), header->len, link->publish.conn.frame_max);
    if ((st = add_needs(unit, publish, err)) != APIUM_OK)
        return st;

    size_t text =
        publish->exchange.len + publish->routing_key.len + header->len + publish->msg->body.len;
    apm_amqp_pub *pub = malloc(sizeof(*pub) + text);
    if (!pub)
        return apm_fail(err, APIUM_E_NOMEM, "cannot publish to \"%.*s\": out of memory",
                        APM_STR_ARG(publish->routing_key));
    char *at = (char *)(pub + 1);
    *pub = (apm_amqp_pub){ .unit = unit,
                           .mandatory = publish->mandatory,
                           .size = sizeof(*pub) + text };
    pub->exchange = copy_to(&at, publish->exchange);
    pub->routing_key = copy_to(&at, publish->routing_key);
    pub->header = copy_to(&at, apm_buf_str(header));
    pub->body = copy_to(&at, publish->msg->body);
    *unit->pubs_tail = pub;
    unit->pubs_tail = &pub->next;
    unit->n_open++;
    return APIUM_OK;
}

/* ---- the life of a committed unit ---- */

static void
finish(apm_amqp_unit *unit)
{
    apm_amqp_link *link = link_of(unit);

    if (link->unit_next == unit)
        link->unit_next = unit->next;
    if (unit->prev)
        unit->prev->next = unit->next;
    else
        link->units = unit->next;
    if (unit->next)
        unit->next->prev = unit->prev;
    else
        link->units_last = unit->prev;
    unit->next = unit->prev = NULL;
    *link->finished_tail = unit;
    link->finished_tail = &unit->next;
    apm_amqp_wake(link);
}

void
apm_amqp_unit_commit(apm_unit *head)
{
    apm_amqp_unit *unit = unit_of(head);
    apm_amqp_link *link = link_of(unit);

    unit->committed_ms = apm_clock_ms();
    unit->prev = link->units_last;
    if (unit->prev)
        unit->prev->next = unit;
    else
        link->units = unit;
    link->units_last = unit;
    if (unit->n_open == 0) {
        finish(unit);
        return;
    }
    for (apm_amqp_pub *pub = unit->pubs; pub; pub = pub->next) {
        link->queued++;
        link->queued_bytes += pub->size;
    }
    if (!link->unit_next)
        link->unit_next = unit;
    apm_amqp_want(&link->publish);
    apm_amqp_wake(link);
}

static void
forget_size(apm_amqp_link *link, const apm_amqp_pub *pub)
{
    link->queued--;
    link->queued_bytes -= pub->size;
}

/* The fate of a message is known: st and err when it is a bad one. */
static void
resolve(apm_amqp_link *link, apm_amqp_pub *pub, const apium_error *err)
{
    apm_amqp_unit *unit = pub->unit;

    if (link->suspects > 0)
        link->suspects--;
    if (unit) {
        forget_size(link, pub);
        if (err && !unit->failed) {
            unit->failed = true;
            unit->err = *err;
        }
        if (--unit->n_open == 0)
            finish(unit);
    }
    free(pub);
}

/* Fail a unit with all that it has on its way. What was sent is still confirmed, to nobody. */
static void
give_up(apm_amqp_unit *unit, const apium_error *err)
{
    apm_amqp_link *link = link_of(unit);

    for (uint64_t i = link->sent_first; i < link->sent_next; i++) {
        apm_amqp_pub *pub = link->sent[i % APM_AMQP_CONFIRM_WINDOW];
        if (pub && pub->unit == unit) {
            forget_size(link, pub);
            pub->unit = NULL;
            unit->n_open--;
        }
    }
    for (apm_amqp_pubs *list = &link->outbox;; list = &link->refused) {
        for (apm_amqp_pub *pub = list->first; pub; pub = pub->next)
            if (pub->unit == unit)
                forget_size(link, pub);
        drop_pubs_of(list, unit);
        if (list == &link->refused)
            break;
    }
    for (apm_amqp_pub *pub = unit->pubs; pub; pub = pub->next)
        forget_size(link, pub);
    unit->n_open = 0;
    if (!unit->failed)
        unit->err = *err;
    unit->failed = true;
    finish(unit);
}

void
apm_amqp_units_expire(apm_amqp_link *link, int64_t before_ms, apium_status status, const char *why)
{
    apium_error err;

    while (link->units && link->units->committed_ms <= before_ms) {
        apm_amqp_unit *unit = link->units;
        const apm_amqp_pub *pub = unit->pubs;
        if (pub && (pub->routing_key.len > 0 || pub->exchange.len > 0))
            apm_fail(&err, status, "cannot publish to \"%.*s\": %s",
                     APM_STR_ARG(pub->routing_key.len > 0 ? pub->routing_key : pub->exchange), why);
        else
            apm_fail(&err, status, "cannot publish: %s", why);
        give_up(unit, &err);
    }
}

void
apm_amqp_units_refuse(apm_amqp_link *link, const apm_amqp_decl *decl, const apium_error *err)
{
    for (apm_amqp_unit *unit = link->unit_next, *next; unit; unit = next) {
        next = unit->next;
        bool needed = decl->required;
        for (unsigned i = 0; i < unit->n_needs; i++)
            needed = needed || unit->needs[i] == decl;
        if (needed)
            give_up(unit, err);
    }
}

bool
apm_amqp_congested(const apm_link *base)
{
    const apm_amqp_link *link = (const apm_amqp_link *)base;
    return link->queued > CONGESTED || link->queued_bytes > CONGESTED_SIZE;
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

static void
refused(apm_amqp_link *link, apm_amqp_pub *pub)
{
    apium_error err;

    if (pub->unit && pub->refused < REFUSED_MAX) {
        pub->refused++;
        pub->returned = false;
        pub->retry_at_ms = apm_clock_ms() + REFUSED_MS * pub->refused;
        push(&link->refused, pub);
        apm_amqp_wake(link);
        return;
    }
    apm_fail(
        &err, APIUM_E_BUSY,
        "cannot publish to \"%.*s\": the server refuses the message (nack): is the queue full?",
        APM_STR_ARG(pub->routing_key));
    resolve(link, pub, &err);
}

static void
confirm_one(apm_amqp_link *link, apm_amqp_pub *pub, bool ack)
{
    apium_error err;

    if (!ack) {
        refused(link, pub);
    } else if (pub->returned) {
        apm_fail(&err, APIUM_E_UNROUTABLE,
                 "cannot publish to exchange \"%.*s\" with routing key \"%.*s\": no queue takes it",
                 APM_STR_ARG(pub->exchange), APM_STR_ARG(pub->routing_key));
        resolve(link, pub, &err);
    } else {
        resolve(link, pub, NULL);
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
        resolve(link, culprit, &err);
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
