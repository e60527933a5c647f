/*
 * test_brokers.c - what every broker adapter promises (brokers/broker.h), over the adapter that
 * the first argument names. A test that needs an ability is run where the adapter says it has it.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "adapters.h"
#include "core/base/clock.h"
#include "side.h"

/* ---- Publishing and receiving ---- */

START_TEST(a_message_arrives_as_it_was_sent)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue);
    apm_message msg = {
        .content_type = APM_STR("application/x-test"),
        .content_encoding = APM_STR("binary"),
        .headers = APM_STR("{\"task\": \"t\", \"n\": 7, \"none\": null, \"deep\": {\"list\": [1, "
                           "\"\\u00e9\", true]}}"),
        .body = { "a\0b\xff\xfe", 5 },
        .correlation_id = APM_STR("c-1"),
        .reply_to = APM_STR("r-1"),
        .expiration = APM_STR("86400000"),
        .priority = 3,
        .delivery_mode = 2,
    };
    apm_json sent, came;

    side_consume(s, queue, 10);
    ck_ok(side_publish_message(s, &route, &msg, err));
    apm_delivery *delivery = side_receive(s);
    const apm_message *got = &delivery->msg;
    ck_assert_str_eq(delivery->queue, queue->name);
    ck_assert(apm_str_eq(got->content_type, msg.content_type));
    ck_assert(apm_str_eq(got->content_encoding, msg.content_encoding));
    ck_assert(apm_str_eq(got->body, msg.body));
    ck_assert(apm_str_eq(got->correlation_id, msg.correlation_id));
    ck_assert(apm_str_eq(got->reply_to, msg.reply_to));
    ck_assert_int_eq(got->priority, 3);
    ck_assert_int_eq(got->delivery_mode, 2);
    ck_assert(!got->redelivered);
    ck_assert(apm_str_eqz(got->routing_key, queue->name));
    ck_ok(apm_json_parse(msg.headers, &sent, err));
    ck_ok(apm_json_parse(got->headers, &came, err));
    ck_assert_msg(apm_json_equal(sent, came), "headers came as %.*s", APM_STR_ARG(got->headers));
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(what_was_not_given_is_absent)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    side_consume(s, queue, 10);
    ck_ok(side_publish(s, queue, "[]", err));
    apm_delivery *delivery = side_receive(s);
    ck_assert(!apm_str_is(delivery->msg.correlation_id));
    ck_assert(!apm_str_is(delivery->msg.reply_to));
    ck_assert(!apm_str_is(delivery->msg.expiration));
    ck_assert_int_le(delivery->msg.priority, 0);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(messages_arrive_in_the_order_of_publishing)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    char body[16];

    for (int i = 0; i < 40; i++) {
        snprintf(body, sizeof(body), "%d", i);
        ck_ok(side_publish(s, queue, body, err));
    }
    side_consume(s, queue, 7);
    for (int i = 0; i < 40; i++) {
        apm_delivery *delivery = side_receive(s);
        snprintf(body, sizeof(body), "%d", i);
        ck_assert_msg(body_is(delivery, body), "%.*s instead of %s",
                      APM_STR_ARG(delivery->msg.body), body);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    side_free(s);
}
END_TEST

START_TEST(the_more_urgent_message_is_served_first)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue);
    static const int priorities[] = { 0, 9, 3, 6, 9 };
    bool low_first = apm_broker_can(s->broker, APM_BROKER_LOW_FIRST);
    const char *order = low_first ? "02314" : "14320";

    for (int i = 0; i < 5; i++) {
        char body[2] = { (char)('0' + i), '\0' };
        apm_message msg = side_message(body);
        msg.priority = priorities[i];
        ck_ok(side_publish_message(s, &route, &msg, err));
    }
    side_consume(s, queue, 1);
    for (int i = 0; i < 5; i++) {
        apm_delivery *delivery = side_receive(s);
        ck_assert_msg(delivery->msg.body.p[0] == order[i], "message %c at place %d",
                      delivery->msg.body.p[0], i);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    side_free(s);
}
END_TEST

START_TEST(a_big_message_arrives_whole)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    size_t size = (size_t)5 << 20;
    char *body = malloc(size + 1);

    ck_assert_ptr_nonnull(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (char)('a' + i * i % 23);
    body[size] = '\0';
    ck_ok(side_publish(s, queue, body, err));
    side_consume(s, queue, 1);
    apm_delivery *delivery = side_receive(s);
    ck_assert_uint_eq(delivery->msg.body.len, size);
    ck_assert_int_eq(memcmp(delivery->msg.body.p, body, size), 0);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    free(body);
    side_free(s);
}
END_TEST

