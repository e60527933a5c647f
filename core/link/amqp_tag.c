/*
 * amqp_tag.c - the tags of deliveries, and how they are settled.
 *
 * Tags are kept in the order in which the server gave them out, so that settling is one look at the front of the list: as
 * far as everything there is to be acked, one `basic.ack` with `multiple` says it.
 */
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/link/amqp_link.h"

#define GATHER_MS    5
#define GATHER_MAX   192
#define GATHER_WORTH 128

void
apm_amqp_tag_hold(apm_amqp_tag *tag, apm_amqp_intake *intake, apm_amqp_consumer *consumer,
                  uint64_t number)
{
    *tag = (apm_amqp_tag){
        .intake = intake,
        .ops = intake->ops,
        .consumer = consumer,
        .serial = consumer->serial,
        .tag = number,
        .prev = intake->tags_last,
    };
    if (tag->prev)
        tag->prev->next = tag;
    else
        intake->tags = tag;
    intake->tags_last = tag;
    intake->n_tags++;
    consumer->unsettled++;
}

static void
unlink_tag(apm_amqp_tag *tag)
{
    apm_amqp_intake *intake = tag->intake;

    if (tag->prev)
        tag->prev->next = tag->next;
    else
        intake->tags = tag->next;
    if (tag->next)
        tag->next->prev = tag->prev;
    else
        intake->tags_last = tag->prev;
    intake->n_tags--;
    if (tag->serial == tag->consumer->serial && tag->consumer->unsettled > 0)
        tag->consumer->unsettled--;
    tag->intake = NULL;
    tag->prev = tag->next = NULL;
}

static void
send_verdict(const apm_amqp_tag *tag)
{
    apm_amqp_channel *channel = &tag->intake->channel;

    if (tag->verdict == APM_AMQP_ACK)
        apm_amqp_send_method(channel, AMQP_BASIC_ACK_METHOD,
                             &(amqp_basic_ack_t){ .delivery_tag = tag->tag });
    else
        apm_amqp_send_method(channel, AMQP_BASIC_REJECT_METHOD,
                             &(amqp_basic_reject_t){ .delivery_tag = tag->tag,
                                                     .requeue = tag->verdict == APM_AMQP_REQUEUE });
}

static bool
has_room_for_due(apm_amqp_intake *intake)
{
    if (intake->n_due < intake->cap_due)
        return true;
    size_t cap = intake->cap_due ? 2 * intake->cap_due : 64;
    apm_amqp_tag **due = realloc(intake->due, cap * sizeof(*due));
    if (!due)
        return false;
    intake->due = due;
    intake->cap_due = cap;
    return true;
}

/* Its owner let go of it before; now the link has no more use for it either. */
static void
free_orphan(apm_amqp_tag *tag)
{
    if (tag->orphan && !tag->in_unit && !tag->due)
        tag->ops->on_free(tag);
}

static void
make_due(apm_amqp_tag *tag, apm_amqp_verdict verdict)
{
    apm_amqp_intake *intake = tag->intake;

    tag->verdict = verdict;
    tag->due = true;
    if (has_room_for_due(intake)) {
        intake->due[intake->n_due++] = tag;
    } else {
        /* Without memory for gathering it goes by itself. */
        send_verdict(tag);
        unlink_tag(tag);
        tag->due = false;
        free_orphan(tag);
    }
    apm_amqp_wake(apm_amqp_link_of(intake->link));
}

void
apm_amqp_tag_settle(apm_unit *head, apm_amqp_tag *tag, apm_amqp_verdict verdict)
{
    apm_amqp_unit *unit = (apm_amqp_unit *)head;

    tag->verdict = verdict;
    tag->in_unit = true;
    tag->next_in_unit = NULL;
    *unit->tags_tail = tag;
    unit->tags_tail = &tag->next_in_unit;
}

bool
apm_amqp_tag_release(apm_amqp_tag *tag)
{
    if (tag->in_unit || tag->due) {
        tag->orphan = true;
        return false;
    }
    if (tag->intake) { /* nobody has settled it */
        apm_amqp_link *link = apm_amqp_link_of(tag->intake->link);
        tag->verdict = APM_AMQP_REQUEUE;
        send_verdict(tag);
        unlink_tag(tag);
        apm_amqp_wake(link);
    }
    return true;
}

