/*
 * stream.h - bytes to and from one server over TCP, a Unix socket or TLS, on the loop.
 *
 *   out buffer ──flush──▶ [TLS] ──▶ socket ──▶ [TLS] ──▶ on_data
 *
 * Writing gathers: append to apm_stream_out() as often as you like, then flush once, which is one system call. A stream
 * lives once; whoever wants to be connected again opens another.
 */
#ifndef APM_LINK_STREAM_H
#define APM_LINK_STREAM_H

#include <uv.h>

#include "core/base/buf.h"
#include "core/base/error.h"
#include "core/link/tls.h"

typedef struct apm_stream apm_stream;

typedef struct apm_stream_opts {
    const char *host; /* name or address; all addresses of a name are tried in turn */
    int port;
    const char *path;           /* a Unix socket instead; NULL: TCP */
    const apm_tls_opts *tls;    /* NULL: none */
    int64_t connect_timeout_ms; /* for name, connection and TLS handshake together */
    void (*on_open)(void *arg);
    /* The bytes are the callee's during the call only. It may close the stream. */
    void (*on_data)(void *arg, const char *p, size_t len);
    /* Called once, when it could not be opened or was lost: never after apm_stream_close. Close it then. */
    void (*on_lost)(void *arg, apium_status status, const char *why);
    void *arg;
} apm_stream_opts;

/* Start to connect. Everything in opts is copied. E_CONFIG for files of TLS. */
apium_status
apm_stream_open(apm_stream **out, uv_loop_t *loop, const apm_stream_opts *opts, apium_error *err);
/* What is appended here goes out with the next flush; before on_open it waits. */
apm_buf *apm_stream_out(apm_stream *stream);
void apm_stream_flush(apm_stream *stream);
/* Read nothing for so long: what comes meanwhile is read at once then. Without effect while more is there to be read. */
void apm_stream_rest(apm_stream *stream, unsigned ms);
/* Bytes that the system has not taken yet. */
size_t apm_stream_unsent(const apm_stream *stream);
/* No callback any more. What was flushed and not yet taken by the system is still sent, for at most a second. The
 * memory goes by itself as the loop runs. NULL is fine. */
void apm_stream_close(apm_stream *stream);
/* How a peer that was told of our leaving ends. */
typedef struct apm_stream_last {
    size_t len;
    char bytes[16];
} apm_stream_last;

/* The same, but our side stays open until the peer's last words, or its end, for at most three seconds; what it sends
 * before them is read and forgotten. A peer that meets our end first may throw away what it has not worked off of ours
 * (RabbitMQ does so with acknowledgements), and bytes that come when nobody reads are answered with a reset. */
void apm_stream_part(apm_stream *stream, const apm_stream_last *last);

#endif