START_TEST(a_message_over_the_limit_is_refused_and_kept_as_a_dead_letter)
{
    apium_error error, *err = &error;
    side *sender = side_with(true, false), *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    char body[3000];

    memset(body, 'x', sizeof(body) - 1);
    body[sizeof(body) - 1] = '\0';
    s->settings.max_message_bytes = 2000;
    for (int i = 0; i < 20; i++)
        ck_ok(side_publish(sender, queue, body, err));
    ck_ok(side_publish(sender, queue, "small", err));
    side_consume(s, queue, 10);
    apm_delivery *delivery = side_receive(s);
    ck_assert(body_is(delivery, "small"));
    run_until(s->n_refused == 20); /* each is told */
    ck_assert_msg(strstr(s->refused_why, "max_message_bytes"), "why: %s", s->refused_why);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    apm_queue_info info = side_inspect(s, queue);
    ck_assert_int_eq(info.ready, 0);
    ck_assert_int_eq(info.dead, 20);
    side_free(s);
    side_free(sender);
}
END_TEST

START_TEST(a_waiting_consumer_hears_of_a_message_at_once)
{
    apium_error error, *err = &error;
    side *sender = side_with(true, false), *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    int64_t slowest = 0;

    side_consume(s, queue, 1);
    run_for(300); /* until it has found out that there is nothing */
    for (int i = 0; i < 20; i++) {
        ck_ok(side_publish(sender, queue, "x", err));
        int64_t start = apm_clock_ms();
        apm_delivery *delivery = side_receive(s);
        int64_t took = apm_clock_ms() - start;
        slowest = took > slowest ? took : slowest;
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    ck_assert_int_lt(slowest, 500); /* no adapter polls that slowly */
    side_free(s);
    side_free(sender);
}
END_TEST

/* ---- Where messages go ---- */

START_TEST(a_message_for_no_queue_fails_its_unit)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_route nowhere = side_nowhere("t-no-such-queue");
    apm_message msg = side_message("x");

    ck_fails(side_publish_message(s, &nowhere, &msg, err), APIUM_E_UNROUTABLE);
    ck_assert_ptr_nonnull(strstr(err->text, "t-no-such-queue"));
    side_free(s);
}
END_TEST

START_TEST(a_message_for_no_queue_vanishes_when_nobody_insists)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_route nowhere = { .exchange = "",
                          .routing_key = "t-no-such-reply-queue",
                          .mandatory = false };
    apm_message msg = side_message("x");

    ck_ok(side_publish_message(s, &nowhere, &msg, err));
    side_free(s);
}
END_TEST

START_TEST(a_direct_exchange_sends_the_key_to_its_queue)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_queue queue = *side_queue("q");
    apm_message msg = side_message("by exchange");

    queue.exchange = side_queue("x")->name;
    queue.routing_key = "the.key";
    apm_route route = {
        .queue = &queue, .exchange = queue.exchange, .routing_key = "the.key", .mandatory = true
    };
    side_consume(s, &queue, 10);
    ck_ok(side_publish_message(s, &route, &msg, err));
    apm_delivery *delivery = side_receive(s);
    ck_assert(body_is(delivery, "by exchange"));
    ck_assert(apm_str_eqz(delivery->msg.exchange, queue.exchange));
    ck_assert(apm_str_eqz(delivery->msg.routing_key, "the.key"));
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    route.queue = NULL;
    route.routing_key = "another.key";
    ck_fails(side_publish_message(s, &route, &msg, err), APIUM_E_UNROUTABLE);
    side_free(s);
}
END_TEST

START_TEST(a_topic_exchange_sends_to_every_queue_whose_pattern_matches)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_queue all = *side_queue("all"), some = *side_queue("some");
    apm_message msg = side_message("by topic");

    all.exchange = some.exchange = side_queue("topic")->name;
    all.exchange_type = some.exchange_type = APM_TOPIC;
    all.routing_key = "#";
    some.routing_key = "img.*.big";
    side_consume(s, &all, 10);
    side_consume(s, &some, 10);
    apm_route route = { .exchange = all.exchange,
                        .exchange_type = APM_TOPIC,
                        .routing_key = "img.png.big",
                        .mandatory = true };
    ck_ok(side_publish_message(s, &route, &msg, err));
    route.routing_key = "img.png";
    ck_ok(side_publish_message(s, &route, &msg, err));
    run_until(s->n_got == 3);
    int to_some = 0;
    for (size_t i = 0; i < 3; i++)
        to_some += strcmp(s->got[i]->queue, some.name) == 0;
    ck_assert_int_eq(to_some, 1);
    while (s->n_got)
        ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(several_queues_are_served_in_turn)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *a = side_queue("a"), *b = side_queue("b");
    int from_b = 0;

    for (int i = 0; i < 20; i++)
        ck_ok(side_publish(s, a, "a", err));
    for (int i = 0; i < 5; i++)
        ck_ok(side_publish(s, b, "b", err));
    side_consume(s, a, 0);
    apm_broker_window(s->broker, 1, false);
    side_consume(s, b, 1);
    const bool its_choice = apm_broker_can(s->broker, APM_BROKER_REPLIES);
    if (its_choice) /* the other queue's turn may not have been before anybody consumed from it */
        run_until(side_inspect(s, b).consumers == 1);
    for (int i = 0; i < 14; i++) {
        apm_delivery *delivery = side_receive(s);
        from_b += body_is(delivery, "b");
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    /* Which queue is next is RabbitMQ's choice, queue by queue as they come to speak: there none may starve. */
    int least = its_choice ? 1 : 5;
    ck_assert_msg(from_b >= least, "%d of 5 messages of the short queue among the first 14",
                  from_b);
    side_free(s);
}
END_TEST

