/* amqp_conn.c - the life of a connection: handshake, heartbeat, end; see amqp_conn.h. */
#include "core/link/amqp_conn.h"

#include <stdlib.h>
#include <unistd.h>

#include "config.h"
#include "core/base/clock.h"
#include "core/link/amqp_table.h"
#include "core/link/amqp_wire.h"

#define CHANNEL_MAX      2047
#define HANDSHAKE_MIN_MS 10000 /* a server that is busy starting takes its time to answer */

/* ---- the handshake ---- */

/* A table of librabbitmq's from JSON, in the connection's pool. */
static apium_status
make_table(apm_amqp_conn *conn, const char *json, amqp_table_t *table, apium_error *err)
{
    size_t offset = 0;

    apm_buf_reset(&conn->scratch);
    apium_status st = apm_amqp_table_write(&conn->scratch, apm_strz(json), err);
    if (st != APIUM_OK)
        return st;
    if (amqp_decode_table(apm_amqp_bytes(apm_buf_str(&conn->scratch)), &conn->pool, table,
                          &offset) != 0)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    return APIUM_OK;
}

static void
on_start(apm_amqp_conn *conn, const amqp_connection_start_t *start)
{
    const apm_url *url = conn->opts.url;
    const char *method = apm_url_param(conn->opts.urls, url, "login_method");
    const char *user = url->user ? url->user : "guest",
               *password = url->password ? url->password : "guest";
    bool external = method && strcmp(method, "EXTERNAL") == 0;
    const char *wanted = external ? "EXTERNAL" : "PLAIN";
    apm_str offered = apm_amqp_str(start->mechanisms);
    amqp_table_t properties;
    apium_error err;

    if (!memmem(offered.p, offered.len, wanted, strlen(wanted))) {
        apm_amqp_conn_lost(conn, APIUM_E_REFUSED,
                           "the server does not offer the login method %s (only %.*s)", wanted,
                           (int)(offered.len < 80 ? offered.len : 80), offered.p);
        return;
    }
    for (int i = 0; i < start->server_properties.num_entries; i++) {
        const amqp_table_entry_t *entry = &start->server_properties.entries[i];
        if (apm_str_eqz(apm_amqp_str(entry->key), "version") &&
            entry->value.kind == AMQP_FIELD_KIND_UTF8)
            conn->server_major = atoi(apm_amqp_str(entry->value.value.bytes).p);
    }
    apm_buf json, response;
    apm_buf_init(&json, 4096);
    apm_buf_init(&response, 4096);
    apm_buf_addz(&json, "{\"product\": \"apium\", \"product_version\": \"" APIUM_VERSION
                        "\", \"connection_name\": ");
    apm_json_add_stringz(&json, conn->opts.name);
    apm_buf_addz(
        &json,
        ", \"capabilities\": {\"consumer_cancel_notify\": true, \"connection.blocked\": true, "
        "\"basic.nack\": true, \"publisher_confirms\": true, \"authentication_failure_close\": "
        "true}}");
    if (!external) {
        apm_buf_addc(&response, '\0');
        apm_buf_addz(&response, user);
        apm_buf_addc(&response, '\0');
        apm_buf_addz(&response, password);
    }
    apium_status st = json.failed || response.failed
                          ? apm_fail(&err, APIUM_E_NOMEM, "out of memory")
                          : make_table(conn, json.p, &properties, &err);
    if (st != APIUM_OK)
        apm_amqp_conn_lost(conn, st, "%s", err.text);
    else
        apm_amqp_send_on(conn, 0, AMQP_CONNECTION_START_OK_METHOD,
                         &(amqp_connection_start_ok_t){
                             .client_properties = properties,
                             .mechanism = apm_amqp_bytesz(wanted),
                             .response = apm_amqp_bytes(apm_buf_str(&response)),
                             .locale = apm_amqp_bytesz("en_US"),
                         });
    apm_buf_clear(&json);
    apm_buf_clear(&response);
}

/* The smaller of both sides' wishes, where 0 wishes nothing. */
static int
agree(int ours, int theirs)
{
    return ours == 0 ? theirs : theirs == 0 ? ours : ours < theirs ? ours : theirs;
}

