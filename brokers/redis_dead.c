/*
 * redis_dead.c - what the broker moves of its own accord, and the dead-letter list: JSON documents with queue, reason, time and
 * message, the newest first, as many as DEAD_KEEP.
 */
#include "brokers/redis.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/b64.h"
#include "core/base/clock.h"

/* ---- the broker's own units ---- */

/* One under way. It may outlive the broker, whose closing empties `broker`. */
struct redis_own {
    redis_broker *broker;
    redis_own *prev, *next;
    char *queue; /* bury it as a message for this queue when it cannot be routed */
    char tag[TAG_MAX];
    apm_buf raw;
};

static void
on_own_unit(void *arg, apium_status status, const apium_error *err)
{
    redis_own *own = arg;
    redis_broker *broker = own->broker;

    if (broker) {
        *(own->prev ? &own->prev->next : &broker->own) = own->next;
        if (own->next)
            own->next->prev = own->prev;
        if (status == APIUM_E_UNROUTABLE && own->queue && !own->raw.failed)
            redis_refuse(broker, own->queue, apm_buf_str(&own->raw), own->tag, err->text);
        else if (status != APIUM_OK && status != APIUM_E_FENCED)
            redis_notice(broker, APM_LOG_ERROR, "cannot move a message of our own accord: %s",
                         err->text);
    }
    apm_buf_clear(&own->raw);
    free(own->queue);
    free(own);
}

/* The broker goes away before they are answered. */
void
redis_own_orphan(redis_broker *broker)
{
    for (redis_own *own = broker->own; own; own = own->next)
        own->broker = NULL;
}

void
redis_own_commit(redis_broker *broker, apm_unit *unit)
{
    redis_own_commit_or_bury(broker, unit, NULL, APM_STR_NONE, "");
}

void
redis_own_commit_or_bury(redis_broker *broker, apm_unit *unit, const char *queue, apm_str raw,
                         const char *tag)
{
    redis_own *own = malloc(sizeof(*own));

    if (!own) {
        apm_unit_drop(unit); /* the entry stays ours and is swept later */
        return;
    }
    *own = (redis_own){ .broker = broker, .next = broker->own };
    apm_buf_init(&own->raw, APM_BUF_MAX);
    if (queue) {
        own->queue = strdup(queue);
        apm_buf_adds(&own->raw, raw);
        snprintf(own->tag, sizeof(own->tag), "%s", tag);
    }
    if (own->next)
        own->next->prev = own;
    broker->own = own;
    apm_unit_commit(unit, on_own_unit, own);
}

/* ---- the dead-letter list ---- */

static void
dead_doc(apm_buf *buf, const char *queue, const char *reason, apm_str raw)
{
    int64_t now = apm_clock_wall_us();
    apm_json ignored;

    apm_buf_addz(buf, "{\"queue\": ");
    apm_json_add_stringz(buf, queue);
    apm_buf_addz(buf, ", \"reason\": ");
    apm_json_add_stringz(buf, reason);
    apm_buf_addf(buf, ", \"at\": %lld.%06lld, ", (long long)(now / 1000000),
                 (long long)(now % 1000000));
    /* As it was where that can be said in JSON; text that is no JSON as a string, bytes that are no text in base64. */
    if (!apm_str_is(raw)) {
        apm_buf_addz(buf, "\"message\": ");
        return; /* the server adds it */
    }
    if (apm_json_parse(raw, &ignored, NULL) == APIUM_OK) {
        apm_buf_addz(buf, "\"message\": ");
        apm_buf_adds(buf, raw);
    } else if (apm_utf8_valid(raw, false)) {
        apm_buf_addz(buf, "\"message\": ");
        apm_json_add_string(buf, raw);
    } else {
        apm_buf_addz(buf, "\"message_base64\": \"");
        apm_b64_add(buf, raw.p, raw.len);
        apm_buf_addc(buf, '"');
    }
    apm_buf_addc(buf, '}');
}

