/* test_amqp_errors.c - the RabbitMQ broker when the server says no: to a message, a queue, a size; and where refused messages go. */
#include <signal.h>
#include <sys/mman.h>

#include "tests/integration/amqp_kit.h"

rabbitmq *server;

static kit k;
static apium_error error, *const err = &error;

static void
open_kit(void)
{
    kit_open(&k);
}

static void
close_kit(void)
{
    kit_close(&k);
}

/* ---- the server says no ---- */

static void
send_by(const apm_route *route, apm_message *msg, fate *f)
{
    apm_unit *unit = apm_unit_new(k.broker->link);

    ck_ok(apm_broker_publish(k.broker, unit, route, msg, err));
    apm_unit_commit(unit, note_fate, f);
}

START_TEST(a_task_that_no_queue_takes_fails_at_the_sender)
{
    apm_message msg = message("[]");
    fate f = { 0 };

    send_by(&(apm_route){ .exchange = "", .routing_key = "nowhere", .mandatory = true }, &msg, &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_UNROUTABLE);
    ck_assert_ptr_nonnull(strstr(f.err.text, "nowhere"));
    /* Not mandatory, it is dropped as Celery's would be. */
    f = (fate){ 0 };
    send_by(&(apm_route){ .exchange = "", .routing_key = "nowhere" }, &msg, &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.bad, 0);
}
END_TEST

START_TEST(only_the_unroutable_message_among_many_fails)
{
    apm_queue q = queue_named("routable");
    apm_message msg = message("[]");
    fate good = { 0 }, bad = { 0 };

    for (int i = 0; i < 50; i++) {
        send_to(&k, &q, "[]", &good);
        if (i % 10 == 5)
            send_by(&(apm_route){ .exchange = "", .routing_key = "nowhere", .mandatory = true },
                    &msg, &bad);
    }
    wait_for(&k, good.n == 50 && bad.n == 5);
    ck_assert_int_eq(good.bad, 0);
    ck_assert_int_eq(bad.bad, 5);
    ck_assert_int_eq(ready_in(&k, "routable"), 50);
}
END_TEST

START_TEST(an_unknown_exchange_fails_its_unit_alone)
{
    apm_queue q = queue_named("known");
    apm_message msg = message("[]");
    fate good = { 0 }, bad = { 0 };

    put(&k, &q, "first");
    for (int i = 0; i < 30; i++) {
        send_to(&k, &q, "[]", &good);
        if (i == 10 || i == 20)
            send_by(&(apm_route){ .exchange = "no-such-exchange",
                                  .routing_key = "x",
                                  .mandatory = true },
                    &msg, &bad);
    }
    wait_for(&k, good.n == 30 && bad.n == 2);
    ck_assert_int_eq(good.bad, 0);
    ck_assert_int_eq(bad.bad, 2);
    ck_assert_int_eq(bad.status, APIUM_E_UNROUTABLE);
    ck_assert_ptr_nonnull(strstr(bad.err.text, "no-such-exchange"));
    ck_assert_int_ge(ready_in(&k, "known"), 31); /* at least once */
}
END_TEST

START_TEST(a_message_over_the_servers_limit_is_found_among_others)
{
    apm_queue q = queue_named("limit");
    fate good = { 0 }, bad = { 0 };
    char *body = malloc(3000001);

    memset(body, '1', 3000000);
    body[3000000] = '\0';
    put(&k, &q, "first");
    for (int i = 0; i < 20; i++) {
        send_to(&k, &q, "[]", &good);
        if (i == 10)
            send_to(&k, &q, body, &bad);
    }
    wait_for(&k, good.n == 20 && bad.n == 1);
    ck_assert_int_eq(good.bad, 0);
    ck_assert_int_eq(bad.status, APIUM_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(bad.err.text, "max"));
    free(body);
}
END_TEST

START_TEST(a_queue_that_is_declared_otherwise_fails_its_unit_alone)
{
    apm_queue plain = queue_named("declared"), other = queue_named("declared"),
              q = queue_named("beside");
    kit second;
    fate bad = { 0 }, good = { 0 };

    put(&k, &plain, "[]");
    other.max_priority = 5;
    kit_open(&second);
    send_to(&second, &other, "[]", &bad);
    send_to(&second, &q, "[]", &good);
    wait_for(&second, good.n == 1 && bad.n == 1);
    ck_assert_int_eq(good.bad, 0);
    ck_assert_int_eq(bad.status, APIUM_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(bad.err.text, "declared"));
    ck_assert_ptr_nonnull(strstr(bad.err.text, "x-max-priority"));
    /* Consuming from it says so too, and goes on with the other. */
    ck_ok(apm_broker_consume(second.broker, &other, err));
    receive_from(&second, &q, 5);
    wait_for(&second, second.n_got == 1 && strstr(second.notice, "x-max-priority"));
    kit_close(&second);
}
END_TEST

