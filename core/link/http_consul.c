/*
 * http_consul.c - documents in Consul's key-value store, as Celery's backend keeps them: the document is the value, and what makes it
 * expire is a session with a time to live that holds the key's lock, and takes the key along when it ends.
 *
 *   no key        make a session ──▶ ?acquire=session      false: somebody else has the key now
 *   a key         renew its session ──▶ ?cas=index         false: it has changed since it was read
 *
 * Celery makes a session for every state, and Consul refuses all but the first as long as that session lives: under Celery's backend
 * a task that was STARTED stays so. Hence the second way, which leaves the lock where it is.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/b64.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/link/http_dialect.h"

static apium_status
consul_open(http_link *link, const apm_url *url, apium_error *err)
{
    const double expires_s = apm_links_settings(link->base.set)->result_expires;
    if (*link->place == '/')
        return apm_fail(err, APIUM_E_CONFIG, "cannot use \"%s\": a key of Consul begins with no /",
                        link->base.shown);
    if (expires_s > 0 && (expires_s < 10 || expires_s > 86400))
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot use \"%s\": result_expires is %g, and a session of Consul lives 10 "
                        "to 86400 seconds (0: results stay for ever)",
                        link->base.shown, expires_s);
    return apm_http_root(link, strstr(url->scheme, "+https") != NULL, url->host, url->port, "v1",
                         err);
}

static void
add_key(const http_link *link, const http_job *job, apm_buf *path)
{
    apm_buf_addz(path, "kv/");
    if (*link->place) {
        apm_http_escape_path(path, apm_strz(link->place));
        apm_buf_addc(path, '/');
    }
    apm_http_add_name(link, job, path);
}

static void
consul_read(const http_link *link, const http_job *job, http_request *req)
{
    req->method = "GET";
    add_key(link, job, &req->path);
    apm_buf_addz(&req->path, "?consistent=1");
}

static http_turn
consul_found(const http_link *link, http_job *job, http_answer answer, apm_str *doc,
             apium_error *err)
{
    apm_json list, key, val;
    apm_str text = APM_STR_NONE;
    if (answer.status == 404)
        return HTTP_ABSENT;
    if (apm_http_expect(link, job, answer, err, (const int[]){ 200, 0 }) != HTTP_DONE)
        return HTTP_FAILED;
    if (apm_json_parse(answer.body, &list, NULL) != APIUM_OK || list.type != APM_JSON_ARRAY)
        return apm_http_nonsense(link, job, err);
    if ((key = apm_json_at(list, 0)).type == APM_JSON_NONE)
        return HTTP_ABSENT;
    val = apm_json_get(key, "ModifyIndex");
    if (val.type != APM_JSON_INT || val.text.len >= sizeof(job->version))
        return apm_http_nonsense(link, job, err);
    snprintf(job->version, sizeof(job->version), "%.*s", APM_STR_ARG(val.text));
    val = apm_json_get(key, "Session");
    if (val.type == APM_JSON_STRING)
        (void)apm_json_string(val, "Session", &job->arena, &text, NULL);
    snprintf(job->holder, sizeof(job->holder), "%.*s", APM_STR_ARG(text));
    val = apm_json_get(key, "Value");
    *doc = APM_STR("");
    if (val.type == APM_JSON_NULL)
        return HTTP_DONE; /* a key without a value */
    if (apm_json_string(val, "Value", &job->arena, &text, NULL) != APIUM_OK)
        return apm_http_nonsense(link, job, err);
    char *out = apm_arena_bytes(&job->arena, text.len / 4 * 3 + 3);
    size_t len = 0;
    if (!out || apm_b64_decode(text, out, &len, NULL) != APIUM_OK)
        return apm_http_nonsense(link, job, err);
    *doc = (apm_str){ out, len };
    return HTTP_DONE;
}

/* The requests of a write, one a step. */
typedef enum way { CREATE, ACQUIRE, DESTROY, RENEW, CAS, CAS_NEW } way;

