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

/* Load a module (dlopen) and register what it exports. E_CONFIG names the path and why. */
apium_status apm_app_load(apium_app *app, const char *path, apium_error *err);

#endif
