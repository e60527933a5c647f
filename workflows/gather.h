/* gather.h - what follow.c uses of gather.c beside its part of follow.h. */
#ifndef APM_WORKFLOWS_GATHER_H
#define APM_WORKFLOWS_GATHER_H

#include "workflows/follow.h"

/* A part's member, [1, id, state, result]; all of it raw. */
typedef struct apm_part_read {
    apm_str task_id, state, result;
    bool failed;
} apm_part_read;

apium_status apm_gather_read(apm_str member, apm_part_read *out, apium_error *err);
/* The body's arguments, [results], in the shape of the tree if there is one. *args is to be cleared in any case; `all` too. */
apium_status apm_gather_args(apm_gathered *all, apm_buf *args, apium_error *err);

#endif
