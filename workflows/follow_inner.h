/* follow_inner.h - what the files about what follows an outcome share. Private to workflows/. */
#ifndef APM_WORKFLOWS_FOLLOW_INNER_H
#define APM_WORKFLOWS_FOLLOW_INNER_H

#include "workflows/canvas_inner.h"
#include "workflows/follow.h"

/* ---- links.c ---- */

typedef apium_status apm_each_fn(void *arg, apm_json sig, size_t index);

apium_status apm_follow_no_memory(apium_error *err);
/* Call fn for each item of a raw JSON array; none when it is absent. */
apium_status apm_each_item(apm_str list, apm_each_fn *fn, void *arg, apium_error *err);
size_t apm_count_items(apm_str list);
/* Absent without memory. */
apm_str apm_array_of_one(apm_str item, apm_arena *arena);
apm_str apm_array_of_text(apm_str text, apm_arena *arena);
/* What the worker passes beside the arguments: who it comes from. */
apium_status apm_origin_options(const apm_sending *how, apm_options *options, apium_error *err);
/* One link is sent by itself; of several, groups by themselves and all others as one new group. */
apium_status apm_send_links(apm_sending *how, apm_str list, apm_str partial,
                            const apm_options *options, bool always_group, apium_error *err);

/* ---- mark.c ---- */

struct apm_marking {
    apm_sending *how;
    apm_follow *out;
    size_t cap_unrun, cap_returns;
    const apm_exception *exc;
    apm_str exc_json, state;
    apium_error *err;
};

/* The exception as results hold it; absent without memory. */
apm_str apm_mark_exception(apm_arena *arena, const apm_exception *exc);
/* A signature that waited for what has failed, and the rest of a chain, its last step first. */
apium_status apm_mark_sig(struct apm_marking *m, const apm_canvas *sig);
apium_status apm_mark_chain(struct apm_marking *m, apm_str chain);
/* The request returns to the chord it is a part of, if it is. */
apium_status
apm_mark_return(struct apm_marking *m, const apm_request *req, apm_str state, apm_str result);

/* ---- errbacks.c ---- */

/* What failed, as its errbacks are told of it. */
struct apm_failed {
    const apm_request *req; /* its id, task, arguments ... */
    const apm_exception *exc;
    apm_str traceback;
};

/* Send them, or add them to out's calls. `sent` gets the tuples of what was sent; NULL: nobody asks. */
apium_status apm_send_errbacks(apm_sending *how, apm_str list, const struct apm_failed *failed,
                               apm_str root_id, apm_buf *sent, apm_follow *out, apium_error *err);

#endif
