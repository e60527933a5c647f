/* brokers/redis.c - the Redis broker: opening, declaring, publishing, settling; see brokers/redis.h. */
#include "brokers/redis.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/b64.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"

#define RENEW_MS 15000
#define LEASE_MS 60000
#define SWEEP_MS 20000
#define STALE_MS 20000

/* ---- names ---- */

int64_t
redis_max_message(const redis_broker *broker)
{
    int64_t most = apm_links_settings(broker->base.link->set)->max_message_bytes;
    return most > 0 ? most : INT64_C(128) << 20;
}

redis_queue *
redis_queue_get(redis_broker *broker, const char *name)
{
    for (redis_queue *queue = broker->queues; queue; queue = queue->next)
        if (strcmp(queue->name, name) == 0)
            return queue;

    redis_queue *queue = apm_arena_alloc(&broker->names, sizeof(*queue));
    apm_buf json;
    if (!queue)
        return NULL;
    apm_buf_init(&json, 1 << 20);
    apm_json_add_string(&json, apm_strz(name));
    queue->name = apm_arena_printf(&broker->names, "%s", name);
    queue->json = json.failed ? NULL : apm_arena_printf(&broker->names, "%s", json.p);
    apm_buf_clear(&json);
    bool ok = queue->name && queue->json;
    for (int s = 0; s < broker->n_steps; s++) {
        queue->list[s] = broker->steps[s] == 0
                             ? apm_arena_printf(&broker->names, "%s%s", broker->prefix, name)
                             : apm_arena_printf(&broker->names, "%s%s%s%d", broker->prefix, name,
                                                broker->sep, broker->steps[s]);
        ok = ok && queue->list[s];
    }
    if (!ok)
        return NULL;
    queue->next = broker->queues;
    broker->queues = queue;
    return queue;
}

/* The largest step that is not above the priority, which is 0..9. */
int
redis_step_index(const redis_broker *broker, int priority)
{
    int at = 0;

    priority = priority < 0 ? 0 : priority > 9 ? 9 : priority;
    for (int s = 0; s < broker->n_steps; s++)
        if (broker->steps[s] <= priority)
            at = s;
    return at;
}

apm_str
redis_step_suffix(const redis_broker *broker, int priority, char out[64])
{
    int step = broker->steps[redis_step_index(broker, priority)];

    if (step == 0)
        return APM_STR("");
    int n = snprintf(out, 64, "%.40s%d", broker->sep, step);
    return (apm_str){ out, (size_t)n };
}

void
redis_notice(redis_broker *broker, apm_log_level level, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (!broker->base.opts.on_notice)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    broker->base.opts.on_notice(broker->base.opts.arg, level, text);
}

/* ---- declaring ---- */

/* kombu's regular expression for a topic binding; words are escaped as Python's re.escape does. */
static void
add_topic_pattern(apm_buf *buf, const char *key)
{
    apm_buf_addc(buf, '^');
    for (const char *at = key; *at; at++) {
        if (*at == '.')
            apm_buf_addz(buf, "\\.");
        else if (*at == '*')
            apm_buf_addz(buf, ".*?[^\\.]");
        else if (*at == '#')
            apm_buf_addz(buf, ".*?");
        else if (strchr("()[]{}?+-|^$\\&~ \t\n\r\v\f", *at)) {
            apm_buf_addc(buf, '\\');
            apm_buf_addc(buf, *at);
        } else
            apm_buf_addc(buf, *at);
    }
    apm_buf_addc(buf, '$');
}

/* Append the writing of a queue's binding, once for each connection: a server may have lost its data meanwhile. */
static void
bind_queue(redis_broker *broker, apm_unit *unit, const apm_queue *queue)
{
    uint64_t epoch = apm_redis_epoch(broker->base.link);
    redis_queue *known = redis_queue_get(broker, queue->name);
    const char *exchange = queue->exchange,
               *key = queue->routing_key ? queue->routing_key : queue->name;
    apm_buf name, member;

    if (!known || !exchange || !*exchange || (known->declared && known->declared == epoch))
        return;
    known->declared = epoch;
    known->declaration = queue; /* it lives as long as the settings */
    apm_buf_init(&name, 1 << 20);
    apm_buf_init(&member, 1 << 20);
    apm_buf_addf(&name, "%s_kombu.binding.%s", broker->prefix, exchange);
    apm_buf_addf(&member, "%s%s", key, broker->sep);
    if (queue->exchange_type == APM_TOPIC)
        add_topic_pattern(&member, key);
    apm_buf_addf(&member, "%s%s", broker->sep, queue->name);
    apm_redis_unit_sadd(unit, broker->db, apm_buf_str(&name), apm_buf_str(&member));
    apm_buf_clear(&name);
    apm_buf_clear(&member);
}