/* ---- The window ---- */

START_TEST(nothing_is_received_before_a_window_is_set)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    ck_ok(side_publish(s, queue, "x", err));
    ck_ok(apm_broker_consume(s->broker, queue, err));
    run_for(300);
    ck_assert_uint_eq(s->received, 0);
    apm_broker_window(s->broker, 1, false);
    ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(no_more_than_the_window_is_held_at_once)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    for (int i = 0; i < 10; i++)
        ck_ok(side_publish(s, queue, "x", err));
    side_consume(s, queue, 3);
    run_until(s->n_got == 3);
    run_for(300);
    ck_assert_uint_eq(s->received, 3);
    ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    run_until(s->received == 4);
    run_for(200);
    ck_assert_uint_eq(s->received, 4);
    apm_broker_window(s->broker, 5, false);
    run_until(s->received == 6);
    run_for(200);
    ck_assert_uint_eq(s->received, 6);
    while (s->received < 10 || s->n_got)
        ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

/* ---- Settling ---- */

START_TEST(an_acked_message_is_gone)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    side_consume(s, queue, 10);
    ck_ok(side_publish(s, queue, "x", err));
    ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    apm_queue_info info = side_inspect(s, queue);
    ck_assert_int_eq(info.ready, 0);
    ck_assert_int_le(info.unacked, 0); /* -1: cannot tell */
    side_free(s);
    s = side_with(true, false);
    side_consume(s, queue, 10);
    run_for(300);
    ck_assert_uint_eq(s->received, 0);
    side_free(s);
}
END_TEST

START_TEST(a_requeued_message_comes_again_after_the_others)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    for (int i = 0; i < 3; i++)
        ck_ok(side_publish(s, queue, (const char *[]){ "0", "1", "2" }[i], err));
    side_consume(s, queue, 1);
    apm_delivery *delivery = side_receive(s);
    ck_assert(body_is(delivery, "0"));
    ck_ok(side_settle(s, delivery, APM_REQUEUE, NULL, err));
    for (int i = 0; i < 3; i++) {
        delivery = side_receive(s);
        if (body_is(delivery, "0"))
            ck_assert(delivery->msg.redelivered);
        if (!apm_broker_can(s->broker,
                            APM_BROKER_REPLIES)) /* RabbitMQ puts it back into its place */
            ck_assert_msg(body_is(delivery, (const char *[]){ "1", "2", "0" }[i]),
                          "%.*s at place %d", APM_STR_ARG(delivery->msg.body), i);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    side_free(s);
}
END_TEST

START_TEST(a_restored_message_comes_next_and_is_marked)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    for (int i = 0; i < 3; i++)
        ck_ok(side_publish(s, queue, (const char *[]){ "0", "1", "2" }[i], err));
    side_consume(s, queue, 1);
    apm_delivery *delivery = side_receive(s);
    ck_assert(!delivery->msg.redelivered);
    ck_ok(side_settle(s, delivery, APM_RESTORE, NULL, err));
    for (int i = 0; i < 3; i++) {
        delivery = side_receive(s);
        /* RabbitMQ puts it back into its place, but may have sent the next one already. */
        if (!apm_broker_can(s->broker, APM_BROKER_REPLIES))
            ck_assert_msg(delivery->msg.body.p[0] == '0' + i, "%.*s at place %d",
                          APM_STR_ARG(delivery->msg.body), i);
        ck_assert_int_eq(delivery->msg.redelivered, delivery->msg.body.p[0] == '0');
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    side_free(s);
}
END_TEST

typedef struct letters {
    bool known;
    const char *queue;
    size_t n;
    char reason[256], message[4096];
} letters;

