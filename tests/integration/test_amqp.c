/* test_amqp.c - the RabbitMQ broker on a real server: messages, their settlement, and every way in which the server says no. */
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

/* ---- messages ---- */

START_TEST(a_message_arrives_as_it_was_sent)
{
    apm_queue q = queue_named("sent");
    apm_message msg = message("[[2, 3], {}, null]");
    fate f = { 0 };

    msg.headers = APM_STR(
        "{\"task\": \"t\", \"null\": null, \"yes\": true, \"int\": -5, \"long\": 12345678901, "
        "\"float\": 1.5, \"text\": \"\\u00e9\\n\", \"list\": [1, [null]], \"map\": {\"a\": {}}}");
    msg.reply_to = APM_STR("somebody");
    msg.priority = 7;
    msg.expiration = APM_STR("600000");
    msg.delivery_mode = 1;
    apm_unit *unit = apm_unit_new(k.broker->link);
    ck_ok(apm_broker_publish(k.broker, unit,
                             &(apm_route){ .queue = &q, .exchange = "", .routing_key = q.name },
                             &msg, err));
    apm_unit_commit(unit, note_fate, &f);
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    const apm_delivery *delivery = k.got[0];
    const apm_message *got = &delivery->msg;
    ck_assert(apm_str_eqz(got->body, "[[2, 3], {}, null]"));
    ck_assert(apm_str_eq(got->headers, msg.headers));
    ck_assert(apm_str_eqz(got->content_type, "application/json"));
    ck_assert(apm_str_eqz(got->content_encoding, "utf-8"));
    ck_assert(apm_str_eqz(got->correlation_id, "id-1"));
    ck_assert(apm_str_eqz(got->reply_to, "somebody"));
    ck_assert(apm_str_eqz(got->expiration, "600000"));
    ck_assert(apm_str_eqz(got->exchange, "") && apm_str_eqz(got->routing_key, "sent"));
    ck_assert_int_eq(got->priority, 7);
    ck_assert_int_eq(got->delivery_mode, 1);
    ck_assert(!got->redelivered);
    ck_assert_str_eq(delivery->queue, "sent");
    settle(&k, take(&k, 0), APM_ACK, NULL);
}
END_TEST

START_TEST(a_body_of_many_frames_arrives_whole)
{
    apm_queue q = queue_named("big");
    size_t len = 700001;
    char *body = malloc(len + 1);

    for (size_t i = 0; i < len; i++)
        body[i] = (char)('a' + i * 7 % 26);
    body[len] = '\0';
    put(&k, &q, body);
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    ck_assert(apm_str_eqz(k.got[0]->msg.body, body));
    settle(&k, take(&k, 0), APM_ACK, NULL);
    free(body);
}
END_TEST

START_TEST(an_empty_body_arrives)
{
    apm_queue q = queue_named("empty");

    put(&k, &q, "");
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    ck_assert_uint_eq(k.got[0]->msg.body.len, 0);
    settle(&k, take(&k, 0), APM_ACK, NULL);
}
END_TEST

START_TEST(what_is_acked_is_gone_and_what_is_not_comes_again)
{
    apm_queue q = queue_named("acked");
    char body[16];

    for (int i = 0; i < 10; i++) {
        snprintf(body, sizeof(body), "%d", i);
        put(&k, &q, body);
    }
    receive_from(&k, &q, 10);
    wait_for(&k, k.n_got == 10);
    /* 9 7 5 3 1: none of them is the oldest, so each has an ack of its own. */
    for (size_t i = 10; i-- > 0;)
        if (i % 2)
            settle(&k, take(&k, i), APM_ACK, NULL);
    kit_close(&k);
    kit_open(&k);
    receive_from(&k, &q, 10);
    wait_for(&k, k.n_got == 5);
    for (size_t i = 0; i < 5; i++) {
        ck_assert(k.got[i]->msg.redelivered);
        ck_assert_int_eq(k.got[i]->msg.body.p[0], (char)('0' + 2 * i));
    }
    /* All of them in one unit: one ack for all. */
    apm_unit *unit = apm_unit_new(k.broker->link);
    fate f = { 0 };
    for (size_t i = 0; i < 5; i++)
        ck_ok(apm_broker_settle(k.broker, unit, k.got[i], APM_ACK, NULL, err));
    apm_unit_commit(unit, note_fate, &f);
    wait_for(&k, f.n == 1);
    kit_close(&k);
    kit_open(&k);
    ck_assert_int_eq(ready_in(&k, "acked"), 0);
}
END_TEST

