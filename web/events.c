/* events.c - changes of states as server-sent events: GET /events?ids=a,b */
#include "web/inner.h"

#include <stdlib.h>

#include "core/base/error.h"

#define IDS_MAX 100
#define PENDING_MAX                                                                                \
    ((size_t)4                                                                                     \
     << 20) /* a reader that lags so far is let go: it asks again, and gets the present states */
#define KEEP_ALIVE_MS 15000

typedef struct events events;

typedef struct watched {
    events *events;
    apm_listener listener;
} watched;

struct events {
    apm_web *web;
    apm_http_stream *stream;
    uv_timer_t timer;
    size_t n;
    watched watched[];
};

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
on_gone(void *arg)
{
    events *e = arg;
    for (size_t i = 0; i < e->n; i++)
        apm_hub_leave(e->web, &e->watched[i].listener);
    e->stream = NULL;
    e->web->waits--;
    uv_close((uv_handle_t *)&e->timer, on_closed);
}

static void
on_timer(uv_timer_t *timer)
{
    events *e = timer->data;
    (void)apm_http_write(e->stream, APM_STR(": still here\n\n"));
}

static void
on_change(void *arg, apm_str id, apm_str doc)
{
    events *e = ((watched *)arg)->events;
    apm_buf text;
    if (!e->stream)
        return;
    apm_buf_init(&text, APM_BUF_MAX);
    apm_buf_addz(&text, "event: state\ndata: ");
    size_t from = text.len;
    apm_task_write(&text, id, doc);
    /* One line: what was stored may be spread over several, and outside of strings a break is as good as a space. */
    for (size_t i = from; i < text.len; i++)
        if (text.p[i] == '\n' || text.p[i] == '\r')
            text.p[i] = ' ';
    apm_buf_addz(&text, "\n\n");
    if (text.failed || apm_http_write(e->stream, apm_buf_str(&text)) > PENDING_MAX)
        apm_http_cut(e->stream);
    apm_buf_clear(&text);
}

static apium_status
read_ids(apm_web_call *call, apm_str ids[IDS_MAX], size_t *n, apium_error *err)
{
    apm_str text;
    *n = 0;
    if (!apm_web_param(call, "ids", &text))
        return apm_fail(err, APIUM_E_INVALID, "ids is a list of task ids: ?ids=a,b");
    for (const char *p = text.p; *p; p += *p == ',') {
        size_t len = strcspn(p, ",");
        apm_str id = apm_arena_str(&call->arena, (apm_str){ p, len }, NULL);
        if (!apm_str_is(id) || !apm_web_id_ok(id))
            return apm_fail(err, APIUM_E_INVALID, "ids is a list of task ids: ?ids=a,b");
        if (*n == IDS_MAX)
            return apm_fail(err, APIUM_E_TOOBIG, "at most %d ids at once", IDS_MAX);
        ids[(*n)++] = id;
        p += len;
    }
    return *n ? APIUM_OK : apm_fail(err, APIUM_E_INVALID, "ids is a list of task ids: ?ids=a,b");
}

void
apm_events_get(apm_web_call *call)
{
    apm_web *web = call->web;
    apm_str ids[IDS_MAX];
    size_t n;
    apium_error err;
    apium_status st = read_ids(call, ids, &n, &err);
    if (st != APIUM_OK) {
        apm_web_fail(call, &err);
        return;
    }
    events *e = web->waits < APM_WEB_WAITS_MAX ? calloc(1, sizeof(*e) + n * sizeof(watched)) : NULL;
    if (!e) {
        apm_web_error(call, 503, "too many wait already");
        return;
    }
    e->web = web;
    uv_timer_init(&web->loop, &e->timer);
    e->timer.data = e;
    web->waits++;
    for (size_t i = 0; i < n && st == APIUM_OK; i++) {
        e->watched[i] = (watched){ .events = e };
        e->watched[i].listener = (apm_listener){ .on_change = on_change, .arg = &e->watched[i] };
        st = apm_hub_listen(web, ids[i], &e->watched[i].listener, &err);
        e->n += st == APIUM_OK;
    }
    if (st == APIUM_OK && !(e->stream = apm_web_stream(call, "text/event-stream", on_gone, e)))
        st = apm_fail(&err, APIUM_E_NOMEM, "out of memory");
    if (st != APIUM_OK) {
        on_gone(e);
        apm_web_fail(call, &err);
        return;
    }
    uv_timer_start(&e->timer, on_timer, KEEP_ALIVE_MS, KEEP_ALIVE_MS);
    (void)apm_http_write(e->stream, APM_STR(": states\n\n")); /* the headers leave at once */
}