static void
on_tune(apm_amqp_conn *conn, const amqp_connection_tune_t *tune)
{
    const char *path = conn->opts.url->path;
    int wish = (int)conn->opts.heartbeat_s;

    conn->frame_max = (uint32_t)agree(APM_AMQP_FRAME_MAX,
                                      (int)(tune->frame_max > INT32_MAX ? 0 : tune->frame_max));
    conn->heartbeat_s = wish > 0 ? agree(wish, tune->heartbeat) : 0;
    apm_amqp_send_on(conn, 0, AMQP_CONNECTION_TUNE_OK_METHOD,
                     &(amqp_connection_tune_ok_t){
                         .channel_max = (uint16_t)agree(CHANNEL_MAX, tune->channel_max),
                         .frame_max = conn->frame_max,
                         .heartbeat = (uint16_t)conn->heartbeat_s,
                     });
    apm_amqp_send_on(conn, 0, AMQP_CONNECTION_OPEN_METHOD,
                     &(amqp_connection_open_t){
                         .virtual_host = apm_amqp_bytesz(path && *path ? path : "/"),
                         .capabilities = (amqp_bytes_t){ 0 },
                     });
}

static void
on_connection_close(apm_amqp_conn *conn, const amqp_connection_close_t *close)
{
    apm_str text = apm_amqp_str(close->reply_text);
    bool early = conn->state != APM_AMQP_CONN_OPEN;

    apm_amqp_send_on(conn, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &(amqp_connection_close_ok_t){ 0 });
    apm_amqp_conn_flush(conn);
    apm_amqp_conn_lost(
        conn,
        early && close->reply_code != AMQP_CONNECTION_FORCED ? APIUM_E_REFUSED : APIUM_E_CLOSED,
        "(%d) %.*s", close->reply_code, (int)(text.len < 200 ? text.len : 200), text.p);
}

void
apm_amqp_conn_method(apm_amqp_conn *conn, const amqp_method_t *method)
{
    switch (method->id) {
    case AMQP_CONNECTION_START_METHOD:
        on_start(conn, method->decoded);
        break;
    case AMQP_CONNECTION_TUNE_METHOD:
        on_tune(conn, method->decoded);
        break;
    case AMQP_CONNECTION_OPEN_OK_METHOD:
        conn->state = APM_AMQP_CONN_OPEN;
        conn->opts.on_open(conn->opts.arg);
        break;
    case AMQP_CONNECTION_CLOSE_METHOD:
        on_connection_close(conn, method->decoded);
        return;
    case AMQP_CONNECTION_BLOCKED_METHOD: {
        amqp_connection_blocked_t *blocked = method->decoded;
        char why[128];
        snprintf(why, sizeof(why), "%.*s",
                 (int)(blocked->reason.len < 100 ? blocked->reason.len : 100),
                 apm_amqp_str(blocked->reason).p);
        conn->blocked = true;
        conn->opts.on_blocked(conn->opts.arg, true, why);
        break;
    }
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
        conn->blocked = false;
        conn->opts.on_blocked(conn->opts.arg, false, "");
        break;
    default:
        apm_amqp_conn_lost(
            conn, APIUM_E_UNSUPPORTED, "the server asked for %s, which we cannot answer",
            amqp_method_name(method->id) ? amqp_method_name(method->id) : "something unknown");
        return;
    }
    if (conn->state == APM_AMQP_CONN_HANDSHAKE)
        apm_amqp_conn_flush(conn);
}

static void
reset(apm_amqp_conn *conn)
{
    apm_stream_close(conn->stream);
    conn->stream = NULL;
    conn->state = APM_AMQP_CONN_DOWN;
    conn->blocked = false;
    apm_buf_clear(&conn->in);
    apm_buf_init(&conn->in, APM_BUF_MAX);
    for (int i = 0; i < APM_AMQP_CHANNELS_MAX; i++) {
        apm_amqp_channel *channel = conn->channels[i];
        conn->closing[i] = false;
        if (channel)
            apm_amqp_channel_lost(channel);
    }
}

void
apm_amqp_conn_lost(apm_amqp_conn *conn, apium_status status, const char *fmt, ...)
{
    char why[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof(why), fmt, ap);
    va_end(ap);
    if (!conn->stream)
        return;
    reset(conn);
    conn->opts.on_lost(conn->opts.arg, status, why);
}

static void
on_stream_open(void *arg)
{
    apm_amqp_conn *conn = arg;

    conn->state = APM_AMQP_CONN_HANDSHAKE;
    conn->deadline_ms = apm_clock_ms() + (conn->opts.connect_timeout_ms > HANDSHAKE_MIN_MS
                                              ? conn->opts.connect_timeout_ms
                                              : HANDSHAKE_MIN_MS);
    apm_buf_add(apm_stream_out(conn->stream), "AMQP\0\0\x09\x01", 8);
    apm_amqp_conn_flush(conn);
}