START_TEST(no_more_is_handed_over_than_the_window_holds)
{
    apm_queue q = queue_named("window");
    char body[16];

    for (int i = 0; i < 20; i++) {
        snprintf(body, sizeof(body), "%d", i);
        put(&k, &q, body);
    }
    ck_ok(apm_broker_consume(k.broker, &q, err));
    pass(&k, 300);
    ck_assert_uint_eq(k.n_got, 0); /* paused until there is a window */
    apm_broker_window(k.broker, 4);
    wait_for(&k, k.n_got == 4);
    pass(&k, 200);
    ck_assert_uint_eq(k.n_got, 4);
    ck_assert_int_eq(ready_in(&k, "window"), 16);
    apm_broker_window(k.broker, 6);
    wait_for(&k, k.n_got == 6);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, k.n_got == 6);
    apm_broker_window(k.broker, 0);
    wait_for(&k, k.n_got == 19);
}
END_TEST

START_TEST(the_window_is_kept_with_quorum_queues_and_grows)
{
    apm_queue q = queue_named("quorum"), r = queue_named("quorum2");
    char body[16];

    q.queue_type = r.queue_type = "quorum";
    for (int i = 0; i < 20; i++) {
        snprintf(body, sizeof(body), "%d", i);
        put(&k, i % 2 ? &q : &r, body);
    }
    ck_ok(apm_broker_consume(k.broker, &r, err));
    receive_from(&k, &q, 4);
    wait_for(&k, k.n_got == 4);
    pass(&k, 300);
    ck_assert_uint_eq(k.n_got, 4);
    /* One by one, as a worker does for each task that it keeps for its time. */
    for (unsigned n = 5; n <= 12; n++) {
        apm_broker_window(k.broker, n);
        wait_for(&k, k.n_got == n);
    }
    for (int i = 0; i < 12; i++)
        settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, k.n_got == 8);
}
END_TEST

START_TEST(a_requeued_message_comes_again_marked_redelivered)
{
    apm_queue q = queue_named("requeued");

    put(&k, &q, "1");
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    ck_assert(!k.got[0]->msg.redelivered);
    settle(&k, take(&k, 0), APM_RESTORE, NULL);
    wait_for(&k, k.n_got == 1);
    ck_assert(k.got[0]->msg.redelivered);
    settle(&k, take(&k, 0), APM_REQUEUE, NULL);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
}
END_TEST

START_TEST(a_delivery_freed_unsettled_is_given_back_and_not_acked_by_the_next)
{
    apm_queue q = queue_named("freed");

    put(&k, &q, "1");
    put(&k, &q, "2");
    put(&k, &q, "3");
    receive_from(&k, &q, 3);
    wait_for(&k, k.n_got == 3);
    apm_broker_window(k.broker, 1);
    apm_delivery_free(take(&k, 0));
    settle(&k, take(&k, 1), APM_ACK, NULL);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, k.n_got == 1);
    ck_assert(apm_str_eqz(k.got[0]->msg.body, "1"));
    ck_assert(k.got[0]->msg.redelivered);
}
END_TEST

static void
note_done(void *arg, apium_status status, const apium_error *e)
{
    note_fate(arg, status, e);
}

