/*
 * app.h - the inside of apium_app that worker/ and cli/ need: settings, tasks, hooks.
 */
#ifndef APM_CLIENT_APP_H
#define APM_CLIENT_APP_H

#include <apium/app.h>
#include <apium/task.h>

#include "core/model/settings.h"

apm_settings *apm_app_settings(apium_app *app);
const char *apm_app_name(const apium_app *app);
/* The definition of that name, NULL when it is not registered. */
const apium_task_def *apm_app_task(const apium_app *app, apm_str name);
/* The n-th registered task, NULL past the end. */
const apium_task_def *apm_app_task_at(const apium_app *app, size_t n);
/* The app's hooks (never NULL; members may be). */
const apium_hooks *apm_app_hooks(const apium_app *app);
/* In a freshly forked process: drop what belongs to the parent (loop, connections), silently. */
void apm_app_forked(apium_app *app);
/* A thread that used the app ends: close the connections it had. */
void apm_app_thread_end(apium_app *app);

/* "name=value" of a module. */
apium_status apm_app_apply_setting(apium_app *app, const char *line, apium_error *err);
/*
 * Take over the settings that a module brings without running any of its code in this process: a
 * forked one loads it. Before anything is opened. E_CONFIG when the module does not load.
 */
apium_status apm_app_learn(apium_app *app, const char *path, apium_error *err);

/* Why dlopen() of path has just failed, without the path that it begins with. */
const char *apm_app_load_failure(const char *path);

/* For this floor: the connections of its threads, and the lock around what changes the settings. */
struct apm_conns *apm_app_conns(apium_app *app);
void apm_app_lock(apium_app *app);
void apm_app_unlock(apium_app *app);

#endif
