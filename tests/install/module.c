/* module.c - a task module of somebody else's. */
#include <apium/apium.h>

static apium_status
start(apium_app *app, apium_error *err)
{
    (void)err;
    apium_app_set_data(app, (void *)"opened");
    return APIUM_OK;
}

static apium_verdict
hello(apium_task *task)
{
    return apium_return(task, apium_string((const char *)apium_app_data(apium_task_app(task))));
}

static const apium_task_def tasks[] = { { "m.hello", hello }, { 0 } };
static const apium_hooks hooks = { start };
static const char *const settings[] = { "task_default_queue=m", 0 };

APIUM_MODULE("m", tasks, &hooks, settings);
