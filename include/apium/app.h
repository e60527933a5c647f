/*
 * apium/app.h - an application: a name, settings, and the tasks it knows.
 *
 *     apium_app *app;
 *     if (apium_app_new("feeds", tasks, &app, &err) != APIUM_OK ||
 *         apium_app_set(app, "broker_url", url, &err) != APIUM_OK)
 *         ...
 *
 * Settings are Celery's, by their lower-case names. The strongest source wins: the command line,
 * apium_app_set(), the environment (APIUM_BROKER_URL ...; CELERY_BROKER_URL and
 * CELERY_RESULT_BACKEND too), a configuration file, what a module brings, Celery's defaults.
 *
 * Connections open when something is sent or asked for the first time. After an app has been set
 * up, several threads may use it: each gets connections of its own, and what a thread was given (a
 * run) stays with that thread. A process that forks may use the app on both sides.
 */
#ifndef APIUM_APP_H
#define APIUM_APP_H

#include <apium/status.h>
#include <apium/task.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Called at moments in a worker's life; members may be NULL. All of them run in pool processes
 * (with `--pool threads` in the worker's only one), never in the main process.
 */
typedef struct apium_hooks {
    /* A pool process starts (open your database here) and ends. When start fails the process gives
     * up, err is logged, and another is started after a while. */
    apium_status (*process_start)(apium_app *app, apium_error *err);
    void (*process_stop)(apium_app *app);
    /* Around every task; after_task sees what became of it. */
    void (*before_task)(apium_task *task);
    void (*after_task)(apium_task *task, apium_verdict verdict);
    /* After the task's own hook of the same name; apium_task_exception() and its companions say
     * what happened. */
    void (*on_failure)(apium_task *task);
    void (*on_retry)(apium_task *task);
} apium_hooks;

/* What a module, or a program's main(), supplies. */
typedef struct apium_module {
    unsigned abi;                /* APIUM_ABI; a module built for another one is refused */
    unsigned task_size;          /* sizeof(apium_task_def) */
    const char *name;            /* of the application */
    const apium_task_def *tasks; /* ended by a row without a name */
    const apium_hooks *hooks;    /* NULL: none */
    const char *const *settings; /* "task_acks_late=true", ..., NULL; see above for their rank */
} apium_module;

#define APIUM_ABI 1u

#ifdef __cplusplus
#define APIUM_MODULE_LINKAGE extern "C"
#else
#define APIUM_MODULE_LINKAGE extern
#endif

/*
 * Export an application from a shared object, for `apium -A ./feeds.so`. The arguments are the
 * members of apium_module from `name` on:
 *     APIUM_MODULE("feeds", tasks)
 *     APIUM_MODULE("feeds", tasks, &hooks, settings)
 */
#define APIUM_MODULE(...)                                                                          \
    APIUM_MODULE_LINKAGE APIUM_API const apium_module apium_exported_module;                       \
    const apium_module apium_exported_module = { APIUM_ABI, (unsigned)sizeof(apium_task_def),      \
                                                 __VA_ARGS__ }

/*
 * The whole `apium` command with these tasks in it: what a program's main() returns. The second
 * form also takes hooks and settings.
 */
APIUM_API int apium_main(int argc, char **argv, const char *name, const apium_task_def *tasks);
APIUM_API int apium_main_module(int argc, char **argv, const apium_module *module);

/*
 * An application with these tasks; tasks may be NULL for a program that only sends. Reads the
 * environment.
 *   APIUM_E_CONFIG  a bad setting in the environment; a task without a handler, or whose name is taken
 */
APIUM_API apium_status apium_app_new(const char *name, const apium_task_def *tasks, apium_app **out,
                                     apium_error *err);
/* Close its connections and release it; NULL is fine. Release its runs before. */
APIUM_API void apium_app_free(apium_app *app);

/* Add what a module supplies, or load one from a file. The app's name becomes the module's. */
APIUM_API apium_status apium_app_add(apium_app *app, const apium_module *module, apium_error *err);
APIUM_API apium_status apium_app_load(apium_app *app, const char *path, apium_error *err);

/*
 * Set one setting: bare text for those that are text, JSON for the others ("true", "4",
 * "{\"video.*\": \"video\"}"). Before the first connection, which it would not change.
 *   APIUM_E_CONFIG  no such setting (the error names the nearest), or not a value that it takes
 */
APIUM_API apium_status apium_app_set(apium_app *app, const char *name, const char *value,
                                     apium_error *err);
/* Read settings from a YAML file. */
APIUM_API apium_status apium_app_config(apium_app *app, const char *path, apium_error *err);

APIUM_API const char *apium_app_name(const apium_app *app);

/* Something of yours that hooks and tasks find again, per process. apium does not look at it. */
APIUM_API void apium_app_set_data(apium_app *app, void *data);
APIUM_API void *apium_app_data(const apium_app *app);

#ifdef __cplusplus
}
#endif
#endif
