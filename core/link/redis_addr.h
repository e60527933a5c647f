/* redis_addr.h - where one Redis server (or sentinel) is and how to be let in, read from a URL. */
#ifndef APM_LINK_REDIS_ADDR_H
#define APM_LINK_REDIS_ADDR_H

#include "core/base/url.h"
#include "core/link/tls.h"

typedef struct apm_redis_addr {
    const char *host; /* NULL for a Unix socket */
    int port;
    char path[108]; /* of a Unix socket; "" for TCP */
    const char *user, *password;
    int db;
    bool tls;
    apm_tls_opts tls_opts; /* by default the certificate and its name are verified */
} apm_redis_addr;

/* Read items[i]. Text is borrowed from urls. E_CONFIG names what is wrong. */
apium_status apm_redis_addr_read(apm_redis_addr *addr, apm_urls *urls, size_t i, apium_error *err);
/* Do both lead to the same server as the same user (whatever the database)? */
bool apm_redis_addr_same(const apm_redis_addr *a, const apm_redis_addr *b);
/* "host:port" or the socket's path, for messages. */
void apm_redis_addr_print(const apm_redis_addr *addr, char *out, size_t size);

#endif
