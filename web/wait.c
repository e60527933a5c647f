/* wait.c - a call that waits for a document of a task; see inner.h */
#include "web/inner.h"

#include <stdlib.h>

typedef struct wait {
    apm_web_call *call;
    apm_listener listener;
    uv_timer_t timer;
    bool (*wanted)(const apm_web_call *call, apm_str doc);
    void (*answer)(apm_web_call *call, apm_str doc);
    apm_buf last; /* the present document, which is not wanted */
} wait;

static void
on_closed(uv_handle_t *handle)
{
    wait *w = handle->data;
    apm_buf_clear(&w->last);
    free(w);
}

static apm_web_call *
wait_end(wait *w)
{
    apm_web_call *call = w->call;
    apm_hub_leave(call->web, &w->listener);
    call->web->waits--;
    uv_close((uv_handle_t *)&w->timer, on_closed);
    return call;
}

static void
on_change(void *arg, apm_str id, apm_str doc)
{
    wait *w = arg;
    (void)id;
    if (w->wanted(w->call, doc)) {
        w->answer(wait_end(w), doc);
        return;
    }
    apm_buf_reset(&w->last);
    apm_buf_adds(&w->last, doc);
}

static void
on_timer(uv_timer_t *timer)
{
    wait *w = timer->data;
    const apm_str doc = w->last.len ? apm_buf_str(&w->last) : APM_STR_NONE;
    w->answer(wait_end(w), doc); /* w is released on the loop */
}

static void
on_gone(void *arg)
{
    apm_web_error(wait_end(arg), 503, "the wait is over");
}

void
apm_web_wait(apm_web_call *call, int64_t wait_ms,
             bool (*wanted)(const apm_web_call *call, apm_str doc),
             void (*answer)(apm_web_call *call, apm_str doc))
{
    apm_web *web = call->web;
    apium_error err;
    wait *w = web->waits < APM_WEB_WAITS_MAX ? calloc(1, sizeof(*w)) : NULL;
    if (!w) {
        apm_web_error(call, 503, "too many wait already");
        return;
    }
    w->call = call;
    w->wanted = wanted;
    w->answer = answer;
    apm_buf_init(&w->last, APM_BUF_MAX);
    w->listener = (apm_listener){ .on_change = on_change, .arg = w };
    if (apm_hub_listen(web, call->args[0], &w->listener, &err) != APIUM_OK) {
        free(w);
        apm_web_fail(call, &err);
        return;
    }
    web->waits++;
    uv_timer_init(&web->loop, &w->timer);
    w->timer.data = w;
    uv_timer_start(&w->timer, on_timer, (uint64_t)wait_ms, 0);
    apm_http_on_gone(call->req, on_gone, w);
}
