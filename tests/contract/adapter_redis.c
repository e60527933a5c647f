/* adapter_redis.c - the row of redis://: a server of its own. */
#include <hiredis/hiredis.h>
#include <stdio.h>

#include "adapters.h"
#include "brokers/redis.h"
#include "server.h"

static server redis;

static int
start(char *url, size_t size)
{
    int rc = server_start_redis(&redis, NULL);
    if (rc == 0)
        snprintf(url, size, "redis://127.0.0.1:%d/2", redis.port);
    return rc;
}

static void
stop(void)
{
    server_stop(&redis);
}

/* As a node does that finds the lease over: every held entry back to its list. The index tells held ones by their score. */
static void
steal(const char *url)
{
    redisContext *c = redisConnect("127.0.0.1", redis.port);

    (void)url;
    freeReplyObject(redisCommand(c, "SELECT 2"));
    freeReplyObject(redisCommand(
        c, "EVAL %s 0",
        "for _, tag in ipairs(redis.call('ZRANGEBYSCORE', 'unacked_index', '-inf', "
        "redis.call('TIME')[1] + 1)) do "
        "local m, queue = redis.call('HGET', 'unacked', tag):match('^%[(.*),\"\",\"(.*)\"%]$') "
        "m = m:gsub('\"delivery_info\": {', '\"delivery_info\": {\"redelivered\": true, ') "
        "redis.call('RPUSH', queue, m) redis.call('HDEL', 'unacked', tag) redis.call('ZREM', "
        "'unacked_index', tag) "
        "end"));
    redisFree(c);
}

static void
hurry(apm_broker *broker)
{
    apm_redis_broker_times(
        broker,
        &(redis_times){ .renew_ms = 500, .lease_ms = 2500, .sweep_ms = 500, .stale_ms = 1000 });
}

const adapter adapter_redis = {
    .name = "redis",
    .broker = true,
    .backend = true,
    .atomic = true,
    .tells_age = true,
    .any_name = true,
    .hurry = hurry,
    .start = start,
    .stop = stop,
    .steal = steal,
};