static way
way_of(const http_job *job)
{
    static const way fresh[] = { CREATE, ACQUIRE, DESTROY };
    if (job->there)
        return *job->holder && job->expires_s > 0 && job->step == 0 ? RENEW : CAS;
    /* A key that was deleted with its session cannot be locked for a while: better kept for ever than not at all. */
    return job->expires_s > 0 && !job->barred ? fresh[job->step < 3 ? job->step : 2] : CAS_NEW;
}

static void
write_session(const http_link *link, const http_job *job, http_request *req)
{
    apm_buf name;
    apm_buf_init(&name, 65536);
    apm_http_name(link, job, &name);
    apm_buf_addz(&req->path, "session/create");
    apm_buf_addz(&req->body, "{\"name\": ");
    apm_json_add_string(&req->body, apm_buf_str(&name));
    apm_buf_addf(&req->body, ", \"behavior\": \"delete\", \"ttl\": \"%.0fs\"}", job->expires_s);
    apm_buf_clear(&name);
}

static void
consul_write(const http_link *link, const http_job *job, http_request *req)
{
    const way now = way_of(job);
    req->method = "PUT";
    switch (now) {
    case CREATE:
        write_session(link, job, req);
        return;
    case DESTROY:
    case RENEW:
        apm_buf_addf(&req->path, "session/%s/", now == RENEW ? "renew" : "destroy");
        apm_http_escape(&req->path, apm_strz(job->holder));
        return;
    default:
        add_key(link, job, &req->path);
        apm_buf_addz(&req->path, now == ACQUIRE ? "?acquire=" : "?cas=");
        apm_http_escape(&req->path, now == ACQUIRE ? apm_strz(job->holder)
                                    : now == CAS   ? apm_strz(job->version)
                                                   : APM_STR("0"));
        apm_buf_adds(&req->body, job->doc);
        return;
    }
}

static http_turn
consul_wrote(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    const way now = way_of(job);
    apm_json json;
    apm_str id;
    if (now == DESTROY)
        job->barred = true;
    if (now == DESTROY || (now == RENEW && answer.status == 404) || answer.status == 500)
        return HTTP_AGAIN;
    if (apm_http_expect(link, job, answer, err, (const int[]){ 200, 0 }) != HTTP_DONE)
        return HTTP_FAILED;
    if (now == RENEW)
        return HTTP_MORE;
    if (apm_json_parse(answer.body, &json, NULL) != APIUM_OK)
        return apm_http_nonsense(link, job, err);
    if (now == CREATE) {
        if (apm_json_string(apm_json_get(json, "ID"), "ID", &job->arena, &id, NULL) != APIUM_OK ||
            id.len >= sizeof(job->holder))
            return apm_http_nonsense(link, job, err);
        snprintf(job->holder, sizeof(job->holder), "%.*s", APM_STR_ARG(id));
        return HTTP_MORE;
    }
    if (apm_str_eqz(json.text, "true"))
        return HTTP_DONE;
    return now == ACQUIRE ? HTTP_MORE : HTTP_AGAIN;
}

static void
consul_erase(const http_link *link, const http_job *job, http_request *req)
{
    req->method = "DELETE";
    add_key(link, job, &req->path);
}

static http_turn
consul_erased(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 404, 0 });
}

/* A session that has ended before it was used: 500, and "invalid session". */
static bool
consul_is_fate(int status, apm_str body)
{
    return status == 500 && body.len > 0 && memmem(body.p, body.len, "invalid session", 15);
}

const http_dialect apm_http_consul = {
    .scheme = "consul",
    .port = 8500,
    .place = "",
    .open = consul_open,
    .read = consul_read,
    .found = consul_found,
    .write = consul_write,
    .wrote = consul_wrote,
    .erase = consul_erase,
    .erased = consul_erased,
    .is_fate = consul_is_fate,
};