static void
on_dead(void *arg, const apm_dead *dead, size_t n, const apium_error *err)
{
    letters *l = arg;

    ck_assert_msg(!err, "%s", err ? err->text : "");
    l->known = true;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(dead[i].queue, l->queue) != 0)
            continue;
        if (l->n++)
            continue; /* newest first: that one is kept */
        snprintf(l->reason, sizeof(l->reason), "%s", dead[i].reason);
        snprintf(l->message, sizeof(l->message), "%.*s", APM_STR_ARG(dead[i].message));
        ck_assert_int_gt(dead[i].at_us, 1600000000000000);
    }
}

START_TEST(a_rejected_message_is_kept_with_the_reason)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    letters found = { .queue = queue->name };

    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "first", err));
    ck_ok(side_publish(s, queue, "second", err));
    ck_ok(side_settle(s, side_receive(s), APM_REJECT, "unknown task \"a.b\"", err));
    ck_ok(side_settle(s, side_receive(s), APM_REJECT, "no good", err));
    s->broker->ops->dead(s->broker, 100, on_dead, &found);
    run_until(found.known);
    ck_assert_uint_eq(found.n, 2);
    ck_assert_str_eq(found.reason, "no good");
    ck_assert_msg(strstr(found.message, "second") || strstr(found.message, "c2Vjb25k"), "%s",
                  found.message);
    apm_queue_info info = side_inspect(s, queue);
    ck_assert_int_eq(info.ready, 0);
    ck_assert_int_eq(info.dead, 2);
    side_free(s);
}
END_TEST

START_TEST(one_unit_publishes_and_settles_together)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *in = side_queue("in"), *out = side_queue("out");
    apm_route route = side_route(out);
    apm_message msg = side_message("followup");

    side_consume(s, in, 10);
    ck_ok(side_publish(s, in, "x", err));
    apm_delivery *delivery = side_receive(s);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_assert_int_eq(delivery->hold, APM_SETTLED);
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    ck_assert_int_eq(side_inspect(s, in).ready, 0);
    side_consume(s, out, 10);
    delivery = side_receive(s);
    ck_assert(body_is(delivery, "followup"));
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(what_is_settled_cannot_be_settled_again)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *in = side_queue("in"), *out = side_queue("out");
    apm_route route = side_route(out);
    apm_message msg = side_message("followup");

    ck_ok(side_publish(s, out, "first", err));
    side_consume(s, in, 10);
    ck_ok(side_publish(s, in, "x", err));
    apm_delivery *delivery = side_receive(s);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_ok(side_commit(unit, err));
    unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_REQUEUE, NULL, err));
    ck_fails(side_commit(unit, err), APIUM_E_FENCED);
    ck_assert_int_eq(side_inspect(s, out).ready, 1);
    ck_assert_int_eq(side_inspect(s, in).ready, 0);
    apm_delivery_free(delivery);
    side_free(s);
}
END_TEST

START_TEST(a_dropped_unit_does_nothing)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue);
    apm_message msg = side_message("never");

    side_consume(s, queue, 10);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    apm_unit_drop(unit);
    run_for(200);
    ck_assert_uint_eq(s->received, 0);
    side_free(s);
}
END_TEST

