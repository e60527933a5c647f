/*
 * amqp.c - the link to RabbitMQ: its two sides, how each connects again, and the turn of the loop in which what was gathered is
 * sent and what is finished is answered; see amqp.h.
 *
 * Nothing is sent or answered from inside a call of an adapter: it is noted, and the prepare handle, which runs before the loop
 * sleeps, takes its turn. A thousand settlements of one round of the loop are one write.
 */
#include "core/link/amqp.h"

#include <stdlib.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/link/amqp_link.h"

#define TICK_MS 1000
#define SOON_MS 100 /* while something waits for a moment that is not the loop's */
#define TURNS_MAX                                                                                  \
    16 /* rounds of callbacks that commit anew before the loop looks at its sockets again */

struct apm_amqp_later {
    struct apm_amqp_later *next;
    void (*fn)(void *arg);
    void *arg;
};

static void on_tick(uv_timer_t *timer);

/* ---- waking ---- */

static void
on_idle(uv_idle_t *idle)
{
    (void)idle; /* its being there is what keeps the loop from sleeping */
}

void
apm_amqp_wake(apm_amqp_link *link)
{
    if (!link->closing && !link->working)
        uv_idle_start(&link->idle, on_idle);
    link->woken = true;
}

apium_status
apm_amqp_later(apm_link *base, void (*fn)(void *arg), void *arg)
{
    apm_amqp_link *link = apm_amqp_link_of(base);
    struct apm_amqp_later *later = malloc(sizeof(*later));

    if (!later)
        return APIUM_E_NOMEM;
    *later = (struct apm_amqp_later){ .fn = fn, .arg = arg };
    *link->later_tail = later;
    link->later_tail = &later->next;
    apm_amqp_wake(link);
    return APIUM_OK;
}

void
apm_amqp_disown(apm_link *base, const void *arg)
{
    apm_amqp_link *link = apm_amqp_link_of(base);

    for (struct apm_amqp_later *later = link->later; later; later = later->next)
        if (later->arg == arg)
            later->fn = NULL;
    apm_amqp_channel_disown(&link->publish.admin, arg);
    apm_amqp_channel_disown(&link->consume.admin, arg);
}

static void
run_later(apm_amqp_link *link)
{
    struct apm_amqp_later *list = link->later;

    link->later = NULL;
    link->later_tail = &link->later;
    for (struct apm_amqp_later *next; list; list = next) {
        next = list->next;
        if (list->fn)
            list->fn(list->arg);
        free(list);
    }
}

/* ---- the turn ---- */

static void
answer_finished(apm_amqp_unit *unit)
{
    for (apm_amqp_unit *next; unit; unit = next) {
        next = unit->next;
        if (unit->head.done)
            unit->head.done(unit->head.arg, unit->failed ? unit->err.status : APIUM_OK,
                            unit->failed ? &unit->err : NULL);
        apm_amqp_unit_free(unit);
    }
}

static void
take_turn(apm_amqp_link *link)
{
    int turns = 0;

    if (!link->woken || link->working)
        return;
    link->working = true;
    do {
        link->woken = false;
        apm_amqp_publisher_pump(link);
        apm_amqp_unit *finished = link->finished;
        link->finished = NULL;
        link->finished_tail = &link->finished;
        for (apm_amqp_unit *unit = finished; unit; unit = unit->next)
            apm_amqp_tags_unit_done(unit);
        apm_amqp_intakes_settle(link);
        apm_amqp_conn_flush(&link->publish.conn);
        apm_amqp_conn_flush(&link->consume.conn);
        answer_finished(finished);
        apm_amqp_intakes_turn(link);
        run_later(link);
    } while (link->woken && ++turns < TURNS_MAX && !link->closing);
    if (link->closing)
        return;
    link->working = false;
    if (link->woken)
        uv_idle_start(&link->idle, on_idle);
    else
        uv_idle_stop(&link->idle);
}

static void
on_prepare(uv_prepare_t *prepare)
{
    take_turn(prepare->data);
}

static void
flush(apm_link *base)
{
    take_turn(apm_amqp_link_of(base));
}

/* ---- up and down ---- */

