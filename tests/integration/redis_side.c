/* redis_side.c - see redis_side.h */
#include "redis_side.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

server redis;
proxy *net;

static void
hurry(apm_broker *broker)
{
    apm_redis_broker_times(
        broker,
        &(redis_times){ .renew_ms = 300, .lease_ms = 2000, .sweep_ms = 300, .stale_ms = 1000 });
}

static const adapter row = { .name = "redis", .any_name = true, .hurry = hurry };

void
redis_setup_with(const char *const *more)
{
    ck_assert_int_eq(server_start_redis(&redis, more), 0);
    side_adapter = &row;
    snprintf(side_url, sizeof(side_url), "redis://127.0.0.1:%d/0", redis.port);
}

void
redis_setup(void)
{
    redis_setup_with(NULL);
}

void
redis_through_proxy(void)
{
    net = proxy_start(redis.port);
    ck_assert_ptr_nonnull(net);
    snprintf(side_url, sizeof(side_url), "redis://127.0.0.1:%d/0", proxy_port(net));
}

void
redis_teardown(void)
{
    proxy_stop(net);
    net = NULL;
    server_stop(&redis);
}

int
redis_installed(void)
{
    int rc = server_start_redis(&redis, NULL);
    server_stop(&redis);
    return rc;
}

static redisReply *
command(const char *fmt, va_list ap)
{
    redisContext *c = redisConnect("127.0.0.1", redis.port);
    ck_assert_msg(c && !c->err, "cannot reach the server of the test");
    redisReply *reply = redisvCommand(c, fmt, ap);
    ck_assert_msg(reply != NULL, "the server of the test does not answer");
    ck_assert_msg(reply->type != REDIS_REPLY_ERROR, "%s: %s", fmt, reply->str);
    redisFree(c);
    return reply;
}

long long
ask(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    redisReply *reply = command(fmt, ap);
    va_end(ap);
    long long n = reply->type == REDIS_REPLY_INTEGER ? reply->integer
                  : reply->type == REDIS_REPLY_ARRAY ? (long long)reply->elements
                  : reply->type == REDIS_REPLY_NIL   ? -1
                                                     : (long long)reply->len;
    freeReplyObject(reply);
    return n;
}

char *
ask_text(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    redisReply *reply = command(fmt, ap);
    va_end(ap);
    char *text = reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS
                     ? strdup(reply->str)
                     : NULL;
    freeReplyObject(reply);
    return text;
}

side *
side_at(const char *url, bool broker, bool backend)
{
    char old[sizeof(side_url)];
    memcpy(old, side_url, sizeof(old));
    snprintf(side_url, sizeof(side_url), "%s", url);
    side *s = side_with(broker, backend);
    memcpy(side_url, old, sizeof(old));
    return s;
}

void
record(side *s, apm_unit *unit, const char *id, const char *state, const char *doc)
{
    apium_error error, *err = &error;
    apm_record one = { .task_id = apm_strz(id), .state = apm_strz(state), .doc = apm_strz(doc) };
    ck_ok(s->backend->ops->record(s->backend, unit, &one, err));
}