START_TEST(a_unit_that_fails_applies_nothing)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *in = side_queue("in"), *out = side_queue("out");
    apm_route route = side_route(out), nowhere = side_nowhere("t-nowhere");
    apm_message msg = side_message("followup");

    side_consume(s, out, 10);
    side_consume(s, in, 10);
    ck_ok(side_publish(s, in, "x", err));
    apm_delivery *delivery = side_receive(s);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    ck_ok(apm_broker_publish(s->broker, unit, &nowhere, &msg, err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_fails(side_commit(unit, err), APIUM_E_UNROUTABLE);
    run_for(300);
    ck_assert_msg(s->received == 1, "the follow-up was published all the same");
    ck_assert_int_eq(side_inspect(s, in).unacked, 1);
    ck_ok(
        side_settle(s, delivery, APM_ACK, NULL, err)); /* still ours: a second unit may settle it */
    ck_assert_int_eq(side_inspect(s, in).unacked, 0);
    side_free(s);
}
END_TEST

START_TEST(a_failing_unit_leaves_its_neighbours_alone)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue), nowhere = side_nowhere("t-nowhere");
    apm_message msg = side_message("x");

    side_consume(s, queue, 0);
    for (int i = 0; i < 20; i++) {
        apm_unit *unit = apm_unit_new(s->broker->link);
        ck_ok(apm_broker_publish(s->broker, unit, i % 2 ? &nowhere : &route, &msg, err));
        apm_unit_commit(unit, NULL, NULL);
    }
    run_until(s->received == 10);
    run_for(200);
    ck_assert_uint_eq(s->received, 10);
    while (s->n_got)
        ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(a_delivery_that_was_taken_away_cannot_be_settled)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *in = side_queue("in"), *out = side_queue("out");
    apm_route route = side_route(out);
    apm_message msg = side_message("followup");

    ck_ok(side_publish(s, out, "first", err));
    side_consume(s, in, 1);
    ck_ok(side_publish(s, in, "x", err));
    apm_delivery *delivery = side_receive(s);
    side_adapter->steal(side_url);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_ok(apm_broker_publish(s->broker, unit, &route, &msg, err));
    ck_fails(side_commit(unit, err), APIUM_E_FENCED);
    apm_delivery_free(delivery);
    ck_assert_int_eq(side_inspect(s, out).ready, 1); /* without the follow-up */
    delivery = side_receive(s);
    ck_assert(body_is(delivery, "x"));
    ck_assert(delivery->msg.redelivered);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(a_consumer_is_told_what_it_has_lost)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    side_consume(s, queue, 2);
    ck_ok(side_publish(s, queue, "x", err));
    run_until(s->n_got == 1);
    apm_delivery *mine = side_receive(s);
    side_adapter->steal(side_url);
    run_until(s->n_lost == 1);
    ck_assert_ptr_eq(s->lost[0], mine);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_settle(s->broker, unit, mine, APM_ACK, NULL, err));
    ck_ok(side_commit(unit, err)); /* appends nothing */
    apm_delivery *again = side_receive(s);
    ck_assert(again->msg.redelivered);
    ck_ok(side_settle(s, again, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

/* ---- Parking ---- */

START_TEST(a_parked_message_comes_back_at_its_time_and_is_no_redelivery)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "later", err));
    apm_delivery *delivery = side_receive(s);
    int64_t due = apm_clock_wall_us() + 1500000;
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_park(s->broker, unit, delivery, due, err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    apm_queue_info info = side_inspect(s, queue);
    ck_assert_int_eq(info.parked, 1);
    ck_assert_int_eq(info.ready, 0);
    ck_assert_int_eq(info.unacked, 0);
    /* It takes no room: the window is 1. */
    ck_ok(side_publish(s, queue, "now", err));
    delivery = side_receive(s);
    ck_assert(body_is(delivery, "now"));
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    delivery = side_receive(s);
    int64_t late = apm_clock_wall_us() - due;
    ck_assert(body_is(delivery, "later"));
    ck_assert(!delivery->msg.redelivered);
    ck_assert_msg(late >= -2000000 && late < 500000, "came %lld us after its time",
                  (long long)late);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(a_parked_message_belongs_to_nobody)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "later", err));
    apm_delivery *delivery = side_receive(s);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_park(s->broker, unit, delivery, apm_clock_wall_us() + 1000000, err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    side_free(s);
    s = side_with(true, false);
    side_consume(s, queue, 1);
    delivery = side_receive(s);
    ck_assert(body_is(delivery, "later"));
    ck_assert(!delivery->msg.redelivered);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

/* ---- Ending ---- */

static void
on_stopped(void *arg, apium_status status, const apium_error *err)
{
    (void)err;
    ck_assert_int_eq(status, APIUM_OK);
    ++*(int *)arg;
}

START_TEST(nothing_is_received_after_stopping_and_settling_goes_on)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    int stopped = 0;

    for (int i = 0; i < 50; i++)
        ck_ok(side_publish(s, queue, "x", err));
    side_consume(s, queue, 10);
    run_until(s->received >= 1);
    apm_broker_stop(s->broker, on_stopped, &stopped);
    ck_assert_msg(!stopped, "answered from inside the call");
    run_until(stopped);
    size_t received = s->received;
    ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    run_for(300);
    ck_assert_uint_eq(s->received, received);
    ck_assert_int_eq(stopped, 1);
    while (s->n_got)
        ck_ok(side_settle(s, side_receive(s), APM_RESTORE, NULL, err));
    ck_assert_int_eq(side_inspect(s, queue).ready, 49);
    side_free(s);
}
END_TEST

START_TEST(a_cancelled_queue_is_left_alone)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *a = side_queue("a"), *b = side_queue("b");

    side_consume(s, a, 10);
    side_consume(s, b, 10);
    ck_ok(apm_broker_cancel(s->broker, a->name, err));
    run_for(200);
    ck_ok(side_publish(s, a, "a", err));
    ck_ok(side_publish(s, b, "b", err));
    apm_delivery *delivery = side_receive(s);
    ck_assert(body_is(delivery, "b"));
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    run_for(200);
    ck_assert_uint_eq(s->n_got, 0);
    ck_assert_int_eq(side_inspect(s, a).ready, 1);
    ck_fails(apm_broker_cancel(s->broker, "t-never-consumed", err), APIUM_E_NOTFOUND);
    side_free(s);
}
END_TEST