static bool
side_up(const apm_amqp_side *side)
{
    return !side->wanted || side->conn.state == APM_AMQP_CONN_OPEN;
}

static void
tell(apm_amqp_link *link, bool up, const char *why)
{
    if (link->closing)
        return;
    apm_link_changed(&link->base, up, why);
}

static void
on_conn_open(void *arg)
{
    apm_amqp_side *side = arg;
    apm_amqp_link *link = side->link;

    side->was_open = true;
    side->tried = 0;
    link->url_at = side->url_at;
    apm_amqp_channel_open(&side->admin);
    if (side == &link->publish) {
        apm_amqp_decls_forget(link);
        apm_amqp_channel_open(&link->publisher);
    } else {
        apm_amqp_intakes_opened(link);
    }
    apm_amqp_wake(link);
    if (!link->base.up && side_up(&link->publish) && side_up(&link->consume)) {
        char text[320], shown[256];
        apm_amqp_show_url(link, link->url_at, shown, sizeof(shown));
        snprintf(link->base.shown, sizeof(link->base.shown), "%s", shown);
        snprintf(text, sizeof(text), "Connected to %s", shown);
        tell(link, true, text);
    }
}

/* Celery's pattern: every URL once a round, without delay in between; rounds are 2, 4, 6 ... 30 s apart. */
static void
schedule(apm_amqp_side *side, const char *shown, apium_status status, const char *why)
{
    apm_amqp_link *link = side->link;
    apm_settings *settings = apm_links_settings(link->base.set);
    int64_t max = settings->broker_connection_max_retries;
    size_t n = link->base.urls.n;
    char text[700];

    side->tried++;
    unsigned round = side->tried / (unsigned)n;
    bool more_urls = side->tried % n != 0;
    int64_t wait = more_urls ? 0 : apm_link_backoff_ms(round);
    side->url_at = (side->url_at + 1) % (unsigned)n;
    side->retry_at_ms = apm_clock_ms() + wait;
    if (more_urls)
        snprintf(text, sizeof(text), "Cannot connect to %s: %s. Will retry using next failover.",
                 shown, why);
    else if (max > 0)
        snprintf(text, sizeof(text),
                 "Cannot connect to %s: %s. Trying again in %.2f seconds... (%u/%lld)", shown, why,
                 (double)wait / 1000, round, (long long)max);
    else
        snprintf(text, sizeof(text), "Cannot connect to %s: %s. Trying again in %.2f seconds...",
                 shown, why, (double)wait / 1000);
    snprintf(link->why, sizeof(link->why), "cannot connect to %s: %s", shown, why);
    tell(link, false, text);
    /* Who is not let in today is not let in in a second: a client that waits is told now. */
    if (!more_urls && apm_links_patience_ms(link->base.set) >= 0 && status != APIUM_E_CLOSED &&
        status != APIUM_E_TIMEOUT) {
        apm_amqp_units_expire(link, INT64_MAX, status, link->why);
        apm_amqp_channel_expire(&side->admin, INT64_MAX, status, link->why);
    }
    if (!link->closing)
        uv_timer_start(&link->tick, on_tick, (uint64_t)(wait < TICK_MS ? wait : TICK_MS), TICK_MS);
}

static void
on_conn_lost(void *arg, apium_status status, const char *why)
{
    apm_amqp_side *side = arg;
    apm_amqp_link *link = side->link;
    bool was_up = side->was_open;
    char shown[256];

    side->was_open = false;
    if (side == &link->publish)
        apm_amqp_publisher_lost(link);
    else
        apm_amqp_intakes_lost(link);
    apm_amqp_wake(link);
    if (link->closing)
        return;
    apm_amqp_show_url(link, side->url_at, shown, sizeof(shown));
    if (!was_up) {
        schedule(side, shown, status, why);
        return;
    }
    /* Lost after it was up: again at once, beginning with the server we had. */
    char text[600];
    snprintf(link->why, sizeof(link->why), "the connection to %s was lost: %s", shown, why);
    snprintf(text, sizeof(text),
             "Connection to broker lost: %s. Trying to re-establish the connection...", why);
    side->tried = 0;
    side->retry_at_ms = apm_clock_ms();
    tell(link, false, text);
    uv_timer_start(&link->tick, on_tick, 0, TICK_MS);
}

