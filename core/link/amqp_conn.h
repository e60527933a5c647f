/*
 * amqp_conn.h - one AMQP 0-9-1 connection on the loop, and its channels: handshake, frames, heartbeat, and calls (methods
 * that the server answers). What is published, consumed and settled on it is the link's business (amqp.c).
 *
 * librabbitmq is the codec of methods here and nothing more: its own connections block in system calls and write
 * every frame by itself, while on a stream of the loop a thousand acks are one write and no thread is needed.
 *
 * A channel outlives connections: it belongs to the link. When the connection is lost, its unanswered calls stay and
 * are sent again on the next; when the *server* closes a channel because of a call, that call alone fails, and those
 * behind it are sent again once the channel is open again.
 */
#ifndef APM_LINK_AMQP_CONN_H
#define APM_LINK_AMQP_CONN_H

#include "core/link/rabbitmq_lib.h"
#include "core/link/stream.h"

#define APM_AMQP_CALL_STEPS 6

typedef struct apm_amqp_conn apm_amqp_conn;
typedef struct apm_amqp_channel apm_amqp_channel;
typedef struct apm_amqp_call apm_amqp_call;

/* A method with its content: a delivery, a returned message, the answer to basic.get. Slices live during the callback. */
typedef struct apm_amqp_content {
    amqp_method_number_t method;
    void *decoded;  /* amqp_basic_deliver_t, ... */
    apm_str header; /* the property flags and properties, still encoded */
    apm_str body;
} apm_amqp_content;

/* reply and content are those of the call's last method, on success; content only after basic.get found one. */
typedef void apm_amqp_call_done(void *arg, apium_status status, const amqp_method_t *reply,
                                const apm_amqp_content *content, const apium_error *err);

/* Methods that belong together: sent in a row, the first that fails ends them all. A channel has one call under way at a
 * time. */
struct apm_amqp_call {
    apm_amqp_call *next;
    apm_amqp_call_done *done; /* may be NULL */
    void *arg;
    int64_t asked_ms;
    struct apm_amqp_step {
        amqp_method_number_t method;
        size_t at, len; /* in `encoded` */
    } steps[APM_AMQP_CALL_STEPS];
    unsigned n_steps, n_sent, n_answered;
    apm_buf encoded;
};

typedef struct apm_amqp_channel_ops {
    void (*on_open)(apm_amqp_channel *channel);
    /* A method that answers no call: basic.ack, basic.nack, basic.cancel. */
    void (*on_method)(apm_amqp_channel *channel, const amqp_method_t *method);
    void (*on_content)(apm_amqp_channel *channel, const apm_amqp_content *content);
    /* The server closed it; by_call: because of a call, which has been told. It is opened again right after. */
    void (*on_closed)(apm_amqp_channel *channel, const amqp_channel_close_t *close, bool by_call);
} apm_amqp_channel_ops;

struct apm_amqp_channel {
    apm_amqp_conn *conn;
    const apm_amqp_channel_ops *ops;
    void *arg;
    uint16_t id;
    enum { APM_AMQP_CHANNEL_CLOSED, APM_AMQP_CHANNEL_OPENING, APM_AMQP_CHANNEL_OPEN } state;
    apm_amqp_call *calls, **calls_tail;
    /* a content on its way */
    amqp_method_number_t content_method; /* 0: none */
    uint64_t content_size, content_have;
    size_t
        content_header; /* where in `gather` the header starts; the method's arguments are before it */
    size_t content_body;
    apm_buf gather;
};

typedef struct apm_amqp_conn_opts {
    uv_loop_t *loop;
    apm_urls *urls; /* parameters are decoded into its arena */
    const apm_url *url;
    const char *name;   /* shown by the server's tools */
    double heartbeat_s; /* proposed; 0: none */
    int64_t connect_timeout_ms;
    size_t message_max; /* a content above that ends the connection */
    void (*on_open)(void *arg);
    void (*on_lost)(void *arg, apium_status status,
                    const char *why); /* once an attempt; E_REFUSED: not let in */
    void (*on_blocked)(void *arg, bool blocked, const char *why);
    void (*on_gathered)(void *arg);  /* something waits to be flushed */
    void (*on_batch_end)(void *arg); /* what one read brought has been handed to the channels */
    void *arg;
} apm_amqp_conn_opts;

