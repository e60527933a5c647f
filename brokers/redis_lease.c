/*
 * redis_lease.c - time and `unacked`.
 *
 *   score < now - lease    held by nobody who lives: taken back, redelivered
 *   score <= now           held by a node; each node renews its own every 15 s
 *   score >  now           parked: due at that time, held by nobody; when due, any node moves it to its list
 *
 * kombu reads the same index with its own rule (score older than its visibility timeout is restored), which a renewed score
 * and a future one both keep away from.
 *
 * After a connection, or when our own loop stood still, other nodes may not have been able to renew either: a node
 * renews first and sweeps only when its renewals have succeeded for one lease.
 */
#include "brokers/redis.h"

#include <stdlib.h>
#include <uthash.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "redis_renew.lua.h"
#include "redis_due.lua.h"
#include "redis_stale.lua.h"
#include "redis_take.lua.h"

#define RENEW_TAGS 500
#define SWEEP_TAKE 64
#define SWEEP_LIST 512
#define DUE_LIST   1000
#define LOOK_MS                                                                                    \
    1000 /* somebody else may have parked something that is due earlier than what we know of */
#define STALLED_MS 5000 /* our loop stood still for so long */

/* An entry of a node of ours seen stale at an earlier sweep. */
typedef struct seen {
    char *score;
    int64_t since_ms;
    unsigned sweep;
    UT_hash_handle hh;
    char tag[];
} seen;

typedef struct redis_lease {
    uv_timer_t timer;
    int64_t ticked_ms, renew_ms, due_ms, sweep_ms; /* when next; 0: not at all */
    int64_t sound_ms;                              /* renewals succeed since; 0: not yet */
    unsigned renewing;
    bool looking, sweeping, renew_failed;
    unsigned sweep_no;
    uint64_t take_no; /* the fetch number under which a sweep takes */
    bool take_more;   /* there was more than one sweep takes */
    seen *seen;
} redis_lease;

static void schedule(redis_broker *broker);

static bool
feed_clock(redis_broker *broker, const redisReply *reply)
{
    if (!reply || reply->type != REDIS_REPLY_ARRAY || reply->elements < 2)
        return false;
    apm_redis_clock_feed(broker->base.link, reply->element[0]->integer * INT64_C(1000000) +
                                                reply->element[1]->integer);
    return true;
}

static apm_redis_req *
begin(redis_broker *broker, const apm_redis_script *script, unsigned flags, apm_redis_answer *done)
{
    return apm_redis_begin_script(broker->base.link, script, broker->db, flags, done, broker);
}

/* ---- renewing ---- */

static void
lose(redis_broker *broker, apm_str tag)
{
    for (apm_delivery *base = broker->held; base; base = base->next) {
        redis_delivery *delivery = (redis_delivery *)base;
        if (!apm_str_eqz(tag, delivery->tag))
            continue;
        redis_unhold(delivery);
        base->hold = APM_LOST;
        if (broker->base.opts.on_lost)
            broker->base.opts.on_lost(broker->base.opts.arg, base);
        return;
    }
}

static void
on_renewed(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_broker *broker = arg;
    redis_lease *lease = broker->lease;

    (void)err;
    if (!lease)
        return;
    lease->renewing--;
    if (!feed_clock(broker, reply)) {
        lease->renew_failed = true;
    } else {
        broker->base.renewals++;
        for (size_t i = 2; i < reply->elements; i++)
            lose(broker, (apm_str){ reply->element[i]->str, (size_t)reply->element[i]->len });
    }
    if (lease->renewing)
        return;
    if (lease->renew_failed)
        lease->sound_ms = 0;
    else if (!lease->sound_ms)
        lease->sound_ms = apm_clock_ms();
    lease->renew_ms = apm_clock_ms() + (lease->renew_failed ? 1000 : broker->times.renew_ms);
    schedule(broker);
}

static void
renew(redis_broker *broker)
{
    redis_lease *lease = broker->lease;
    apm_delivery *at = broker->held;

    lease->renew_failed = false;
    lease->renew_ms = 0;
    do { /* also when nothing is held: it shows that renewing works */
        apm_redis_req *req = begin(broker, &redis_renew_script, APM_REDIS_UNACKED, on_renewed);
        lease->renewing++;
        if (!req) {
            on_renewed(broker, NULL, NULL);
            return;
        }
        apm_redis_addz(req, broker->unacked);
        apm_redis_addz(req, broker->index);
        for (int n = 0; at && n < RENEW_TAGS; at = at->next, n++)
            apm_redis_addz(req, ((redis_delivery *)at)->tag);
        apm_redis_send(broker->base.link, req, broker);
    } while (at);
}