static void
on_stream_lost(void *arg, apium_status status, const char *why)
{
    apm_amqp_conn *conn = arg;

    /* Old servers answer bad credentials by hanging up. */
    if (conn->state == APM_AMQP_CONN_HANDSHAKE && status == APIUM_E_CLOSED)
        apm_amqp_conn_lost(conn, status,
                           "%s during the login (are user, password and virtual host right?)", why);
    else
        apm_amqp_conn_lost(conn, status, "%s", why);
}

void
apm_amqp_conn_init(apm_amqp_conn *conn)
{
    *conn = (apm_amqp_conn){ .frame_max = APM_AMQP_FRAME_MAX };
    init_amqp_pool(&conn->pool, 4096);
    apm_buf_init(&conn->in, APM_BUF_MAX);
    apm_buf_init(&conn->scratch, 65536);
}

void
apm_amqp_conn_clear(apm_amqp_conn *conn)
{
    apm_amqp_conn_close(conn);
    empty_amqp_pool(&conn->pool);
    apm_buf_clear(&conn->in);
    apm_buf_clear(&conn->scratch);
}

apium_status
apm_amqp_conn_start(apm_amqp_conn *conn, const apm_amqp_conn_opts *opts, apium_error *err)
{
    const apm_url *url = opts->url;
    const char *ssl = apm_url_param(opts->urls, url, "ssl");
    bool secure = strcmp(url->scheme, "amqps") == 0 ||
                  (ssl && (strcasecmp(ssl, "true") == 0 || strcmp(ssl, "1") == 0));
    apm_tls_opts tls;
    apium_status st;

    if (secure && (st = apm_tls_from_url(&tls, opts->urls, url, err)) != APIUM_OK)
        return st;
    conn->opts = *opts;
    conn->frame_max = APM_AMQP_FRAME_MAX;
    conn->heartbeat_s = 0;
    conn->server_major = 0;
    conn->generation++;
    conn->received_ms = conn->sent_ms = apm_clock_ms();
    st = apm_stream_open(&conn->stream, opts->loop,
                         &(apm_stream_opts){
                             .host = *url->host ? url->host : "localhost",
                             .port = url->port ? url->port
                                     : secure  ? 5671
                                               : 5672,
                             .tls = secure ? &tls : NULL,
                             .connect_timeout_ms = opts->connect_timeout_ms,
                             .on_open = on_stream_open,
                             .on_data = apm_amqp_conn_data,
                             .on_lost = on_stream_lost,
                             .arg = conn,
                         },
                         err);
    if (st == APIUM_OK)
        conn->state = APM_AMQP_CONN_CONNECTING;
    return st;
}

/* What ends the server's side: connection.close-ok, as a whole frame. */
static const apm_stream_last close_ok = { 12, "\x01\0\0\0\0\0\x04\0\x0a\0\x33\xce" };

void
apm_amqp_conn_close(apm_amqp_conn *conn)
{
    if (!conn->stream)
        return;
    if (conn->state == APM_AMQP_CONN_OPEN && !conn->blocked) { /* blocked, nobody reads there */
        apm_amqp_send_on(conn, 0, AMQP_CONNECTION_CLOSE_METHOD,
                         &(amqp_connection_close_t){ .reply_code = AMQP_REPLY_SUCCESS,
                                                     .reply_text = apm_amqp_bytesz("bye") });
        /* Whatever comes of that, nobody is to be told: without its stream the connection hears nothing. */
        apm_stream *stream = conn->stream;
        conn->stream = NULL;
        apm_stream_flush(stream);
        apm_stream_part(stream, &close_ok);
    }
    reset(conn);
}

void
apm_amqp_conn_tick(apm_amqp_conn *conn, int64_t now_ms)
{
    if (conn->state == APM_AMQP_CONN_HANDSHAKE && now_ms > conn->deadline_ms) {
        apm_amqp_conn_lost(conn, APIUM_E_TIMEOUT, "the server did not answer the login in time");
        return;
    }
    if (conn->state != APM_AMQP_CONN_OPEN || conn->heartbeat_s == 0)
        return;
    int64_t interval_ms = (int64_t)conn->heartbeat_s * 1000;
    if (now_ms - conn->received_ms > 2 * interval_ms) {
        apm_amqp_conn_lost(conn, APIUM_E_CLOSED,
                           "too many heartbeats missed: nothing heard for %d s",
                           2 * conn->heartbeat_s);
        return;
    }
    if (now_ms - conn->sent_ms >= interval_ms / 2) {
        apm_amqp_send_frame(conn, AMQP_FRAME_HEARTBEAT, 0, "", 0);
        apm_amqp_conn_flush(conn);
    }
}