/* The link is up again: the server may have been started without its data. */
static void
bind_again(redis_broker *broker)
{
    apm_unit *unit = NULL;

    for (redis_queue *queue = broker->queues; queue; queue = queue->next) {
        if (!queue->declaration || !queue->consuming)
            continue; /* who only publishes binds with the next message */
        if (!unit && !(unit = apm_unit_new(broker->base.link)))
            return;
        bind_queue(broker, unit, queue->declaration);
    }
    if (unit)
        redis_own_commit(broker, unit);
}

static void
redis_declare(apm_broker *base, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    redis_broker *broker = redis_of(base);
    apm_unit *unit = apm_unit_new(base->link);

    if (!unit)
        return;
    bind_queue(broker, unit, queue);
    apm_unit_commit(unit, done, arg);
}

/* ---- consuming ---- */

static int
by_name(const void *a, const void *b)
{
    return strcmp((*(redis_queue *const *)a)->name, (*(redis_queue *const *)b)->name);
}

static apium_status
redis_consume(apm_broker *base, const apm_queue *queue, apium_error *err)
{
    redis_broker *broker = redis_of(base);
    redis_queue *known = redis_queue_get(broker, queue->name);

    if (known && known->consuming)
        return APIUM_OK;
    redis_queue **order =
        known ? realloc(broker->order, (broker->n_order + 1) * sizeof(*order)) : NULL;
    if (!order)
        return apm_fail(err, APIUM_E_NOMEM, "cannot consume from \"%s\": out of memory",
                        queue->name);
    broker->order = order;
    order[broker->n_order++] = known;
    if (broker->sorted)
        qsort(order, broker->n_order, sizeof(*order), by_name);
    known->consuming = true;
    known->bad = false;
    broker->ready = true;
    return APIUM_OK;
}

static apium_status
redis_cancel(apm_broker *base, const char *name, apium_error *err)
{
    redis_broker *broker = redis_of(base);

    for (size_t i = 0; i < broker->n_order; i++) {
        redis_queue *queue = broker->order[i];
        if (strcmp(queue->name, name) != 0)
            continue;
        broker->n_order--;
        memmove(&broker->order[i], &broker->order[i + 1],
                (broker->n_order - i) * sizeof(*broker->order));
        queue->consuming = false;
        redis_wait_drop(broker, queue);
        return APIUM_OK;
    }
    return apm_fail(err, APIUM_E_NOTFOUND, "cannot stop consuming from \"%s\": it is not consumed",
                    name);
}

static void
redis_window(apm_broker *base, unsigned window, bool loose)
{
    redis_broker *broker = redis_of(base);
    (void)loose;
    broker->window = window;
    broker->windowed = true;
}

static void
tell_stopped(redis_broker *broker)
{
    /* Lost fetches wait for the next connection; a link that does not come back has nothing more to bring. */
    bool busy = broker->n_fetching || broker->adopting || broker->own ||
                (broker->orphans && broker->base.link->up);
    if (!broker->stopping || broker->stopped_told || busy)
        return;
    broker->stopped_told = true;
    if (broker->stop_done)
        broker->stop_done(broker->stop_arg, APIUM_OK, NULL);
}

static void
redis_stop(apm_broker *base, apm_done_cb *done, void *arg)
{
    redis_broker *broker = redis_of(base);

    broker->stopping = true;
    broker->stop_done = done;
    broker->stop_arg = arg;
    redis_wait_down(broker);
    uv_async_send(&broker->wake->async); /* tell it from the loop, also when the link is down */
}

/* ---- publishing and settling ---- */

static apium_status
too_big(apm_str routing_key, size_t len, apium_error *err)
{
    return apm_fail(err, APIUM_E_TOOBIG,
                    "cannot publish to \"%.*s\": the message has over %zu bytes",
                    APM_STR_ARG(routing_key), len);
}