/* ---- bringing back what is due ---- */

static void
on_due(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_broker *broker = arg;
    redis_lease *lease = broker->lease;
    int64_t now = apm_clock_ms();

    (void)err;
    if (!lease)
        return;
    lease->looking = false;
    lease->due_ms = now + LOOK_MS;
    if (feed_clock(broker, reply) && reply->elements == 6) {
        if (reply->element[2]->integer)
            broker->ready = true;
        apm_redis_gaps(broker->base.link, reply->element[4]->integer != 0);
        if (reply->element[3]->integer) {
            lease->due_ms = now;
        } else if (reply->element[5]->len) {
            double due = strtod(reply->element[5]->str, NULL);
            double left_ms = due * 1000.0 - (double)apm_redis_clock_us(broker->base.link) / 1000.0;
            if (left_ms < LOOK_MS)
                lease->due_ms = now + (left_ms > 0 ? (int64_t)left_ms + 1 : 1);
        }
    }
    schedule(broker);
}

static void
look_for_due(redis_broker *broker)
{
    apm_redis_req *req = begin(broker, &redis_due_script, APM_REDIS_UNACKED, on_due);

    broker->lease->due_ms = 0;
    broker->lease->looking = true;
    if (!req) {
        on_due(broker, NULL, NULL);
        return;
    }
    apm_redis_addz(req, broker->unacked);
    apm_redis_addz(req, broker->index);
    apm_redis_addz(req, HELD_MARK);
    apm_redis_addz(req, PARKED_MARK);
    apm_redis_addz(req, broker->prefix);
    apm_redis_addz(req, broker->sep);
    apm_redis_addi(req, DUE_LIST);
    apm_redis_send(broker->base.link, req, broker);
}

void
redis_lease_parked(redis_broker *broker, int64_t due_us)
{
    redis_lease *lease = broker->lease;
    int64_t left_ms = (due_us - apm_clock_wall_us()) / 1000;
    int64_t at = apm_clock_ms() + (left_ms > 0 ? left_ms : 0) + 1;

    if (!lease->due_ms || at >= lease->due_ms)
        return;
    lease->due_ms = at;
    schedule(broker);
}

/* ---- sweeping ---- */

static void
seen_free(redis_lease *lease, seen *one)
{
    HASH_DEL(lease->seen, one);
    free(one->score);
    free(one);
}

/* Was this entry, with this very score, stale long enough ago? If not, remember it. */
static bool
seen_before(redis_broker *broker, const char *tag, const char *score)
{
    redis_lease *lease = broker->lease;
    size_t len = strlen(tag);
    seen *one = NULL;

    HASH_FIND(hh, lease->seen, tag, len, one);
    if (one && strcmp(one->score, score) == 0) {
        one->sweep = lease->sweep_no;
        return apm_clock_ms() - one->since_ms >= broker->times.stale_ms;
    }
    if (one)
        seen_free(lease, one);
    one = calloc(1, sizeof(*one) + len + 1);
    char *copy = strdup(score);
    if (!one || !copy) {
        free(one);
        free(copy);
        return false;
    }
    *one = (seen){ .score = copy, .since_ms = apm_clock_ms(), .sweep = lease->sweep_no };
    memcpy(one->tag, tag, len);
    HASH_ADD_KEYPTR(hh, lease->seen, one->tag, len, one);
    return false;
}

static bool
held_by_us(const redis_broker *broker, const char *tag)
{
    size_t mark = strlen(HELD_MARK), run = strlen(broker->run);

    if (strncmp(tag, HELD_MARK, mark) != 0 || strncmp(tag + mark, broker->run, run) != 0)
        return false;
    for (const apm_delivery *base = broker->held; base; base = base->next)
        if (strcmp(((const redis_delivery *)base)->tag, tag) == 0)
            return true;
    return false;
}

/* What kombu wrote: [message, exchange, routing key]. */
static bool
split_kombu(apm_str entry, apm_arena *arena, apm_str *message, const char **exchange,
            const char **key)
{
    apm_json whole;

    if (apm_json_parse(entry, &whole, NULL) != APIUM_OK || whole.type != APM_JSON_ARRAY)
        return false;
    apm_json m = apm_json_at(whole, 0), e = apm_json_at(whole, 1), k = apm_json_at(whole, 2);
    if (m.type != APM_JSON_OBJECT || k.type != APM_JSON_STRING)
        return false;
    *message = m.text;
    *exchange = "";
    return (e.type != APM_JSON_STRING ||
            apm_json_cstr(e, "exchange", arena, exchange, NULL) == APIUM_OK) &&
           apm_json_cstr(k, "routing_key", arena, key, NULL) == APIUM_OK;
}

