/* ask.c - asking a broker from a command; see ask.h. */
#include "cli/ask.h"

#include <signal.h>

#include "core/base/error.h"

/* A server that took our connection and then says nothing must not keep a command for ever. */
#define ANSWER_MS 30000

apium_status
apm_ask_open(apm_ask *ask, apium_app *app, apium_error *err)
{
    apm_settings *settings = apm_app_settings(app);
    *ask = (apm_ask){ .patience_ms = (int64_t)(settings->broker_connection_timeout * 1000) + 1000 };
    int rc = uv_loop_init(&ask->loop);
    if (rc < 0)
        return apm_fail_sys(err, -rc, "cannot make an event loop");
    signal(SIGPIPE, SIG_IGN); /* a server that has gone is an error, not our end */
    uv_timer_init(&ask->loop, &ask->timer);
    ask->links = apm_links_new(&ask->loop, settings, ask->patience_ms);
    if (!ask->links)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open the broker: out of memory");
    apm_broker_opts opts = { .settings = settings };
    return apm_broker_open(ask->links, settings->broker_url, &opts, &ask->broker, err);
}

static void
on_timer(uv_timer_t *timer)
{
    apm_ask *ask = timer->data;
    ask->late = true;
    uv_stop(&ask->loop);
}

void
apm_ask_answered(apm_ask *ask)
{
    ask->answered = true;
    uv_stop(&ask->loop);
}

apium_status
apm_ask_wait(apm_ask *ask, const char *what, apium_error *err)
{
    ask->timer.data = ask;
    uv_timer_start(&ask->timer, on_timer, (uint64_t)(ask->patience_ms + ANSWER_MS), 0);
    while (!ask->answered && !ask->late) {
        apm_links_flush(ask->links);
        uv_run(&ask->loop, UV_RUN_ONCE);
    }
    uv_timer_stop(&ask->timer);
    if (!ask->answered)
        return apm_fail(err, APIUM_E_TIMEOUT, "cannot %s: no answer from %s", what,
                        ask->broker->link->shown);
    ask->answered = false;
    return APIUM_OK;
}

void
apm_ask_close(apm_ask *ask)
{
    if (!ask->timer.loop)
        return;
    apm_broker_close(ask->broker);
    if (ask->links)
        apm_links_free(ask->links);
    uv_close((uv_handle_t *)&ask->timer, NULL);
    if (uv_run(&ask->loop, UV_RUN_DEFAULT) == 0)
        uv_loop_close(&ask->loop);
}

static bool
listed(const char *name, size_t len, const char *list)
{
    for (const char *p = list; p && *p; p += strspn(p, ", ")) {
        size_t n = strcspn(p, ", ");
        if (n == len && strncmp(p, name, n) == 0)
            return true;
        p += n;
    }
    return false;
}

const char **
apm_ask_queues(apium_app *app, const char *text, const char *exclude, apm_arena *arena, size_t *n)
{
    const apm_settings *settings = apm_app_settings(app);
    size_t max = (text ? strlen(text) : settings->n_task_queues) + 2;
    const char **names = apm_arena_alloc(arena, max * sizeof(*names));
    if (!names)
        return NULL;
    *n = 0;
    for (const char *p = text; p && *p; p += strspn(p, ", ")) {
        size_t len = strcspn(p, ", ");
        if (len && !listed(p, len, exclude) &&
            !(names[(*n)++] = apm_arena_str(arena, (apm_str){ p, len }, NULL).p))
            return NULL;
        p += len;
    }
    for (size_t i = 0; !text && i < settings->n_task_queues; i++) {
        const char *name = settings->task_queues[i].name;
        if (!listed(name, strlen(name), exclude))
            names[(*n)++] = name;
    }
    const char *fallback = settings->task_default_queue;
    if (!text && settings->n_task_queues == 0 && !listed(fallback, strlen(fallback), exclude))
        names[(*n)++] = fallback;
    return names;
}
