/* test_amqp.c - the RabbitMQ broker on a real server: messages, windows, settlement, times. */
#include <signal.h>
#include <sys/mman.h>

#include "brokers/amqp.h"
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
    wait_for(&k, k.n_got == 1 && f.n == 1); /* in either order */
    ck_assert_msg(f.bad == 0, "%s", f.err.text);
    const apm_delivery *delivery = k.got[0];
    const apm_message *got = &delivery->msg;
    ck_assert(apm_str_eqz(got->body, "[[2, 3], {}, null]"));
    /* RabbitMQ 4 hands a table on in another order. */
    apm_json sent, seen;
    ck_ok(apm_json_parse(msg.headers, &sent, err));
    ck_ok(apm_json_parse(got->headers, &seen, err));
    ck_assert_msg(apm_json_equal(sent, seen), "%.*s", APM_STR_ARG(got->headers));
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
    kit_part(&k);
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
    apm_broker_window(k.broker, 4, false);
    wait_for(&k, k.n_got == 4);
    pass(&k, 200);
    ck_assert_uint_eq(k.n_got, 4);
    ck_assert_int_eq(ready_in(&k, "window"), 16);
    apm_broker_window(k.broker, 6, false);
    wait_for(&k, k.n_got == 6);
    settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, k.n_got == 6);
    apm_broker_window(k.broker, 0, false);
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
        apm_broker_window(k.broker, n, false);
        wait_for(&k, k.n_got == n);
    }
    for (int i = 0; i < 12; i++)
        settle(&k, take(&k, 0), APM_ACK, NULL);
    wait_for(&k, k.n_got == 8);
}
END_TEST

static void
put_many(const apm_queue *queue, int n)
{
    fate f = { 0 };

    for (int i = 0; i < n; i++)
        send_to(&k, queue, "x", &f);
    wait_for(&k, f.n == n);
    ck_assert_int_eq(f.bad, 0);
}

static void
settle_some(unsigned n)
{
    apm_unit *unit = apm_unit_new(k.broker->link);
    apm_delivery *some[256];
    fate f = { 0 };

    for (unsigned i = 0; i < n; i++) {
        some[i] = take(&k, 0);
        ck_ok(apm_broker_settle(k.broker, unit, some[i], APM_ACK, NULL, err));
    }
    apm_unit_commit(unit, note_fate, &f);
    wait_for(&k, f.n == 1);
    for (unsigned i = 0; i < n; i++)
        apm_delivery_free(some[i]);
}

/* Nothing comes beyond the window, and what we do not hold nobody else is deprived of. RabbitMQ 4 counts for each consumer: there
 * more may have been sent to us. */
static void
expect_window(unsigned n, const char *queue, int64_t left)
{
    const apm_amqp_intake *intake = &((struct amqp_broker *)k.broker)->intake;

    /* Of a wide one something may be missing: up to half before it is worth a new subscription. */
    wait_for(&k, k.n_got >= (intake->wide ? n / 2 : n));
    pass(&k, 300);
    ck_assert_uint_le(k.n_got, n);
    if (intake->channel.conn->server_major < 4)
        ck_assert_int_eq(ready_in(&k, queue) + (int64_t)k.n_got, left);
}

START_TEST(a_wide_window_is_the_subscriptions_and_gives_way_to_an_exact_one)
{
    const apm_amqp_intake *intake = &((struct amqp_broker *)k.broker)->intake;
    apm_queue q = queue_named("wide"), r = queue_named("beside");

    int64_t left = 1000;

    put_many(&q, 1000);
    put_many(&r, 60);
    receive_from(&k, &q, 8);
    expect_window(8, "wide", left);
    ck_assert(!intake->wide);
    apm_broker_window(k.broker, 200, true); /* tasks turn out to be short */
    expect_window(200, "wide", left);
    ck_assert(intake->wide && intake->per_consumer && intake->channels == 0);
    settle_some(100);
    expect_window(200, "wide", left -= 100);
    apm_broker_window(k.broker, 8, false); /* and now they are long */
    pass(&k, 300);
    ck_assert(!intake->wide);
    left -= (int64_t)k.n_got;
    settle_some((unsigned)k.n_got);
    expect_window(8, "wide", left);
    settle_some(4);
    expect_window(8, "wide", left -= 4);
    apm_broker_window(k.broker, 150,
                      142); /* most of it is kept for requests that wait for their time */
    expect_window(150, "wide", left);
    apm_broker_window(k.broker, 200,
                      0); /* not back and forth; where there is no forth it does not matter */
    ck_assert(!intake->wide || intake->channel.conn->server_major >= 4);
    expect_window(200, "wide", left);

    kit_close(&k);
    kit_open(&k);
    intake = &((struct amqp_broker *)k.broker)->intake;
    ck_ok(apm_broker_consume(k.broker, &q, err));
    apm_broker_window(k.broker, 200, true);
    expect_window(200, "wide", left);
    ck_assert(intake->wide);
    ck_ok(apm_broker_consume(k.broker, &r, err)); /* two share one window */
    expect_window(200, "wide", left);
    ck_assert(!intake->wide);
    settle_some(100);
    wait_for(&k, k.n_got == 200);
    pass(&k, 300);
    ck_assert_uint_eq(k.n_got, 200);
    if (intake->channel.conn->server_major < 4)
        ck_assert_int_eq(ready_in(&k, "wide") + ready_in(&k, "beside"), left + 60 - 300);
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
    apm_broker_window(k.broker, 1, false);
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

int
main(void)
{
    const TTest *const tests[] = {
        a_message_arrives_as_it_was_sent,
        a_body_of_many_frames_arrives_whole,
        an_empty_body_arrives,
        what_is_acked_is_gone_and_what_is_not_comes_again,
        no_more_is_handed_over_than_the_window_holds,
        the_window_is_kept_with_quorum_queues_and_grows,
        a_wide_window_is_the_subscriptions_and_gives_way_to_an_exact_one,
        a_requeued_message_comes_again_marked_redelivered,
        a_delivery_freed_unsettled_is_given_back_and_not_acked_by_the_next,
        stopping_gives_back_what_was_not_handed_over,
        a_cancelled_queue_sends_nothing_and_can_be_consumed_again,
        the_more_urgent_message_comes_first,
        a_thousand_units_with_an_answer_each_are_done_once,
        a_task_with_a_time_waits_on_the_server_where_it_can,
        NULL,
    };

    /* Tests run in processes of their own; what one restarts, the next and the end have to find. */
    server = mmap(NULL, sizeof(*server), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rabbitmq_start(server, "");
    int failed = suite_run_with("amqp", tests, 120, open_kit, close_kit);
    rabbitmq_stop(server);
    return failed;
}
