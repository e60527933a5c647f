/* amqp_channel.c - channels and what is asked on them; see amqp_conn.h. */
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/link/amqp_wire.h"

static void send_calls(apm_amqp_channel *channel);

/* ---- calls ---- */

apm_amqp_call *
apm_amqp_call_new(apm_amqp_call_done *done, void *arg)
{
    apm_amqp_call *call = calloc(1, sizeof(*call));

    if (!call)
        return NULL;
    call->done = done;
    call->arg = arg;
    call->asked_ms = apm_clock_ms();
    apm_buf_init(&call->encoded, APM_BUF_MAX);
    return call;
}

void
apm_amqp_call_add(apm_amqp_call *call, amqp_method_number_t method, void *args)
{
    size_t at = call->encoded.len;
    apium_error err;

    if (call->n_steps == APM_AMQP_CALL_STEPS ||
        apm_amqp_encode_method(&call->encoded, method, args, &err) != APIUM_OK) {
        call->encoded.failed = true;
        return;
    }
    call->steps[call->n_steps++] =
        (struct apm_amqp_step){ .method = method, .at = at, .len = call->encoded.len - at };
}

void
apm_amqp_call_free(apm_amqp_call *call)
{
    if (!call)
        return;
    apm_buf_clear(&call->encoded);
    free(call);
}

static void
end_call(apm_amqp_call *call, apium_status status, const amqp_method_t *reply,
         const apm_amqp_content *content, const apium_error *err)
{
    if (call->done)
        call->done(call->arg, status, reply, content, err);
    apm_amqp_call_free(call);
}

static apm_amqp_call *
pop_call(apm_amqp_channel *channel)
{
    apm_amqp_call *call = channel->calls;

    channel->calls = call->next;
    if (!channel->calls)
        channel->calls_tail = &channel->calls;
    return call;
}

/* Everything that waits is asked from its start on the next open. */
static void
rewind_calls(apm_amqp_channel *channel)
{
    for (apm_amqp_call *call = channel->calls; call; call = call->next)
        call->n_sent = call->n_answered = 0;
}

/* One call at a time: RabbitMQ does not answer in the order of questions where a quorum queue is consumed. */
static void
send_calls(apm_amqp_channel *channel)
{
    apm_amqp_call *call = channel->calls;

    if (channel->state != APM_AMQP_CHANNEL_OPEN || !call)
        return;
    for (; call->n_sent < call->n_steps; call->n_sent++) {
        const struct apm_amqp_step *step = &call->steps[call->n_sent];
        apm_amqp_send_frame(channel->conn, AMQP_FRAME_METHOD, channel->id,
                            call->encoded.p + step->at, step->len);
    }
}

void
apm_amqp_channel_ask(apm_amqp_channel *channel, apm_amqp_call *call)
{
    if (call->encoded.failed) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "out of memory, or arguments too big for a frame");
        end_call(call, err.status, NULL, NULL, &err);
        return;
    }
    *channel->calls_tail = call;
    channel->calls_tail = &call->next;
    send_calls(channel);
    if (channel->conn->opts.on_gathered)
        channel->conn->opts.on_gathered(channel->conn->opts.arg);
}

void
apm_amqp_channel_disown(apm_amqp_channel *channel, const void *arg)
{
    for (apm_amqp_call *call = channel->calls; call; call = call->next)
        if (call->arg == arg)
            call->done = NULL;
}

void
apm_amqp_channel_forget(apm_amqp_channel *channel)
{
    apium_error err;

    apm_fail(&err, APIUM_E_CLOSED, "the connection was lost");
    while (channel->calls)
        end_call(pop_call(channel), APIUM_E_CLOSED, NULL, NULL, &err);
}

void
apm_amqp_channel_expire(apm_amqp_channel *channel, int64_t before_ms, apium_status status,
                        const char *why)
{
    /* Those that have been sent are still answered, if not in time; only a connection that is down has none such. */
    apm_amqp_call *rest = channel->calls;

    channel->calls = NULL;
    channel->calls_tail = &channel->calls;
    for (apm_amqp_call *call = rest, *next; call; call = next) {
        next = call->next;
        call->next = NULL;
        if (call->n_sent > 0 || call->asked_ms > before_ms) {
            *channel->calls_tail = call;
            channel->calls_tail = &call->next;
            continue;
        }
        apium_error err;
        apm_fail(&err, status, "%s", why);
        end_call(call, status, NULL, NULL, &err);
    }
}

/* The server's reply to the oldest call. False: it answers nothing we asked. */
bool
apm_amqp_channel_answer(apm_amqp_channel *channel, const amqp_method_t *reply,
                        const apm_amqp_content *content)
{
    apm_amqp_call *call = channel->calls;

    if (!call || call->n_answered >= call->n_sent)
        return false;
    amqp_method_number_t asked = call->steps[call->n_answered].method;
    if (reply->id != asked + 1 &&
        !(asked == AMQP_BASIC_GET_METHOD && reply->id == AMQP_BASIC_GET_EMPTY_METHOD))
        return false;
    if (++call->n_answered == call->n_steps) {
        pop_call(channel);
        send_calls(channel);
        end_call(call, APIUM_OK, reply, content, NULL);
    }
    return true;
}
/* ---- channels ---- */

