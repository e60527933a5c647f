/*
 * http_s3.c - documents in a bucket of S3, as Celery's backend keeps them: the object's content is the document. Who asks, and where, is
 * in the settings s3_...; requests are signed by libcurl. There is no conditional write here that all S3 servers have: a
 * state is read before it is written.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "core/link/http_dialect.h"
#include "core/link/ssl_lib.h"

static const char *
or_environment(const char *setting, const char *name)
{
    const char *val = setting && *setting ? setting : getenv(name);
    return val && *val ? val : NULL;
}

/* May it be a part of a host's name, under a certificate for *.s3.amazonaws.com? */
static bool
is_label(const char *bucket)
{
    const size_t len = strlen(bucket);
    return len >= 3 && len <= 63 && strspn(bucket, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static apium_status
open_endpoint(http_link *link, const char *endpoint, const char *bucket, apium_error *err)
{
    apm_urls urls;
    apm_buf path;
    apium_status st = apm_urls_parse(&urls, endpoint, err);
    if (st != APIUM_OK)
        return st;
    const apm_url *url = &urls.items[0];
    const bool tls = strcmp(url->scheme, "https") == 0;
    apm_buf_init(&path, 65536);
    apm_buf_addf(&path, "%s%s%s", url->path ? url->path : "",
                 url->path && *url->path && url->path[strlen(url->path) - 1] != '/' ? "/" : "",
                 bucket);
    if (urls.n > 1 || !*url->host || url->query || (!tls && strcmp(url->scheme, "http") != 0))
        st = apm_fail(err, APIUM_E_CONFIG,
                      "cannot use \"%s\": s3_endpoint_url is one URL, http://... or https://...",
                      link->base.shown);
    else if (path.failed)
        st = apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", link->base.shown);
    else
        st = apm_http_root(link, tls, url->host, url->port, path.p, err);
    apm_buf_clear(&path);
    apm_urls_clear(&urls);
    return st;
}

static apium_status
open_amazon(http_link *link, const char *region, const char *bucket, apium_error *err)
{
    char host[300];
    const bool label = is_label(bucket);
    snprintf(host, sizeof(host), "%s%ss3.%s.amazonaws.com%s", label ? bucket : "", label ? "." : "",
             region, strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    return apm_http_root(link, true, host, 0, label ? "" : bucket, err);
}

static apium_status
s3_open(http_link *link, const apm_url *url, apium_error *err)
{
    const apm_settings *s = apm_links_settings(link->base.set);
    const bool own_keys = s->s3_access_key_id || s->s3_secret_access_key;
    const char *region = or_environment(s->s3_region, "AWS_DEFAULT_REGION");
    if (!s->s3_bucket || !*s->s3_bucket || strlen(s->s3_bucket) > 255)
        return apm_fail(err, APIUM_E_CONFIG, "cannot use \"%s\": s3_bucket %s", link->base.shown,
                        s->s3_bucket && *s->s3_bucket ? "is too long" : "is not set");
    if (*url->host && strcmp(url->host, s->s3_bucket) != 0)
        return apm_fail(
            err, APIUM_E_CONFIG,
            "cannot use \"%s\": the bucket is s3_bucket, which says %s; the URL is s3://",
            link->base.shown, s->s3_bucket);
    link->user = own_keys ? s->s3_access_key_id : or_environment(NULL, "AWS_ACCESS_KEY_ID");
    link->password =
        own_keys ? s->s3_secret_access_key : or_environment(NULL, "AWS_SECRET_ACCESS_KEY");
    if (!link->user || !*link->user || !link->password || !*link->password)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot use \"%s\": %s is not set (nor AWS_ACCESS_KEY_ID and "
                        "AWS_SECRET_ACCESS_KEY in the environment)",
                        link->base.shown,
                        link->user && *link->user ? "s3_secret_access_key" : "s3_access_key_id");
    apium_status st = apm_ssl_load(err); /* its digests */
    if (st != APIUM_OK)
        return st;
    region = region ? region : "us-east-1";
    snprintf(link->base.shown, sizeof(link->base.shown), "s3://%s", s->s3_bucket);
    apm_buf buf;
    apm_buf_init(&buf, 1024);
    apm_buf_addf(&buf, "aws:amz:%s:s3", region);
    link->signs = apm_buf_take(&buf, NULL);
    if (!own_keys && or_environment(NULL, "AWS_SESSION_TOKEN")) {
        apm_buf_init(&buf, 65536);
        apm_buf_addf(&buf, "X-Amz-Security-Token: %s", getenv("AWS_SESSION_TOKEN"));
        link->header = apm_buf_take(&buf, NULL);
    }
    if (!link->signs)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", link->base.shown);
    return s->s3_endpoint_url && *s->s3_endpoint_url
               ? open_endpoint(link, s->s3_endpoint_url, s->s3_bucket, err)
               : open_amazon(link, region, s->s3_bucket, err);
}

/* "." and ".." between slashes would be taken out of the path on its way: an object of such a name has its dots escaped in the name
 * itself. */
static void
add_key(apm_buf *path, apm_str key)
{
    for (const char *at = key.p, *end = key.p + key.len; at <= end;) {
        const char *slash = memchr(at, '/', (size_t)(end - at));
        size_t len = (size_t)((slash ? slash : end) - at);
        if (len == 1 && *at == '.')
            apm_buf_addz(path, "%252E");
        else if (len == 2 && memcmp(at, "..", 2) == 0)
            apm_buf_addz(path, "%252E%252E");
        else
            apm_http_escape_path(path, (apm_str){ at, len });
        if (slash)
            apm_buf_addc(path, '/');
        at += len + 1;
    }
}

static void
s3_ask(const http_link *link, const http_job *job, http_request *req, const char *method)
{
    const char *base = apm_links_settings(link->base.set)->s3_base_path;
    req->method = method;
    apm_http_escape_path(&req->path, apm_strz(base ? base : ""));
    apm_http_escape_path(&req->path, apm_strz(link->prefix));
    add_key(&req->path, job->key);
}

static void
s3_read(const http_link *link, const http_job *job, http_request *req)
{
    s3_ask(link, job, req, "GET");
}

static http_turn
s3_found(const http_link *link, http_job *job, http_answer answer, apm_str *doc, apium_error *err)
{
    *doc = answer.body;
    if (answer.status == 404 &&
        !(answer.body.len > 0 && memmem(answer.body.p, answer.body.len, "NoSuchBucket", 12)))
        return HTTP_ABSENT;
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 0 });
}

static void
s3_write(const http_link *link, const http_job *job, http_request *req)
{
    s3_ask(link, job, req, "PUT");
    req->type =
        "binary/octet-stream"; /* as S3 has it of those that say nothing, Celery's among them */
    apm_buf_adds(&req->body, job->doc);
}

static http_turn
s3_wrote(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 201, 204, 0 });
}

static void
s3_erase(const http_link *link, const http_job *job, http_request *req)
{
    s3_ask(link, job, req, "DELETE");
}

static http_turn
s3_erased(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 204, 404, 0 });
}

const http_dialect apm_http_s3 = {
    .scheme = "s3",
    .place = "",
    .open = s3_open,
    .read = s3_read,
    .found = s3_found,
    .write = s3_write,
    .wrote = s3_wrote,
    .erase = s3_erase,
    .erased = s3_erased,
};