/* An entry whose holder is dead, now under our tag: back to where it belongs, marked as redelivered. */
static void
give_back(redis_broker *broker, apm_str entry, const char *tag)
{
    apm_arena arena = { 0 };
    apm_message msg;
    apm_str message = APM_STR_NONE, json, ignored;
    const char *exchange = "", *key = NULL;
    apium_error err = { 0 };
    apm_buf marked, list;
    char suffix[64];

    apm_buf_init(&marked, APM_BUF_MAX * 2);
    apm_buf_init(&list, 1 << 20);
    if (!split_kombu(entry, &arena, &message, &exchange, &key) &&
        redis_entry_split(entry, &message, &json)) {
        apm_json name;
        if (apm_json_parse(json, &name, NULL) == APIUM_OK)
            (void)apm_json_cstr(name, "queue", &arena, &key, NULL);
    }
    if (!key || !apm_str_is(message)) {
        redis_refuse(broker, "", entry, tag, "an entry of unacked that is none");
        goto out;
    }
    if (apm_envelope_read(message, &arena, &msg, &ignored, &err) != APIUM_OK ||
        apm_envelope_redelivered(&marked, message, &err) != APIUM_OK) {
        redis_refuse(broker, key, message, tag, err.text);
        goto out;
    }
    apm_unit *unit = apm_unit_new(broker->base.link);
    if (!unit)
        goto out; /* it is swept again */
    apm_str step = redis_step_suffix(broker, msg.priority, suffix);
    if (!*exchange) {
        apm_buf_addf(&list, "%s%s%.*s", broker->prefix, key, APM_STR_ARG(step));
        apm_redis_unit_push(unit, broker->db, apm_buf_str(&list), true, apm_buf_str(&marked));
    } else {
        /* The lists are those of the bindings now. None: kombu would drop it, we bury it. */
        apm_redis_unit_route(unit, &broker->keys, exchange, true, apm_strz(key), step, true, true,
                             apm_buf_str(&marked));
    }
    apm_redis_unit_ack(unit, &broker->keys, apm_strz(tag));
    redis_own_commit_or_bury(broker, unit, *exchange ? key : NULL, message, tag);
out:
    apm_buf_clear(&marked);
    apm_buf_clear(&list);
    apm_arena_clear(&arena);
}

static void
on_taken(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_broker *broker = arg;
    char tag[TAG_MAX];
    size_t n = 0;

    (void)err;
    if (!broker->lease)
        return;
    broker->lease->sweeping = false;
    if (feed_clock(broker, reply)) {
        for (size_t i = 2; i + 1 < reply->elements; i += 2, n++) {
            const redisReply *entry = reply->element[i + 1];
            snprintf(tag, sizeof(tag), HELD_MARK "%s:%llu:%lld", broker->run,
                     (unsigned long long)broker->lease->take_no, reply->element[i]->integer);
            give_back(broker, (apm_str){ entry->str, (size_t)entry->len }, tag);
        }
        if (n)
            redis_notice(broker, APM_LOG_WARNING,
                         "Restored %zu unacknowledged messages of nodes that are gone", n);
        if (broker->lease->take_more)
            broker->lease->sweep_ms = apm_clock_ms();
    }
    schedule(broker);
}

static void
on_stale(void *arg, const redisReply *reply, const apium_error *err)
{
    redis_broker *broker = arg;
    redis_lease *lease = broker->lease;
    apm_redis_req *req = NULL;
    char prefix[TAG_MAX];
    seen *one, *next;
    unsigned taken = 0;

    (void)err;
    if (!lease)
        return;
    lease->sweeping = false;
    lease->sweep_ms = apm_clock_ms() + broker->times.sweep_ms;
    lease->take_more = false;
    if (!feed_clock(broker, reply)) {
        schedule(broker);
        return;
    }
    lease->sweep_no++;
    for (size_t i = 2; i + 1 < reply->elements; i += 2) {
        const char *tag = reply->element[i]->str, *score = reply->element[i + 1]->str;
        bool ours = strncmp(tag, HELD_MARK, strlen(HELD_MARK)) == 0;
        if (held_by_us(broker, tag) || (ours && !seen_before(broker, tag, score)))
            continue;
        if (taken == SWEEP_TAKE) {
            lease->take_more = true;
            continue;
        }
        if (!req) {
            req = begin(broker, &redis_take_script, APM_REDIS_UNACKED, on_taken);
            if (!req)
                break;
            lease->take_no = ++broker->fetch_no;
            snprintf(prefix, sizeof(prefix), HELD_MARK "%s:%llu:", broker->run,
                     (unsigned long long)lease->take_no);
            apm_redis_addz(req, broker->unacked);
            apm_redis_addz(req, broker->index);
            apm_redis_addz(req, prefix);
        }
        apm_redis_addz(req, tag);
        apm_redis_addz(req, score);
        taken++;
    }
    HASH_ITER(hh, lease->seen, one, next)
    if (one->sweep != lease->sweep_no)
        seen_free(lease, one);
    if (req) {
        lease->sweeping = true;
        apm_redis_send(broker->base.link, req, broker);
    }
    schedule(broker);
}

