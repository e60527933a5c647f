/*
 * test_memory.c - memory://name shared by loops in several threads: each message goes to one of them, every result is
 * seen. What one loop promises is in the contract suites.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "backends/backend.h"
#include "brokers/broker.h"
#include "core/base/clock.h"
#include "tests/support/suite.h"

enum { MESSAGES = 2000, CONSUMERS = 3 };

static const apm_queue queue = { .name = "q", .exchange = "q", .routing_key = "q" };
static atomic_int times[MESSAGES];
static atomic_int settled, trouble;
static _Thread_local apm_settings settings; /* zeroed: results do not expire */

typedef struct member {
    uv_loop_t loop;
    apm_links *links;
    apm_broker *broker;
    apm_backend *backend;
    uv_timer_t watch; /* ends the loop when all is done */
} member;

static void
check(bool ok)
{
    if (!ok)
        trouble++;
}

static void
on_committed(void *arg, apium_status status, const apium_error *err)
{
    (void)arg;
    (void)err;
    check(status == APIUM_OK);
    settled++;
}

static void
on_batch(void *arg, apm_delivery **batch, size_t n)
{
    member *m = arg;
    apium_error err;

    for (size_t i = 0; i < n; i++) {
        char id[16];
        int number = atoi(batch[i]->msg.body.p);
        snprintf(id, sizeof(id), "id-%d", number);
        times[number]++;
        apm_unit *unit = apm_unit_new(m->broker->link);
        apm_record record = { .task_id = apm_strz(id),
                              .state = APM_STR("SUCCESS"),
                              .doc = APM_STR("{}") };
        check(m->backend->ops->record(m->backend, unit, &record, &err) == APIUM_OK);
        check(apm_broker_settle(m->broker, unit, batch[i], APM_ACK, NULL, &err) == APIUM_OK);
        apm_unit_commit(unit, on_committed, NULL);
        apm_delivery_free(batch[i]);
    }
}

static bool
member_open(member *m, const apm_broker_opts *opts)
{
    apium_error err;

    *m = (member){ 0 };
    return uv_loop_init(&m->loop) == 0 && (m->links = apm_links_new(&m->loop, &settings, -1)) &&
           apm_broker_open(m->links, "memory://threads", opts, &m->broker, &err) == APIUM_OK &&
           apm_backend_open(m->links, "memory://threads", NULL, &m->backend, &err) == APIUM_OK;
}

static void
member_close(member *m)
{
    apm_broker_close(m->broker);
    apm_backend_close(m->backend);
    apm_links_free(m->links);
    uv_run(&m->loop, UV_RUN_DEFAULT);
    check(uv_loop_close(&m->loop) == 0);
}

static void
look_for_the_end(uv_timer_t *timer)
{
    if (settled >= MESSAGES || trouble)
        uv_close((uv_handle_t *)timer, NULL);
}

/* Turn the loop until everything is settled. */
static void
turn(member *m)
{
    uv_timer_init(&m->loop, &m->watch);
    uv_timer_start(&m->watch, look_for_the_end, 5, 5);
    while (!uv_is_closing((uv_handle_t *)&m->watch))
        uv_run(&m->loop, UV_RUN_ONCE);
}

static void *
consumer(void *arg)
{
    member m;
    apm_broker_opts opts = { .settings = &settings, .on_batch = on_batch, .arg = &m };
    apium_error err;

    (void)arg;
    check(member_open(&m, &opts));
    apm_broker_declare(m.broker, &queue, NULL, NULL);
    check(apm_broker_consume(m.broker, &queue, &err) == APIUM_OK);
    apm_broker_window(m.broker, 4, false);
    turn(&m);
    member_close(&m);
    return NULL;
}

static void *
publisher(void *arg)
{
    member m;
    apm_broker_opts opts = { .settings = &settings };
    apm_route route = { .queue = &queue, .exchange = "", .routing_key = "q", .mandatory = true };
    apium_error err;

    (void)arg;
    check(member_open(&m, &opts));
    for (int i = 0; i < MESSAGES; i++) {
        char body[16];
        snprintf(body, sizeof(body), "%d", i);
        apm_message msg = { .headers = APM_STR("{}"), .body = apm_strz(body) };
        apm_unit *unit = apm_unit_new(m.broker->link);
        check(apm_broker_publish(m.broker, unit, &route, &msg, &err) == APIUM_OK);
        apm_unit_commit(unit, NULL, NULL);
        if (i % 50 == 0)
            uv_run(&m.loop, UV_RUN_NOWAIT);
    }
    turn(&m);
    member_close(&m);
    return NULL;
}

static void
on_change(void *arg, apm_str task_id, apm_str doc)
{
    (void)task_id;
    (void)doc;
    ++*(int *)arg;
}

START_TEST(threads_share_a_store_and_each_message_goes_to_one)
{
    pthread_t threads[CONSUMERS + 1];
    member m;
    apm_broker_opts opts = { .settings = &settings };
    apium_error error, *err = &error;
    int seen = 0;

    ck_assert(member_open(&m, &opts));
    for (int i = 0; i < MESSAGES; i += 10) {
        char id[16];
        snprintf(id, sizeof(id), "id-%d", i);
        ck_ok(m.backend->ops->watch(m.backend, id, on_change, &seen, err));
    }
    for (int i = 0; i < CONSUMERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, consumer, NULL), 0);
    ck_assert_int_eq(pthread_create(&threads[CONSUMERS], NULL, publisher, NULL), 0);
    turn(&m);
    for (int i = 0; i <= CONSUMERS; i++)
        pthread_join(threads[i], NULL);
    int64_t end = apm_clock_ms() + 10000;
    while (seen < MESSAGES / 10 && apm_clock_ms() < end)
        uv_run(&m.loop, UV_RUN_NOWAIT);
    member_close(&m);
    ck_assert_int_eq(trouble, 0);
    for (int i = 0; i < MESSAGES; i++)
        ck_assert_msg(times[i] == 1, "message %d came %d times", i, times[i]);
    ck_assert_int_eq(seen, MESSAGES / 10);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = { threads_share_a_store_and_each_message_goes_to_one, NULL };
    return suite_run("memory", tests, 60);
}
