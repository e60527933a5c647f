/* http_easy.c - one request as libcurl has it: where it goes, who asks, what it says. */
#include <stdio.h>
#include <stdlib.h>

#include "core/link/http_inside.h"
#include "core/link/ssl_lib.h"

/* Before a body as big as that the server is asked whether it wants it, so that its refusal is not lost. */
#define EXPECT_BYTES ((size_t)1 << 20)
#define SLACK_MS     15000 /* what a server that waits on purpose may take longer */

static size_t
on_body(char *data, size_t one, size_t n, void *arg)
{
    http_ask *ask = arg;
    apm_buf_add(&ask->answer, data, one * n);
    return ask->answer.failed ? 0 : one * n;
}

void
apm_http_spare(http_link *link, http_ask *ask)
{
    CURL *easy = ask->easy;
    ask->easy = NULL;
    curl_multi_remove_handle(link->multi, easy);
    curl_slist_free_all(ask->headers);
    ask->headers = NULL;
    if (link->n_spare < sizeof(link->spare) / sizeof(*link->spare)) {
        curl_easy_reset(easy);
        link->spare[link->n_spare++] = easy;
    } else {
        curl_easy_cleanup(easy);
    }
}

static bool
add_header(http_ask *ask, const char *text)
{
    struct curl_slist *longer = curl_slist_append(ask->headers, text);
    if (longer)
        ask->headers = longer;
    return longer != NULL;
}

/* Older versions of libcurl do not say by themselves what S3 wants to know, and sign a header that is there to be left out. */
static bool
add_signed_headers(const http_link *link, http_ask *ask)
{
    unsigned char digest[SHA256_DIGEST_LENGTH];
    char text[40 + 2 * SHA256_DIGEST_LENGTH];
    int n = snprintf(text, sizeof(text), "x-amz-content-sha256: ");
    SHA256((const unsigned char *)(ask->body ? ask->body : ""), ask->body_len, digest);
    for (size_t i = 0; i < sizeof(digest); i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", digest[i]);
    return add_header(ask, text) && (!link->header || add_header(ask, link->header));
}

static void
set_security(const http_link *link, CURL *easy)
{
    const apm_settings *s = apm_links_settings(link->base.set);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, s->http_verify ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, s->http_verify ? 2L : 0L);
    if (s->http_ca)
        curl_easy_setopt(easy, CURLOPT_CAINFO, s->http_ca);
    if (s->http_cert)
        curl_easy_setopt(easy, CURLOPT_SSLCERT, s->http_cert);
    if (s->http_key)
        curl_easy_setopt(easy, CURLOPT_SSLKEY, s->http_key);
    if (link->signs) {
        curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, link->signs);
        curl_easy_setopt(easy, CURLOPT_USERNAME, link->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, link->password);
    } else if (link->user) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
        curl_easy_setopt(easy, CURLOPT_USERNAME, link->user);
        curl_easy_setopt(easy, CURLOPT_PASSWORD, link->password ? link->password : "");
    } else if (s->http_token) {
        curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(easy, CURLOPT_XOAUTH2_BEARER, s->http_token);
    }
}

bool
apm_http_start(http_link *link, http_ask *ask)
{
    const apm_settings *s = apm_links_settings(link->base.set);
    const double connect_s = s->broker_connection_timeout > 0 ? s->broker_connection_timeout : 4;
    CURL *easy = link->n_spare ? link->spare[--link->n_spare] : curl_easy_init();
    apm_buf url;
    if (!easy)
        return false;
    ask->easy = easy;
    apm_buf_init(&url, 2 * HTTP_URL_MAX);
    apm_buf_addf(&url, "%s%s", link->root, ask->path);
    apm_buf_clear(&ask->answer);
    apm_buf_init(&ask->answer, APM_BUF_MAX);
    *ask->why = '\0';
    bool ok = !url.failed && curl_easy_setopt(easy, CURLOPT_URL, url.p) == CURLE_OK &&
              (link->signs ? add_signed_headers(link, ask)
                           : add_header(ask, "Accept: application/json") &&
                                 (ask->body_len > EXPECT_BYTES || add_header(ask, "Expect:")));
    apm_buf_clear(&url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, ask);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, ask->why);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, ask);
    if (strcmp(ask->asked.method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, ask->asked.method);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "apium");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect_s * 1000));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     ask->asked.wait_ms ? (long)(ask->asked.wait_ms + SLACK_MS)
                                        : (long)(s->http_timeout * 1000));
    set_security(link, easy);
    if (ask->body) {
        char type[100];
        snprintf(type, sizeof(type), "Content-Type:%s%s", ask->asked.type ? " " : "",
                 ask->asked.type ? ask->asked.type : "");
        ok = ok && add_header(ask, type);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, ask->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)ask->body_len);
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, ask->headers);
    if (ok && curl_multi_add_handle(link->multi, easy) == CURLM_OK)
        return true;
    apm_http_spare(link, ask);
    return false;
}
