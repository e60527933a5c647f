/*
 * redis_conn.h - one connection to a Redis server: socket, TLS, greeting (AUTH, SELECT), commands in a pipeline and their
 * replies in order, and noticing that the peer is dead. It does not heal: when it ends it says why, and whoever
 * opened it opens another.
 *
 * hiredis is the codec only (its reader, its reply objects), so that 0.14 and 1.2 are one code path and TLS works
 * with both; the socket is libuv's.
 */
#ifndef APM_LINK_REDIS_CONN_H
#define APM_LINK_REDIS_CONN_H

#include <hiredis/hiredis.h>
#include <uv.h>

#include "core/base/buf.h"
#include "core/link/redis_addr.h"

#define APM_REDIS_SILENCE_MS                                                                       \
    10000 /* a command without any byte of answer for so long: the peer is dead */
#define APM_REDIS_IDLE_MS 15000 /* ask an idle peer whether it lives after so long */

typedef struct apm_redis_conn apm_redis_conn;

/* The answer to one command; reply is borrowed, and NULL when the connection ended before the answer came. */
typedef void apm_redis_reply_cb(void *arg, const redisReply *reply);

typedef struct apm_redis_conn_opts {
    uv_loop_t *loop;
    const apm_redis_addr *addr; /* lives as long as the connection */
    int64_t connect_ms;         /* for name, socket, TLS and greeting together */
    size_t read_bytes;          /* how much to read at once */
    bool plain;                 /* a sentinel: no AUTH by addr, no SELECT */
    void (*on_ready)(void *arg, apm_redis_conn *conn);
    /* It ended by itself; every pending command was answered with NULL before. The connection is gone. */
    void (*on_ended)(void *arg, apm_redis_conn *conn, const apium_error *err);
    /* A reply nobody asked for: a message of a subscription. May be NULL. */
    void (*on_push)(void *arg, const redisReply *reply);
    void *arg;
    void (*on_freed)(void *freed_arg); /* the last handle is closed */
    void *freed_arg;
    apm_redis_conn **
        list; /* the opener's list of its connections; this one is on it until it ends. May be NULL. */
} apm_redis_conn_opts;

/* Start connecting. NULL without memory. */
apm_redis_conn *apm_redis_conn_open(const apm_redis_conn_opts *opts);
/* End it: pending commands are answered with NULL, on_ended is not called, on_freed comes later. NULL is fine. */
void apm_redis_conn_close(apm_redis_conn *conn);
/* The same, but on_ended is told. */
void apm_redis_conn_fail(apm_redis_conn *conn, apium_status status, const char *why);

/* Append one encoded command (apm_resp_*); it leaves at the next flush. cb may be NULL. silence_ms: how long its answer may be
 * awaited without a byte (0: the default; a blocking command needs more). */
void apm_redis_conn_send(apm_redis_conn *conn, apm_str bytes, int64_t silence_ms,
                         apm_redis_reply_cb *cb, void *arg);
/* A command whose answers come to on_push (SUBSCRIBE and its family). */
void apm_redis_conn_push(apm_redis_conn *conn, apm_str bytes);
void apm_redis_conn_flush(apm_redis_conn *conn);
/* Look at the clock; call it about every second. */
void apm_redis_conn_tick(apm_redis_conn *conn);
bool apm_redis_conn_ready(const apm_redis_conn *conn);
/* The server's number for this connection, 0 if unknown. */
long long apm_redis_conn_id(const apm_redis_conn *conn);
/* The next one on opts.list. */
apm_redis_conn *apm_redis_conn_next(const apm_redis_conn *conn);

/* Encoding a command: its number of words, then the words. */
void apm_resp_open(apm_buf *buf, size_t words);
void apm_resp_add(apm_buf *buf, apm_str word);
void apm_resp_addz(apm_buf *buf, const char *word);
void apm_resp_int(apm_buf *buf, int64_t word);

#endif
