/*
 * follow.h - what follows an outcome: the callbacks of a task, the next step of its chain, its errbacks. Pure: it says what is
 * to be sent and what is to be marked failed; the caller commits it as units.
 */
#ifndef APM_WORKFLOWS_FOLLOW_H
#define APM_WORKFLOWS_FOLLOW_H

#include "core/model/outcome.h"
#include "core/model/signature.h"

typedef struct apm_follow {
    apm_sig_send *sends; /* in the order to be sent */
    size_t n_sends;
    apm_request
        *failed; /* the steps of a chain that will never run: they get the failure's result too */
    size_t n_failed;
    apm_str
        children; /* JSON array: the outcome's own children and the result tuples of what is sent */
} apm_follow;

/* Can what follows this request be done? E_UNSUPPORTED names the part that cannot, so that the request is refused before it runs and not
 * half done after. */
apium_status apm_follow_check(const apm_request *req, apm_arena *arena, apium_error *err);

/* Everything lives in the arena. now_us is wall time. */
apium_status apm_follow_outcome(const apm_request *req, const apm_outcome *outcome, int64_t now_us,
                                apm_arena *arena, apm_follow *out, apium_error *err);

#endif