static void
on_conn_blocked(void *arg, bool blocked, const char *why)
{
    apm_amqp_side *side = arg;
    apm_amqp_link *link = side->link;
    char text[300];

    if (blocked)
        snprintf(text, sizeof(text), "the server has blocked publishing: %s", why);
    snprintf(link->why, sizeof(link->why), "%s", blocked ? text : "");
    apm_amqp_intakes_notice(link, blocked ? APM_LOG_WARNING : APM_LOG_INFO,
                            blocked ? text : "the server takes messages again");
    apm_amqp_wake(link);
}

static void
on_gathered(void *arg)
{
    apm_amqp_wake(((apm_amqp_side *)arg)->link);
}

static void
on_batch_end(void *arg)
{
    apm_amqp_side *side = arg;

    if (side == &side->link->consume)
        apm_amqp_intakes_batch_end(side->link);
    /* Whatever came may have been answered into the gathered output. */
    apm_amqp_wake(side->link);
}

void
apm_amqp_show_url(const apm_amqp_link *link, unsigned i, char *out, size_t size)
{
    const apm_url *url = &link->base.urls.items[i];
    const char *path = url->path && *url->path ? url->path : "/";

    snprintf(out, size, "%s://%s%s%s%s:%d/%s", url->scheme, url->user ? url->user : "guest",
             url->password ? ":**" : "", "@", *url->host ? url->host : "localhost",
             url->port                           ? url->port
             : strcmp(url->scheme, "amqps") == 0 ? 5671
                                                 : 5672,
             path);
}

static int64_t
connect_timeout_ms(apm_amqp_link *link, const apm_url *url)
{
    const char *given = apm_url_param(&link->base.urls, url, "connect_timeout");
    double s = given ? atof(given) : apm_links_settings(link->base.set)->broker_connection_timeout;

    return s > 0 ? (int64_t)(s * 1000) : 4000;
}

static double
heartbeat(apm_amqp_side *side, const apm_url *url)
{
    const char *given = apm_url_param(&side->link->base.urls, url, "heartbeat");

    return given ? atof(given) : side->heartbeat_s;
}

static void
try_connect(apm_amqp_side *side)
{
    apm_amqp_link *link = side->link;
    const apm_url *url = &link->base.urls.items[side->url_at];
    char shown[256];
    apium_error err;

    snprintf(side->shown_name, sizeof(side->shown_name), "apium:%ld %s", (long)getpid(),
             side->name);
    apium_status st = apm_amqp_conn_start(&side->conn,
                                          &(apm_amqp_conn_opts){
                                              .loop = apm_links_loop(link->base.set),
                                              .urls = &link->base.urls,
                                              .url = url,
                                              .name = side->shown_name,
                                              .heartbeat_s = heartbeat(side, url),
                                              .connect_timeout_ms = connect_timeout_ms(link, url),
                                              .message_max = APM_BUF_MAX,
                                              .on_open = on_conn_open,
                                              .on_lost = on_conn_lost,
                                              .on_blocked = on_conn_blocked,
                                              .on_gathered = on_gathered,
                                              .on_batch_end = on_batch_end,
                                              .arg = side,
                                          },
                                          &err);
    if (st == APIUM_OK)
        return;
    apm_amqp_show_url(link, side->url_at, shown, sizeof(shown));
    schedule(side, shown, st, err.text);
}

void
apm_amqp_want(apm_amqp_side *side)
{
    apm_amqp_link *link = side->link;

    if (side->wanted || link->closing)
        return;
    side->wanted = true;
    side->url_at = link->url_at;
    side->retry_at_ms = apm_clock_ms();
    /* In the tick, which comes at once: nothing is answered from inside a call. */
    uv_timer_start(&link->tick, on_tick, 0, TICK_MS);
}

/* ---- time ---- */

static void
tick_side(apm_amqp_side *side, int64_t now)
{
    if (!side->wanted)
        return;
    if (side->conn.state == APM_AMQP_CONN_DOWN && now >= side->retry_at_ms)
        try_connect(side);
    apm_amqp_conn_tick(&side->conn, now);
}

