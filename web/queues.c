/* queues.c - how much waits where. */
#include "web/inner.h"

#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 200

typedef struct asking {
    apm_web_call *call;
    bool flower;
    const char **names;
} asking;

static void
add_count(apm_buf *buf, const char *name, int64_t count)
{
    if (count >= 0)
        apm_buf_addf(buf, ", \"%s\": %lld", name, (long long)count);
    else
        apm_buf_addf(buf, ", \"%s\": null", name);
}

static void
add_age(apm_buf *buf, const apm_queue_info *info)
{
    double age;
    apm_buf_addz(buf, ", \"oldest_age\": ");
    if (apm_queue_age(info, &age))
        apm_json_add_double(buf, age);
    else
        apm_buf_addz(buf, "null");
}

static void
on_infos(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    asking *a = arg;
    apm_buf body;
    if (err) {
        apm_web_fail(a->call, err);
        return;
    }
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addf(&body, "{\"%s\": [", a->flower ? "active_queues" : "queues");
    for (size_t i = 0; i < n; i++) {
        apm_buf_addz(&body, i ? ", {\"name\": " : "{\"name\": ");
        apm_json_add_stringz(&body, infos[i].name);
        if (a->flower) {
            apm_buf_addf(&body, ", \"messages\": %lld",
                         (long long)(infos[i].ready < 0 ? 0 : infos[i].ready));
        } else {
            add_count(&body, "ready", infos[i].ready);
            add_count(&body, "unacked", infos[i].unacked);
            add_count(&body, "parked", infos[i].parked);
            add_count(&body, "dead", infos[i].dead);
            add_count(&body, "consumers", infos[i].consumers);
            add_age(&body, &infos[i]);
        }
        apm_buf_addc(&body, '}');
    }
    apm_buf_addz(&body, "]}");
    apm_web_answer(a->call, 200, &body);
}

/* Those that are asked for ("?names=a,b"), or those of the settings. */
static const char **
choose(apm_web_call *call, size_t *n)
{
    const apm_settings *s = call->web->settings;
    const char **names = apm_arena_alloc(&call->arena, (NAMES_MAX + 1) * sizeof(*names));
    apm_str text;
    *n = 0;
    if (!names)
        return NULL;
    if (apm_web_param(call, "names", &text)) {
        char *copy = apm_arena_printf(&call->arena, "%s", text.p), *save = NULL;
        for (char *one = copy ? strtok_r(copy, ",", &save) : NULL; one && *n < NAMES_MAX;
             one = strtok_r(NULL, ",", &save))
            names[(*n)++] = one;
        return names;
    }
    for (size_t i = 0; i < s->n_task_queues && *n < NAMES_MAX; i++)
        names[(*n)++] = s->task_queues[i].name;
    if (*n == 0)
        names[(*n)++] = s->task_default_queue;
    return names;
}

static void
ask(apm_web_call *call, bool flower)
{
    apm_web *web = call->web;
    apium_error err;
    size_t n;
    if (!web->broker) {
        const apm_broker_opts opts = { .settings = &web->store_settings,
                                       .node = apm_app_name(web->app) };
        if (apm_broker_open(web->links, web->settings->broker_url, &opts, &web->broker, &err) !=
            APIUM_OK) {
            web->broker = NULL;
            apm_web_fail(call, &err);
            return;
        }
    }
    asking *a = apm_arena_alloc(&call->arena, sizeof(*a));
    const char **names = choose(call, &n);
    if (!a || !names || n == 0) {
        apm_web_error(call, 400, "no queue is named");
        return;
    }
    *a = (asking){ .call = call, .flower = flower, .names = names };
    web->broker->ops->inspect(web->broker, names, n, on_infos, a);
}

void
apm_queues_get(apm_web_call *call)
{
    ask(call, false);
}

void
apm_flower_queue_lengths(apm_web_call *call)
{
    ask(call, true);
}
