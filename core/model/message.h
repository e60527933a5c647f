/*
 * message.h - a signature encoded for the wire: properties, headers, body. What brokers carry.
 *
 * All text is borrowed: it lives as long as whatever the message was made from (a delivery's arena,
 * a caller's buffer). Headers are JSON object text on every broker; the AMQP adapter turns them
 * into a field table and back. Unknown headers and properties pass through untouched.
 */
#ifndef APM_MODEL_MESSAGE_H
#define APM_MODEL_MESSAGE_H

#include <limits.h>

#include "core/base/json.h"

#define APM_PRIORITY_NONE                                                                          \
    INT_MIN /* none was given: brokers send 0. Not -1: a sender may say that */

struct apm_header_fields;

typedef struct apm_message {
    apm_str content_type;     /* "application/json"; absent when the sender sent none */
    apm_str content_encoding; /* "utf-8" */
    apm_str headers;          /* JSON object text, "{}" when there are none */
    apm_str body; /* the bytes: serialized, and compressed if the header `compression` says so */
    apm_str correlation_id; /* absent when none */
    apm_str reply_to;       /* absent when none */
    apm_str expiration;     /* relative, decimal milliseconds as text; absent when none */
    int priority; /* as sent, may be out of 0..9 (Redis keeps the original); APM_PRIORITY_NONE */
    int delivery_mode;             /* 2 persistent, 1 transient, 0 unknown: send as 2 */
    apm_str exchange, routing_key; /* what it was published to (kombu's delivery_info) */
    bool redelivered;
    /* When it was sent, as far as its broker can tell: wall time in microseconds; 0 unknown. Brokers set it. */
    int64_t sent_us;
    /* Of an envelope that was read: the raw JSON object, for members unknown here; else absent. */
    apm_str properties;
    /* What is in the headers (request_fields.h), from a reader who has just written their text; NULL: nobody looked. */
    const struct apm_header_fields *fields;
} apm_message;

/*
 * From when on a message with this `eta` waits for a worker: it was sent, and it was due. eta absent: none. 0 unknown, as
 * sent_us is.
 */
int64_t apm_message_waits_since(int64_t sent_us, apm_str eta);

/*
 * The JSON envelope in which Redis carries a message (docs/protocol.md "Envelope"). Reading: slices
 * point into `text`; a base64 body is decoded into the arena. *tag gets properties.delivery_tag
 * (absent when there is none). E_DECODE names the member that is wrong: not JSON, not an object, no
 * properties, no delivery_info, headers not an object, bad base64.
 */
apium_status
apm_envelope_read(apm_str text, apm_arena *arena, apm_message *msg, apm_str *tag, apium_error *err);
/* Append the envelope of msg, with Python's key order; tag is the delivery_tag to write: a fresh
 * uuid, of version 7 when its reader is to know when it was sent. */
void apm_envelope_write(apm_buf *buf, const apm_message *msg, const char *tag);
/* Append `text` with headers.redelivered and properties.delivery_info.redelivered set to true,
 * everything else as it is byte for byte. `text` must be readable as an envelope. */
apium_status apm_envelope_redelivered(apm_buf *buf, apm_str text, apium_error *err);

#endif
