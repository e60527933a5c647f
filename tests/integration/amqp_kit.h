/*
 * amqp_kit.h - one program's view of a RabbitMQ, for tests: a loop, a link, a broker, and what came of it.
 * Every wait has a deadline; what a test waits for is a condition.
 */
#ifndef APM_TESTS_AMQP_KIT_H
#define APM_TESTS_AMQP_KIT_H

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/backend.h"
#include "brokers/broker.h"
#include "core/base/clock.h"
#include "tests/support/rabbitmq.h"
#include "tests/support/suite.h"

#define WAIT_MS 30000

typedef struct kit {
    uv_loop_t loop;
    uv_timer_t timer;
    apm_settings settings;
    apm_links *set;
    apm_broker *broker;
    apm_link_watch watch;
    int ups, downs;
    char why[1024];    /* of the last change */
    char notice[1024]; /* the last */
    apm_delivery *got[4096];
    size_t n_got, n_lost, n_refused, n_notices;
    char refusal[256];
} kit;

typedef struct fate {
    int n, bad;
    apium_status status;
    apium_error err;
} fate;

extern rabbitmq *server; /* the test file's */

#define wait_for(k, condition)                                                                     \
    do {                                                                                           \
        int64_t end_ = apm_clock_ms() + WAIT_MS;                                                   \
        while (!(condition)) {                                                                     \
            ck_assert_msg(apm_clock_ms() < end_, "not in time: %s (%s; %s; got %zu)", #condition,  \
                          (k)->why, (k)->notice, (k)->n_got);                                      \
            uv_run(&(k)->loop, UV_RUN_ONCE);                                                       \
        }                                                                                          \
    } while (0)

/* Let time pass on the loop: only to see that something does *not* happen. */
static inline void
pass(kit *k, int64_t ms)
{
    int64_t end = apm_clock_ms() + ms;

    while (apm_clock_ms() < end)
        uv_run(&k->loop, UV_RUN_ONCE);
}

static void
kit_event(void *arg, apm_link *link, bool up, const char *why)
{
    kit *k = arg;

    (void)link;
    (*(up ? &k->ups : &k->downs))++;
    snprintf(k->why, sizeof(k->why), "%s", why);
}

static void
kit_batch(void *arg, apm_delivery **batch, size_t n)
{
    kit *k = arg;

    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_lt(k->n_got, sizeof(k->got) / sizeof(k->got[0]));
        k->got[k->n_got++] = batch[i];
    }
}

static void
kit_lost(void *arg, apm_delivery *delivery)
{
    kit *k = arg;

    k->n_lost++;
    for (size_t i = 0; i < k->n_got; i++)
        if (k->got[i] == delivery)
            k->got[i] = k->got[--k->n_got];
    apm_delivery_free(delivery);
}

static void
kit_refused(void *arg, const char *queue, apm_str raw, const char *why)
{
    kit *k = arg;

    (void)queue;
    (void)raw;
    k->n_refused++;
    snprintf(k->refusal, sizeof(k->refusal), "%s", why);
}

static void
kit_notice(void *arg, apm_log_level level, const char *text)
{
    kit *k = arg;

    (void)level;
    k->n_notices++;
    snprintf(k->notice, sizeof(k->notice), "%s", text);
}

static void
kit_tick(uv_timer_t *timer)
{
    (void)timer; /* so that a wait looks at its deadline */
}

static inline void
kit_open_at(kit *k, const char *url, int64_t patience_ms)
{
    apium_error error = { 0 }, *err = &error;

    *k = (kit){ 0 };
    uv_loop_init(&k->loop);
    uv_timer_init(&k->loop, &k->timer);
    uv_timer_start(&k->timer, kit_tick, 10, 10);
    ck_ok(apm_settings_init(&k->settings, err));
    signal(SIGPIPE, SIG_IGN);
    k->set = apm_links_new(&k->loop, &k->settings, patience_ms);
    ck_ok(apm_broker_open(k->set, url,
                          &(apm_broker_opts){
                              .settings = &k->settings,
                              .node = "w1@here",
                              .on_batch = kit_batch,
                              .on_lost = kit_lost,
                              .on_refused = kit_refused,
                              .on_notice = kit_notice,
                              .arg = k,
                          },
                          &k->broker, err));
    k->watch = (apm_link_watch){ .on_event = kit_event, .arg = k };
    apm_link_watch_add(k->broker->link, &k->watch);
}

