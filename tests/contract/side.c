/* side.c - see side.h */
#include "side.h"

#include <signal.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adapters.h"
#include "core/base/clock.h"

char side_url[512];
const struct adapter *side_adapter;

static side *sides;

/* ---- What the broker says ---- */

static void
on_batch(void *arg, apm_delivery **batch, size_t n)
{
    side *s = arg;

    s->batches++;
    s->received += n;
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_lt(s->n_got, sizeof(s->got) / sizeof(s->got[0]));
        ck_assert_int_eq(batch[i]->hold, APM_HELD);
        s->got[s->n_got++] = batch[i];
    }
}

static void
on_lost(void *arg, apm_delivery *delivery)
{
    side *s = arg;

    ck_assert_int_eq(delivery->hold, APM_LOST);
    if (s->n_lost < sizeof(s->lost) / sizeof(s->lost[0]))
        s->lost[s->n_lost++] = delivery;
}

static void
on_refused(void *arg, const char *queue, apm_str raw, const char *why)
{
    side *s = arg;

    (void)queue;
    (void)raw;
    s->n_refused++;
    snprintf(s->refused_why, sizeof(s->refused_why), "%s", why);
}

static void
on_notice(void *arg, apm_log_level level, const char *text)
{
    (void)arg;
    (void)level;
    (void)text;
}

/* ---- Opening, turning, closing ---- */

side *
side_new(int64_t patience_ms)
{
    side *s = calloc(1, sizeof(*s));
    apium_error error, *err = &error;

    ck_assert_ptr_nonnull(s);
    ck_assert_int_eq(uv_loop_init(&s->loop), 0);
    ck_ok(apm_settings_init(&s->settings, err));
    signal(SIGPIPE, SIG_IGN);
    s->links = apm_links_new(&s->loop, &s->settings, patience_ms);
    ck_assert_ptr_nonnull(s->links);
    s->next = sides;
    sides = s;
    return s;
}

side *
side_with(bool broker, bool backend)
{
    side *s = side_new(WAIT_MS);
    apium_error error, *err = &error;
    apm_broker_opts opts = {
        .settings = &s->settings,
        .node = "test@here",
        .on_batch = on_batch,
        .on_lost = on_lost,
        .on_refused = on_refused,
        .on_notice = on_notice,
        .arg = s,
    };

    if (broker)
        ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    if (broker && side_adapter && side_adapter->hurry)
        side_adapter->hurry(s->broker);
    if (backend)
        ck_ok(apm_backend_open(s->links, side_url, side_url, &s->backend, err));
    return s;
}

void
side_free(side *s)
{
    for (side **at = &sides; *at; at = &(*at)->next) {
        if (*at == s) {
            *at = s->next;
            break;
        }
    }
    for (size_t i = 0; i < s->n_got; i++)
        apm_delivery_free(s->got[i]);
    for (size_t i = 0; i < s->n_lost; i++)
        apm_delivery_free(s->lost[i]);
    apm_broker_close(s->broker);
    apm_backend_close(s->backend);
    apm_links_free(s->links);
    /* Closing ends: a loop that still had something to do would never return. */
    uv_run(&s->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&s->loop), 0);
    apm_settings_clear(&s->settings);
    free(s);
}

void
sides_forked(void)
{
    sides = NULL;
}

void
sides_turn(void)
{
    struct pollfd fds[8];
    nfds_t n = 0;
    int wait = 10;

    /* Wait first, then turn: whoever waits for something looks right after it happened. */
    for (side *s = sides; s && n < 8; s = s->next) {
        apm_links_flush(s->links);
        int left = uv_backend_timeout(&s->loop);
        if (left >= 0 && left < wait)
            wait = left;
        fds[n++] = (struct pollfd){ .fd = uv_backend_fd(&s->loop), .events = POLLIN };
    }
    (void)poll(fds, n, wait);
    for (side *s = sides; s; s = s->next)
        uv_run(&s->loop, UV_RUN_NOWAIT);
}

void
run_for(int64_t ms)
{
    uint64_t end = uv_hrtime() + (uint64_t)ms * 1000000;

    while (uv_hrtime() < end)
        sides_turn();
}

/* ---- Queues and messages ---- */

void *
side_keep(void *p)
{
    static void *kept[4096];
    static size_t n;

    ck_assert_ptr_nonnull(p);
    ck_assert_uint_lt(n, sizeof(kept) / sizeof(kept[0]));
    return kept[n++] = p;
}