START_TEST(stopping_gives_back_what_was_not_handed_over)
{
    apm_queue q = queue_named("stopped");
    fate f = { 0 };
    char body[16];

    q.queue_type = "quorum";
    for (int i = 0; i < 8; i++) {
        snprintf(body, sizeof(body), "%d", i);
        put(&k, &q, body);
    }
    receive_from(&k, &q, 8);
    wait_for(&k, k.n_got == 8);
    apm_broker_stop(k.broker, note_done, &f);
    wait_for(&k, f.n == 1);
    put(&k, &q, "late");
    pass(&k, 200);
    ck_assert_uint_eq(k.n_got, 8);
    ck_assert_int_eq(ready_in(&k, "stopped"), 1);
    settle(&k, take(&k, 0), APM_ACK, NULL); /* settling goes on */
}
END_TEST

START_TEST(a_cancelled_queue_sends_nothing_and_can_be_consumed_again)
{
    apm_queue q = queue_named("cancelled");

    receive_from(&k, &q, 2);
    put(&k, &q, "1");
    wait_for(&k, k.n_got == 1);
    ck_ok(apm_broker_cancel(k.broker, "cancelled", err));
    ck_fails(apm_broker_cancel(k.broker, "unheard of", err), APIUM_E_NOTFOUND);
    pass(&k, 200);
    put(&k, &q, "2");
    pass(&k, 200);
    ck_assert_uint_eq(k.n_got, 1);
    ck_ok(apm_broker_consume(k.broker, &q, err));
    wait_for(&k, k.n_got == 2);
}
END_TEST

START_TEST(the_more_urgent_message_comes_first)
{
    apm_queue q = queue_named("urgent");
    fate f = { 0 };

    q.max_priority = 10;
    for (int i = 0; i < 10; i++) {
        apm_message msg = message("");
        char body[4];
        snprintf(body, sizeof(body), "%d", i);
        msg.body = apm_strz(body);
        msg.priority = i;
        apm_unit *unit = apm_unit_new(k.broker->link);
        ck_ok(apm_broker_publish(k.broker, unit,
                                 &(apm_route){ .queue = &q, .exchange = "", .routing_key = q.name },
                                 &msg, err));
        apm_unit_commit(unit, note_fate, &f);
    }
    wait_for(&k, f.n == 10);
    receive_from(&k, &q, 1);
    for (int i = 9; i >= 0; i--) {
        wait_for(&k, k.n_got == 1);
        ck_assert_int_eq(k.got[0]->msg.body.p[0], '0' + i);
        settle(&k, take(&k, 0), APM_ACK, NULL);
    }
}
END_TEST

START_TEST(a_thousand_units_with_an_answer_each_are_done_once)
{
    apm_queue q = queue_named("many"), answers = queue_named("many-answers");
    fate sent = { 0 }, settled = { 0 };
    static apm_delivery *all[1000];
    size_t n = 0;

    for (int i = 0; i < 1000; i++)
        send_to(&k, &q, "[]", &sent);
    wait_for(&k, sent.n == 1000);
    ck_assert_int_eq(sent.bad, 0);
    receive_from(&k, &q, 100);
    while (n < 1000) {
        wait_for(&k, k.n_got > 0);
        while (k.n_got > 0) {
            apm_delivery *delivery = all[n++] = take(&k, k.n_got - 1);
            apm_message msg = message("{}");
            apm_unit *unit = apm_unit_new(k.broker->link);
            ck_ok(apm_broker_publish(
                k.broker, unit,
                &(apm_route){ .queue = &answers, .exchange = "", .routing_key = answers.name },
                &msg, err));
            ck_ok(apm_broker_settle(k.broker, unit, delivery, APM_ACK, NULL, err));
            apm_unit_commit(unit, note_fate, &settled);
        }
    }
    wait_for(&k, settled.n == 1000);
    ck_assert_int_eq(settled.bad, 0);
    for (size_t i = 0; i < n; i++)
        apm_delivery_free(all[i]);
    ck_assert_int_eq(ready_in(&k, "many-answers"), 1000);
    kit_close(&k);
    kit_open(&k);
    ck_assert_int_eq(ready_in(&k, "many"), 0);
}
END_TEST