START_TEST(what_a_closed_consumer_held_goes_to_another)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    side_consume(s, queue, 5);
    for (int i = 0; i < 5; i++)
        ck_ok(side_publish(s, queue, "x", err));
    run_until(s->n_got == 5);
    side_free(s);
    s = side_with(true, false);
    side_consume(s, queue, 5);
    for (int i = 0; i < 5; i++) {
        apm_delivery *delivery = side_receive(s);
        ck_assert(delivery->msg.redelivered);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    side_free(s);
}
END_TEST

/* ---- Looking after queues ---- */

START_TEST(inspecting_counts_what_waits_and_what_is_held)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");

    for (int i = 0; i < 7; i++)
        ck_ok(side_publish(s, queue, "x", err));
    side_consume(s, queue, 3);
    run_until(s->n_got == 3);
    apm_queue_info info = side_inspect(s, queue);
    ck_assert_int_eq(info.ready, 4);
    if (info.unacked >= 0)
        ck_assert_int_eq(info.unacked, 3);
    while (s->received < 7 || s->n_got)
        ck_ok(side_settle(s, side_receive(s), APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

/* The time from which on a queue's first message waits, or 0, is what both questions answer. */
static int64_t
oldest_us(side *s, const apm_queue *queue)
{
    apm_queue_info info = side_inspect(s, queue), brief = side_look(s, queue);

    ck_assert_int_eq(info.ready, brief.ready);
    ck_assert_int_eq(info.oldest_us, brief.oldest_us);
    return info.oldest_us;
}

START_TEST(inspecting_tells_since_when_the_first_message_waits)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue);
    int64_t began_us = apm_clock_wall_us() / 1000 * 1000;

    ck_ok(side_publish(s, queue, "first", err));
    int64_t first_us = oldest_us(s, queue);
    if (!side_adapter->tells_age) {
        ck_assert_int_eq(first_us, 0);
        side_free(s);
        return;
    }
    ck_assert_int_ge(first_us, began_us);
    ck_assert_int_le(first_us, apm_clock_wall_us());
    usleep(20000);
    /* A younger one that is served before it is not the oldest. */
    apm_message urgent = side_message("urgent");
    urgent.priority = 5;
    ck_ok(side_publish_message(s, &route, &urgent, err));
    ck_assert_int_eq(oldest_us(s, queue), first_us);
    side_consume(s, queue, 2);
    run_until(s->n_got == 2);
    ck_assert_int_eq(oldest_us(s, queue), 0);
    for (size_t i = 0; i < 2; i++)
        if (body_is(s->got[i], "first"))
            ck_assert_int_eq(s->got[i]->msg.sent_us, first_us);
    /* Given back it waits as long as it has. */
    apm_delivery *one = side_receive(s), *two = side_receive(s);
    ck_ok(apm_broker_cancel(s->broker, queue->name, err));
    ck_ok(side_settle(s, one, APM_RESTORE, NULL, err));
    ck_ok(side_settle(s, two, APM_RESTORE, NULL, err));
    ck_assert_int_eq(oldest_us(s, queue), first_us);
    side_free(s);
}
END_TEST

START_TEST(a_message_with_an_eta_waits_since_it_was_due)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    apm_route route = side_route(queue);
    apm_message msg = side_message("[]");
    char date[APM_DATE_MAX], headers[256];
    int64_t due_us = apm_clock_wall_us() + 5000000;

    apm_date_print(due_us, 0, date);
    snprintf(headers, sizeof(headers),
             "{\"kwargsrepr\": \"{'eta': \\\"eta\\\"}\", \"eta\": \"%s\"}", date);
    msg.headers = apm_strz(headers);
    ck_ok(side_publish_message(s, &route, &msg, err));
    ck_assert_int_eq(oldest_us(s, queue), side_adapter->tells_age ? due_us : 0);
    side_free(s);
}
END_TEST

static void
on_count(void *arg, apium_status status, int64_t count, const apium_error *err)
{
    ck_assert_msg(status == APIUM_OK, "%s", err ? err->text : "");
    *(int64_t *)arg = count;
}

START_TEST(purging_takes_what_waits_and_says_how_many)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q"), *other = side_queue("other");
    int64_t count = -1;

    for (int i = 0; i < 7; i++)
        ck_ok(side_publish(s, queue, "x", err));
    ck_ok(side_publish(s, other, "y", err));
    s->broker->ops->purge(s->broker, queue->name, on_count, &count);
    run_until(count >= 0);
    ck_assert_int_eq(count, 7);
    ck_assert_int_eq(side_inspect(s, queue).ready, 0);
    ck_assert_int_eq(side_inspect(s, other).ready, 1);
    side_free(s);
}
END_TEST

typedef struct seen {
    bool known, found;
    const apm_queue *queue;
} seen;

