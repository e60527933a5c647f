/*
 * follow.h - what follows an outcome: the callbacks of a task, the next step of its chain, its errbacks, its return as a part of a
 * chord, and what a complete header causes. Pure: it says what is to be sent, marked and counted; the caller commits it as units.
 *
 *   outcome ─▶ apm_follow_outcome ─▶ sends, results, returns of parts
 *                                                       │ the last one: the store answers with all parts
 *                                                       ▼
 *                               apm_follow_complete ─▶ the body's sends, or its failure: results, errbacks, returns ...
 */
#ifndef APM_WORKFLOWS_FOLLOW_H
#define APM_WORKFLOWS_FOLLOW_H

#include "core/model/outcome.h"
#include "workflows/canvas.h"

/* The result of a request that never ran. */
typedef struct apm_unrun {
    apm_request req;
    apm_exception exc;
    apm_str children; /* JSON array; absent none */
} apm_unrun;

/* One part of a chord that returns. */
typedef struct apm_return {
    apm_str group_id, task_id;
    int64_t index;  /* -1 unknown */
    apm_str member; /* JSON: [1, "<task_id>", "<STATE>", <result or exception>] */
    apm_str body;   /* the chord's body, raw */
} apm_return;

/* An errback that is called here: Celery's errback(request, exc, traceback). */
typedef struct apm_errback_call {
    apm_str task;
    apm_str
        args; /* JSON array: the failed request, the exception, the traceback, what the signature adds */
    apm_str kwargs; /* JSON object */
    apm_str failed_id;
} apm_errback_call;

typedef struct apm_follow {
    apm_errback_call *calls;
    size_t n_calls;
    apm_unrun *unrun; /* in the order to be stored */
    size_t n_unrun;
    apm_return *returns;
    size_t n_returns;
    apm_str
        children; /* JSON array: the outcome's own children and the result tuples of what was sent */
} apm_follow;

/*
 * Everything lives in how's arena, messages go to how->emit; root_id, parent_id and children of `how` are set here. An error means that
 * what has to follow cannot be done (a chord that cannot be, a signature that is none): the task has failed then. `errbacks`
 * false: they are not called (what never ran has none in Celery).
 */
apium_status
apm_follow_outcome(apm_sending *how, const apm_request *req, const apm_outcome *outcome,
                   bool errbacks, apm_follow *out, apium_error *err);

/* The parts of apm_follow_outcome() for a task that was replaced (it goes on as the signature, under its own id, with all that was to
 * follow it), and for signatures that were added to the task's header. */
apium_status apm_follow_replaced(apm_sending *how, const apm_request *req, apm_str replacement,
                                 apium_error *err);
apium_status
apm_follow_added(apm_sending *how, const apm_request *req, apm_str added, apium_error *err);

/* The result of req as the member of a header. Absent without memory. */
apm_str apm_follow_member(apm_arena *arena, apm_str task_id, apm_str state, apm_str result);

/*
 * A header is complete: its results are gathered as its parts come, in their order; nothing but them is kept, unless there is a stored
 * tree of them. Then the body is sent, or told how it failed.
 */
typedef struct apm_gathered {
    apm_arena *arena;                /* for what is small */
    apm_buf list;                    /* "[[1, 2": the results, as the body's argument begins */
    apm_buf ids;                     /* raw, one after the other */
    struct apm_gathered_part *parts; /* with a tree; allocated */
    size_t n, cap;
    apm_str tree;
    apm_str failed; /* the first part that failed, whole; absent none */
} apm_gathered;

/* tree: the stored tree of the results (absent: they are a plain list). */
apium_status apm_gather_init(apm_gathered *all, apm_arena *arena, apm_str tree, apium_error *err);
apium_status apm_gather_add(apm_gathered *all, const apm_str *members, size_t n, apium_error *err);
void apm_gather_clear(apm_gathered *all); /* a zeroed one may be cleared too */

/* last: the request that returned last, whom the body descends from. Clears `all`. */
apium_status apm_follow_complete(apm_sending *how, const apm_return *part, const apm_request *last,
                                 apm_gathered *all, apm_follow *out, apium_error *err);
/* Send the body with `results`, a JSON array that holds the list of them. how says whom it descends from. */
apium_status
apm_follow_send_body(apm_sending *how, apm_str body, apm_str results, apium_error *err);
/* The body will not run: mark it, tell those who wait for it, call its errbacks. `cause` is what its members get when it is a
 * group. */
apium_status apm_follow_body_failed(apm_sending *how, apm_str body, const apm_exception *exc,
                                    const apm_exception *cause, apm_follow *out, apium_error *err);

#endif
