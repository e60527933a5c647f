/*
 * http_elasticsearch.c - documents in Elasticsearch, as Celery's backend keeps them: {"result": the document as a string, "@timestamp":
 * now}, made with op_type=create and updated under the sequence number that was read, so that nothing newer is overwritten.
 *
 * With elasticsearch_save_meta_as_text = false "result" is the document itself, in which the task's result and its traceback are
 * strings of JSON each: so it can be searched.
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/link/http_dialect.h"

/* The URL's path is index/type; without a type "_doc", which Elasticsearch 7 takes for whichever there is. */
static apm_str
index_of(const http_link *link)
{
    return (apm_str){ link->place, strcspn(link->place, "/") };
}

static const char *
type_of(const http_link *link)
{
    const char *slash = strchr(link->place, '/');
    return slash && slash[1] ? slash + 1 : NULL;
}

static apium_status
elasticsearch_open(http_link *link, const apm_url *url, apium_error *err)
{
    if (index_of(link).len == 0)
        return apm_fail(err, APIUM_E_CONFIG, "cannot use \"%s\": its path is /index or /index/type",
                        link->base.shown);
    return apm_http_root(link, strstr(url->scheme, "+https") != NULL, url->host, url->port, "",
                         err);
}

static void
add_document(const http_link *link, const http_job *job, apm_buf *path)
{
    apm_http_escape(path, index_of(link));
    apm_buf_addc(path, '/');
    apm_http_escape(path, type_of(link) ? apm_strz(type_of(link)) : APM_STR("_doc"));
    apm_buf_addc(path, '/');
    apm_http_add_name(link, job, path);
}

static void
elasticsearch_read(const http_link *link, const http_job *job, http_request *req)
{
    req->method = "GET";
    add_document(link, job, &req->path);
}

/* ---- documents that are no text ---- */

static bool
is_searched(apm_str raw_key)
{
    return apm_json_key_is(raw_key, "result") || apm_json_key_is(raw_key, "traceback");
}

/* Would Python take it for false? */
static bool
is_false(apm_json val)
{
    double number;
    switch (val.type) {
    case APM_JSON_NONE:
    case APM_JSON_NULL:
        return true;
    case APM_JSON_BOOL:
        return apm_str_eqz(val.text, "false");
    case APM_JSON_INT:
    case APM_JSON_FLOAT:
        return apm_json_double(val, "", &number, NULL) == APIUM_OK && number == 0;
    case APM_JSON_STRING:
        return val.text.len == 2;
    default:
        return apm_json_empty(val);
    }
}

/* Copy a document, its result and traceback between JSON and a string of JSON. */
static void
convert(apm_buf *buf, apm_str doc, bool to_text, apm_arena *arena)
{
    apm_json_iter it;
    apm_json val;
    apm_str key, text;
    bool first = true;
    apm_buf_addc(buf, '{');
    (void)apm_json_open(&it, doc, NULL);
    while (apm_json_next(&it, &key, &val, NULL) > 0) {
        apm_buf_addz(buf, first ? "" : ", ");
        first = false;
        apm_buf_adds(buf, key);
        apm_buf_addz(buf, ": ");
        if (is_searched(key) && !is_false(val) && to_text)
            apm_json_add_string(buf, val.text);
        else if (is_searched(key) && val.type == APM_JSON_STRING && !is_false(val) &&
                 apm_json_string(val, "result", arena, &text, NULL) == APIUM_OK &&
                 apm_json_parse(text, &val, NULL) == APIUM_OK)
            apm_buf_adds(buf, val.text);
        else
            apm_buf_adds(buf, val.text);
    }
    apm_buf_addc(buf, '}');
}

/* ---- reading and writing ---- */

