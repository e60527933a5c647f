/* annotate.h - task_annotations: attributes of tasks overridden by the settings. */
#ifndef APM_CLIENT_ANNOTATE_H
#define APM_CLIENT_ANNOTATE_H

#include <apium/task.h>

#include "core/base/json.h"

/*
 * The definition with what the annotations say of it: an object of task names, or "*" for all, and
 * attributes; or an array of such objects. As in Celery "*" comes last and wins. *out is def itself
 * when they say nothing, otherwise a copy in the arena. E_CONFIG names task and attribute.
 */
apium_status apm_annotate(apm_json annotations, const apium_task_def *def, apm_arena *arena,
                          const apium_task_def **out, apium_error *err);

#endif