void
apm_amqp_tags_unit_done(apm_amqp_unit *unit)
{
    for (apm_amqp_tag *tag = unit->tags, *next; tag; tag = next) {
        next = tag->next_in_unit;
        tag->next_in_unit = NULL;
        tag->in_unit = false;
        if (unit->failed && !tag->orphan)
            tag->ops->on_unsettled(tag);
        else if (tag->intake)
            make_due(tag, unit->failed ? APM_AMQP_REQUEUE : tag->verdict);
        else
            free_orphan(tag);
    }
    unit->tags = NULL;
    unit->tags_tail = &unit->tags;
}

static void
on_gathered(uv_timer_t *timer)
{
    apm_amqp_wake(timer->data);
}

/* May an ack wait for those before it? Each one by itself costs the server nearly as much as one for a hundred. */
static bool
may_gather(apm_amqp_intake *intake, const apm_amqp_tag *tag, size_t waiting)
{
    apm_amqp_link *link = apm_amqp_link_of(intake->link);
    int64_t now = apm_clock_ms();

    if (!tag->patient || tag->verdict != APM_AMQP_ACK || link->closing || waiting >= GATHER_MAX)
        return false;
    if (!intake->gathering_since_ms) {
        intake->gathering_since_ms = now;
        if (!uv_is_active((uv_handle_t *)&link->gather)) {
            uv_update_time(link->gather.loop);
            uv_timer_start(&link->gather, on_gathered, GATHER_MS, 0);
        }
    }
    return now - intake->gathering_since_ms < GATHER_MS;
}

static void
settle_due(apm_amqp_intake *intake)
{
    apm_amqp_tag *last = NULL;
    size_t in_a_row = 0, waiting = 0;

    if (intake->n_due == 0)
        return;
    for (apm_amqp_tag *tag = intake->tags; tag && tag->due && tag->verdict == APM_AMQP_ACK;
         tag = tag->next) {
        last = tag;
        in_a_row++;
    }
    /* While others are out, more acks come soon: a handful can wait for them. */
    bool more = intake->n_tags > intake->n_due && in_a_row < GATHER_WORTH &&
                (in_a_row == 0 || may_gather(intake, last, 0));
    if (in_a_row > 1 && !more) {
        apm_amqp_send_method(&intake->channel, AMQP_BASIC_ACK_METHOD,
                             &(amqp_basic_ack_t){ .delivery_tag = last->tag, .multiple = 1 });
        for (uint64_t end = last->tag; intake->tags && intake->tags->tag <= end;)
            unlink_tag(intake->tags);
    }
    for (size_t i = 0; i < intake->n_due; i++) {
        apm_amqp_tag *tag = intake->due[i];
        if (tag->intake && (more || tag != intake->tags) && may_gather(intake, tag, waiting)) {
            intake->due[waiting++] = tag;
            continue;
        }
        if (tag->intake) { /* not covered above */
            send_verdict(tag);
            unlink_tag(tag);
        }
        tag->due = false;
        free_orphan(tag);
    }
    intake->n_due = waiting;
    if (!waiting)
        intake->gathering_since_ms = 0;
}

void
apm_amqp_intakes_settle(apm_amqp_link *link)
{
    for (apm_amqp_intake *intake = link->intakes; intake; intake = intake->next)
        settle_due(intake);
}

/* The channel is gone: nothing of what it brought is ours any more. */
void
apm_amqp_tags_lost(apm_amqp_intake *intake)
{
    intake->n_due = 0;
    while (intake->tags) {
        apm_amqp_tag *tag = intake->tags;
        tag->due = false;
        unlink_tag(tag);
        if (tag->orphan)
            free_orphan(tag);
        else if (intake->ops->on_lost)
            intake->ops->on_lost(tag);
    }
}

void
apm_amqp_tags_close(apm_amqp_intake *intake)
{
    intake->gathering_since_ms = 1; /* long ago */
    settle_due(intake);
    while (intake->tags)
        unlink_tag(intake->tags);
}
