/* redis_addr.c - URLs of Redis; see redis_addr.h. What is accepted follows kombu and redis-py. */
#include "core/link/redis_addr.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"

/* "", "/", "3" and "/3" as kombu reads them. */
static apium_status
read_db(const char *text, int *db, apium_error *err)
{
    char *end;

    while (text && *text == '/')
        text++;
    if (!text || !*text) {
        *db = 0;
        return APIUM_OK;
    }
    errno = 0;
    long n = strtol(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9' || n > INT_MAX)
        return apm_fail(err, APIUM_E_CONFIG, "Database is int between 0 and limit - 1, not %s",
                        text);
    *db = (int)n;
    return APIUM_OK;
}

apium_status
apm_redis_addr_read(apm_redis_addr *addr, apm_urls *urls, size_t i, apium_error *err)
{
    const apm_url *url = &urls->items[i];
    bool sentinel = strcmp(url->scheme, "sentinel") == 0;
    apium_status st;

    *addr = (apm_redis_addr){ .user = url->user, .password = url->password };
    if (addr->user && !*addr->user)
        addr->user = NULL;
    if (strcmp(url->scheme, "redis+socket") == 0) {
        int n = snprintf(addr->path, sizeof(addr->path), "/%s", url->path ? url->path : "");
        if (n <= 1)
            return apm_fail(err, APIUM_E_CONFIG,
                            "redis+socket:// needs a path: redis+socket:///run/redis.sock");
        if ((size_t)n >= sizeof(addr->path))
            return apm_fail(err, APIUM_E_CONFIG,
                            "the path of the Redis socket is longer than %zu bytes",
                            sizeof(addr->path) - 1);
        const char *db = apm_url_param(urls, url, "virtual_host");
        return read_db(db ? db : apm_url_param(urls, url, "db"), &addr->db, err);
    }
    addr->host = *url->host ? url->host : "localhost";
    addr->port = url->port ? url->port : sentinel ? 26379 : 6379;
    st = read_db(url->path, &addr->db, err);
    if (st != APIUM_OK)
        return st;
    addr->tls = strcmp(url->scheme, "rediss") == 0;
    if (addr->tls && (st = apm_tls_from_url(&addr->tls_opts, urls, url, err)) != APIUM_OK)
        return st;
    return APIUM_OK;
}

static bool
same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool
apm_redis_addr_same(const apm_redis_addr *a, const apm_redis_addr *b)
{
    return same_text(a->host, b->host) && a->port == b->port && strcmp(a->path, b->path) == 0 &&
           same_text(a->user, b->user) && same_text(a->password, b->password) && a->tls == b->tls &&
           a->tls_opts.verify == b->tls_opts.verify &&
           a->tls_opts.any_hostname == b->tls_opts.any_hostname &&
           same_text(a->tls_opts.ca_certs, b->tls_opts.ca_certs) &&
           same_text(a->tls_opts.certfile, b->tls_opts.certfile) &&
           same_text(a->tls_opts.keyfile, b->tls_opts.keyfile) &&
           same_text(a->tls_opts.server_name, b->tls_opts.server_name);
}

void
apm_redis_addr_print(const apm_redis_addr *addr, char *out, size_t size)
{
    if (addr->path[0])
        snprintf(out, size, "%s", addr->path);
    else
        snprintf(out, size, "%s:%d", addr->host, addr->port);
}