static apium_status
redis_publish(apm_broker *base, apm_unit *unit, const apm_route *route, const apm_message *msg,
              apium_error *err)
{
    redis_broker *broker = redis_of(base);
    apm_message copy = *msg;
    char tag[APM_UUID_LEN + 1], suffix[64];
    apm_buf name;
    int64_t max = redis_max_message(broker);
    size_t len = APM_B64_LEN(msg->body.len) + msg->headers.len;

    apm_buf_init(&name, 1 << 20);
    copy.exchange = apm_strz(route->exchange ? route->exchange : "");
    copy.routing_key = apm_strz(route->routing_key ? route->routing_key : "");
    apm_uuid7(apm_clock_wall_us(), tag);
    if ((int64_t)len > max)
        return too_big(copy.routing_key, len, err);
    if (route->queue)
        bind_queue(broker, unit, route->queue);
    apm_str step = redis_step_suffix(broker, msg->priority, suffix);
    if (!copy.exchange.len) {
        apm_buf_addz(&name, broker->prefix);
        apm_buf_adds(&name, copy.routing_key);
        apm_buf_adds(&name, step);
        apm_redis_unit_push(unit, broker->db, apm_buf_str(&name), false, APM_STR_NONE);
    } else if (route->exchange_type == APM_FANOUT) {
        apm_buf_addf(&name, "%s%s%s", broker->prefix, broker->fanout, route->exchange);
        if (copy.routing_key.len)
            apm_buf_addf(&name, "/%s", route->routing_key);
        apm_redis_unit_publish(unit, apm_buf_str(&name), APM_STR_NONE);
    } else {
        apm_redis_unit_route(unit, &broker->keys, route->exchange,
                             route->exchange_type == APM_TOPIC, copy.routing_key, step,
                             route->mandatory, false, APM_STR_NONE);
    }
    apm_buf_clear(&name);
    apm_envelope_write(apm_redis_unit_value(unit), &copy, tag);
    if (!apm_redis_unit_value_end(unit, (size_t)max, &len))
        return too_big(copy.routing_key, len, err);
    return APIUM_OK;
}

/* Leave the window; a second settlement (the first one failed) finds it left already. */
static void
settled(redis_delivery *delivery)
{
    if (delivery->base.hold == APM_HELD)
        redis_unhold(delivery);
    if (delivery->base.hold != APM_SETTLED)
        redis_of(delivery->base.broker)->n_settling++;
    delivery->base.hold = APM_SETTLED;
}

static apium_status
redis_settle(apm_broker *base, apm_unit *unit, apm_delivery *settle, apm_disposition how,
             const char *reason, apium_error *err)
{
    redis_broker *broker = redis_of(base);
    redis_delivery *delivery = (redis_delivery *)settle;
    apium_status st = APIUM_OK;
    apm_buf marked;

    if (settle->hold == APM_LOST)
        return APIUM_OK;
    apm_buf_init(&marked, APM_BUF_MAX * 2);
    if (how == APM_REJECT) {
        redis_bury(broker, unit, settle->queue, reason ? reason : "rejected", delivery->raw,
                   delivery->tag);
    } else if (how != APM_ACK) {
        st = apm_envelope_redelivered(&marked, delivery->raw, err);
        if (st != APIUM_OK)
            goto out;
        int step = redis_step_index(broker, settle->msg.priority);
        apm_redis_unit_push(unit, broker->db, apm_strz(delivery->queue->list[step]),
                            how == APM_RESTORE, apm_buf_str(&marked));
    }
    apm_redis_unit_ack(unit, &broker->keys, apm_strz(delivery->tag));
    settled(delivery);
out:
    apm_buf_clear(&marked);
    return st;
}

static apium_status
redis_park(apm_broker *base, apm_unit *unit, apm_delivery *park, int64_t due_us, apium_error *err)
{
    redis_broker *broker = redis_of(base);
    redis_delivery *delivery = (redis_delivery *)park;
    apm_buf tag;

    if (park->hold == APM_LOST)
        return APIUM_OK;
    apm_buf_init(&tag, 1 << 20);
    apm_buf_addf(&tag, PARKED_MARK "%d:%s:%llu:%s",
                 broker->steps[redis_step_index(broker, park->msg.priority)], broker->run,
                 (unsigned long long)++broker->park_no, park->queue);
    if (tag.failed) {
        apm_buf_clear(&tag);
        return apm_fail(err, APIUM_E_NOMEM, "cannot park a message: out of memory");
    }
    apm_redis_unit_park(unit, &broker->keys, apm_strz(delivery->tag), apm_buf_str(&tag), due_us);
    apm_buf_clear(&tag);
    settled(delivery);
    redis_lease_parked(broker, due_us);
    return APIUM_OK;
}