apium_status
apm_amqp_channel_init(apm_amqp_channel *channel, apm_amqp_conn *conn,
                      const apm_amqp_channel_ops *ops, void *arg, apium_error *err)
{
    uint16_t id = 1;

    while (id <= APM_AMQP_CHANNELS_MAX && (conn->channels[id - 1] || conn->closing[id - 1]))
        id++;
    if (id > APM_AMQP_CHANNELS_MAX)
        return apm_fail(err, APIUM_E_BUSY, "cannot open more than %d channels on one connection",
                        APM_AMQP_CHANNELS_MAX);
    *channel = (apm_amqp_channel){ .conn = conn, .id = id, .ops = ops, .arg = arg };
    channel->calls_tail = &channel->calls;
    apm_buf_init(&channel->gather, 2 * APM_BUF_MAX);
    conn->channels[id - 1] = channel;
    return APIUM_OK;
}

void
apm_amqp_channel_clear(apm_amqp_channel *channel)
{
    apm_amqp_conn *conn = channel->conn;
    apium_error err;

    if (!conn)
        return;
    if (channel->state != APM_AMQP_CHANNEL_CLOSED && conn->state == APM_AMQP_CONN_OPEN) {
        apm_amqp_send_on(conn, channel->id, AMQP_CHANNEL_CLOSE_METHOD,
                         &(amqp_channel_close_t){ .reply_code = AMQP_REPLY_SUCCESS,
                                                  .reply_text = apm_amqp_bytesz("bye") });
        conn->closing[channel->id - 1] = true;
    }
    conn->channels[channel->id - 1] = NULL;
    channel->state = APM_AMQP_CHANNEL_CLOSED;
    apm_fail(&err, APIUM_E_CLOSED, "the connection was closed");
    while (channel->calls)
        end_call(pop_call(channel), APIUM_E_CLOSED, NULL, NULL, &err);
    apm_buf_clear(&channel->gather);
}

void
apm_amqp_channel_open(apm_amqp_channel *channel)
{
    if (channel->conn->state != APM_AMQP_CONN_OPEN || channel->state != APM_AMQP_CHANNEL_CLOSED)
        return;
    channel->state = APM_AMQP_CHANNEL_OPENING;
    apm_amqp_send_on(channel->conn, channel->id, AMQP_CHANNEL_OPEN_METHOD,
                     &(amqp_channel_open_t){ (amqp_bytes_t){ 0 } });
}

/* 404 NOT_FOUND and so on, as our statuses. */
static apium_status
status_of(int code)
{
    switch (code) {
    case AMQP_NOT_FOUND:
        return APIUM_E_NOTFOUND;
    case AMQP_CONTENT_TOO_LARGE:
        return APIUM_E_TOOBIG;
    default:
        return APIUM_E_REFUSED;
    }
}

static void
on_channel_close(apm_amqp_channel *channel, const amqp_channel_close_t *close)
{
    apm_amqp_call *call = channel->calls;
    bool by_call = call && call->n_sent > call->n_answered &&
                   call->steps[call->n_answered].method ==
                       ((uint32_t)close->class_id << 16 | close->method_id);

    apm_amqp_send_on(channel->conn, channel->id, AMQP_CHANNEL_CLOSE_OK_METHOD,
                     &(amqp_channel_close_ok_t){ 0 });
    channel->state = APM_AMQP_CHANNEL_CLOSED;
    channel->content_method = 0;
    if (by_call)
        pop_call(channel);
    rewind_calls(channel);
    if (by_call) {
        apium_error err;
        apm_str text = apm_amqp_str(close->reply_text);
        apm_fail(&err, status_of(close->reply_code), "(%d) %.*s", close->reply_code,
                 APM_STR_ARG(text));
        end_call(call, err.status, NULL, NULL, &err);
    }
    channel->ops->on_closed(channel, close, by_call);
    apm_amqp_channel_open(channel);
}

void
apm_amqp_channel_method(apm_amqp_channel *channel, const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_CHANNEL_OPEN_OK_METHOD:
        channel->state = APM_AMQP_CHANNEL_OPEN;
        channel->ops->on_open(channel);
        send_calls(channel);
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        on_channel_close(channel, method->decoded);
        break;
    case AMQP_CHANNEL_FLOW_METHOD: {
        amqp_channel_flow_t *flow = method->decoded;
        apm_amqp_send_on(channel->conn, channel->id, AMQP_CHANNEL_FLOW_OK_METHOD,
                         &(amqp_channel_flow_ok_t){ flow->active });
        break;
    }
    default:
        if (!apm_amqp_channel_answer(channel, method, NULL))
            channel->ops->on_method(channel, method);
    }
}

void
apm_amqp_channel_lost(apm_amqp_channel *channel)
{
    channel->state = APM_AMQP_CHANNEL_CLOSED;
    channel->content_method = 0;
    rewind_calls(channel);
}