START_TEST(a_queue_that_cannot_be_consumed_is_tried_now_and_then_and_the_others_go_on)
{
    apm_queue stream = queue_named("stream"), q = queue_named("beside-stream");

    /* A stream is refused to a consumer without a prefetch, which an unlimited window is. */
    stream.arguments = "{\"x-queue-type\": \"stream\"}";
    put(&k, &q, "1");
    ck_ok(apm_broker_consume(k.broker, &stream, err));
    receive_from(&k, &q, 0);
    wait_for(&k, strstr(k.notice, "stream") && k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    pass(&k, 3000);
    ck_assert_uint_le(k.n_notices, 4); /* not hundreds */
    put(&k, &q, "2");
    wait_for(&k, k.n_got == 1);
}
END_TEST

START_TEST(a_full_queue_is_tried_again_and_then_told)
{
    apm_queue q = queue_named("full");
    fate f = { 0 };

    q.arguments = "{\"x-max-length\": 1, \"x-overflow\": \"reject-publish\"}";
    put(&k, &q, "1");
    send_to(&k, &q, "2", &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_BUSY);
    ck_assert(f.err.retriable);
    ck_assert_ptr_nonnull(strstr(f.err.text, "full"));
    /* Room is made while it is tried. */
    f = (fate){ 0 };
    send_to(&k, &q, "3", &f);
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, f.n == 1 && k.n_got == 1);
    ck_assert_int_eq(f.bad, 0);
}
END_TEST

START_TEST(a_failing_unit_leaves_its_delivery_held)
{
    apm_queue q = queue_named("held");
    apm_message msg = message("[]");
    fate f = { 0 };

    put(&k, &q, "1");
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    apm_unit *unit = apm_unit_new(k.broker->link);
    ck_ok(apm_broker_publish(
        k.broker, unit, &(apm_route){ .exchange = "", .routing_key = "nowhere", .mandatory = true },
        &msg, err));
    ck_ok(apm_broker_settle(k.broker, unit, k.got[0], APM_ACK, NULL, err));
    ck_assert_int_eq(k.got[0]->hold, APM_SETTLED);
    apm_unit_commit(unit, note_fate, &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_UNROUTABLE);
    ck_assert_int_eq(k.got[0]->hold, APM_HELD);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    kit_close(&k);
    kit_open(&k);
    ck_assert_int_eq(ready_in(&k, "held"), 0);
}
END_TEST

START_TEST(what_amqp_cannot_carry_is_refused_before_it_is_sent)
{
    apm_message msg = message("[]");
    apm_route route = { .exchange = "", .routing_key = "x" };
    char *headers = malloc(200100), longname[300];

    apm_unit *unit = apm_unit_new(k.broker->link);
    msg.headers = APM_STR("{\"n\": 123456789012345678901234567890}");
    ck_fails(apm_broker_publish(k.broker, unit, &route, &msg, err), APIUM_E_ENCODE);
    ck_assert_ptr_nonnull(strstr(err->text, "\"n\""));
    msg.headers = APM_STR("{}");
    msg.expiration = APM_STR("soon");
    ck_fails(apm_broker_publish(k.broker, unit, &route, &msg, err), APIUM_E_ENCODE);
    msg.expiration = APM_STR_NONE;
    memset(longname, 'q', sizeof(longname) - 1);
    longname[sizeof(longname) - 1] = '\0';
    route.routing_key = longname;
    ck_fails(apm_broker_publish(k.broker, unit, &route, &msg, err), APIUM_E_INVALID);
    route.routing_key = "x";
    ck_assert_ptr_nonnull(headers);
    snprintf(headers, 200100, "{\"h\": \"%0200000d\"}", 0);
    msg.headers = apm_strz(headers);
    ck_fails(apm_broker_publish(k.broker, unit, &route, &msg, err), APIUM_E_TOOBIG);
    apm_unit_drop(unit);
    free(headers);
}
END_TEST

/* ---- the dead-letter place ---- */

typedef struct dead_seen {
    bool done;
    size_t n;
    char queue[64], reason[128], message[512];
} dead_seen;

static void
note_dead(void *arg, const apm_dead *dead, size_t n, const apium_error *e)
{
    dead_seen *seen = arg;

    ck_assert_msg(!e, "%s", e ? e->text : "");
    seen->done = true;
    seen->n = n;
    if (n > 0) {
        snprintf(seen->queue, sizeof(seen->queue), "%s", dead[0].queue);
        snprintf(seen->reason, sizeof(seen->reason), "%s", dead[0].reason);
        snprintf(seen->message, sizeof(seen->message), "%.*s", APM_STR_ARG(dead[0].message));
        ck_assert_int_gt(dead[0].at_us, INT64_C(1600000000000000));
    }
}

