/* app.c - an application: its settings, tasks and hooks; see apium/app.h. */
#include "client/app.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "client/annotate.h"
#include "client/conn.h"
#include "config.h"
#include "core/base/error.h"
#include "core/base/log.h"

extern char **environ;

/* A shared object that is held open, so that its tables stay where they are. */
typedef struct library {
    void *handle;
    struct library *next;
} library;

/*
 * Definitions in the order in which they were registered. What is looked up are `shown`, the same
 * with what task_annotations says of them, and `sorted`, these by name, for looking one up per
 * message. They are made anew when the setting is another text than that which they were made from.
 */
typedef struct registry {
    const apium_task_def **tasks, **shown, **sorted;
    size_t n;
    _Atomic(const char *) annotated_from;
    pthread_mutex_t lock; /* several threads may be the first to look something up */
    apm_arena arena;
} registry;

/* Hooks of several modules: the last one that has any counts. */
struct apium_app {
    char *name;
    apm_settings settings;
    registry *registry; /* apart, because looking up takes a const app */
    apium_hooks hooks;
    library *libraries;
    void *data;
    apm_conns *conns;
    pthread_mutex_t lock; /* around routing, which may add queues to the settings */
};

static int
by_name(const void *a, const void *b)
{
    const apium_task_def *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* --- setting up --- */

apium_status
apium_app_new(const char *name, const apium_task_def *tasks, apium_app **out, apium_error *err)
{
    apium_app *app = calloc(1, sizeof(*app));
    if (!app)
        return apm_fail(err, APIUM_E_NOMEM, "cannot make an app: out of memory");
    pthread_mutex_init(&app->lock, NULL);
    app->registry = calloc(1, sizeof(*app->registry));
    if (app->registry)
        pthread_mutex_init(&app->registry->lock, NULL);
    apium_status st = app->registry
                          ? apm_settings_init(&app->settings, err)
                          : apm_fail(err, APIUM_E_NOMEM, "cannot make an app: out of memory");
    if (st == APIUM_OK)
        st = apm_settings_load_env(&app->settings, environ, err);
    if (st == APIUM_OK)
        st = apm_conns_new(app, &app->conns, err);
    const apium_module module = { APIUM_ABI, (unsigned)sizeof(apium_task_def), name, tasks, NULL,
                                  NULL };
    if (st == APIUM_OK)
        st = apium_app_add(app, &module, err);
    if (st != APIUM_OK) {
        apium_app_free(app);
        return st;
    }
    *out = app;
    return APIUM_OK;
}

void
apium_app_free(apium_app *app)
{
    if (!app)
        return;
    apm_conns_free(app->conns);
    apm_settings_clear(&app->settings);
    free(app->name);
    if (app->registry) {
        free(app->registry->tasks);
        free(app->registry->shown);
        free(app->registry->sorted);
        apm_arena_clear(&app->registry->arena);
        pthread_mutex_destroy(&app->registry->lock);
        free(app->registry);
    }
    while (app->libraries) {
        library *lib = app->libraries;
        app->libraries = lib->next;
        dlclose(lib->handle);
        free(lib);
    }
    pthread_mutex_destroy(&app->lock);
    free(app);
}

/* Check one row before it is registered. */
static apium_status
check_task(const apium_app *app, const apium_task_def *def, apium_error *err)
{
    if (!*def->name)
        return apm_fail(err, APIUM_E_CONFIG, "cannot register a task with an empty name");
    if (!def->run)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot register task \"%s\": it has no handler (.run)", def->name);
    if (apm_app_task(app, apm_strz(def->name)))
        return apm_fail(err, APIUM_E_CONFIG, "cannot register task \"%s\": the name is taken",
                        def->name);
    if (def->max_retries < APIUM_NO_RETRIES)
        return apm_fail(err, APIUM_E_CONFIG, "cannot register task \"%s\": max_retries is %d",
                        def->name, def->max_retries);
    return APIUM_OK;
}

/* Make shown and sorted from tasks. A wrong annotation leaves its task as it was defined; err is
 * that of the last one. */
static apium_status
annotate(registry *reg, const apm_settings *settings, apium_error *err)
{
    apium_status st = APIUM_OK;
    for (size_t i = 0; i < reg->n; i++) {
        apium_status one = apm_annotate(settings->task_annotations, reg->tasks[i], &reg->arena,
                                        &reg->shown[i], err);
        if (one != APIUM_OK) {
            reg->shown[i] = reg->tasks[i];
            st = one;
        }
        reg->sorted[i] = reg->shown[i];
    }
    if (reg->n > 1)
        qsort(reg->sorted, reg->n, sizeof(*reg->sorted), by_name);
    reg->annotated_from = settings->task_annotations.text.p;
    return st;
}

/* The registry as the settings of now want it. */
static const registry *
current(const apium_app *app)
{
    registry *reg = app->registry;
    const char *wanted = app->settings.task_annotations.text.p;
    apium_error err;
    if (reg->annotated_from == wanted)
        return reg;
    pthread_mutex_lock(&reg->lock);
    if (reg->annotated_from != wanted && annotate(reg, &app->settings, &err) != APIUM_OK)
        apm_log(APM_LOG_WARNING, "config.annotations", "%s", err.text);
    pthread_mutex_unlock(&reg->lock);
    return reg;
}

static bool
more_room(const apium_task_def ***rows, size_t n)
{
    const apium_task_def **more = realloc(*rows, n * sizeof(*more));
    if (more)
        *rows = more;
    return more != NULL;
}

