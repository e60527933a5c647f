/*
 * httpd.h - an HTTP server on the loop: libmicrohttpd, without a thread of its own.
 *
 *   socket ──▶ libmicrohttpd (its epoll, watched by the loop) ──whole request──▶ on_request
 *                                     ◀── apm_http_answer, at once or later ──┘
 *
 * A request is handed over when all of it is here, within the bounds of the options. Until it is answered its connection is
 * suspended: libmicrohttpd then neither times it out nor notices that the peer has left. Both are done here: whoever keeps a
 * request waiting sets a timer of its own, and `on_gone` tells it that the peer has left. Every request must be answered once.
 * A connection that is idle, dribbles its request or does not take its answer is cut after the times in the options.
 */
#ifndef APM_HTTPD_HTTPD_H
#define APM_HTTPD_HTTPD_H

#include <uv.h>

#include "core/base/buf.h"
#include "core/base/error.h"

typedef struct apm_httpd apm_httpd;
typedef struct apm_http_req apm_http_req;

typedef struct apm_httpd_opts {
    const char *addr; /* a number: "127.0.0.1", "::1" */
    int port;         /* 0: any free one */
    /* Files in PEM; both: TLS, neither: none. Read once. */
    const char *certificate, *key;
    /* 0: the default, which is in brackets */
    unsigned max_connections; /* [4096] */
    size_t max_body_bytes;    /* [64 MiB] */
    size_t max_header_bytes;  /* of request line and headers together, about [8 KiB] */
    int64_t idle_ms;          /* between requests, the next one's headers included [75 s] */
    int64_t request_ms;       /* for the rest of a request after its first line [30 s] */
    int64_t answer_ms;        /* for a peer to take an answer [60 s] */
    void (*on_request)(void *arg, apm_http_req *req);
    void *arg;
} apm_httpd_opts;

typedef struct apm_http_header {
    const char *name, *value;
} apm_http_header;

typedef struct apm_http_reply {
    int status;
    const char *type; /* NULL: application/json */
    apm_str body;     /* copied; or: */
    apm_buf *take;    /* its storage is taken over; NULL: body */
    const apm_http_header *headers;
    size_t n_headers;
} apm_http_reply;

/* Listen. E_SYSTEM says why that cannot be, E_CONFIG what of the certificate or its key, E_UNSUPPORTED that this libmicrohttpd has
 * no TLS. */
apium_status
apm_httpd_open(uv_loop_t *loop, const apm_httpd_opts *opts, apm_httpd **out, apium_error *err);
int apm_httpd_port(const apm_httpd *httpd);
size_t apm_httpd_connections(const apm_httpd *httpd);
/* Tell every request that waits, by its on_gone. */
void apm_httpd_dismiss(apm_httpd *httpd);
/* Stop. Requests that wait are told by their on_gone and must be answered within it. The memory goes on the loop. NULL is fine. */
void apm_httpd_close(apm_httpd *httpd);

/* Of a request; all text lives until it is answered. */
const char *apm_http_method(const apm_http_req *req);
const char *apm_http_target(const apm_http_req *req); /* path and query, as they were sent */
apm_str apm_http_body(const apm_http_req *req);
/* The value of a header, NULL when absent. */
const char *apm_http_header_of(const apm_http_req *req, const char *name);
/* Its peer has left, or the server stops. Called once, before the answer only. */
void apm_http_on_gone(apm_http_req *req, void (*on_gone)(void *arg), void *arg);
/* The request is done with and must not be touched again. */
void apm_http_answer(apm_http_req *req, const apm_http_reply *reply);

/*
 * An answer without an end: what is written is sent as it comes. on_gone is called once, when its peer has left, has not taken
 * what was written for answer_ms, or the server stops; then the stream must not be touched again. NULL without memory: the request is
 * still to be answered.
 */
typedef struct apm_http_stream apm_http_stream;
apm_http_stream *apm_http_begin(apm_http_req *req, const apm_http_reply *reply,
                                void (*on_gone)(void *arg), void *arg);
/* What waits to be sent, in bytes, after this was added. */
size_t apm_http_write(apm_http_stream *stream, apm_str text);
/* Its end: what was written is sent. on_gone is called, perhaps from here. */
void apm_http_end(apm_http_stream *stream);
/* Its end at once, whatever waits to be sent. */
void apm_http_cut(apm_http_stream *stream);

#endif
