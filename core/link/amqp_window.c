/*
 * amqp_window.c - how much may be unsettled at once, as `basic.qos` says it.
 *
 * A window of the channel is exact, over all its subscriptions and while it changes; but the server asks another of its
 * processes about each message then, a tenth of what a message costs it. A window of each subscription costs nothing and is fixed when it
 * starts: to change it the consumer is subscribed anew. Quorum queues and RabbitMQ 4 know only that; it is also taken where one
 * subscription has a wide window that need not be exact: for tasks that are short.
 */
#include "core/base/clock.h"
#include "core/link/amqp_link.h"

#define WIDE       128   /* from here on a window is wide, */
#define NARROW     64    /* and below that not any more */
#define WIDE_AGAIN 10000 /* ms after it was narrow last */

static bool
must_be_each(const apm_amqp_intake *intake)
{
    if (intake->channel.conn->server_major >= 4)
        return true;
    for (const apm_amqp_consumer *c = intake->consumers; c; c = c->next)
        if (c->wanted && apm_amqp_is_quorum(c->queue))
            return true;
    return false;
}

static bool
is_wide(const apm_amqp_intake *intake)
{
    return intake->loose && intake->window >= (intake->wide ? NARROW : WIDE);
}

static bool
wants_each(apm_amqp_intake *intake)
{
    const bool was_wide = intake->wide;
    unsigned wanted = 0;

    for (const apm_amqp_consumer *c = intake->consumers; c; c = c->next)
        wanted += c->wanted;
    intake->wide = is_wide(intake) && wanted == 1;
    if (must_be_each(intake))
        return true;
    /* Requests that wait for their time make it exact, and come and go: not back and forth at each of them. */
    if (was_wide && !intake->wide)
        intake->narrow_ms = apm_clock_ms();
    if (intake->wide && !was_wide && intake->narrow_ms &&
        apm_clock_ms() - intake->narrow_ms < WIDE_AGAIN)
        intake->wide = false;
    return intake->wide;
}

/* Celery sends 0, unlimited, for what the field does not hold. */
static unsigned
in_field(size_t window)
{
    return window > UINT16_MAX ? 0 : (unsigned)window;
}

static void
add_qos(apm_amqp_call *call, unsigned window, bool of_channel)
{
    apm_amqp_call_add(
        call, AMQP_BASIC_QOS_METHOD,
        &(amqp_basic_qos_t){ .prefetch_count = (uint16_t)window, .global = of_channel });
}

/* The channel's window; 0 for none. */
static void
send_channels(apm_amqp_intake *intake, unsigned window)
{
    if (intake->no_ack || intake->paused || intake->channel.state != APM_AMQP_CHANNEL_OPEN ||
        intake->channels == window)
        return;
    apm_amqp_call *call = apm_amqp_call_new(NULL, NULL);
    if (!call)
        return;
    add_qos(call, window, true);
    apm_amqp_channel_ask(&intake->channel, call);
    apm_amqp_wake(apm_amqp_link_of(intake->link));
    intake->channels = window;
}

/* A channel's window takes effect at once; that of a subscription when it starts anew, for it does not fit any more. */
static void
choose(apm_amqp_intake *intake)
{
    intake->per_consumer = wants_each(intake);
    if (!intake->per_consumer)
        send_channels(intake, in_field(intake->window));
    else if (must_be_each(intake)) /* the server refuses a quorum queue while there is another */
        send_channels(intake, 0);
}

void
apm_amqp_window_open(apm_amqp_intake *intake)
{
    intake->channels = intake->each = 0;
    choose(intake);
}

void
apm_amqp_window_set(apm_amqp_intake *intake, unsigned window, bool loose)
{
    intake->window = window;
    intake->loose = loose;
    choose(intake);
}

void
apm_amqp_window_look(apm_amqp_intake *intake)
{
    if (!intake->paused)
        choose(intake);
}

void
apm_amqp_window_begin(apm_amqp_consumer *consumer, apm_amqp_call *call)
{
    apm_amqp_intake *intake = consumer->intake;
    size_t room = 0;

    /* What it or another has brought before counts as well; unless that would leave too little of a wide one. */
    if (intake->per_consumer && intake->window > 0) {
        room = intake->window > intake->n_tags ? intake->window - intake->n_tags : 1;
        if (intake->wide && room < intake->window / 2)
            room = intake->window;
    }
    consumer->own_window = intake->per_consumer;
    consumer->prefetch = in_field(room);
    consumer->unsettled = 0;
    if (consumer->prefetch == intake->each)
        return;
    /* This lifts the channel's window in newer servers; no consumer is on that had none of its own. */
    add_qos(call, intake->each = consumer->prefetch, false);
    const unsigned channels = intake->per_consumer ? 0 : in_field(intake->window);
    if (channels || intake->channels)
        add_qos(call, intake->channels = channels, true);
}

bool
apm_amqp_window_fits(const apm_amqp_consumer *consumer)
{
    const apm_amqp_intake *intake = consumer->intake;
    const unsigned prefetch = consumer->prefetch, window = intake->window;

    if (intake->no_ack || intake->paused)
        return true;
    if (consumer->own_window != intake->per_consumer)
        return false;
    if (!intake->per_consumer)
        return true;
    if (prefetch == 0 || in_field(window) == 0)
        return (prefetch == 0) == (in_field(window) == 0);
    if (prefetch / 2 > window)
        return false;
    if (intake->wide)
        return prefetch >= window / 2;
    /* Its share is used up, by what is kept for long, while the window as a whole has room. */
    return consumer->unsettled < prefetch || intake->n_tags >= window;
}
