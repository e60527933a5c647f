/* builtin.h - Celery's tasks that call other tasks in the same process: celery.map and celery.starmap; and those without I/O, for eager
 * calls. They are run like any registered task. */
#ifndef APM_CLIENT_BUILTIN_H
#define APM_CLIENT_BUILTIN_H

#include "client/app.h"

/* What runs that task in this process: the app's own definition, else a built-in one. NULL: nothing does. */
const apium_task_def *apm_app_runnable(const apium_app *app, apm_str name);

#endif