enum { APM_AMQP_CHANNELS_MAX = 64 };

struct apm_amqp_conn {
    apm_amqp_conn_opts opts;
    enum {
        APM_AMQP_CONN_DOWN,
        APM_AMQP_CONN_CONNECTING,
        APM_AMQP_CONN_HANDSHAKE,
        APM_AMQP_CONN_OPEN
    } state;
    apm_stream *stream;                                /* NULL when down */
    apm_amqp_channel *channels[APM_AMQP_CHANNELS_MAX]; /* by id - 1 */
    bool closing
        [APM_AMQP_CHANNELS_MAX]; /* closed by us, not yet confirmed: the number is not free */
    amqp_pool_t pool;            /* for the method being looked at */
    apm_buf in;                  /* the start of a frame whose end has not come */
    apm_buf scratch;
    uint32_t frame_max;
    int heartbeat_s;     /* negotiated */
    int64_t deadline_ms; /* of the handshake */
    int64_t received_ms, sent_ms;
    unsigned generation; /* counts connections: tags of an older one are dead */
    int server_major;    /* RabbitMQ's; 0 unknown */
    bool blocked;
};

void apm_amqp_conn_init(apm_amqp_conn *conn);
void apm_amqp_conn_clear(apm_amqp_conn *conn);
/* Connect (conn is down); on_open or on_lost follows, never from inside. */
apium_status
apm_amqp_conn_start(apm_amqp_conn *conn, const apm_amqp_conn_opts *opts, apium_error *err);
/* Say good-bye and let go; no callback. */
void apm_amqp_conn_close(apm_amqp_conn *conn);
/* Look at the clock: heartbeats, the handshake's deadline. Once a second is enough. */
void apm_amqp_conn_tick(apm_amqp_conn *conn, int64_t now_ms);
void apm_amqp_conn_flush(apm_amqp_conn *conn);

/* A channel of the connection, with a free number. E_BUSY when there is none. */
apium_status apm_amqp_channel_init(apm_amqp_channel *channel, apm_amqp_conn *conn,
                                   const apm_amqp_channel_ops *ops, void *arg, apium_error *err);
/* Close it and let go: every call that waits is answered with E_CLOSED. A zeroed one may be cleared too. */
void apm_amqp_channel_clear(apm_amqp_channel *channel);
/* Open it if the connection is (each time the connection has been opened). */
void apm_amqp_channel_open(apm_amqp_channel *channel);

/* NULL without memory. */
apm_amqp_call *apm_amqp_call_new(apm_amqp_call_done *done, void *arg);
void apm_amqp_call_free(apm_amqp_call *call); /* never asked; NULL is fine */
/* Add a method; `args` is librabbitmq's struct for it. A failure is remembered and answered when it is asked. */
void apm_amqp_call_add(apm_amqp_call *call, amqp_method_number_t method, void *args);
/* Ask; the call is the channel's from here on. It waits for the channel to open if need be. */
void apm_amqp_channel_ask(apm_amqp_channel *channel, apm_amqp_call *call);
/* Nobody is told any more about the calls with this arg. */
void apm_amqp_channel_disown(apm_amqp_channel *channel, const void *arg);
/* All calls are answered with E_CLOSED. Only on a channel that is not open. */
void apm_amqp_channel_forget(apm_amqp_channel *channel);
/* Answer calls that were asked before `before_ms` with status and text. */
void apm_amqp_channel_expire(apm_amqp_channel *channel, int64_t before_ms, apium_status status,
                             const char *why);

/* Append frames to what will be sent; the channel must be open. */
void apm_amqp_send_method(apm_amqp_channel *channel, amqp_method_number_t method, void *args);
void apm_amqp_send_content(apm_amqp_channel *channel, apm_str header, apm_str body);

static inline amqp_bytes_t
apm_amqp_bytes(apm_str s)
{
    /* The codec does not write through it. */
    return (amqp_bytes_t){ s.len, (void *)(uintptr_t)s.p };
}
static inline amqp_bytes_t
apm_amqp_bytesz(const char *z)
{
    return apm_amqp_bytes(z ? apm_strz(z) : APM_STR(""));
}
static inline apm_str
apm_amqp_str(amqp_bytes_t b)
{
    return (apm_str){ b.bytes ? b.bytes : "", b.len };
}

#endif
