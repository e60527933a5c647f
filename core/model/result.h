/*
 * result.h - the result document ("meta") that a backend keeps under a task's id, in Celery 5.6's
 * form; and reading one, of any version (docs/protocol.md "Results").
 */
#ifndef APM_MODEL_RESULT_H
#define APM_MODEL_RESULT_H

#include "core/model/outcome.h"

#define APM_STATE_PENDING  "PENDING"
#define APM_STATE_RECEIVED "RECEIVED"
#define APM_STATE_STARTED  "STARTED"
#define APM_STATE_SUCCESS  "SUCCESS"
#define APM_STATE_FAILURE  "FAILURE"
#define APM_STATE_RETRY    "RETRY"
#define APM_STATE_REVOKED  "REVOKED"

/* SUCCESS, FAILURE, REVOKED. */
bool apm_state_ready(apm_str state);
/* RETRY, FAILURE, REVOKED: `result` is an exception object. */
bool apm_state_exception(apm_str state);

typedef struct apm_result_opts {
    bool extended;      /* result_extended */
    int zone_offset_s;  /* for date_done */
    const char *worker; /* node name, for extended */
    int64_t now_us;     /* date_done */
} apm_result_opts;

/* Append the document of a final or RETRY outcome; APM_DONE_IGNORE and REJECT have none (caller's
 * business). */
void apm_result_write(apm_buf *buf, const apm_request *req, const apm_outcome *outcome,
                      const apm_result_opts *opts);
/* Append the document of any other state: STARTED, PROGRESS...; `meta` is JSON text. */
void apm_result_write_state(apm_buf *buf, const apm_request *req, apm_str state, apm_str meta,
                            const apm_result_opts *opts);

/* A document read. Slices of the text; strings unescaped into the arena where they had escapes. */
typedef struct apm_result_doc {
    apm_str status;
    apm_json result;      /* raw */
    apm_exception exc;    /* when apm_state_exception(status) and result is an object */
    apm_str traceback;    /* absent when null */
    apm_json children;    /* raw, NONE when missing */
    int64_t date_done_us; /* APM_TIME_NONE when null */
    apm_str task_id, group_id, parent_id, name, worker, queue;
    apm_json args, kwargs;
    int64_t retries;
} apm_result_doc;

apium_status apm_result_read(apm_str text, apm_arena *arena, apm_result_doc *doc, apium_error *err);

#endif
