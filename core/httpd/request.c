/* request.c - a request: its body comes in, it is handed over, it waits, it is answered; see inside.h */
#include "core/httpd/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>

#define SWALLOW_BYTES                                                                              \
    (1 << 20) /* so much of a body that is too big is read, that the answer may be */

void *
apm_httpd_on_uri(void *arg, const char *uri, struct MHD_Connection *mhd)
{
    apm_httpd *httpd = arg;
    apm_http_req *req = calloc(1, sizeof(*req));
    apm_http_conn *c = apm_httpd_conn_of(mhd);
    if (!req || !c || !(req->target = strdup(uri))) {
        free(req);
        return NULL;
    }
    req->httpd = httpd;
    req->mhd = mhd;
    req->conn = c;
    apm_buf_init(&req->body, httpd->opts.max_body_bytes);
    apm_httpd_phase_set(c, APM_HTTP_READING);
    return req;
}

void
apm_httpd_on_completed(void *arg, struct MHD_Connection *mhd, void **context,
                       enum MHD_RequestTerminationCode code)
{
    apm_http_req *req = *context;
    (void)arg;
    (void)mhd;
    (void)code;
    if (!req)
        return;
    *context = NULL;
    if (req->conn->stream)
        apm_httpd_leave_stream(req->conn->stream);
    apm_httpd_phase_set(req->conn, APM_HTTP_IDLE);
    if (req->response)
        MHD_destroy_response(req->response);
    apm_buf_clear(&req->body);
    free(req->method);
    free(req->target);
    free(req);
}

static enum MHD_Result
send_answer(apm_http_req *req)
{
    apm_httpd_phase_set(req->conn, req->conn->stream ? APM_HTTP_STREAMING : APM_HTTP_ANSWERING);
    apm_buf_clear(&req->body);
    return MHD_queue_response(req->mhd, (unsigned)req->status, req->response);
}

static void
refuse_size(apm_http_req *req)
{
    char text[128];
    int len = snprintf(
        text, sizeof(text),
        "{\"error\": {\"status\": 413, \"message\": \"the body is bigger than %zu bytes\"}}",
        req->httpd->opts.max_body_bytes);
    apm_http_answer(req, &(apm_http_reply){ .status = 413, .body = { text, (size_t)len } });
}

static enum MHD_Result
count_framing(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
    int *n = arg;
    (void)kind;
    bool length = strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0;
    bool encoding = strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0;
    if (length || encoding)
        ++*n;
    if (encoding && (!value || strcasecmp(value, "chunked") != 0))
        *n += 2;
    return MHD_YES;
}

/*
 * Where its body ends is said once, and understood. A proxy before us may go by the other of two lengths, and what is a body
 * for it be a request for us.
 */
static bool
is_framed(const apm_http_req *req)
{
    int n = 0;
    (void)MHD_get_connection_values(req->mhd, MHD_HEADER_KIND, count_framing, &n);
    return n <= 1;
}

static void
refuse_framing(apm_http_req *req)
{
    static const char text[] = "{\"error\": {\"status\": 400, \"message\": \"it is not clear where "
                               "the body ends\"}}";
    static const apm_http_header header = { MHD_HTTP_HEADER_CONNECTION, "close" };
    apm_http_answer(req, &(apm_http_reply){ .status = 400,
                                            .body = { text, sizeof(text) - 1 },
                                            .headers = &header,
                                            .n_headers = 1 });
}

/* Of a body that is too big so much is read all the same: an answer in the midst of it may be lost with a reset connection. */
static size_t
swallow_bytes(const apm_httpd *httpd)
{
    return httpd->opts.max_body_bytes > SWALLOW_BYTES ? httpd->opts.max_body_bytes : SWALLOW_BYTES;
}

/* The first call of a request: its headers are here. */
static enum MHD_Result
begin(apm_http_req *req, const char *method)
{
    const char *length = apm_http_header_of(req, MHD_HTTP_HEADER_CONTENT_LENGTH);
    req->began = true;
    if (!(req->method = strdup(method)))
        return MHD_NO;
    if (!is_framed(req)) {
        req->given = true;
        refuse_framing(req);
        return req->response ? send_answer(req) : MHD_NO;
    }
    unsigned long long bytes = length ? strtoull(length, NULL, 10) : 0;
    bool expects = apm_http_header_of(req, MHD_HTTP_HEADER_EXPECT) !=
                   NULL; /* it has not begun with the body */
    if (bytes > req->httpd->opts.max_body_bytes &&
        (expects || bytes - req->httpd->opts.max_body_bytes > swallow_bytes(req->httpd))) {
        req->given = true;
        refuse_size(req);
        return req->response ? send_answer(req) : MHD_NO;
    }
    return MHD_YES;
}