void
redis_bury(redis_broker *broker, apm_unit *unit, const char *queue, const char *reason, apm_str raw,
           const char *tag)
{
    apm_buf doc;

    apm_buf_init(&doc, APM_BUF_MAX * 2);
    dead_doc(&doc, queue, reason, raw);
    if (apm_str_is(raw))
        apm_redis_unit_bury(unit, &broker->keys, apm_buf_str(&doc), DEAD_KEEP);
    else
        apm_redis_unit_bury_entry(unit, &broker->keys, apm_strz(tag), apm_buf_str(&doc),
                                  APM_STR("}"), DEAD_KEEP);
    apm_buf_clear(&doc);
}

void
redis_refuse(redis_broker *broker, const char *queue, apm_str raw, const char *tag, const char *why)
{
    apm_unit *unit = apm_unit_new(broker->base.link);

    if (unit) {
        redis_bury(broker, unit, queue, why, raw, tag);
        apm_redis_unit_ack(unit, &broker->keys, apm_strz(tag));
        redis_own_commit(broker, unit);
    }
    if (broker->base.opts.on_refused)
        broker->base.opts.on_refused(broker->base.opts.arg, queue, raw, why);
}

/* ---- showing them ---- */

typedef struct dead_ask {
    apm_dead_cb *done;
    void *arg;
} dead_ask;

static void
read_dead(apm_arena *arena, apm_str doc, apm_dead *out)
{
    apm_json whole;
    double at = 0;

    *out = (apm_dead){ .queue = "", .reason = "", .message = doc };
    if (apm_json_parse(doc, &whole, NULL) != APIUM_OK || whole.type != APM_JSON_OBJECT)
        return;
    (void)apm_json_cstr(apm_json_get(whole, "queue"), "queue", arena, &out->queue, NULL);
    (void)apm_json_cstr(apm_json_get(whole, "reason"), "reason", arena, &out->reason, NULL);
    if (apm_json_double(apm_json_get(whole, "at"), "at", &at, NULL) == APIUM_OK)
        out->at_us = (int64_t)(at * 1e6);
    apm_json message = apm_json_get(whole, "message");
    if (message.type == APM_JSON_NONE)
        message = apm_json_get(whole, "message_base64");
    if (message.type == APM_JSON_STRING)
        (void)apm_json_string(message, "message", arena, &out->message, NULL);
    else if (message.type != APM_JSON_NONE)
        out->message = message.text;
}

static void
on_dead(void *arg, const redisReply *reply, const apium_error *err)
{
    dead_ask *ask_ = arg;
    size_t n = !err && reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
    apm_dead *dead = calloc(n ? n : 1, sizeof(*dead));
    apm_arena arena = { 0 };

    for (size_t i = 0; i < n && dead; i++)
        read_dead(&arena, (apm_str){ reply->element[i]->str, (size_t)reply->element[i]->len },
                  &dead[i]);
    ask_->done(ask_->arg, dead, dead ? n : 0, err);
    apm_arena_clear(&arena);
    free(dead);
    free(ask_);
}

void
redis_dead(apm_broker *base, size_t limit, apm_dead_cb *done, void *arg)
{
    redis_broker *broker = redis_of(base);
    dead_ask *ask_ = calloc(1, sizeof(*ask_));
    apm_redis_req *req =
        ask_ ? apm_redis_begin(base->link, broker->db, APM_REDIS_REPEAT, on_dead, ask_) : NULL;

    if (!req) {
        free(ask_);
        return;
    }
    *ask_ = (dead_ask){ .done = done, .arg = arg };
    apm_redis_addz(req, "LRANGE");
    apm_redis_addz(req, broker->dead);
    apm_redis_addz(req, "0");
    apm_redis_addi(req, limit ? (int64_t)limit - 1 : -1);
    apm_redis_send(base->link, req, broker);
}
