/* stream.c - an answer without an end; see inside.h */
#include "core/httpd/inside.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "core/base/clock.h"

/* Its connection is done with it; libmicrohttpd releases it with the response, perhaps after the connection. */
void
apm_httpd_leave_stream(apm_http_stream *stream)
{
    stream->conn->stream = NULL;
    stream->conn = NULL;
    stream->on_gone(stream->arg);
}

static void
resume_stream(apm_http_stream *stream)
{
    if (!stream->suspended)
        return;
    stream->suspended = false;
    MHD_resume_connection(stream->mhd);
    apm_httpd_run_soon(stream->httpd);
}

static ssize_t
read_stream(void *arg, uint64_t at, char *to, size_t max)
{
    apm_http_stream *s = arg;
    size_t n = s->pending.len - s->sent;
    (void)at;
    if (n == 0 && s->ended)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (n == 0) {
        s->suspended = true;
        MHD_suspend_connection(s->mhd);
        return 0;
    }
    n = n < max ? n : max;
    memcpy(to, s->pending.p + s->sent, n);
    s->sent += n;
    s->written_ms = apm_clock_ms();
    if (s->sent == s->pending.len) {
        apm_buf_reset(&s->pending);
        s->sent = 0;
    }
    return (ssize_t)n;
}

static void
free_stream(void *arg)
{
    apm_http_stream *s = arg;
    apm_buf_clear(&s->pending);
    free(s);
}

apm_http_stream *
apm_http_begin(apm_http_req *req, const apm_http_reply *reply, void (*on_gone)(void *arg),
               void *arg)
{
    apm_http_stream *s = calloc(1, sizeof(*s));
    struct MHD_Response *response =
        s ? MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, read_stream, s, free_stream)
          : NULL;
    if (!response) {
        free(s);
        return NULL;
    }
    *s = (apm_http_stream){ .httpd = req->httpd,
                            .mhd = req->mhd,
                            .conn = req->conn,
                            .written_ms = apm_clock_ms(),
                            .on_gone = on_gone,
                            .arg = arg };
    apm_buf_init(&s->pending, APM_BUF_MAX);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply->type);
    for (size_t i = 0; i < reply->n_headers; i++)
        MHD_add_response_header(response, reply->headers[i].name, reply->headers[i].value);
    req->conn->stream = s;
    apm_httpd_give(req, response, reply->status);
    return s;
}

size_t
apm_http_write(apm_http_stream *stream, apm_str text)
{
    if (stream->ended)
        return 0;
    if (stream->pending.len == 0)
        stream->written_ms = apm_clock_ms();
    apm_buf_adds(&stream->pending, text);
    resume_stream(stream);
    return stream->pending.len - stream->sent;
}

void
apm_http_end(apm_http_stream *stream)
{
    stream->ended = true;
    resume_stream(stream);
}

void
apm_http_cut(apm_http_stream *stream)
{
    stream->ended = true;
    apm_buf_clear(&stream->pending);
    stream->sent = 0;
    shutdown(stream->conn->fd, SHUT_RDWR);
    resume_stream(stream);
}
