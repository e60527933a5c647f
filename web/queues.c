/* queues.c - how much waits where. */
#include "web/inner.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/error.h"

#define NAMES_MAX  200
#define ASKING_MAX 64    /* questions that the broker has not answered */
#define ANSWER_MS  10000 /* a call waits for it */

/*
 * One question to the broker. A broker that is stopped answers nothing, not even that: the call is answered without it after
 * ANSWER_MS, and what still comes is dropped.
 */
typedef struct asking {
    apm_web *web;
    struct asking *prev, *next;
    apm_web_call *call; /* NULL: answered */
    apm_web_queues_fn *answer;
    uv_timer_t timer;
    bool told, closed; /* the broker has answered; the timer is closed */
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
write_queues(apm_web_call *call, const apm_queue_info *infos, size_t n, const apium_error *err,
             bool flower)
{
    apm_buf body;
    if (err) {
        apm_web_fail(call, err);
        return;
    }
    apm_buf_init(&body, APM_BUF_MAX);
    apm_buf_addf(&body, "{\"%s\": [", flower ? "active_queues" : "queues");
    for (size_t i = 0; i < n; i++) {
        apm_buf_addz(&body, i ? ", {\"name\": " : "{\"name\": ");
        apm_json_add_stringz(&body, infos[i].name);
        if (flower) {
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
    apm_web_answer(call, 200, &body);
}

static void
answer_rest(apm_web_call *call, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    write_queues(call, infos, n, err, false);
}

static void
answer_flower(apm_web_call *call, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    write_queues(call, infos, n, err, true);
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
             one = strtok_r(NULL, ",", &save)) {
            size_t at = 0;
            while (at < *n && strcmp(names[at], one) != 0)
                at++;
            if (at == *n)
                names[(*n)++] = one;
        }
        return names;
    }
    for (size_t i = 0; i < s->n_task_queues && *n < NAMES_MAX; i++)
        names[(*n)++] = s->task_queues[i].name;
    if (*n == 0)
        names[(*n)++] = s->task_default_queue;
    return names;
}

/* ---- asking ---- */

static void
release(asking *a)
{
    if (!a->told || !a->closed)
        return;
    *(a->prev ? &a->prev->next : &a->web->asking) = a->next;
    if (a->next)
        a->next->prev = a->prev;
    a->web->n_asking--;
    free(a);
}

static void
on_timer_closed(uv_handle_t *handle)
{
    asking *a = handle->data;
    a->closed = true;
    release(a);
}

static void
answer(asking *a, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    apm_web_call *call = a->call;
    a->call = NULL;
    uv_close((uv_handle_t *)&a->timer, on_timer_closed);
    apm_http_on_gone(call->req, NULL, NULL);
    a->answer(call, infos, n, err);
}

static void
give_up(asking *a, const char *why)
{
    apium_error err;
    (void)apm_fail(&err, APIUM_E_TIMEOUT, "%s", why);
    answer(a, NULL, 0, &err);
}

static void
on_timer(uv_timer_t *timer)
{
    give_up(timer->data, "the broker does not answer");
}

/* Who asked has left, or the server stops. */
static void
on_gone(void *arg)
{
    give_up(arg, "nobody waits for that any more");
}

static void
on_infos(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    asking *a = arg;
    a->told = true;
    if (a->call)
        answer(a, infos, n, err);
    else
        release(a);
}

void
apm_web_ask_queues(apm_web_call *call, bool often, int64_t patience_ms, apm_web_queues_fn *done)
{
    apm_web *web = call->web;
    apium_error err;
    size_t n;
    const char **names = choose(call, &n);
    if (!names || n == 0) {
        (void)apm_fail(&err, APIUM_E_INVALID, "no queue is named");
        done(call, NULL, 0, &err);
        return;
    }
    if (!web->broker) {
        const apm_broker_opts opts = { .settings = &web->store_settings,
                                       .node = apm_app_name(web->app) };
        if (apm_broker_open(web->links, web->settings->broker_url, &opts, &web->broker, &err) !=
            APIUM_OK) {
            web->broker = NULL;
            done(call, NULL, 0, &err);
            return;
        }
    }
    asking *a = web->n_asking < ASKING_MAX ? calloc(1, sizeof(*a)) : NULL;
    if (!a) {
        (void)apm_fail(&err, APIUM_E_BUSY, "too many ask the broker already");
        done(call, NULL, 0, &err);
        return;
    }
    *a = (asking){ .web = web, .call = call, .answer = done, .next = web->asking };
    if (a->next)
        a->next->prev = a;
    web->asking = a;
    web->n_asking++;
    uv_timer_init(&web->loop, &a->timer);
    a->timer.data = a;
    uv_timer_start(&a->timer, on_timer, (uint64_t)patience_ms, 0);
    apm_http_on_gone(call->req, on_gone, a);
    /* A broker that cannot park is RabbitMQ: it counts the refused by taking each of them and giving it back. */
    if (often && !apm_broker_can(web->broker, APM_BROKER_PARK))
        web->broker->ops->look(web->broker, names, n, on_infos, a);
    else
        web->broker->ops->inspect(web->broker, names, n, on_infos, a);
}

void
apm_web_forget_queues(apm_web *web)
{
    for (asking *a = web->asking, *next; a; a = next) {
        next = a->next;
        a->told = true;
        release(a);
    }
}

void
apm_queues_get(apm_web_call *call)
{
    apm_web_ask_queues(call, false, ANSWER_MS, answer_rest);
}

void
apm_flower_queue_lengths(apm_web_call *call)
{
    apm_web_ask_queues(call, true, ANSWER_MS, answer_flower);
}