START_TEST(a_task_with_a_time_waits_on_the_server_where_it_can)
{
    apm_queue q = { .name = "delayed",
                    .exchange = "delays",
                    .exchange_type = APM_TOPIC,
                    .routing_key = "delayed.key",
                    .queue_type = "quorum",
                    .durable = true };
    apm_route route = {
        .queue = &q, .exchange = "delays", .routing_key = "delayed.key", .mandatory = true
    };
    char date[APM_DATE_MAX], headers[200];
    apm_message msg = message("[]");
    fate f = { 0 };

    apm_date_print(apm_clock_wall_us() + 3900000, 0, date);
    snprintf(headers, sizeof(headers), "{\"task\": \"t\", \"id\": \"i\", \"eta\": \"%s\"}", date);
    msg.headers = apm_strz(headers);
    apm_unit *unit = apm_unit_new(k.broker->link);
    ck_ok(apm_broker_publish(k.broker, unit, &route, &msg, err));
    apm_unit_commit(unit, note_fate, &f);
    receive_from(&k, &q, 5);
    wait_for(&k, f.n == 1);
    ck_assert_msg(f.bad == 0, "%s", f.err.text);
    int64_t sent = apm_clock_ms();
    pass(&k, 1500);
    ck_assert_uint_eq(k.n_got, 0);
    wait_for(&k, k.n_got == 1);
    ck_assert_int_ge(apm_clock_ms() - sent, 2500); /* 3 s, in two steps */
    ck_assert(apm_str_eqz(k.got[0]->msg.body, "[]"));
    ck_assert_ptr_nonnull(memmem(k.got[0]->msg.headers.p, k.got[0]->msg.headers.len, "x-death", 7));
    settle(&k, take(&k, 0), APM_ACK, NULL);
    /* Exactly what Celery declares: declared again with its arguments, nothing is refused. */
    rabbitmq_python(
        server,
        "import os, amqp, urllib.parse\n"
        "c = amqp.Connection('127.0.0.1:%d' % urllib.parse.urlparse(os.environ['AMQP_URL']).port)\n"
        "c.connect(); ch = c.channel()\n"
        "for l in range(27, -1, -1):\n"
        "    down = 'celery_delayed_%d' % (l - 1) if l else 'celery_delayed_delivery'\n"
        "    ch.exchange_declare('celery_delayed_%d' % l, 'topic', durable=True, "
        "auto_delete=False)\n"
        "    ch.queue_declare('celery_delayed_%d' % l, durable=True, auto_delete=False, "
        "arguments={\n"
        "        'x-queue-type': 'quorum', 'x-overflow': 'reject-publish', 'x-message-ttl': 2**l * "
        "1000,\n"
        "        'x-dead-letter-exchange': down, 'x-dead-letter-strategy': 'at-least-once'})\n"
        "ch.exchange_declare('celery_delayed_delivery', 'topic', durable=True, "
        "auto_delete=False)\n");
}
END_TEST

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

/* ---- the connection goes ---- */

/* Publish a thousand and consume them while `disturb` happens; every message is acked in the end. */
static void
survive(const char *name, void (*disturb)(void))
{
    apm_queue q = queue_named(name);
    fate sent = { 0 }, settled = { 0 };
    static bool seen[1000];
    static apm_delivery *all[8000];
    size_t n = 0, distinct = 0;
    char body[16];

    for (int i = 0; i < 500; i++) {
        snprintf(body, sizeof(body), "%d", i);
        send_to(&k, &q, body, &sent);
    }
    receive_from(&k, &q, 50);
    wait_for(&k, k.n_got >= 50);
    for (int i = 500; i < 1000; i++) {
        snprintf(body, sizeof(body), "%d", i);
        send_to(&k, &q, body, &sent);
    }
    disturb();
    while (distinct < 1000) {
        wait_for(&k, k.n_got > 0);
        apm_delivery *delivery = take(&k, 0);
        int i = atoi(delivery->msg.body.p);
        ck_assert(i >= 0 && i < 1000);
        distinct += !seen[i];
        seen[i] = true;
        ck_assert_uint_lt(n, 8000);
        all[n++] = delivery;
        apm_unit *unit = apm_unit_new(k.broker->link);
        ck_ok(apm_broker_settle(k.broker, unit, delivery, APM_ACK, NULL, err));
        apm_unit_commit(unit, note_fate, &settled);
    }
    wait_for(&k, sent.n == 1000 && (size_t)settled.n == n);
    ck_assert_msg(sent.bad == 0, "%s", sent.err.text);
    ck_assert_int_eq(settled.bad, 0);
    ck_assert_int_ge(k.downs, 1);
    ck_assert_int_ge(k.ups, 2);
    for (size_t i = 0; i < n; i++)
        apm_delivery_free(all[i]);
}

