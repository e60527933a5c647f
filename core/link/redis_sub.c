/*
 * redis_sub.c - subscriptions of a Redis link: one connection for all channels, opened when the first is wanted and opened
 * again whenever it ends while the link is up. Each subscriber is told when its subscription holds, so that it
 * can look at what it may have missed.
 */
#include "core/link/redis_inside.h"

#include <stdlib.h>
#include <uthash.h>

#include "core/base/clock.h"

#define AGAIN_MS   1000
#define READ_BYTES (64 * 1024)

struct apm_redis_sub {
    apm_redis_message *on_message;
    void *arg;
    UT_hash_handle hh;
    char channel[];
};

static void
say(apm_redis *link, const char *verb, const char *channel)
{
    apm_buf cmd;

    if (!link->sub || !apm_redis_conn_ready(link->sub))
        return;
    apm_buf_init(&cmd, 1 << 20);
    apm_resp_open(&cmd, 2);
    apm_resp_addz(&cmd, verb);
    apm_resp_addz(&cmd, channel);
    apm_redis_conn_push(link->sub, apm_buf_str(&cmd));
    apm_buf_clear(&cmd);
}

static void
on_push(void *arg, const redisReply *push)
{
    apm_redis *link = arg;
    const redisReply *what = push->element[0], *channel = push->element[1];
    apm_redis_sub *sub = NULL;

    if (what->type != REDIS_REPLY_STRING || channel->type != REDIS_REPLY_STRING ||
        push->elements < 3)
        return;
    HASH_FIND(hh, link->subs, channel->str, (size_t)channel->len, sub);
    if (!sub)
        return;
    apm_str name = { channel->str, (size_t)channel->len };
    const redisReply *body = push->element[2];
    if (strcmp(what->str, "message") == 0 && body->type == REDIS_REPLY_STRING)
        sub->on_message(sub->arg, name, &(apm_str){ body->str, (size_t)body->len });
    else if (strcmp(what->str, "subscribe") == 0)
        sub->on_message(sub->arg, name, NULL);
}

static void
on_ready(void *arg, apm_redis_conn *conn)
{
    apm_redis *link = arg;
    (void)conn;
    for (apm_redis_sub *sub = link->subs; sub; sub = sub->hh.next)
        say(link, "SUBSCRIBE", sub->channel);
}

static void
on_ended(void *arg, apm_redis_conn *conn, const apium_error *err)
{
    apm_redis *link = arg;
    (void)conn;
    (void)err;
    link->sub = NULL;
    link->sub_retry_ms = apm_clock_ms() + AGAIN_MS;
}

static void
connect_sub(apm_redis *link)
{
    link->sub = apm_redis_connect(&link->base, &(apm_redis_conn_opts){ .read_bytes = READ_BYTES,
                                                                       .on_ready = on_ready,
                                                                       .on_ended = on_ended,
                                                                       .on_push = on_push,
                                                                       .arg = link });
}

void
redis_subs_down(apm_redis *link)
{
    apm_redis_conn_close(link->sub);
    link->sub = NULL;
}

void
redis_subs_tick(apm_redis *link)
{
    if (link->subs && !link->sub && link->base.up && apm_clock_ms() >= link->sub_retry_ms)
        connect_sub(link);
}

void
redis_subs_clear(apm_redis *link)
{
    apm_redis_sub *sub, *next;

    HASH_ITER(hh, link->subs, sub, next)
    {
        HASH_DEL(link->subs, sub);
        free(sub);
    }
}

apm_redis_sub *
apm_redis_subscribe(apm_link *base, const char *channel, apm_redis_message *on_message, void *arg)
{
    apm_redis *link = (apm_redis *)base;
    size_t len = strlen(channel);
    apm_redis_sub *sub = calloc(1, sizeof(*sub) + len + 1);

    if (!sub)
        return NULL;
    sub->on_message = on_message;
    sub->arg = arg;
    memcpy(sub->channel, channel, len);
    HASH_ADD_KEYPTR(hh, link->subs, sub->channel, len, sub);
    if (link->sub)
        say(link, "SUBSCRIBE", channel);
    else
        redis_subs_tick(link);
    return sub;
}

void
apm_redis_unsubscribe(apm_link *base, apm_redis_sub *sub)
{
    apm_redis *link = (apm_redis *)base;

    if (!sub)
        return;
    say(link, "UNSUBSCRIBE", sub->channel);
    HASH_DEL(link->subs, sub);
    free(sub);
}
