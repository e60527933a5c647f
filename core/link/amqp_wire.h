/* amqp_wire.h - what the files of a connection (amqp_conn.h) use of each other, and nobody else does. */
#ifndef APM_LINK_AMQP_WIRE_H
#define APM_LINK_AMQP_WIRE_H

#include "core/link/amqp_conn.h"

#define APM_AMQP_FRAME_MAX 131072 /* proposed; RabbitMQ's own default */

/* amqp_frame.c */
/* Append a method with its id, as a frame's payload. */
apium_status
apm_amqp_encode_method(apm_buf *buf, amqp_method_number_t method, void *args, apium_error *err);
void apm_amqp_send_frame(apm_amqp_conn *conn, int type, uint16_t channel, const void *payload,
                         size_t len);
void
apm_amqp_send_on(apm_amqp_conn *conn, uint16_t channel, amqp_method_number_t method, void *args);
/* Bytes came: arg is the connection. */
void apm_amqp_conn_data(void *arg, const char *p, size_t len);

/* amqp_channel.c */
void apm_amqp_channel_method(apm_amqp_channel *channel, const amqp_method_t *method);
/* The server's reply to the call under way. False: it answers nothing we asked. */
bool apm_amqp_channel_answer(apm_amqp_channel *channel, const amqp_method_t *reply,
                             const apm_amqp_content *content);
/* The connection is gone: closed, with its calls to be asked again. */
void apm_amqp_channel_lost(apm_amqp_channel *channel);

/* amqp_conn.c */
void apm_amqp_conn_method(apm_amqp_conn *conn, const amqp_method_t *method);
/* Give the connection up, and tell. */
void apm_amqp_conn_lost(apm_amqp_conn *conn, apium_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
