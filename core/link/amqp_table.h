/*
 * amqp_table.h - AMQP field tables and JSON objects, straight from one text to the other.
 *
 * Written with the tags that Celery's py-amqp writes: bool t, integer I (32 bits, signed) or L (64, signed), float
 * d, null V, string S, array A, object F. Read are all tags that RabbitMQ hands on: those and b B s u i l f x T D.
 * Both directions are bounded in depth (APM_JSON_DEPTH): what a stranger nests does not grow our stack without end, which
 * is why librabbitmq's own recursive decoder is not used on messages.
 */
#ifndef APM_LINK_AMQP_TABLE_H
#define APM_LINK_AMQP_TABLE_H

#include "core/base/json.h"

/* Append the table (with its length) for a JSON object; absent text is an empty table. E_ENCODE names the key of a
 * value that AMQP cannot carry: an integer beyond 64 bits, a key longer than 255 bytes. */
apium_status apm_amqp_table_write(apm_buf *buf, apm_str json, apium_error *err);
/* Told of each member of the outermost table: its name as it was sent, and of what type and where in the buffer its value is. */
typedef void
apm_amqp_table_seen(void *arg, apm_str name, apm_json_type type, size_t at, size_t len);

/* Append the JSON object for a table; `*used` is its size in bytes (its length included). Text that is not UTF-8 and byte arrays
 * become strings with one character U+0000..U+00FF for each byte; a timestamp its seconds. seen may be NULL. E_DECODE says what is wrong. */
apium_status apm_amqp_table_read(apm_buf *json, apm_str bytes, apm_amqp_table_seen *seen, void *arg,
                                 size_t *used, apium_error *err);

#endif
