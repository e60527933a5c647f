/*
 * request.h - a task call as data, whichever way it travels: read from a message (protocol 1 and
 * 2), written to one (protocol 2), handed to a pool process. args, kwargs and every signature stay
 * raw JSON text.
 *
 * Text is borrowed from the message's memory, or from the arena given to the reader.
 */
#ifndef APM_MODEL_REQUEST_H
#define APM_MODEL_REQUEST_H

#include "core/model/message.h"

#define APM_TIME_NONE INT64_MIN /* no eta, no expires: wall times in microseconds since 1970 UTC */

typedef enum apm_tri { APM_UNSET = -1, APM_NO = 0, APM_YES = 1 } apm_tri;

typedef struct apm_request {
    /* who */
    apm_str id, task;
    apm_str root_id, parent_id, group; /* absent when null */
    int64_t group_index;               /* -1 when null */
    apm_str shadow, origin;            /* absent when null */
    apm_str argsrepr, kwargsrepr;      /* as sent, for logs and events; absent in protocol 1 */

    /* when and how */
    int64_t eta_us, expires_us; /* wall time; APM_TIME_NONE */
    int64_t retries;
    double time_limit_s, soft_time_limit_s; /* 0: none given by the message */
    apm_tri ignore_result; /* header ignore_result; 5.6 semantics: unset leaves it to the task */
    int64_t replaced_task_nesting;

    /* what: raw JSON. kwargs is an object. args is an array; what a sender put there that is no
     * sequence (null, a number, a boolean) stays as it is, and the runner answers with a TypeError
     * as Python does. A string or an object has become the array that Python's f(*args) would make
     * of it. */
    apm_str args, kwargs;
    apm_str callbacks, errbacks, chain, chord; /* absent when null, missing or empty array */
    apm_str embed; /* the whole third element as sent; absent in protocol 1 */

    /* from the message */
    apm_str headers;                  /* raw JSON object, unknown members included */
    apm_str reply_to, correlation_id; /* absent when none */
    apm_str exchange, routing_key;    /* delivery_info */
    int priority;                     /* APM_PRIORITY_NONE */
    int delivery_mode;                /* 2 persistent (0 too), 1 transient */
    bool redelivered;
    int protocol;        /* 1 or 2; a hybrid counts as 2 */
    apm_str serializer;  /* "json", "yaml", "msgpack": what the body came in */
    apm_str compression; /* the header's value; absent when none */
} apm_request;

/* What becomes of a message that is no request; Celery's classes (docs/protocol.md "Malformed
 * messages"). */
typedef enum apm_malformed {
    APM_MAL_NONE,
    /* No task header, no task in the body: "Received and deleted unknown message": reject. */
    APM_MAL_UNKNOWN,
    /* Refused content type, bad eta, no id, body no [args, kwargs, embed], ...: reject. */
    APM_MAL_INVALID,
    /* "Can't decode message body", kwargs no mapping: Celery acks; apium keeps it in the
     * dead-letter place. */
    APM_MAL_BODY,
} apm_malformed;

typedef struct apm_decode_opts {
    unsigned accept;    /* APM_ACCEPT_* bits: accept_content */
    int naive_offset_s; /* the app's zone, for protocol 1 dates with utc: false */
} apm_decode_opts;

/*
 * Read a request. Task name and id are set even on failure when they could be read, so that the
 * caller can log and record them; a name that is not registered comes before any other complaint in
 * Celery, so look there first. On failure *how says which class and err names what and where;
 * E_NOMEM is no fault of the message. Bodies in YAML and msgpack are turned into JSON text in the
 * arena; compressed ones are unpacked there (bounded by APM_BUF_MAX).
 */
apium_status apm_request_read(const apm_message *msg, const apm_decode_opts *opts, apm_arena *arena,
                              apm_request *req, apm_malformed *how, apium_error *err);

/* What a sender chooses besides the request itself. */
typedef struct apm_encode_opts {
    const char *serializer;  /* NULL is "json" */
    const char *compression; /* alias or MIME name; NULL none */
    int protocol;            /* 2 (0 too) or 1 */
    apm_str extra_headers;   /* JSON object merged at the top level, overriding; absent none */
    const char *origin;      /* "gen<pid>@<host>" when req->origin is absent */
} apm_encode_opts;

/*
 * Write a request as a message: headers (all of 5.6's keys in its order, then what req->headers
 * holds beyond the known ones except broker-made x-death..., then extra_headers), body, properties
 * (correlation_id = req's or the id, expiration from expires_us and the wall clock). Everything is
 * put into the arena. argsrepr is made when absent. E_ENCODE / E_UNSUPPORTED name the serializer or
 * compression.
 */
apium_status apm_request_write(const apm_request *req, const apm_encode_opts *opts,
                               apm_arena *arena, apm_message *msg, apium_error *err);

/* To and from flat bytes, for a pool process's slot. Reading checks every length: what comes out of
 * shared memory is foreign input. Strings read point into `bytes`.
 * behind: NULL, or gets the text that belongs behind `out` and was too long to be copied; absent none. */
void apm_request_pack(const apm_request *req, apm_buf *out, apm_str *behind);
apium_status apm_request_unpack(apm_str bytes, apm_request *req, apium_error *err);

#endif