static enum MHD_Result
take_body(apm_http_req *req, const char *data, size_t size)
{
    if (req->given)
        return MHD_YES;
    if (!req->body.failed)
        apm_buf_add(&req->body, data, size);
    if (req->body.failed) {
        free(req->body.p); /* nobody will read what came of it */
        req->body.p = NULL;
        req->body.len = req->body.cap = 0;
        req->swallowed += size;
    }
    return req->swallowed <= swallow_bytes(req->httpd) + SWALLOW_BYTES ? MHD_YES : MHD_NO;
}

enum MHD_Result
apm_httpd_on_access(void *arg, struct MHD_Connection *mhd, const char *url, const char *method,
                    const char *version, const char *data, size_t *size, void **context)
{
    apm_httpd *httpd = arg;
    apm_http_req *req = *context;
    (void)mhd;
    (void)url;
    (void)version;
    if (!req)
        return MHD_NO;
    if (!req->began)
        return begin(req, method);
    if (*size) {
        enum MHD_Result rc = take_body(req, data, *size);
        *size = 0;
        return rc;
    }
    if (!req->given) {
        req->given = true;
        apm_httpd_phase_set(req->conn, APM_HTTP_WAITING);
        req->conn->req = req;
        if (req->body.failed)
            refuse_size(req);
        else
            httpd->opts.on_request(httpd->opts.arg, req);
    }
    if (req->response)
        return send_answer(req);
    if (req->status < 0)
        return MHD_NO;
    req->suspended = true;
    MHD_suspend_connection(mhd);
    return MHD_YES;
}

const char *
apm_http_method(const apm_http_req *req)
{
    return req->method;
}

const char *
apm_http_target(const apm_http_req *req)
{
    return req->target;
}

apm_str
apm_http_body(const apm_http_req *req)
{
    return apm_buf_str(&req->body);
}

const char *
apm_http_header_of(const apm_http_req *req, const char *name)
{
    return MHD_lookup_connection_value(req->mhd, MHD_HEADER_KIND, name);
}

void
apm_http_on_gone(apm_http_req *req, void (*on_gone)(void *arg), void *arg)
{
    req->on_gone = on_gone;
    req->gone_arg = arg;
}

static struct MHD_Response *
make_response(const apm_http_reply *reply)
{
    struct MHD_Response *response;
    if (reply->take) {
        size_t len = 0;
        char *text = apm_buf_take(reply->take, &len);
        response = text ? MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE) : NULL;
        if (!response)
            free(text);
    } else {
        response = MHD_create_response_from_buffer(
            reply->body.len, (void *)(uintptr_t)reply->body.p, MHD_RESPMEM_MUST_COPY);
    }
    if (!response)
        return NULL;
    if (reply->status != 204 && reply->status != 304)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE,
                                reply->type ? reply->type : "application/json");
    for (size_t i = 0; i < reply->n_headers; i++)
        if (reply->headers[i].value)
            MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    return response;
}

void
apm_httpd_give(apm_http_req *req, struct MHD_Response *response, int status)
{
    req->on_gone = NULL;
    req->conn->req = NULL;
    req->status = status;
    req->response = response;
    if (!req->response) { /* without memory the connection ends */
        req->status = -1;
        shutdown(req->conn->fd, SHUT_RDWR);
    }
    if (!req->suspended)
        return;
    req->suspended = false;
    apm_httpd_phase_set(req->conn, req->conn->stream ? APM_HTTP_STREAMING : APM_HTTP_ANSWERING);
    MHD_resume_connection(req->mhd);
    apm_httpd_run_soon(req->httpd);
}

void
apm_http_answer(apm_http_req *req, const apm_http_reply *reply)
{
    apm_httpd_give(req, make_response(reply), reply->status);
}