static void
on_bindings(void *arg, const apm_binding *bindings, size_t n, const apium_error *err)
{
    seen *look = arg;

    ck_assert_msg(!err, "%s", err ? err->text : "");
    look->known = true;
    for (size_t i = 0; i < n; i++)
        if (strcmp(bindings[i].queue, look->queue->name) == 0 &&
            strcmp(bindings[i].exchange, look->queue->exchange) == 0 &&
            strcmp(bindings[i].routing_key, look->queue->routing_key) == 0)
            look->found = true;
}

START_TEST(a_declared_queue_shows_its_binding)
{
    side *s = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    seen look = { .queue = queue };

    if (s->broker->ops->bindings) {
        side_consume(s, queue, 1);
        s->broker->ops->bindings(s->broker, on_bindings, &look);
        run_until(look.known);
        ck_assert(look.found);
    }
    side_free(s);
}
END_TEST

/* ---- Several at once ---- */

START_TEST(two_consumers_share_and_each_message_goes_to_one)
{
    apium_error error, *err = &error;
    side *a = side_with(true, false), *b = side_with(true, false);
    const apm_queue *queue = side_queue("q");
    enum { N = 400 };
    char times[N] = { 0 };
    size_t settled = 0;

    for (int i = 0; i < N; i++) {
        char body[16];
        snprintf(body, sizeof(body), "%d", i);
        apm_unit *unit = apm_unit_new(a->broker->link);
        apm_route route = side_route(queue);
        apm_message msg = side_message(body);
        ck_ok(apm_broker_publish(a->broker, unit, &route, &msg, err));
        apm_unit_commit(unit, NULL, NULL);
    }
    side_consume(a, queue, 8);
    side_consume(b, queue, 8);
    run_until(a->n_got && b->n_got); /* neither can hold them all */
    while (settled < N) {
        run_until(a->n_got || b->n_got);
        for (int i = 0; i < 2; i++) {
            side *s = i ? b : a;
            while (s->n_got) {
                apm_delivery *delivery = side_receive(s);
                times[atoi(delivery->msg.body.p)]++;
                apm_unit *unit = apm_unit_new(s->broker->link);
                ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
                apm_unit_commit(unit, NULL, NULL);
                apm_delivery_free(delivery);
                settled++;
            }
        }
    }
    run_for(200);
    for (int i = 0; i < N; i++)
        ck_assert_msg(times[i] == 1, "message %d came %d times", i, times[i]);
    ck_assert_uint_gt(a->received, 0);
    ck_assert_uint_gt(b->received, 0);
    ck_assert_uint_eq(a->received + b->received, N);
    side_free(a);
    side_free(b);
}
END_TEST

/* A process that moves messages from one queue to another, each in one unit, until it is killed. */
static _Noreturn void
mover(const apm_queue *in, const apm_queue *out)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_route route = side_route(out);

    side_consume(s, in, 4);
    for (;;) {
        sides_turn();
        while (s->n_got) {
            apm_delivery *delivery = side_receive(s);
            apm_unit *unit = apm_unit_new(s->broker->link);
            ck_ok(apm_broker_publish(s->broker, unit, &route, &delivery->msg, err));
            ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
            apm_unit_commit(unit, NULL, NULL);
            apm_delivery_free(delivery);
        }
    }
}

static pid_t
start_mover(const apm_queue *in, const apm_queue *out)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        mover(in, out);
    }
    return pid;
}

/* A process that starts movers and kills one after the other, until the pipe is closed. */
static _Noreturn void
murderer(int pipe_fd, const apm_queue *in, const apm_queue *out)
{
    enum { MOVERS = 3 };
    pid_t pids[MOVERS];
    unsigned random_state = 7;
    struct pollfd end = { .fd = pipe_fd, .events = POLLIN };

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < MOVERS; i++)
        pids[i] = start_mover(in, out);
    for (int i = 0; poll(&end, 1, 20 + rand_r(&random_state) % 60) == 0; i = (i + 1) % MOVERS) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
        pids[i] = start_mover(in, out);
    }
    for (int i = 0; i < MOVERS; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    _exit(0);
}

START_TEST(processes_killed_in_the_middle_lose_and_double_nothing)
{
    enum { N = 300 };
    apium_error error, *err = &error;
    const apm_queue *in = side_queue("in"), *out = side_queue("out");
    char times[N] = { 0 };
    size_t arrived = 0;
    int ends[2];

    /* Before this process opens anything: links do not survive a fork. */
    ck_assert_int_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        murderer(ends[0], in, out);
    }
    close(ends[0]);
    side *s = side_with(true, false);
    side_consume(s, out, 50);
    for (int i = 0; i < N; i++) {
        char body[16];
        snprintf(body, sizeof(body), "%d", i);
        ck_ok(side_publish(s, in, body, err));
    }
    int64_t end = apm_clock_ms() + 90000;
    while (arrived < N && apm_clock_ms() < end) {
        sides_turn();
        while (s->n_got) {
            apm_delivery *delivery = side_receive(s);
            int which = atoi(delivery->msg.body.p);
            arrived += times[which] == 0;
            times[which]++;
            ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
        }
    }
    close(ends[1]);
    waitpid(pid, NULL, 0);
    run_for(500);
    for (size_t i = 0; i < s->n_got; i++)
        times[atoi(s->got[i]->msg.body.p)]++;
    for (int i = 0; i < N; i++) {
        ck_assert_msg(times[i] > 0, "message %d was lost", i);
        if (side_adapter->atomic)
            ck_assert_msg(times[i] == 1, "message %d was moved %d times", i, times[i]);
    }
    side_free(s);
}
END_TEST