static apium_status
register_task(apium_app *app, const apium_task_def *def, apium_error *err)
{
    registry *reg = app->registry;
    apium_status st = check_task(app, def, err);
    if (st != APIUM_OK)
        return st;
    if (!more_room(&reg->tasks, reg->n + 1) || !more_room(&reg->shown, reg->n + 1) ||
        !more_room(&reg->sorted, reg->n + 1))
        return apm_fail(err, APIUM_E_NOMEM, "cannot register task \"%s\": out of memory",
                        def->name);
    reg->tasks[reg->n++] = def;
    return annotate(reg, &app->settings, err);
}

apium_status
apm_app_apply_setting(apium_app *app, const char *line, apium_error *err)
{
    const char *equals = strchr(line, '=');
    if (!equals)
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot use the setting \"%s\": name=value is expected", line);
    char *name = strndup(line, (size_t)(equals - line));
    if (!name)
        return apm_fail(err, APIUM_E_NOMEM, "cannot use the setting \"%s\": out of memory", line);
    apium_status st =
        apm_settings_set(&app->settings, name, apm_strz(equals + 1), APM_FROM_FILE, err);
    free(name);
    return st;
}

apium_status
apium_app_add(apium_app *app, const apium_module *module, apium_error *err)
{
    if (module->abi != APIUM_ABI || module->task_size != sizeof(apium_task_def))
        return apm_fail(
            err, APIUM_E_CONFIG,
            "the module was built for another version of apium (abi %u, here %u): build it again",
            module->abi, APIUM_ABI);
    if (module->name) {
        char *name = strdup(module->name);
        if (!name)
            return apm_fail(err, APIUM_E_NOMEM, "cannot add a module: out of memory");
        free(app->name);
        app->name = name;
    }
    apium_status st = APIUM_OK;
    for (const char *const *line = module->settings; line && *line && st == APIUM_OK; line++)
        st = apm_app_apply_setting(app, *line, err);
    for (const apium_task_def *def = module->tasks; def && def->name && st == APIUM_OK; def++)
        st = register_task(app, def, err);
    if (st == APIUM_OK && module->hooks)
        app->hooks = *module->hooks;
    return st;
}

apium_status
apium_app_load(apium_app *app, const char *path, apium_error *err)
{
    apium_error why;
    library *lib = calloc(1, sizeof(*lib));
    if (!lib)
        return apm_fail(err, APIUM_E_NOMEM, "cannot load \"%s\": out of memory", path);
    char local[4096];
    if (!strchr(path, '/')) { /* a file, not something for dlopen to search for */
        snprintf(local, sizeof(local), "./%s", path);
        path = local;
    }
    lib->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib->handle) {
        free(lib);
        return apm_fail(err, APIUM_E_CONFIG, "cannot load the module \"%s\": %s", path,
                        apm_app_load_failure(path));
    }
    const apium_module *module = dlsym(lib->handle, "apium_exported_module");
    if (!module) {
        dlclose(lib->handle);
        free(lib);
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot load the module \"%s\": it has no APIUM_MODULE()", path);
    }
    lib->next = app->libraries;
    app->libraries =
        lib; /* stays open even if adding fails half-way: some of its tasks may be registered */
    apium_status st = apium_app_add(app, module, &why);
    if (st != APIUM_OK)
        return apm_fail(err, st, "cannot load the module \"%s\": %s", path, why.text);
    return APIUM_OK;
}

apium_status
apium_app_set(apium_app *app, const char *name, const char *value, apium_error *err)
{
    return apm_settings_set(&app->settings, name, apm_strz(value), APM_FROM_CODE, err);
}

apium_status
apium_app_config(apium_app *app, const char *path, apium_error *err)
{
    return apm_settings_load_file(&app->settings, path, err);
}

/* --- asking --- */

apium_status
apium_fail(apium_error *err, apium_status status, const char *fmt, ...)
{
    char text[sizeof(err->text)];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return apm_fail(err, status, "%s", text);
}

const char *
apium_version(void)
{
    return APIUM_VERSION;
}

const char *
apium_app_name(const apium_app *app)
{
    return app->name ? app->name : "apium";
}

void
apium_app_set_data(apium_app *app, void *data)
{
    app->data = data;
}

void *
apium_app_data(const apium_app *app)
{
    return app->data;
}

const char *
apm_app_name(const apium_app *app)
{
    return apium_app_name(app);
}

apm_settings *
apm_app_settings(apium_app *app)
{
    return &app->settings;
}

const apium_hooks *
apm_app_hooks(const apium_app *app)
{
    return &app->hooks;
}

const apium_task_def *
apm_app_task(const apium_app *app, apm_str name)
{
    const registry *reg = current(app);
    size_t low = 0, high = reg->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const char *other = reg->sorted[mid]->name;
        size_t len = strlen(other);
        int cmp = memcmp(name.p, other, name.len < len ? name.len : len);
        if (cmp == 0)
            cmp = (name.len > len) - (name.len < len);
        if (cmp == 0)
            return reg->sorted[mid];
        if (cmp < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const apium_task_def *
apm_app_task_at(const apium_app *app, size_t n)
{
    const registry *reg = current(app);
    return n < reg->n ? reg->shown[n] : NULL;
}

apm_conns *
apm_app_conns(apium_app *app)
{
    return app->conns;
}

void
apm_app_lock(apium_app *app)
{
    pthread_mutex_lock(&app->lock);
}

void
apm_app_unlock(apium_app *app)
{
    pthread_mutex_unlock(&app->lock);
}

void
apm_app_forked(apium_app *app)
{
    /* Another thread of the parent may have held the locks when it forked. */
    pthread_mutex_init(&app->lock, NULL);
    pthread_mutex_init(&app->registry->lock, NULL);
    apm_conns_forked(app->conns);
}

void
apm_app_thread_end(apium_app *app)
{
    apm_conn_end(app);
}