/* What is let go of unsettled goes back: nobody else would renew it. */
static void
redis_free_delivery(apm_delivery *base)
{
    if (base->hold == APM_HELD) {
        redis_broker *broker = redis_of(base->broker);
        apm_unit *unit = apm_unit_new(broker->base.link);
        if (unit && redis_settle(base->broker, unit, base, APM_RESTORE, NULL, NULL) == APIUM_OK)
            redis_own_commit(broker, unit);
        else
            apm_unit_drop(unit);
    }
    if (base->hold == APM_HELD)
        redis_unhold((redis_delivery *)base);
    if (base->hold == APM_SETTLED)
        redis_of(base->broker)->n_settling--;
    apm_arena_clear(&base->arena);
    free(base);
}

/* ---- opening and closing ---- */

/* The loop is about to sleep and the link is up. */
static void
on_hook(void *arg)
{
    redis_broker *broker = arg;

    if (broker->stopping)
        tell_stopped(broker);
    else
        redis_fetch_pump(broker);
}

static void
on_link(void *arg, apm_link *link, bool up, const char *why)
{
    redis_broker *broker = arg;

    (void)link;
    (void)why; /* whoever runs the loop watches the link too, and logs it */
    if (up) {
        broker->base.trip_us = 0;
        bind_again(broker);
        redis_fetch_adopt(broker);
        redis_lease_up(broker);
        broker->ready = true;
    } else {
        redis_wait_down(broker);
        redis_lease_down(broker);
        if (broker->stopping)
            tell_stopped(broker);
    }
}

static void
on_wake(uv_async_t *async)
{
    redis_broker *broker = async->data;
    if (broker && broker->stopping)
        tell_stopped(broker);
}

static void
on_wake_closed(uv_handle_t *handle)
{
    free(handle); /* the async is its first member */
}

static void
release_names(redis_broker *broker)
{
    free(broker->unacked);
    free(broker->index);
    free(broker->dead);
    free(broker->prefix);
    free(broker->sep);
    free(broker->fanout);
    apm_arena_clear(&broker->names);
}

static char *
joined(const char *a, const char *b)
{
    char *out = NULL;
    return asprintf(&out, "%s%s", a, b) < 0 ? NULL : out;
}

/* "/{db}." with the database filled in. */
static char *
fanout_prefix(const char *form, int db)
{
    const char *hole = strstr(form, "{db}");
    char *out = NULL;

    if (!hole)
        return strdup(form);
    return asprintf(&out, "%.*s%d%s", (int)(hole - form), form, db, hole + 4) < 0 ? NULL : out;
}

static apium_status
read_options(redis_broker *broker, apium_error *err)
{
    const apm_settings *settings = apm_links_settings(broker->base.link->set);
    const char *prefix = settings->global_keyprefix ? settings->global_keyprefix : "";
    const char *order =
        settings->queue_order_strategy ? settings->queue_order_strategy : "round_robin";

    broker->prefix = strdup(prefix);
    broker->sep = strdup(settings->sep && *settings->sep ? settings->sep : "\x06\x16");
    broker->unacked = joined(prefix, settings->unacked_key ? settings->unacked_key : "unacked");
    broker->index =
        joined(prefix, settings->unacked_index_key ? settings->unacked_index_key : "unacked_index");
    broker->dead = joined(prefix, "apium.dead");
    broker->fanout =
        fanout_prefix(settings->fanout_prefix ? settings->fanout_prefix : "/{db}.", broker->db);
    if (!broker->prefix || !broker->sep || !broker->unacked || !broker->index || !broker->dead ||
        !broker->fanout)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open the Redis broker: out of memory");
    broker->keys = (apm_redis_keys){ .db = broker->db,
                                     .unacked = broker->unacked,
                                     .index = broker->index,
                                     .dead = broker->dead,
                                     .prefix = broker->prefix,
                                     .sep = broker->sep };
    broker->n_steps = settings->n_priority_steps;
    memcpy(broker->steps, settings->priority_steps, sizeof(broker->steps));
    if (broker->n_steps <= 0) {
        static const int usual[] = { 0, 3, 6, 9 };
        broker->n_steps = 4;
        memcpy(broker->steps, usual, sizeof(usual));
    }
    broker->sorted = strcmp(order, "sorted") == 0;
    broker->rotate = !broker->sorted && strcmp(order, "priority") != 0;
    broker->times = (redis_times){
        .renew_ms = RENEW_MS, .lease_ms = LEASE_MS, .sweep_ms = SWEEP_MS, .stale_ms = STALE_MS
    };
    /* A Python node with a short visibility timeout must not find a live entry older than that. */
    int64_t third_ms = (int64_t)(settings->visibility_timeout * 1000.0 / 3.0);
    if (third_ms > 0 && third_ms < broker->times.renew_ms)
        broker->times.renew_ms = third_ms < 200 ? 200 : third_ms;
    return APIUM_OK;
}