/* ---- The list ---- */

static const struct {
    const TTest *const *test;
    uint32_t needs; /* APM_BROKER_... */
    bool steals, processes;
} list[] = {
    { &a_message_arrives_as_it_was_sent },
    { &what_was_not_given_is_absent },
    { &messages_arrive_in_the_order_of_publishing },
    { &the_more_urgent_message_is_served_first, APM_BROKER_PRIORITY },
    { &a_big_message_arrives_whole },
    { &a_message_over_the_limit_is_refused_and_kept_as_a_dead_letter },
    { &a_waiting_consumer_hears_of_a_message_at_once },
    { &a_message_for_no_queue_fails_its_unit },
    { &a_message_for_no_queue_vanishes_when_nobody_insists },
    { &a_direct_exchange_sends_the_key_to_its_queue },
    { &a_topic_exchange_sends_to_every_queue_whose_pattern_matches },
    { &several_queues_are_served_in_turn },
    { &nothing_is_received_before_a_window_is_set },
    { &no_more_than_the_window_is_held_at_once },
    { &an_acked_message_is_gone },
    { &a_requeued_message_comes_again_after_the_others },
    { &a_restored_message_comes_next_and_is_marked },
    { &a_rejected_message_is_kept_with_the_reason },
    { &one_unit_publishes_and_settles_together },
    { &what_is_settled_cannot_be_settled_again, APM_BROKER_FENCE },
    { &a_dropped_unit_does_nothing },
    { &a_unit_that_fails_applies_nothing, APM_BROKER_FENCE },
    { &a_failing_unit_leaves_its_neighbours_alone },
    { &a_delivery_that_was_taken_away_cannot_be_settled, APM_BROKER_FENCE, .steals = true },
    { &a_consumer_is_told_what_it_has_lost, APM_BROKER_FENCE, .steals = true },
    { &a_parked_message_comes_back_at_its_time_and_is_no_redelivery, APM_BROKER_PARK },
    { &a_parked_message_belongs_to_nobody, APM_BROKER_PARK },
    { &nothing_is_received_after_stopping_and_settling_goes_on },
    { &a_cancelled_queue_is_left_alone },
    { &what_a_closed_consumer_held_goes_to_another },
    { &inspecting_counts_what_waits_and_what_is_held },
    { &inspecting_tells_since_when_the_first_message_waits },
    { &a_message_with_an_eta_waits_since_it_was_due },
    { &purging_takes_what_waits_and_says_how_many },
    { &a_declared_queue_shows_its_binding },
    { &two_consumers_share_and_each_message_goes_to_one },
    { &processes_killed_in_the_middle_lose_and_double_nothing, .processes = true },
};

static uint32_t
features_of(const char *url)
{
    size_t len = strcspn(url, ":");

    for (const apm_broker_ops *const *ops = apm_brokers; *ops; ops++)
        for (const char *const *scheme = (*ops)->schemes; *scheme; scheme++)
            if (strlen(*scheme) == len && strncmp(*scheme, url, len) == 0)
                return (*ops)->features;
    return 0;
}

int
main(int argc, char **argv)
{
    TTest const *tests[sizeof(list) / sizeof(list[0]) + 1];
    size_t n = 0;

    side_adapter = adapter_find(argc > 1 ? argv[1] : "sqlite");
    if (!side_adapter || !side_adapter->broker) {
        fprintf(stderr, "no broker adapter \"%s\" to test\n", argc > 1 ? argv[1] : "sqlite");
        return 1;
    }
    int rc = side_adapter->start(side_url, sizeof(side_url));
    if (rc == ADAPTER_SKIP && getenv("APIUM_TEST_STRICT"))
        rc = 1;
    if (rc != 0)
        return rc;
    uint32_t features = features_of(side_url);
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if ((features & list[i].needs) == list[i].needs &&
            (!list[i].steals || side_adapter->steal) &&
            (!list[i].processes || !(features & APM_BROKER_LOCAL)))
            tests[n++] = *list[i].test;
    tests[n] = NULL;
    rc = suite_run(side_adapter->name, tests, 120);
    side_adapter->stop();
    return rc;
}
