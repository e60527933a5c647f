/* http_plain.c - documents at a server that can GET, PUT and DELETE, and perhaps more: see docs/http-result-protocol.md. */
#include "core/link/http_dialect.h"

static apium_status
plain_open(http_link *link, const apm_url *url, apium_error *err)
{
    return apm_http_root(link, strcmp(url->scheme, "https") == 0, url->host, url->port,
                         url->path ? url->path : "", err);
}

static void
plain_ask(const http_link *link, const http_job *job, http_request *req, const char *method)
{
    req->method = method;
    apm_http_add_name(link, job, &req->path);
}

static void
plain_read(const http_link *link, const http_job *job, http_request *req)
{
    plain_ask(link, job, req, "GET");
}

static http_turn
plain_found(const http_link *link, http_job *job, http_answer answer, apm_str *doc,
            apium_error *err)
{
    *doc = answer.body;
    if (answer.status == 404 || answer.status == 410)
        return HTTP_ABSENT;
    return apm_http_expect(link, job, answer, err, (const int[]){ 200, 0 });
}

static void
plain_write(const http_link *link, const http_job *job, http_request *req)
{
    plain_ask(link, job, req, "PUT");
    req->type = "application/json";
    apm_buf_adds(&req->body, job->doc);
}

static http_turn
plain_wrote(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    return answer.status >= 200 && answer.status <= 299 ? HTTP_DONE
                                                        : apm_http_refused(link, job, answer, err);
}

static void
plain_erase(const http_link *link, const http_job *job, http_request *req)
{
    plain_ask(link, job, req, "DELETE");
}

static http_turn
plain_erased(const http_link *link, http_job *job, http_answer answer, apium_error *err)
{
    return answer.status == 404 || answer.status == 410 ? HTTP_DONE
                                                        : plain_wrote(link, job, answer, err);
}

const http_dialect apm_http_plain = {
    .scheme = "http",
    .asks_abilities = true,
    .open = plain_open,
    .read = plain_read,
    .found = plain_found,
    .write = plain_write,
    .wrote = plain_wrote,
    .erase = plain_erase,
    .erased = plain_erased,
};