void
apm_redis_broker_times(apm_broker *base, const redis_times *times)
{
    redis_of(base)->times = *times;
}

static void redis_close(apm_broker *base);

static apium_status
redis_open(apm_broker *base, apium_error *err)
{
    redis_broker *broker = redis_of(base);
    apium_status st = apm_redis_db(base->url, &broker->db, err);

    if (st == APIUM_OK)
        st = read_options(broker, err);
    if (st != APIUM_OK) {
        release_names(broker);
        return st;
    }
    snprintf(broker->run, sizeof(broker->run), "%016llx", (unsigned long long)apm_random64());
    broker->wake = calloc(1, sizeof(*broker->wake));
    if (!broker->wake || redis_wait_open(broker) != APIUM_OK ||
        redis_lease_open(broker) != APIUM_OK) {
        redis_wait_close(broker);
        redis_lease_close(broker);
        free(broker->wake);
        release_names(broker);
        return apm_fail(err, APIUM_E_NOMEM, "cannot open the Redis broker: out of memory");
    }
    uv_async_init(apm_links_loop(base->link->set), &broker->wake->async, on_wake);
    uv_unref((uv_handle_t *)&broker->wake->async);
    broker->wake->async.data = broker;
    broker->ready = true;
    broker->hook = (apm_redis_hook){ .run = on_hook, .arg = broker };
    broker->watch = (apm_link_watch){ .on_event = on_link, .arg = broker };
    apm_redis_hook_add(base->link, &broker->hook);
    apm_link_watch_add(base->link, &broker->watch);
    if (base->link->up)
        redis_lease_up(broker);
    return APIUM_OK;
}

static void
redis_close(apm_broker *base)
{
    redis_broker *broker = redis_of(base);

    broker->stopping = broker->stopped_told = true;
    apm_redis_hook_remove(base->link, &broker->hook);
    apm_link_watch_remove(base->link, &broker->watch);
    redis_wait_close(broker);
    redis_lease_close(broker);
    apm_redis_disown(base->link, broker);
    redis_fetch_clear(broker);
    redis_own_orphan(broker);
    broker->wake->async.data = NULL;
    uv_close((uv_handle_t *)&broker->wake->async, on_wake_closed);
    free(broker->order);
    release_names(broker);
}

const apm_broker_ops apm_redis_broker = {
    .name = "redis",
    .schemes = (const char *const[]){ "redis", "rediss", "redis+socket", "sentinel", NULL },
    .size = sizeof(redis_broker),
    .features = APM_BROKER_PRIORITY | APM_BROKER_LOW_FIRST | APM_BROKER_PARK | APM_BROKER_FENCE |
                APM_BROKER_FANOUT,
    .open = redis_open,
    .close = redis_close,
    .declare = redis_declare,
    .consume = redis_consume,
    .cancel = redis_cancel,
    .window = redis_window,
    .stop = redis_stop,
    .publish = redis_publish,
    .settle = redis_settle,
    .park = redis_park,
    .free_delivery = redis_free_delivery,
    .inspect = redis_inspect,
    .look = redis_look,
    .purge = redis_purge,
    .bindings = redis_bindings,
    .dead = redis_dead,
};