static void
sweep(redis_broker *broker)
{
    redis_lease *lease = broker->lease;
    double timeout = apm_links_settings(broker->base.link->set)->visibility_timeout;
    apm_redis_req *req = begin(broker, &redis_stale_script, 0, on_stale);
    char seconds[32];

    lease->sweep_ms = apm_clock_ms() + broker->times.sweep_ms;
    if (!req)
        return;
    lease->sweeping = true;
    apm_redis_addz(req, broker->index);
    apm_redis_addz(req, HELD_MARK);
    apm_redis_addz(req, PARKED_MARK);
    snprintf(seconds, sizeof(seconds), "%.3f", (double)broker->times.lease_ms / 1000.0);
    apm_redis_addz(req, seconds);
    snprintf(seconds, sizeof(seconds), "%.3f", timeout > 0 ? timeout : 3600.0);
    apm_redis_addz(req, seconds);
    apm_redis_addi(req, SWEEP_LIST);
    apm_redis_send(broker->base.link, req, broker);
}

/* ---- the timer ---- */

static void
on_timer(uv_timer_t *timer)
{
    redis_broker *broker = timer->data;
    redis_lease *lease = broker->lease;
    int64_t now = apm_clock_ms();

    /* Who stood still (stopped, suspended) was away, and so perhaps was everybody else. */
    if (now - lease->ticked_ms > LOOK_MS + STALLED_MS) {
        lease->sound_ms = 0;
        lease->renew_ms = now;
    }
    lease->ticked_ms = now;
    if (!lease->renewing && now >= lease->renew_ms)
        renew(broker);
    if (!broker->stopping && broker->windowed) {
        if (!lease->looking && now >= lease->due_ms)
            look_for_due(broker);
        if (!lease->sweeping && lease->sound_ms &&
            now - lease->sound_ms >= broker->times.lease_ms && now >= lease->sweep_ms)
            sweep(broker);
    }
    schedule(broker);
}

static void
schedule(redis_broker *broker)
{
    redis_lease *lease = broker->lease;
    int64_t now = apm_clock_ms(), at = now + LOOK_MS;

    if (!broker->base.link->up)
        return;
    if (!lease->renewing && lease->renew_ms < at)
        at = lease->renew_ms;
    if (!lease->looking && broker->windowed && !broker->stopping && lease->due_ms < at)
        at = lease->due_ms;
    uv_update_time(lease->timer.loop);
    uv_timer_start(&lease->timer, on_timer, at > now ? (uint64_t)(at - now) : 0, 0);
}

void
redis_lease_up(redis_broker *broker)
{
    redis_lease *lease = broker->lease;

    /* Only who receives holds, brings back and sweeps. */
    if (!broker->base.opts.on_batch)
        return;
    lease->ticked_ms = apm_clock_ms();
    lease->renew_ms = lease->due_ms = lease->sweep_ms = lease->sound_ms = 0;
    uv_timer_start(&lease->timer, on_timer, 0, 0);
}

void
redis_lease_down(redis_broker *broker)
{
    uv_timer_stop(&broker->lease->timer);
    broker->lease->sound_ms = 0;
}

apium_status
redis_lease_open(redis_broker *broker)
{
    broker->lease = calloc(1, sizeof(*broker->lease));
    if (!broker->lease)
        return APIUM_E_NOMEM;
    uv_timer_init(apm_links_loop(broker->base.link->set), &broker->lease->timer);
    broker->lease->timer.data = broker;
    return APIUM_OK;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
redis_lease_close(redis_broker *broker)
{
    redis_lease *lease = broker->lease;
    seen *one, *next;

    if (!lease)
        return;
    HASH_ITER(hh, lease->seen, one, next)
    seen_free(lease, one);
    lease->timer.data = lease;
    uv_close((uv_handle_t *)&lease->timer, on_timer_closed);
    broker->lease = NULL;
}