static void
close_connections(void)
{
    rabbitmq_ctl(server, "close_all_connections test");
}

START_TEST(connections_that_the_server_closes_are_opened_again)
{
    survive("closed", close_connections);
}
END_TEST

static void
restart(void)
{
    rabbitmq_kill(server);
    pass(&k, 1000);
    rabbitmq_up(server);
}

START_TEST(a_server_that_dies_and_comes_back_loses_nothing)
{
    survive("restarted", restart);
    ck_assert_ptr_nonnull(strstr(k.why, "Connected to amqp://guest:**@127.0.0.1"));
}
END_TEST

START_TEST(held_deliveries_are_lost_with_the_connection_and_come_again)
{
    apm_queue q = queue_named("lost");

    put(&k, &q, "1");
    put(&k, &q, "2");
    receive_from(&k, &q, 2);
    wait_for(&k, k.n_got == 2);
    apm_delivery *settled = take(&k, 0);
    apm_unit *unit = apm_unit_new(k.broker->link);
    fate f = { 0 };
    ck_ok(apm_broker_settle(k.broker, unit, settled, APM_ACK, NULL, err));
    close_connections();
    wait_for(&k, k.n_lost == 1);
    /* Its tag is dead: nothing is settled, the message comes again, and that is no failure. */
    apm_unit_commit(unit, note_fate, &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.bad, 0);
    apm_delivery_free(settled);
    wait_for(&k, k.n_got == 2);
    ck_assert(k.got[0]->msg.redelivered && k.got[1]->msg.redelivered);
}
END_TEST

START_TEST(a_deleted_queue_is_declared_and_consumed_again)
{
    apm_queue q = queue_named("deleted");

    receive_from(&k, &q, 2);
    put(&k, &q, "1");
    wait_for(&k, k.n_got == 1);
    rabbitmq_ctl(server, "delete_queue deleted");
    wait_for(&k, strstr(k.notice, "deleted"));
    kit other;
    kit_open(&other);
    put(&other, &q, "2");
    wait_for(&k, k.n_got == 2);
    kit_close(&other);
}
END_TEST

START_TEST(while_the_server_blocks_publishes_wait_and_acks_go_on)
{
    apm_queue q = queue_named("blocked");
    fate f = { 0 };

    put(&k, &q, "1");
    put(&k, &q, "2");
    receive_from(&k, &q, 2);
    wait_for(&k, k.n_got == 2);
    rabbitmq_ctl(server, "set_vm_memory_high_watermark absolute 1MB");
    send_to(&k, &q, "3", &f); /* whoever publishes is told that he is blocked */
    wait_for(&k, strstr(k.notice, "blocked"));
    for (int i = 0; i < 10; i++)
        send_to(&k, &q, "4", &f);
    pass(&k, 300);
    ck_assert_int_eq(f.n, 0);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, strstr(rabbitmq_ctl(server,
                                     "list_queues name messages_unacknowledged --no-table-headers"),
                        "blocked\t1"));
    /* A client does not wait for ever. */
    kit client;
    fate refused = { 0 };
    kit_open_at(&client, rabbitmq_url(server), 1500);
    send_to(&client, &q, "5", &refused);
    wait_for(&client, refused.n == 1);
    ck_assert_int_eq(refused.bad, 1);
    ck_assert(refused.err.retriable);
    kit_close(&client);
    rabbitmq_ctl(server, "set_vm_memory_high_watermark 0.8");
    wait_for(&k, f.n == 11);
    ck_assert_int_eq(f.bad, 0);
}
END_TEST

