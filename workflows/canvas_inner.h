/* canvas_inner.h - what the files about trees share. Private to workflows/. */
#ifndef APM_WORKFLOWS_CANVAS_INNER_H
#define APM_WORKFLOWS_CANVAS_INNER_H

#include "workflows/canvas.h"

/* canvas.c. False, or absent text, without memory. */
bool apm_canvas_put(apm_arena *arena, apm_options *options, const apm_option *option);
bool apm_canvas_copy_options(apm_arena *arena, apm_options *to, const apm_options *from);
void apm_canvas_drop_option(apm_options *options, apm_opt which);
/* What is to follow, when there is something: the rest of a chain. */
const apm_option *apm_canvas_rest(const apm_options *options);
apm_str apm_canvas_concat(apm_arena *arena, apm_str a, apm_str b);

/* freeze.c: group | body. NULL without memory. */
apm_canvas *apm_canvas_upgraded(apm_arena *arena, const apm_canvas *group, apm_canvas *body);
/* What a signature becomes a part of when it is frozen. */
typedef struct apm_place {
    apm_str id;          /* of its last task; absent: made up */
    apm_str group_id;    /* absent none */
    apm_canvas *chord;   /* the body that waits for it; NULL none */
    apm_str root_id;     /* absent none */
    int64_t group_index; /* -1 none */
} apm_place;

apm_handle *
apm_freeze(const apm_sending *how, apm_canvas *sig, const apm_place *place, apium_error *err);
/* The steps of a chain, flattened, groups with something behind them upgraded to chords, all frozen: last step first, as the rest of
 * a chain travels. args go to the first step. */
typedef struct apm_steps {
    apm_canvas **tasks;
    apm_handle **handles;
    size_t n;
} apm_steps;
apium_status apm_freeze_steps(const apm_sending *how, apm_canvas *chain, apm_str args,
                              const apm_place *place, apm_steps *out, apium_error *err);
/* The members of a group or header, nested groups unrolled, with the group's id. */
apium_status apm_freeze_header(const apm_sending *how, apm_canvas *chord, apm_str group_id,
                               apm_str root_id, apm_handle **out, apium_error *err);
/* The group as a chord that hands its results on, which is one task to those who wait: NULL without memory. */
apm_canvas *apm_canvas_gathered(apm_arena *arena, const apm_canvas *group);
apm_str apm_new_id(apm_arena *arena);

/* apply_task.c. update: dict(base, **over); merge: the same, but a group_id that is there stays, as do stamps. Nulls are laid over too
 * with `nulls`. False without memory. */
bool apm_options_update(apm_arena *arena, apm_options *base, const apm_options *over, bool nulls);
bool apm_options_merge(apm_arena *arena, apm_options *base, const apm_options *over, bool nulls);
bool apm_option_is_false(const apm_options *options, apm_opt which);
apium_status apm_apply_task(apm_sending *how, apm_canvas *sig, apm_str args,
                            const apm_options *over, apm_handle **out, apium_error *err);
/* A tuple for how->children. */
void apm_add_child(apm_sending *how, const apm_handle *handle);

#endif