static inline void
kit_open(kit *k)
{
    kit_open_at(k, rabbitmq_url(server), -1);
}

static inline void
kit_close(kit *k)
{
    for (size_t i = 0; i < k->n_got; i++)
        apm_delivery_free(k->got[i]);
    k->n_got = 0;
    apm_broker_close(k->broker);
    apm_links_free(k->set);
    uv_close((uv_handle_t *)&k->timer, NULL);
    uv_run(&k->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&k->loop), 0);
    apm_settings_clear(&k->settings);
}

/* The server says good-bye too: it is not waited for in vain. */
static inline void
kit_part(kit *k)
{
    int64_t began_ms = apm_clock_ms();
    kit_close(k);
    ck_assert_int_lt(apm_clock_ms() - began_ms, 2500);
}

/* ---- what tests say often ---- */

static inline void
note_fate(void *arg, apium_status status, const apium_error *err)
{
    fate *f = arg;

    f->n++;
    if (status == APIUM_OK)
        return;
    f->bad++;
    f->status = status;
    f->err = *err;
}

/* A queue of the test's own, as Celery declares one. */
static inline apm_queue
queue_named(const char *name)
{
    return (apm_queue){ .name = name, .exchange = name, .routing_key = name, .durable = true };
}

static inline apm_message
message(const char *body)
{
    return (apm_message){
        .content_type = APM_STR("application/json"),
        .content_encoding = APM_STR("utf-8"),
        .headers = APM_STR("{\"task\": \"tasks.add\", \"id\": \"id-1\"}"),
        .body = apm_strz(body),
        .correlation_id = APM_STR("id-1"),
        .delivery_mode = 2,
    };
}

static inline void
send_to(kit *k, const apm_queue *queue, const char *body, fate *f)
{
    apium_error error, *err = &error;
    apm_message msg = message(body);
    apm_unit *unit = apm_unit_new(k->broker->link);

    ck_ok(apm_broker_publish(
        k->broker, unit,
        &(apm_route){
            .queue = queue, .exchange = "", .routing_key = queue->name, .mandatory = true },
        &msg, err));
    apm_unit_commit(unit, note_fate, f);
}

/* Publish and wait for the confirm. */
static inline void
put(kit *k, const apm_queue *queue, const char *body)
{
    fate f = { 0 };

    send_to(k, queue, body, &f);
    wait_for(k, f.n == 1);
    ck_assert_msg(f.bad == 0, "%s", f.err.text);
}

static inline void
receive_from(kit *k, const apm_queue *queue, unsigned window)
{
    apium_error error, *err = &error;

    ck_ok(apm_broker_consume(k->broker, queue, err));
    apm_broker_window(k->broker, window, false);
}

static inline apm_delivery *
take(kit *k, size_t i)
{
    ck_assert_uint_lt(i, k->n_got);
    apm_delivery *delivery = k->got[i];
    memmove(&k->got[i], &k->got[i + 1], (--k->n_got - i) * sizeof(k->got[0]));
    return delivery;
}

/* Settle by itself and wait until that is done. */
static inline void
settle(kit *k, apm_delivery *delivery, apm_disposition how, const char *reason)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(k->broker->link);
    fate f = { 0 };

    ck_ok(apm_broker_settle(k->broker, unit, delivery, how, reason, err));
    apm_unit_commit(unit, note_fate, &f);
    wait_for(k, f.n == 1);
    ck_assert_msg(f.bad == 0, "%s", f.err.text);
    apm_delivery_free(delivery);
}

typedef struct counts {
    bool done, failed;
    apm_queue_info info;
} counts;

static inline void
note_counts(void *arg, const apm_queue_info *infos, size_t n, const apium_error *err)
{
    counts *c = arg;

    c->done = true;
    c->failed = err != NULL || n == 0;
    if (!c->failed)
        c->info = infos[0];
}

static inline int64_t
ready_in(kit *k, const char *queue)
{
    counts c = { 0 };

    k->broker->ops->inspect(k->broker, &queue, 1, note_counts, &c);
    wait_for(k, c.done);
    ck_assert(!c.failed);
    return c.info.ready;
}

#endif