START_TEST(the_next_url_of_a_list_is_tried)
{
    apm_queue q = queue_named("failover");
    char url[200];

    kit_close(&k);
    snprintf(url, sizeof(url), "amqp://guest:guest@127.0.0.1:1//;%s", rabbitmq_url(server));
    kit_open_at(&k, url, -1);
    put(&k, &q, "1");
    ck_assert_int_eq(k.downs, 1);
    ck_assert_ptr_nonnull(strstr(k.why, "Connected"));
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
}
END_TEST

START_TEST(a_client_without_a_server_gives_up_after_its_patience)
{
    apm_queue q = queue_named("nobody");
    fate f = { 0 };
    counts c = { 0 };
    const char *name = "nobody";

    kit_close(&k);
    kit_open_at(&k, "amqp://guest:s3cret@127.0.0.1:1//", 1000);
    send_to(&k, &q, "1", &f);
    k.broker->ops->inspect(k.broker, &name, 1, note_counts, &c);
    wait_for(&k, f.n == 1 && c.done);
    ck_assert_int_eq(f.status, APIUM_E_CLOSED);
    ck_assert(c.failed);
    ck_assert_ptr_nonnull(strstr(f.err.text, "refused"));
    ck_assert_ptr_null(strstr(f.err.text, "s3cret"));
    ck_assert_ptr_null(strstr(k.why, "s3cret"));
    ck_assert_ptr_nonnull(strstr(k.why, "Trying again in"));
}
END_TEST

START_TEST(wrong_credentials_and_an_unknown_virtual_host_are_told_at_once)
{
    apm_queue q = queue_named("nobody");
    char url[100];

    for (int i = 0; i < 2; i++) {
        fate f = { 0 };
        kit_close(&k);
        snprintf(url, sizeof(url),
                 i ? "amqp://guest:guest@127.0.0.1:%d/nohost" : "amqp://guest:wr0ng@127.0.0.1:%d//",
                 server->port);
        kit_open_at(&k, url, 60000);
        send_to(&k, &q, "1", &f);
        wait_for(&k, f.n == 1);
        ck_assert_int_eq(f.status, APIUM_E_REFUSED);
        ck_assert_msg(strstr(f.err.text, i ? "nohost" : "ACCESS_REFUSED") != NULL, "%s",
                      f.err.text);
        ck_assert_ptr_null(strstr(f.err.text, "wr0ng"));
    }
}
END_TEST

START_TEST(a_silent_server_is_noticed_by_its_missing_heartbeats)
{
    apm_queue q = queue_named("silent");
    char url[100];

    kit_close(&k);
    snprintf(url, sizeof(url), "%s?heartbeat=1", rabbitmq_url(server));
    kit_open_at(&k, url, -1);
    receive_from(&k, &q, 1);
    wait_for(&k, k.ups == 1);
    pass(&k, 4000); /* heartbeats keep an idle connection */
    ck_assert_int_eq(k.downs, 0);
    kill(-server->server, SIGSTOP);
    wait_for(&k, k.downs > 0);
    ck_assert_ptr_nonnull(strstr(k.why, "heartbeat"));
    kill(-server->server, SIGCONT);
    wait_for(&k, k.ups == 2);
    put(&k, &q, "1");
    wait_for(&k, k.n_got == 1);
}
END_TEST

