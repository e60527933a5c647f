/*
 * apium/run.h - the runs of workflows: what apium_send() gives for a chain, a group or a chord knows the
 * tree of tasks that it stands for. What apium/result.h has for a run works for all of them.
 *
 *     chain  a | b | c             the run of c; its parent is b's, whose parent is a's
 *     group  a, b                  the run of the group: its children are its members
 *     chord  group(a, b) | c       the run of c (of its last step); its parent is the group's
 *
 * Runs reached from another one (parents, children) belong to it.
 */
#ifndef APIUM_RUN_H
#define APIUM_RUN_H

#include <apium/result.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Does it stand for several tasks? Waiting for it gives the list of their values, in their order; as a result it
 * failed when one of them did, with the exception of the first. */
APIUM_API bool apium_run_is_group(const apium_run *run);
/* What has to finish before it; NULL when that is nothing, or not known. */
APIUM_API apium_run *apium_run_parent(const apium_run *run);

/*
 * What came of it: of a group its members; of a task what it has sent (callbacks, the next step of its chain, the calls
 * that it made), as the backend knows it now. The answer is their number; apium_run_child() gives each, until this is
 * asked again.
 */
APIUM_API apium_status apium_run_children(apium_run *run, size_t *n, apium_error *err);
APIUM_API apium_run *apium_run_child(const apium_run *run, size_t i); /* NULL past the end */

/* How far the members of a group are, each counted once; a single task counts as a group of one. */
typedef struct apium_counts {
    size_t all;
    size_t successful; /* Celery's completed_count() */
    size_t failed;     /* FAILURE, REVOKED */
    size_t waiting;
} apium_counts;
APIUM_API apium_status apium_count(apium_run *run, apium_counts *out, apium_error *err);
/* Has all of it finished? */
APIUM_API apium_status apium_ready(apium_run *run, bool *ready, apium_error *err);

/*
 * The members of a group as they finish: *member is the next one that has, *res its result, which is the caller's; both
 * are NULL when there are no more. A member is told once. Of nested groups each task by itself.
 *   APIUM_E_TIMEOUT  none has, for as long as timeout_ms says
 */
APIUM_API apium_status apium_run_next(apium_run *run, int64_t timeout_ms, apium_run **member,
                                      apium_result **res, apium_error *err);

/*
 * Wait for it and for all that came of it, from the first to the last, and hand each to `each` when it is ready: a group, its
 * members, what those sent, and so on. False from `each` ends the walk.
 *   APIUM_E_FAILED, APIUM_E_REVOKED  one has failed; `each` was not called for it
 */
typedef bool apium_collect_fn(void *arg, apium_run *run, const apium_result *res);
APIUM_API apium_status apium_collect(apium_run *run, int64_t timeout_ms, apium_collect_fn *each,
                                     void *arg, apium_error *err);

/*
 * Keep a group under its id, as Celery's GroupResult.save(), and open it again, in either language.
 *   APIUM_E_INVALID      it is no group
 *   APIUM_E_NOTFOUND     none was saved under this id
 *   APIUM_E_UNSUPPORTED  the result backend keeps no groups
 */
APIUM_API apium_status apium_run_save(apium_run *run, apium_error *err);
APIUM_API apium_status apium_run_restore(apium_app *app, const char *group_id, apium_run **out,
                                         apium_error *err);

/*
 * Ask the workers to leave every task of the tree alone: the run, its members and what has to finish
 * before it. One that has not begun is REVOKED when a worker meets it; with terminate (a signal's name
 * such as "SIGTERM", else NULL) one that runs is ended by that signal.
 *
 * This is Celery's control message, broadcast on Redis and RabbitMQ. Celery's workers obey it; those of
 * apium have no remote control in this version and run what they get. Nobody answers: APIUM_OK says that
 * the broker has the message, not that somebody was listening.
 *   APIUM_E_UNSUPPORTED  this broker reaches no workers but by their queues
 *   APIUM_E_UNROUTABLE   RabbitMQ: no worker with remote control was ever there
 */
APIUM_API apium_status apium_revoke(apium_run *run, const char *terminate, apium_error *err);

/* The whole tree as JSON, in the form of Celery's as_tuple(): for another program, which opens it with
 * apium_run_of_tuple() or result_from_tuple(). Lives as long as run. NULL without memory. */
APIUM_API const char *apium_run_tuple(apium_run *run);
APIUM_API apium_status apium_run_of_tuple(apium_app *app, const char *json, apium_run **out,
                                          apium_error *err);

#ifdef __cplusplus
}
#endif
#endif
