/*
 * unlock.h - celery.chord_unlock: on a store that cannot count, this task looks at the results of a header until all are there, and
 * sends the body then. Pure: whoever runs it asks the store for each id and puts the answers in.
 *
 *   read ─▶ ids ─▶ (the store) ─▶ apm_unlock_put for each ─▶ finish: wait, or the body is emitted, or its failure
 */
#ifndef APM_WORKFLOWS_UNLOCK_H
#define APM_WORKFLOWS_UNLOCK_H

#include "workflows/follow.h"

typedef struct apm_unlock_part {
    apm_str id;
    bool ready, failed;
    apm_str result; /* JSON; of a failed one absent */
    apm_exception exc;
} apm_unlock_part;

typedef struct apm_unlock {
    apm_str group_id, body;
    apm_json header;        /* the result tuples */
    double interval_s;      /* how long to wait between looks; 0: the setting's */
    int64_t max_retries;    /* -1: without end */
    apm_unlock_part *parts; /* the tasks among the results, in order */
    size_t n_parts;
} apm_unlock;

/* E_INVALID, E_DECODE: its arguments are not those of chord_unlock. */
apium_status
apm_unlock_read(const apm_request *req, apm_arena *arena, apm_unlock *out, apium_error *err);
/* The document that is stored for parts[i]; absent: none. */
void apm_unlock_put(apm_unlock *unlock, size_t i, apm_str doc, apm_arena *arena);
bool apm_unlock_ready(const apm_unlock *unlock);
/* All are ready: emit the body with their results, or say how it failed. */
apium_status apm_unlock_finish(apm_sending *how, const apm_unlock *unlock, const apm_request *req,
                               apm_follow *out, apium_error *err);

#endif