static void
expire(apm_amqp_link *link, int64_t now)
{
    int64_t patience = apm_links_patience_ms(link->base.set);

    if (patience < 0)
        return;
    bool down = link->publish.conn.state != APM_AMQP_CONN_OPEN,
         blocked = link->publish.conn.blocked;
    const char *why = down || blocked ? link->why : "the server did not confirm in time";
    if (!*why)
        why = "not connected in time";
    apm_amqp_units_expire(link, now - patience,
                          down      ? APIUM_E_CLOSED
                          : blocked ? APIUM_E_BUSY
                                    : APIUM_E_TIMEOUT,
                          why);
    if (down)
        apm_amqp_channel_expire(&link->publish.admin, now - patience, APIUM_E_CLOSED, why);
    if (link->consume.wanted && link->consume.conn.state != APM_AMQP_CONN_OPEN)
        apm_amqp_channel_expire(&link->consume.admin, now - patience, APIUM_E_CLOSED,
                                *link->why ? link->why : "not connected in time");
}

static void
on_tick(uv_timer_t *timer)
{
    apm_amqp_link *link = timer->data;
    int64_t now = apm_clock_ms();

    tick_side(&link->publish, now);
    tick_side(&link->consume, now);
    expire(link, now);
    apm_amqp_intakes_tick(link, now);
    bool soon = apm_amqp_publisher_tick(link, now);
    int64_t next = soon ? SOON_MS : TICK_MS;
    for (int i = 0; i < 2; i++) {
        apm_amqp_side *side = i ? &link->consume : &link->publish;
        int64_t wait = side->retry_at_ms - now;
        if (side->wanted && side->conn.state == APM_AMQP_CONN_DOWN && wait < next)
            next = wait > 0 ? wait : 0;
    }
    if (!link->closing)
        uv_timer_start(&link->tick, on_tick, (uint64_t)next, TICK_MS);
}

/* ---- opening and closing ---- */