START_TEST(tls_is_verified_unless_the_url_says_otherwise)
{
    apm_queue q = queue_named("tls");
    char url[300];
    fate f = { 0 };

    kit_close(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//", server->tls_port);
    kit_open_at(&k, url, 60000);
    send_to(&k, &q, "1", &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_REFUSED);
    ck_assert_ptr_nonnull(strstr(f.err.text, "certificate"));
    kit_close(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//?ssl_ca_certs=%s/ca.pem",
             server->tls_port, server->folder);
    kit_open_at(&k, url, -1);
    put(&k, &q, "1");
    kit_close(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//?ssl_cert_reqs=none",
             server->tls_port);
    kit_open_at(&k, url, -1);
    receive_from(&k, &q, 1);
    wait_for(&k, k.n_got == 1);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    kit_close(&k);
    snprintf(url, sizeof(url), "amqps://guest:guest@127.0.0.1:%d//?ssl_ca_certs=/no/such/file",
             server->tls_port);
    kit_open_at(&k, url, 60000);
    f = (fate){ 0 };
    send_to(&k, &q, "1", &f);
    wait_for(&k, f.n == 1);
    ck_assert_int_eq(f.status, APIUM_E_CONFIG);
    ck_assert_ptr_nonnull(strstr(f.err.text, "/no/such/file"));
}
END_TEST

START_TEST(a_link_that_is_closed_answers_what_waits)
{
    apm_queue q = queue_named("closing");
    fate f = { 0 };

    kit_close(&k);
    kit_open_at(&k, "amqp://guest:guest@127.0.0.1:1//", -1);
    send_to(&k, &q, "1", &f);
    receive_from(&k, &q, 1);
    pass(&k, 50);
    kit_close(&k);
    ck_assert_int_eq(f.n, 1);
    ck_assert_int_eq(f.status, APIUM_E_CLOSED);
    kit_open(&k);
}
END_TEST

int
main(int argc, char **argv)
{
    const TTest *const all[] = {
        a_message_arrives_as_it_was_sent,
        a_body_of_many_frames_arrives_whole,
        an_empty_body_arrives,
        what_is_acked_is_gone_and_what_is_not_comes_again,
        no_more_is_handed_over_than_the_window_holds,
        the_window_is_kept_with_quorum_queues_and_grows,
        a_requeued_message_comes_again_marked_redelivered,
        a_delivery_freed_unsettled_is_given_back_and_not_acked_by_the_next,
        stopping_gives_back_what_was_not_handed_over,
        a_cancelled_queue_sends_nothing_and_can_be_consumed_again,
        the_more_urgent_message_comes_first,
        a_thousand_units_with_an_answer_each_are_done_once,
        a_task_with_a_time_waits_on_the_server_where_it_can,
        a_task_that_no_queue_takes_fails_at_the_sender,
        only_the_unroutable_message_among_many_fails,
        an_unknown_exchange_fails_its_unit_alone,
        a_message_over_the_servers_limit_is_found_among_others,
        a_queue_that_is_declared_otherwise_fails_its_unit_alone,
        a_full_queue_is_tried_again_and_then_told,
        a_failing_unit_leaves_its_delivery_held,
        what_amqp_cannot_carry_is_refused_before_it_is_sent,
        a_rejected_message_is_kept_with_its_reason,
        a_users_own_dead_letter_exchange_gets_a_rejected_message_as_well,
        a_body_over_our_limit_is_kept_and_told,
        connections_that_the_server_closes_are_opened_again,
        a_server_that_dies_and_comes_back_loses_nothing,
        held_deliveries_are_lost_with_the_connection_and_come_again,
        a_deleted_queue_is_declared_and_consumed_again,
        while_the_server_blocks_publishes_wait_and_acks_go_on,
        the_next_url_of_a_list_is_tried,
        a_client_without_a_server_gives_up_after_its_patience,
        wrong_credentials_and_an_unknown_virtual_host_are_told_at_once,
        a_silent_server_is_noticed_by_its_missing_heartbeats,
        tls_is_verified_unless_the_url_says_otherwise,
        a_link_that_is_closed_answers_what_waits,
        NULL,
    };
    const TTest *const one[] = { argc > 1 ? all[atoi(argv[1])] : NULL, NULL };

    /* Tests run in processes of their own; what one restarts, the next and the end have to find. */
    server = mmap(NULL, sizeof(*server), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rabbitmq_start(server, "max_message_size = 2000000\n");
    int failed = suite_run_with("amqp", argc > 1 ? one : all, 120, open_kit, close_kit);
    rabbitmq_stop(server);
    return failed;
}
