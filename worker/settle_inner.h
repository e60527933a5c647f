/* settle_inner.h - what settle.c and join.c share: units of one work, and what is sent in them. */
#ifndef APM_WORKER_SETTLE_INNER_H
#define APM_WORKER_SETTLE_INNER_H

#include "worker/inner.h"
#include "core/model/result.h"
#include "workflows/follow.h"

/* Where the messages and sizes of one expansion go. A unit is made when the first operation asks for it. */
typedef struct apm_emitting {
    apm_work *work;
    apm_unit *store;   /* of the backend's link: sizes of headers */
    apm_unit *publish; /* of the broker's link */
    bool joined;       /* they are one unit */
    bool sent;         /* something was emitted */
} apm_emitting;

/* NULL without memory. */
apm_unit *apm_emit_store(apm_emitting *emitting);
apm_unit *apm_emit_publish(apm_emitting *emitting);
/* What workflows/ needs to know of this worker, with its messages going to `emitting`. */
apm_sending apm_sending_of(apm_emitting *emitting);

/* Give up what was emitted. */
void apm_emit_drop(apm_emitting *emitting);

/* record.c */
bool apm_record_stores(const apm_worker *w); /* does this worker keep results at all? */
apm_result_opts apm_record_opts(const apm_worker *w);
/* The state that an outcome leaves, absent for none; and what of the outcome is written. */
apm_str apm_record_state(const apm_work *work, const apm_outcome *outcome, apm_outcome *written);
bool apm_record_wanted(const apm_work *work, apm_str state);
/* Append w->scratch as a state of req: the work's own request, or one that will never run. */
void apm_record_append(apm_work *work, apm_unit *unit, const apm_request *req, apm_str state);
void apm_record_outcome(apm_work *work, apm_unit *unit, apm_str state, const apm_outcome *written);
/* The failures of what will never run. */
void apm_record_unrun(apm_work *work, apm_unit *unit, const apm_follow *follow);

/* pieces.c: does the chain go on in the store, so that the settlement has to wait for that? Then it is made later, by
 * apm_settle_with(). */
bool apm_pieces_wanted(apm_work *work, const apm_outcome *outcome, const apm_emitting *given,
                       const apm_follow *more);

/* settle.c */
/* `given`: what was emitted already, NULL nothing; `more`: what follows besides, NULL nothing. */
void apm_settle_with(apm_work *work, const apm_outcome *outcome, apm_emitting *given,
                     const apm_follow *more);
void apm_settle_count(apm_worker *w, apm_outcome_kind kind);
/* What becomes of the delivery: work->how and why. */
void apm_settle_decide(apm_work *work, const apm_outcome *outcome);
/* The outcome of a built-in task that the loop has done. `emitting`: what it has sent, NULL nothing; `more`: what follows besides, NULL
 * nothing. */
void apm_settle_step(apm_work *work, const apm_outcome *outcome, apm_emitting *emitting,
                     const apm_follow *more);
void apm_settle_append(apm_work *work, apm_unit *unit, apm_disposition how, const char *why);
void apm_settle_finish(apm_work *work);
/* Everything but the delivery is done: settle that, in work->after if there is one. */
void apm_settle_last(apm_work *work);
/* A unit whose failure is only logged. */
void apm_settle_side(apm_work *work, apm_unit *unit);

/* join.c: chord parts of this work that return, and what complete headers cause. Append the returns to a unit of the backend; false:
 * without memory. When that unit is committed, apm_join_go() does the rest and ends in apm_settle_last(). */
bool apm_join_returns(apm_work *work, apm_unit *unit, const apm_follow *follow);
void apm_join_go(apm_work *work);
/* The work is released: so is what it has gathered and not sent. */
void apm_join_clear(apm_work *work);

#endif