static dead_seen
look_at_dead(size_t limit)
{
    dead_seen seen = { 0 };

    k.broker->ops->dead(k.broker, limit, note_dead, &seen);
    wait_for(&k, seen.done);
    return seen;
}

static void
note_count(void *arg, apium_status status, int64_t count, const apium_error *e)
{
    (void)e;
    *(int64_t *)arg = status == APIUM_OK ? count : -2;
}

static int64_t
purge(const char *queue)
{
    int64_t count = -1;

    k.broker->ops->purge(k.broker, queue, note_count, &count);
    wait_for(&k, count != -1);
    return count;
}

START_TEST(a_rejected_message_is_kept_with_its_reason)
{
    apm_queue q = queue_named("rejected");

    ck_assert_int_ge(purge("apium.dead"), 0);
    ck_assert_uint_eq(look_at_dead(10).n, 0);
    for (int i = 0; i < 3; i++) {
        char body[16];
        snprintf(body, sizeof(body), "\"body%d\"", i);
        put(&k, &q, body);
    }
    receive_from(&k, &q, 3);
    for (int i = 0; i < 3; i++) {
        wait_for(&k, k.n_got > 0);
        settle(&k, take(&k, 0), APM_REJECT, i == 2 ? "the last straw" : "unknown task");
    }
    for (int again = 0; again < 2; again++) { /* looking takes nothing away */
        dead_seen seen = look_at_dead(2);
        ck_assert_uint_eq(seen.n, 2);
        ck_assert_str_eq(seen.queue, "rejected");
        ck_assert_str_eq(seen.reason, "the last straw");
        ck_assert_ptr_nonnull(strstr(seen.message, "tasks.add"));
        wait_for(&k, ready_in(&k, "apium.dead") == 3);
    }
    ck_assert_int_eq(purge("apium.dead"), 3);
    ck_assert_int_eq(purge("no such queue"), 0);
}
END_TEST

START_TEST(a_users_own_dead_letter_exchange_gets_a_rejected_message_as_well)
{
    apm_queue q = queue_named("lettered"), letters = queue_named("letters");

    q.arguments =
        "{\"x-dead-letter-exchange\": \"letters\", \"x-dead-letter-routing-key\": \"letters\"}";
    put(&k, &letters, "first");
    put(&k, &q, "1");
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_REJECT, "no");
    wait_for(&k, ready_in(&k, "letters") == 2);
}
END_TEST

START_TEST(a_body_over_our_limit_is_kept_and_told)
{
    apm_queue q = queue_named("overlimit");

    ck_assert_int_ge(purge("apium.dead"), 0);
    k.settings.max_message_bytes = 10;
    put(&k, &q, "0123456789abcdef");
    put(&k, &q, "short");
    receive_from(&k, &q, 5);
    wait_for(&k, k.n_refused == 1 && k.n_got == 1);
    ck_assert_ptr_nonnull(strstr(k.refusal, "16 bytes"));
    wait_for(&k, ready_in(&k, "apium.dead") == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    /* It is rejected once its copy is confirmed. */
    wait_for(&k, strstr(rabbitmq_ctl(server, "list_queues name messages --no-table-headers"),
                        "overlimit\t0"));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_task_that_no_queue_takes_fails_at_the_sender,
        only_the_unroutable_message_among_many_fails,
        an_unknown_exchange_fails_its_unit_alone,
        a_message_over_the_servers_limit_is_found_among_others,
        a_queue_that_is_declared_otherwise_fails_its_unit_alone,
        a_queue_that_cannot_be_consumed_is_tried_now_and_then_and_the_others_go_on,
        a_full_queue_is_tried_again_and_then_told,
        a_failing_unit_leaves_its_delivery_held,
        what_amqp_cannot_carry_is_refused_before_it_is_sent,
        a_rejected_message_is_kept_with_its_reason,
        a_users_own_dead_letter_exchange_gets_a_rejected_message_as_well,
        a_body_over_our_limit_is_kept_and_told,
        NULL,
    };

    /* Tests run in processes of their own; what one restarts, the next and the end have to find. */
    server = mmap(NULL, sizeof(*server), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rabbitmq_start(server, "max_message_size = 2000000\n");
    int failed = suite_run_with("amqp_errors", tests, 120, open_kit, close_kit);
    rabbitmq_stop(server);
    return failed;
}