static http_turn
read_source(const http_link *link, http_job *job, apm_json source, apm_str *doc, apium_error *err)
{
    apm_json result = apm_json_get(source, "result");
    apm_buf buf;
    bool ok = true;
    if (result.type == APM_JSON_NONE)
        return HTTP_DONE;
    if (result.type == APM_JSON_STRING)
        return apm_json_string(result, "result", &job->arena, doc, NULL) == APIUM_OK
                   ? HTTP_DONE
                   : apm_http_nonsense(link, job, err);
    if (result.type != APM_JSON_OBJECT)
        return apm_http_nonsense(link, job, err);
    apm_buf_init(&buf, APM_BUF_MAX);
    convert(&buf, result.text, false, &job->arena);
    if (!buf.failed)
        *doc = apm_arena_str(&job->arena, apm_buf_str(&buf), &ok);
    ok = ok && !buf.failed;
    apm_buf_clear(&buf);
    return ok ? HTTP_DONE : apm_http_nonsense(link, job, err);
}

static http_turn
elasticsearch_found(const http_link *link, http_job *job, http_answer answer, apm_str *doc,
                    apium_error *err)
{
    apm_json json, found;
    int64_t number = 1, term = 1; /* as Celery has it for a server that tells neither */
    if (answer.status == 404)
        return HTTP_ABSENT;
    if (apm_http_expect(link, job, answer, err, (const int[]){ 200, 0 }) != HTTP_DONE)
        return HTTP_FAILED;
    if (apm_json_parse(answer.body, &json, NULL) != APIUM_OK ||
        (found = apm_json_get(json, "found")).type != APM_JSON_BOOL)
        return apm_http_nonsense(link, job, err);
    if (apm_str_eqz(found.text, "false"))
        return HTTP_ABSENT;
    (void)apm_json_int64(apm_json_get(json, "_seq_no"), "", &number, NULL);
    (void)apm_json_int64(apm_json_get(json, "_primary_term"), "", &term, NULL);
    snprintf(job->version, sizeof(job->version), "?if_primary_term=%lld&if_seq_no=%lld",
             (long long)term, (long long)number);
    *doc = APM_STR("");
    return read_source(link, job, apm_json_get(json, "_source"), doc, err);
}

static void
write_body(const http_link *link, const http_job *job, apm_buf *body)
{
    char date[APM_DATE_MAX];
    apm_arena arena = { 0 };
    apm_buf_addz(body, "{\"result\": ");
    if (apm_links_settings(link->base.set)->elasticsearch_save_meta_as_text)
        apm_json_add_string(body, job->doc);
    else
        convert(body, job->doc, true, &arena);
    /* Milliseconds, as Celery cuts it. */
    apm_date_print(apm_clock_wall_us() / 1000 * 1000 + 1, 0, date);
    apm_buf_addf(body, ", \"@timestamp\": \"%.23sZ\"}", date);
    apm_arena_clear(&arena);
}

static void
elasticsearch_write(const http_link *link, const http_job *job, http_request *req)
{
    req->type = "application/json";
    if (!job->there) {
        req->method = "PUT";
        add_document(link, job, &req->path);
        apm_buf_addz(&req->path, "?op_type=create");
        write_body(link, job, &req->body);
        return;
    }
    req->method = "POST";
    if (type_of(link)) {
        add_document(link, job, &req->path);
        apm_buf_addz(&req->path, "/_update");
    } else {
        apm_http_escape(&req->path, index_of(link));
        apm_buf_addz(&req->path, "/_update/");
        apm_http_add_name(link, job, &req->path);
    }
    apm_buf_addz(&req->path, job->version);
    apm_buf_addz(&req->body, "{\"doc\": ");
    write_body(link, job, &req->body);
    apm_buf_addc(&req->body, '}');
}

static http_turn
elasticsearch_wrote(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    if (answer.status == 409 || (job->there && answer.status == 404))
        return HTTP_AGAIN;
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 201, 0 });
}

static void
elasticsearch_erase(const http_link *link, const http_job *job, http_request *req)
{
    req->method = "DELETE";
    add_document(link, job, &req->path);
}

static http_turn
elasticsearch_erased(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 404, 0 });
}

const http_dialect apm_http_elasticsearch = {
    .scheme = "elasticsearch",
    .port = 9200,
    .place = "celery",
    .ready_stays = true,
    .open = elasticsearch_open,
    .read = elasticsearch_read,
    .found = elasticsearch_found,
    .write = elasticsearch_write,
    .wrote = elasticsearch_wrote,
    .erase = elasticsearch_erase,
    .erased = elasticsearch_erased,
};