const apm_queue *
side_queue(const char *what)
{
    static unsigned made;
    apm_queue *queue = side_keep(calloc(1, sizeof(*queue)));
    char *name = NULL;

    ck_assert_int_gt(asprintf(&name, "t%d-%u-%s", (int)getpid(), made++, what), 0);
    *queue = (apm_queue){
        .name = side_keep(name),
        .exchange = name,
        .exchange_type = APM_DIRECT,
        .routing_key = name,
        .max_priority = 10,
        .durable = true,
    };
    return queue;
}

apm_route
side_route(const apm_queue *queue)
{
    return (
        apm_route){ .queue = queue, .exchange = "", .routing_key = queue->name, .mandatory = true };
}

apm_route
side_nowhere(const char *key)
{
    return (apm_route){ .exchange = side_adapter->any_name ? "t-unbound" : "",
                        .routing_key = key,
                        .mandatory = true };
}

apm_message
side_message(const char *body)
{
    return (apm_message){
        .content_type = APM_STR("application/json"),
        .content_encoding = APM_STR("utf-8"),
        .headers = APM_STR("{\"task\": \"tasks.add\", \"id\": \"4f3c\"}"),
        .body = apm_strz(body),
        .priority = APM_PRIORITY_NONE,
        .delivery_mode = 2,
    };
}

/* ---- Acting and waiting ---- */

typedef struct fate {
    bool known;
    apium_status status;
    apium_error err;
} fate;

static void
on_fate(void *arg, apium_status status, const apium_error *err)
{
    fate *f = arg;

    ck_assert_msg(!f->known, "answered twice");
    f->known = true;
    f->status = status;
    if (err)
        f->err = *err;
}

void
side_consume(side *s, const apm_queue *queue, unsigned window)
{
    fate f = { 0 };
    apium_error error, *err = &error;

    apm_broker_declare(s->broker, queue, on_fate, &f);
    run_until(f.known);
    ck_assert_msg(f.status == APIUM_OK, "cannot declare: %s", f.err.text);
    ck_ok(apm_broker_consume(s->broker, queue, err));
    apm_broker_window(s->broker, window, false);
}

apium_status
side_commit(apm_unit *unit, apium_error *err)
{
    fate f = { 0 };

    apm_unit_commit(unit, on_fate, &f);
    ck_assert_msg(!f.known, "answered from inside the call");
    run_until(f.known);
    if (f.status != APIUM_OK)
        *err = f.err;
    return f.status;
}

apium_status
side_publish_message(side *s, const apm_route *route, const apm_message *msg, apium_error *err)
{
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_assert_ptr_nonnull(unit);
    apium_status st = apm_broker_publish(s->broker, unit, route, msg, err);

    if (st != APIUM_OK) {
        apm_unit_drop(unit);
        return st;
    }
    return side_commit(unit, err);
}

apium_status
side_publish(side *s, const apm_queue *queue, const char *body, apium_error *err)
{
    apm_route route = side_route(queue);
    apm_message msg = side_message(body);

    return side_publish_message(s, &route, &msg, err);
}

apm_delivery *
side_receive(side *s)
{
    run_until(s->n_got > 0);
    apm_delivery *first = s->got[0];
    memmove(s->got, s->got + 1, --s->n_got * sizeof(s->got[0]));
    return first;
}

apium_status
side_settle(side *s, apm_delivery *delivery, apm_disposition how, const char *reason,
            apium_error *err)
{
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_assert_ptr_nonnull(unit);
    apium_status st = apm_broker_settle(s->broker, unit, delivery, how, reason, err);

    if (st == APIUM_OK)
        st = side_commit(unit, err);
    else
        apm_unit_drop(unit);
    apm_delivery_free(delivery);
    return st;
}

typedef struct counts {
    bool known;
    apm_queue_info info;
} counts;

static void
on_infos(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    counts *c = arg;

    c->known = true;
    ck_assert_msg(!err, "cannot inspect: %s", err ? err->text : "");
    ck_assert_uint_eq(n, 1);
    c->info = infos[0];
}

apm_queue_info
side_inspect(side *s, const apm_queue *queue)
{
    counts c = { 0 };

    s->broker->ops->inspect(s->broker, &queue->name, 1, on_infos, &c);
    run_until(c.known);
    c.info.name = queue->name;
    return c.info;
}

apm_queue_info
side_look(side *s, const apm_queue *queue)
{
    counts c = { 0 };

    s->broker->ops->look(s->broker, &queue->name, 1, on_infos, &c);
    run_until(c.known);
    return c.info;
}

bool
body_is(const apm_delivery *delivery, const char *body)
{
    return apm_str_eqz(delivery->msg.body, body);
}
