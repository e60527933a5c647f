/*
 * url.h - broker and backend URLs: scheme://[user[:password]@]host[:port][/path][?query], with
 * percent-decoding of user, password and path, and `;` lists of alternatives (failover, sentinels).
 * Follows what kombu reads (docs/protocol.md "URLs").
 */
#ifndef APM_BASE_URL_H
#define APM_BASE_URL_H

#include <apium/status.h>

#include "core/base/arena.h"

typedef struct apm_url {
    const char *scheme;          /* lower case, e.g. "redis", "redis+socket", "sqlite" */
    const char *user, *password; /* NULL when absent */
    const char *host;            /* "" when absent; without brackets for IPv6 */
    int port;                    /* 0 when absent */
    const char
        *path; /* after the host, without the first slash, decoded; NULL when there is no slash */
    const char *query; /* raw, after '?'; NULL when absent */
} apm_url;

typedef struct apm_urls {
    apm_arena arena;
    apm_url *items;
    size_t n;
} apm_urls;

/* Parse one URL or a `;` list (later items may lack the scheme: they reuse the first's). E_CONFIG says what is
 * wrong and names the URL without its password. Release with apm_urls_clear. */
apium_status apm_urls_parse(apm_urls *urls, const char *text, apium_error *err);
void apm_urls_clear(apm_urls *urls);
/* The value of a query parameter, decoded, in the arena of urls; NULL when absent. */
const char *apm_url_param(apm_urls *urls, const apm_url *url, const char *name);
/* The URL text (a whole `;` list too) with every password as "**", for logs and errors, cut to `size`. Never fails, and
 * never shows a part of a password that should have been escaped: rather it hides too much. Values of parameters
 * named like a secret are hidden as well. */
void apm_url_mask(const char *text, char *out, size_t size);

#endif
