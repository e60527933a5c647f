/* amqp_unit.c - units: made, committed, finished or given up; see amqp.h. What happens to their messages in between is
 * amqp_publish.c's business. */
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/link/amqp_link.h"

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

/* It is no longer one of those whose fate is unknown. */
void
apm_amqp_pub_forgotten(apm_amqp_link *link, const apm_amqp_pub *pub)
{
    link->queued--;
    link->queued_bytes -= pub->size;
}

/* The fate of a message is known: st and err when it is a bad one. */
void
apm_amqp_pub_resolved(apm_amqp_link *link, apm_amqp_pub *pub, const apium_error *err)
{
    apm_amqp_unit *unit = pub->unit;

    if (link->suspects > 0)
        link->suspects--;
    if (unit) {
        apm_amqp_pub_forgotten(link, pub);
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

    apm_amqp_publisher_drop(link, unit);
    for (apm_amqp_pub *pub = unit->pubs; pub; pub = pub->next)
        apm_amqp_pub_forgotten(link, pub);
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
