/*
 * request_fields.h - the members that describe a request: headers of protocol 2, body members of
 * protocol 1. Shared by the reader and the writer, so that what came in unchanged goes out as the
 * text that it was.
 */
#ifndef APM_MODEL_REQUEST_FIELDS_H
#define APM_MODEL_REQUEST_FIELDS_H

#include "core/model/request.h"

/* In Celery 5.6's order. */
typedef enum apm_field {
    APM_F_LANG,
    APM_F_TASK,
    APM_F_ID,
    APM_F_SHADOW,
    APM_F_ETA,
    APM_F_EXPIRES,
    APM_F_GROUP,
    APM_F_GROUP_INDEX,
    APM_F_RETRIES,
    APM_F_TIMELIMIT,
    APM_F_ROOT_ID,
    APM_F_PARENT_ID,
    APM_F_ARGSREPR,
    APM_F_KWARGSREPR,
    APM_F_ORIGIN,
    APM_F_IGNORE_RESULT,
    APM_F_NESTING,
    APM_F_STAMPED_HEADERS,
    APM_F_STAMPS,
    APM_F_WRITTEN, /* so many are written */
    APM_F_COMPRESSION = APM_F_WRITTEN,
    APM_F_REDELIVERED,
    APM_F_HEADERS, /* so many may be headers; the rest are known in a protocol 1 body only */
    APM_F_ARGS = APM_F_HEADERS,
    APM_F_KWARGS,
    APM_F_UTC,
    APM_F_TASKSET,
    APM_F_CALLBACKS,
    APM_F_ERRBACKS,
    APM_F_CHORD,
    APM_FIELDS,
} apm_field;

extern const char *const apm_field_names[APM_FIELDS];

/* The members of a message's headers, so that their text is not read once more. */
struct apm_header_fields {
    const char *of; /* the text that they are slices of: headers.p */
    apm_json field[APM_F_HEADERS];
};

/* The field of that raw key among the first `n`, or -1. *hint, at first 0, makes keys in the usual
 * order cheap. */
int apm_field_find(apm_str raw_key, int n, int *hint);
/* The same for a name without quotes and escapes. */
int apm_field_named(apm_str name, int n, int *hint);

/* Sort the members of an object (not validated yet) into `fields`, the last of equal names winning,
 * where a field has no value yet. */
apium_status apm_fields_read(apm_str object, int n, apm_json fields[], apium_error *err);

/* Python's truth: not null, false, 0, "" or empty; an absent value is false. */
bool apm_json_true(apm_json val);

/* Who, when and how of *req from the fields. Name and id come first and are set even if another one
 * is bad. */
apium_status apm_fields_interpret(const apm_json fields[], int naive_offset_s, apm_arena *arena,
                                  apm_request *req, apium_error *err);

/* A request with nothing in it. */
void apm_request_init(apm_request *req);

#endif
