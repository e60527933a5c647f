/*
 * apium/canvas.h - workflows: signatures made of signatures, as Celery's canvas has them. Each is an
 * apium_sig like that of a single task: give it options, links and stamps, write it as JSON, send it.
 *
 *     apium_sig *flow = apium_chain(
 *         apium_sig_new("text.split", "[%s]", path),
 *         apium_group(apium_sig_new("text.count", NULL), apium_sig_new("text.rank", NULL), NULL),
 *         apium_sig_new("text.merge", NULL), NULL);
 *     if (apium_send(app, flow, NULL, &run, &err) == APIUM_OK &&
 *         apium_get(run, 30000, &res, &err) == APIUM_OK)
 *         puts(apium_result_json(res));
 *
 * A composite takes its parts over, also when it cannot be made: they live and die with it, and may
 * be changed until it is sent. What is wrong (a part that is in a composite already, a workflow that
 * would contain itself, a missing part) is remembered and reported when the signature is used. NULL,
 * for want of memory, passes through.
 */
#ifndef APIUM_CANVAS_H
#define APIUM_CANVAS_H

#include <apium/send.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * One after the other: each step gets the result of the one before as its first argument, unless it
 * is immutable. A group with something behind it becomes a chord. The list ends with NULL.
 */
APIUM_API apium_sig *apium_chain(apium_sig *first, ...) __attribute__((sentinel));
/* All at once; the result is the list of theirs. */
APIUM_API apium_sig *apium_group(apium_sig *first, ...) __attribute__((sentinel));
/* The same from arrays of n, whose storage stays the caller's. None is fine for a group, not for a
 * chain. */
APIUM_API apium_sig *apium_chain_of(size_t n, apium_sig *const *parts);
APIUM_API apium_sig *apium_group_of(size_t n, apium_sig *const *parts);
/*
 * When all of the header is done, the body gets the list of its results. The header is a group, or
 * anything else as a header of one. Needs a result backend that others can read: elsewhere it is
 * refused when it is sent (APIUM_E_UNSUPPORTED).
 */
APIUM_API apium_sig *apium_chord(apium_sig *header, apium_sig *body);

/*
 * One message that calls `task` for each item of the JSON array `items`: as its only argument (map),
 * or with the item as its arguments (starmap). The worker that gets it has to know the task, of which
 * the name alone counts.
 */
APIUM_API apium_sig *apium_map(apium_sig *task, apium_value items);
APIUM_API apium_sig *apium_starmap(apium_sig *task, apium_value items);
/* A group of starmaps with up to n items each. As a part of something else it is one task that sends
 * that group, as in Celery. */
APIUM_API apium_sig *apium_chunks(apium_sig *task, apium_value items, size_t n);

/*
 * A copy, whole and apart, of a signature of any kind; sig stays as it is, and whose it is. The
 * template makes partial arguments: an array is put before sig's arguments, an object (of a task only)
 * is laid over its keyword arguments; NULL for none. An immutable signature takes none.
 */
APIUM_API apium_sig *
apium_sig_clone(const apium_sig *sig, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/*
 * Stamp it, and what it is made of and linked to, with a header that travels along and is shown in
 * extended results. A stamp of that name is replaced. As in Celery a chord stamps its header: stamp
 * the body by itself.
 */
APIUM_API apium_sig *apium_sig_stamp(apium_sig *sig, const char *header, apium_value value);

/* Of which kind it is: "task", "chain", "group", "chord". */
APIUM_API const char *apium_sig_kind(const apium_sig *sig);

#ifdef __cplusplus
}
#endif
#endif
