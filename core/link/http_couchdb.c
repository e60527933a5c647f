/*
 * http_couchdb.c - documents in CouchDB, as Celery's backend keeps them: {"_id": key, "value": the document as a string}. A document
 * that has changed since it was read is not overwritten: CouchDB wants the revision, and answers 409 to a wrong one.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/json.h"
#include "core/link/http_dialect.h"

static apium_status
couchdb_open(http_link *link, const apm_url *url, apium_error *err)
{
    return apm_http_root(link, strstr(url->scheme, "+https") != NULL, url->host, url->port, "",
                         err);
}

static void
add_database(const http_link *link, apm_buf *path)
{
    apm_http_escape(path, apm_strz(link->place));
}

static void
add_document(const http_link *link, const http_job *job, apm_buf *path)
{
    add_database(link, path);
    apm_buf_addc(path, '/');
    apm_http_add_name(link, job, path);
}

static void
couchdb_prepare(const http_link *link, const http_job *job, http_request *req)
{
    req->method = job->step ? "PUT" : "HEAD";
    add_database(link, &req->path);
}

/* 412: somebody else has made it meanwhile. */
static http_turn
couchdb_prepared(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    if (job->step == 0 && answer.status == 404)
        return HTTP_MORE;
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 201, 202, 412, 0 });
}

static void
couchdb_read(const http_link *link, const http_job *job, http_request *req)
{
    req->method = "GET";
    add_document(link, job, &req->path);
}

static http_turn
couchdb_found(const http_link *link, http_job *job, http_answer answer, apm_str *doc,
              apium_error *err)
{
    apm_json json, rev;
    apm_str text;
    if (answer.status == 404)
        return HTTP_ABSENT;
    if (apm_http_expect(link, job, answer, err, (const int[]){ 200, 0 }) != HTTP_DONE)
        return HTTP_FAILED;
    if (apm_json_parse(answer.body, &json, NULL) != APIUM_OK ||
        (rev = apm_json_get(json, "_rev")).type != APM_JSON_STRING ||
        apm_json_string(rev, "_rev", &job->arena, &text, NULL) != APIUM_OK ||
        text.len >= sizeof(job->version) ||
        apm_json_string(apm_json_get(json, "value"), "value", &job->arena, doc, NULL) != APIUM_OK)
        return apm_http_nonsense(link, job, err);
    snprintf(job->version, sizeof(job->version), "%.*s", APM_STR_ARG(text));
    return HTTP_DONE;
}

static void
couchdb_write(const http_link *link, const http_job *job, http_request *req)
{
    apm_buf name;
    req->method = "PUT";
    req->type = "application/json";
    add_document(link, job, &req->path);
    apm_buf_init(&name, 65536);
    apm_http_name(link, job, &name);
    apm_buf_addz(&req->body, "{\"_id\": ");
    apm_json_add_string(&req->body, apm_buf_str(&name));
    if (job->there) {
        apm_buf_addz(&req->body, ", \"_rev\": ");
        apm_json_add_stringz(&req->body, job->version);
    }
    apm_buf_addz(&req->body, ", \"value\": ");
    apm_json_add_string(&req->body, job->doc);
    apm_buf_addc(&req->body, '}');
    apm_buf_clear(&name);
}

static http_turn
couchdb_wrote(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    if (answer.status == 409)
        return HTTP_AGAIN;
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 201, 202, 0 });
}

static void
couchdb_erase(const http_link *link, const http_job *job, http_request *req)
{
    req->method = "DELETE";
    add_document(link, job, &req->path);
    apm_buf_addz(&req->path, "?rev=");
    apm_http_escape(&req->path, apm_strz(job->version));
}

static http_turn
couchdb_erased(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    if (answer.status == 409)
        return HTTP_AGAIN;
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 202, 404, 0 });
}

const http_dialect apm_http_couchdb = {
    .scheme = "couchdb",
    .port = 5984,
    .place = "default",
    .erases_a_version = true,
    .open = couchdb_open,
    .prepare = couchdb_prepare,
    .prepared = couchdb_prepared,
    .read = couchdb_read,
    .found = couchdb_found,
    .write = couchdb_write,
    .wrote = couchdb_wrote,
    .erase = couchdb_erase,
    .erased = couchdb_erased,
};