static bool
same_text(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool
same_url(const apm_url *a, const apm_url *b)
{
    bool secure_a = strcmp(a->scheme, "amqps") == 0, secure_b = strcmp(b->scheme, "amqps") == 0;

    return secure_a == secure_b && a->port == b->port && same_text(a->host, b->host) &&
           same_text(a->user, b->user) && same_text(a->password, b->password) &&
           same_text(a->path, b->path) && same_text(a->query, b->query);
}

static bool
same(const apm_link *link, const apm_urls *urls)
{
    if (link->urls.n != urls->n)
        return false;
    for (size_t i = 0; i < urls->n; i++)
        if (!same_url(&link->urls.items[i], &urls->items[i]))
            return false;
    return true;
}

static void
no_method(apm_amqp_channel *channel, const amqp_method_t *method)
{
    (void)channel;
    (void)method;
}

static void
no_content(apm_amqp_channel *channel, const apm_amqp_content *content)
{
    (void)channel;
    (void)content;
}

static void
admin_open(apm_amqp_channel *channel)
{
    apm_amqp_wake(((apm_amqp_side *)channel->arg)->link);
}

static void
admin_closed(apm_amqp_channel *channel, const amqp_channel_close_t *close, bool by_call)
{
    (void)close;
    (void)by_call;
    apm_amqp_wake(((apm_amqp_side *)channel->arg)->link);
}

static const apm_amqp_channel_ops admin_ops = {
    .on_open = admin_open,
    .on_method = no_method,
    .on_content = no_content,
    .on_closed = admin_closed,
};

static apium_status
open_side(apm_amqp_side *side, apm_amqp_link *link, const char *name, apium_error *err)
{
    side->link = link;
    side->name = name;
    apm_amqp_conn_init(&side->conn);
    return apm_amqp_channel_init(&side->admin, &side->conn, &admin_ops, side, err);
}

static apium_status
open_link(apm_link *base, apium_error *err)
{
    apm_amqp_link *link = apm_amqp_link_of(base);
    uv_loop_t *loop = apm_links_loop(base->set);
    apium_status st = apm_rabbitmq_load(err);

    if (st != APIUM_OK)
        return st;
    for (size_t i = 0; i < base->urls.n; i++) {
        const char *scheme = base->urls.items[i].scheme;
        if (strcmp(scheme, "amqp") != 0 && strcmp(scheme, "pyamqp") != 0 &&
            strcmp(scheme, "amqps") != 0)
            return apm_fail(err, APIUM_E_CONFIG, "cannot use \"%s\": %s:// among URLs of RabbitMQ",
                            base->shown, scheme);
    }
    link->later_tail = &link->later;
    link->finished_tail = &link->finished;
    link->outbox.last = &link->outbox.first;
    link->refused.last = &link->refused.first;
    link->sent_first = link->sent_next = 1;
    apm_buf_init(&link->scratch, APM_BUF_MAX);
    st = open_side(&link->publish, link, "publish", err);
    if (st == APIUM_OK)
        st = open_side(&link->consume, link, "consume", err);
    if (st == APIUM_OK)
        st = apm_amqp_channel_init(&link->publisher, &link->publish.conn, &apm_amqp_publisher_ops,
                                   link, err);
    if (st != APIUM_OK)
        return st;
    uv_prepare_init(loop, &link->prepare);
    uv_idle_init(loop, &link->idle);
    uv_timer_init(loop, &link->tick);
    uv_timer_init(loop, &link->gather);
    link->prepare.data = link->idle.data = link->tick.data = link->gather.data = link;
    link->handles = 4;
    uv_prepare_start(&link->prepare, on_prepare);
    /* It only takes its turn with others: the sockets, the tick and the idle handle keep the loop going. */
    uv_unref((uv_handle_t *)&link->prepare);
    return APIUM_OK;
}

static void
on_handle_closed(uv_handle_t *handle)
{
    apm_amqp_link *link = handle->data;

    if (--link->handles > 0)
        return;
    apm_amqp_decls_free(link);
    apm_buf_clear(&link->scratch);
    apm_link_closed(&link->base);
}

static void
close_link(apm_link *base)
{
    apm_amqp_link *link = apm_amqp_link_of(base);

    if (link->closing)
        return;
    /* What is ready goes out; what waits for an answer that we shall not hear is given up. */
    take_turn(link);
    link->closing = true;
    link->working = true;
    apm_amqp_units_expire(link, INT64_MAX, APIUM_E_CLOSED, "the connection was closed");
    for (apm_amqp_unit *unit = link->finished; unit; unit = unit->next)
        apm_amqp_tags_unit_done(unit);
    apm_amqp_intakes_settle(link);
    apm_amqp_unit *finished = link->finished;
    link->finished = NULL;
    link->finished_tail = &link->finished;
    apm_amqp_conn_close(&link->publish.conn);
    apm_amqp_conn_close(&link->consume.conn);
    apm_amqp_publisher_lost(link);
    apm_amqp_publisher_clear(link);
    apm_amqp_channel_clear(&link->publisher);
    apm_amqp_channel_clear(&link->publish.admin);
    apm_amqp_channel_clear(&link->consume.admin);
    while (link->intakes) /* of adapters that were not closed before */
        apm_amqp_intake_close(link->intakes);
    answer_finished(finished);
    run_later(link);
    apm_amqp_conn_clear(&link->publish.conn);
    apm_amqp_conn_clear(&link->consume.conn);
    uv_close((uv_handle_t *)&link->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&link->idle, on_handle_closed);
    uv_close((uv_handle_t *)&link->tick, on_handle_closed);
    uv_close((uv_handle_t *)&link->gather, on_handle_closed);
}

static const char *const schemes[] = { "amqp", "amqps", "pyamqp", NULL };

const apm_link_ops apm_amqp_kind = {
    .kind = "amqp",
    .schemes = schemes,
    .size = sizeof(apm_amqp_link),
    .same = same,
    .open = open_link,
    .close = close_link,
    .unit_new = apm_amqp_unit_new,
    .unit_drop = apm_amqp_unit_drop,
    .commit = apm_amqp_unit_commit,
    .flush = flush,
};
