/*
 * test_redis_broker.c - the Redis broker beyond the contract: the keys it shares with kombu, leases and sweeps, parked entries, what is
 * no message, waiting without popping.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "redis_side.h"

#define ENVELOPE                                                                                   \
    "{\"body\": \"W10=\", \"content-encoding\": \"utf-8\", \"content-type\": "                     \
    "\"application/json\", \"headers\": "                                                          \
    "{\"task\": \"t\", \"id\": \"i\"}, \"properties\": {\"delivery_info\": {\"exchange\": \"\", "  \
    "\"routing_key\": "                                                                            \
    "\"q\"}, \"priority\": %d, \"body_encoding\": \"base64\", \"delivery_tag\": \"tag-1\", "       \
    "\"extra\": [1.0, {}]}}"

static const apm_queue plain_q = {
    .name = "q", .exchange = "q", .routing_key = "q", .durable = true
};

static char *
envelope(int priority)
{
    char *text = NULL;
    ck_assert_int_gt(asprintf(&text, ENVELOPE, priority), 0);
    return text;
}

/* The answer to a unit, or to a count. */
typedef struct fate {
    bool known;
    apium_status status;
    int64_t n;
} fate;

static void
note_fate(void *arg, apium_status status, const apium_error *err)
{
    fate *f = arg;
    (void)err;
    f->known = true;
    f->status = status;
}

static void
note_count(void *arg, apium_status status, int64_t n, const apium_error *err)
{
    fate *f = arg;
    (void)err;
    ck_assert_int_eq(status, APIUM_OK);
    f->known = true;
    f->n = n;
}

/* ---- Keys and envelopes ---- */

START_TEST(keys_are_those_of_kombu)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_route route = side_route(&plain_q);

    for (int p = 0; p < 10; p++) {
        apm_message msg = side_message("x");
        msg.priority = p;
        ck_ok(side_publish_message(s, &route, &msg, err));
    }
    ck_assert_int_eq(ask("LLEN q"), 3);
    ck_assert_int_eq(ask("LLEN %b",
                         "q\x06\x16"
                         "3",
                         (size_t)4),
                     3);
    ck_assert_int_eq(ask("LLEN %b",
                         "q\x06\x16"
                         "6",
                         (size_t)4),
                     3);
    ck_assert_int_eq(ask("LLEN %b",
                         "q\x06\x16"
                         "9",
                         (size_t)4),
                     1);
    ck_assert_int_eq(ask("SISMEMBER _kombu.binding.q %b", "q\x06\x16\x06\x16q", (size_t)6), 1);
    side_consume(s, &plain_q, 2);
    run_until(s->n_got == 2);
    ck_assert_int_eq(ask("HLEN unacked"), 2);
    ck_assert_int_eq(ask("ZCARD unacked_index"), 2);
    side_free(s);
}
END_TEST

START_TEST(a_prefix_goes_before_every_key)
{
    apium_error error, *err = &error;
    side *s = side_new(WAIT_MS);
    apm_broker_opts opts = { .settings = &s->settings };

    s->settings.global_keyprefix = "pfx:";
    ck_ok(apm_broker_open(s->links, side_url, &opts, &s->broker, err));
    ck_ok(side_publish(s, &plain_q, "x", err));
    ck_assert_int_eq(ask("LLEN pfx:q"), 1);
    ck_assert_int_eq(ask("SCARD pfx:_kombu.binding.q"), 1);
    side_free(s);
    ck_assert_int_eq(ask("DBSIZE"), 2);
}
END_TEST

START_TEST(a_fanout_exchange_is_a_channel)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_message msg = side_message("x");
    apm_route route = { .exchange = "fan", .routing_key = "w.1", .exchange_type = APM_FANOUT };
    redisContext *c = redisConnect("127.0.0.1", redis.port);
    redisReply *reply;

    freeReplyObject(redisCommand(c, "PSUBSCRIBE /0.fan/w.*"));
    ck_ok(side_publish_message(s, &route, &msg, err));
    ck_assert_int_eq(redisGetReply(c, (void **)&reply), REDIS_OK);
    ck_assert_str_eq(reply->element[2]->str, "/0.fan/w.1");
    ck_assert_ptr_nonnull(strstr(reply->element[3]->str, "\"exchange\": \"fan\""));
    freeReplyObject(reply);
    redisFree(c);
    side_free(s);
}
END_TEST

START_TEST(topic_bindings_of_kombu_are_obeyed_with_their_quirks)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    static const struct {
        const char *key;
        bool t1, t2, t3;
    } cases[] = { { "a.b.c", true, true, true },
                  { "a.b.x.c", true, true, true }, /* kombu's star spans dots */
                  { "a", false, false, true },     /* ... and a.# wants the dot */
                  { "a.", false, true, true },
                  { "b.b.c", false, false, true },
                  { "a.x-y+z.c", true, true, true } };

    ask("SADD _kombu.binding.top %b", "a.*.c\x06\x16^a\\..*?[^\\.]\\.c$\x06\x16t1",
        sizeof("a.*.c\x06\x16^a\\..*?[^\\.]\\.c$\x06\x16t1") - 1);
    ask("SADD _kombu.binding.top %b", "a.#\x06\x16^a\\..*?$\x06\x16t2",
        sizeof("a.#\x06\x16^a\\..*?$\x06\x16t2") - 1);
    ask("SADD _kombu.binding.top %b", "#\x06\x16^.*?$\x06\x16t3",
        sizeof("#\x06\x16^.*?$\x06\x16t3") - 1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        apm_message msg = side_message("x");
        apm_route route = { .exchange = "top",
                            .routing_key = cases[i].key,
                            .exchange_type = APM_TOPIC };
        ask("DEL t1 t2 t3");
        ck_ok(side_publish_message(s, &route, &msg, err));
        ck_assert_msg(ask("LLEN t1") == cases[i].t1, "t1 and %s", cases[i].key);
        ck_assert_msg(ask("LLEN t2") == cases[i].t2, "t2 and %s", cases[i].key);
        ck_assert_msg(ask("LLEN t3") == cases[i].t3, "t3 and %s", cases[i].key);
    }
    side_free(s);
}
END_TEST

START_TEST(a_message_given_back_keeps_its_text_and_its_priority)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    char *text = envelope(7);

    ask("LPUSH %b %s",
        "q\x06\x16"
        "6",
        (size_t)4, text);
    side_consume(s, &plain_q, 1);
    apm_delivery *delivery = side_receive(s);
    apm_broker_stop(s->broker, NULL, NULL);
    ck_ok(side_settle(s, delivery, APM_RESTORE, NULL, err));
    char *back = ask_text("LINDEX %b 0",
                          "q\x06\x16"
                          "6",
                          (size_t)4);
    ck_assert_ptr_nonnull(strstr(back, "\"redelivered\": true"));
    ck_assert_ptr_nonnull(strstr(back, "\"extra\": [1.0, {}]"));
    ck_assert_ptr_nonnull(strstr(back, "\"delivery_tag\": \"tag-1\""));
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    free(back);
    free(text);
    side_free(s);
}
END_TEST

/* ---- What is no message ---- */

typedef struct dead {
    bool known;
    size_t n;
    char reason[4][200], message[4][100];
} dead;

static void
on_dead(void *arg, const apm_dead *list, size_t n, const apium_error *err)
{
    dead *d = arg;
    ck_assert_ptr_null(err);
    d->known = true;
    d->n = n;
    for (size_t i = 0; i < n && i < 4; i++) {
        snprintf(d->reason[i], sizeof(d->reason[i]), "%s", list[i].reason);
        snprintf(d->message[i], sizeof(d->message[i]), "%.*s", APM_STR_ARG(list[i].message));
        ck_assert_str_eq(list[i].queue, "q");
        ck_assert_int_lt(llabs(list[i].at_us - apm_clock_wall_us()), 60000000);
    }
}

START_TEST(what_is_no_message_is_kept_and_never_comes_again)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    dead d = { 0 };

    ask("RPUSH q %s", "{broken");
    ask("RPUSH q %s", "[1, 2]");
    ask("RPUSH q %b", "{\"body\": \"\xff\xfe\"}", (size_t)14);
    ask("LPUSH q %s", "");
    ck_ok(side_publish(s, &plain_q, "good", err));
    side_consume(s, &plain_q, 3);
    apm_delivery *delivery = side_receive(s);
    ck_assert(body_is(delivery, "good"));
    ck_assert_uint_eq(s->n_refused, 4);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    run_until(ask("LLEN apium.dead") == 4);
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    ck_assert_int_eq(ask("LLEN q"), 0);
    s->broker->ops->dead(s->broker, 10, on_dead, &d);
    run_until(d.known);
    ck_assert_uint_eq(d.n, 4);
    bool found = false;
    for (size_t i = 0; i < 4; i++)
        found |= strcmp(d.message[i], "{broken") == 0;
    ck_assert(found);
    ck_assert_int_eq(side_inspect(s, &plain_q).dead, 4);
    side_free(s);
}
END_TEST

START_TEST(keys_of_another_type_are_named_and_left_alone)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);

    ask("SET unacked oops");
    ck_ok(side_publish(s, &plain_q, "x", err));
    side_consume(s, &plain_q, 10);
    run_for(300);
    ck_assert_uint_eq(s->received, 0);
    ck_assert_int_eq(ask("LLEN q"), 1); /* nothing was popped into the void */
    ask("DEL unacked");
    apm_delivery *delivery = side_receive(s);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(one_bad_key_fails_one_settlement_of_many)
{
    apium_error error, *err = &error;
    side *s = side_with(true, true);
    size_t ok = 0, failed = 0;
    apm_delivery *bad = NULL;

    for (int i = 0; i < 40; i++)
        ck_ok(side_publish(s, &plain_q, "x", err));
    ask("LPUSH celery-task-meta-id-7 oops");
    side_consume(s, &plain_q, 40);
    run_until(s->n_got == 40);
    fate fates[40] = { 0 };
    apm_delivery *all[40];
    for (int i = 0; i < 40; i++) {
        char id[16];
        snprintf(id, sizeof(id), "id-%d", i);
        all[i] = side_receive(s);
        apm_unit *unit = apm_unit_new(s->broker->link);
        record(s, unit, id, "SUCCESS", "{\"status\": \"SUCCESS\"}");
        ck_ok(apm_broker_settle(s->broker, unit, all[i], APM_ACK, NULL, err));
        apm_unit_commit(unit, note_fate, &fates[i]);
    }
    for (int i = 0; i < 40; i++) {
        run_until(fates[i].known);
        ok += fates[i].status == APIUM_OK;
        failed += fates[i].status == APIUM_E_REFUSED;
        if (i == 7)
            bad = all[i];
        else
            apm_delivery_free(all[i]);
    }
    ck_assert_uint_eq(ok, 39);
    ck_assert_uint_eq(failed, 1);
    ck_assert_int_eq(ask("HLEN unacked"),
                     1); /* it keeps its entry, and can be settled in another way */
    ck_ok(side_settle(s, bad, APM_REJECT, "its result could not be stored", err));
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    ck_assert_int_eq(ask("LLEN apium.dead"), 1);
    side_free(s);
}
END_TEST

/* ---- Leases ---- */

START_TEST(the_entries_of_a_dead_node_come_back_with_their_priority)
{
    apium_error error, *err = &error;
    char *text = envelope(9);

    /* As a node of ours leaves them that was killed. */
    ask("EVAL %s 0 %s",
        "redis.call('HSET', 'unacked', 'apium.r:dead:1:1', '[' .. ARGV[1] .. ',\"\",\"q\"]') "
        "redis.call('ZADD', 'unacked_index', redis.call('TIME')[1] - 100, 'apium.r:dead:1:1')",
        text);
    side *s = side_with(true, false);
    side_consume(s, &plain_q, 10);
    int64_t start = apm_clock_ms();
    apm_delivery *delivery = side_receive(s);
    ck_assert(delivery->msg.redelivered);
    ck_assert_int_eq(delivery->msg.priority, 9);
    /* Not before our renewals held for one lease (2 s here), and the entry did not move for one more second. */
    ck_assert_int_ge(apm_clock_ms() - start, 2000);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    free(text);
    side_free(s);
}
END_TEST

START_TEST(what_a_living_node_holds_is_not_taken_however_long)
{
    apium_error error, *err = &error;
    side *holder = side_with(true, false), *other = side_with(true, false);

    side_consume(holder, &plain_q, 10);
    ck_ok(side_publish(holder, &plain_q, "long", err));
    apm_delivery *delivery = side_receive(holder);
    side_consume(other, &plain_q, 10);
    run_for(6000); /* three leases */
    ck_assert_uint_eq(other->received, 0);
    ck_assert_uint_eq(holder->n_lost, 0);
    ck_ok(side_settle(holder, delivery, APM_ACK, NULL, err));
    side_free(holder);
    side_free(other);
}
END_TEST

START_TEST(entries_of_kombu_come_back_after_the_visibility_timeout)
{
    apium_error error, *err = &error;
    char *text = envelope(0);
    side *s = side_with(true, false);

    ask("SADD _kombu.binding.ex %b", "rk\x06\x16\x06\x16q", (size_t)7);
    s->settings.visibility_timeout = 5;
    ask("EVAL %s 0 %s",
        "local now = redis.call('TIME')[1] "
        "for i, end_ in ipairs({', \"\", \"q\"]', ', \"ex\", \"rk\"]', ', \"ex\", \"unbound\"]'}) "
        "do "
        "redis.call('HSET', 'unacked', 'old-' .. i, '[' .. ARGV[1] .. end_) redis.call('ZADD', "
        "'unacked_index', now - 10, 'old-' .. i) end "
        "redis.call('HSET', 'unacked', 'young', '[' .. ARGV[1] .. ', \"\", \"q\"]') "
        "redis.call('ZADD', 'unacked_index', now, 'young') "
        "redis.call('ZADD', 'unacked_index', now - 10, 'gone')",
        text);
    side_consume(s, &plain_q, 10);
    run_until(s->n_got == 2);
    for (int i = 0; i < 2; i++) {
        apm_delivery *delivery = side_receive(s);
        ck_assert(delivery->msg.redelivered);
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    run_until(ask("LLEN apium.dead") == 1); /* kombu would drop what is bound nowhere */
    ck_assert_int_eq(ask("HEXISTS unacked young"), 1);
    ck_assert_int_eq(ask("ZCARD unacked_index"), 1);
    free(text);
    side_free(s);
}
END_TEST

START_TEST(a_node_that_was_away_renews_before_it_sweeps)
{
    apium_error error, *err = &error;
    side *holder = side_with(true, false), *other = side_with(true, false);

    side_consume(holder, &plain_q, 10);
    side_consume(other, &plain_q, 10);
    apm_broker_stop(other->broker, NULL, NULL);
    ck_ok(side_publish(holder, &plain_q, "x", err));
    apm_delivery *delivery = side_receive(holder);
    /* Both away, for longer than a lease. */
    server_freeze(&redis);
    run_for(3000);
    server_thaw(&redis);
    run_for(4000);
    ck_assert_uint_eq(holder->n_lost, 0);
    ck_ok(side_settle(holder, delivery, APM_ACK, NULL, err));
    side_free(holder);
    side_free(other);
}
END_TEST

/* ---- Parked ---- */

START_TEST(a_parked_entry_is_moved_to_its_list_when_due_and_not_before)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    apm_message msg = side_message("later");
    apm_route route = side_route(&plain_q);

    msg.priority = 6;
    side_consume(s, &plain_q, 10);
    ck_ok(side_publish_message(s, &route, &msg, err));
    apm_delivery *delivery = side_receive(s);
    int64_t due = apm_clock_wall_us() + 2500000;
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_park(s->broker, unit, delivery, due, err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    char *tag = ask_text("EVAL %s 0", "return redis.call('ZRANGE', 'unacked_index', 0, -1)[1]");
    ck_assert_msg(strncmp(tag, "apium.e:6:", 10) == 0, "%s", tag);
    free(tag);
    ck_assert_int_eq(side_inspect(s, &plain_q).parked, 1);
    delivery = side_receive(s);
    int64_t late_us = apm_clock_wall_us() - due;
    ck_assert_msg(late_us >= -1000 && late_us < 400000, "%lld us after its time",
                  (long long)late_us);
    ck_assert(!delivery->msg.redelivered);
    ck_assert_int_eq(delivery->msg.priority, 6);
    ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    side_free(s);
}
END_TEST

START_TEST(a_parked_entry_of_a_queue_nobody_here_consumes_goes_to_its_list)
{
    apium_error error, *err = &error;
    side *parker = side_with(true, false), *s = side_with(true, false);

    side_consume(parker, &plain_q, 10);
    ck_ok(side_publish(parker, &plain_q, "x", err));
    apm_delivery *delivery = side_receive(parker);
    apm_unit *unit = apm_unit_new(parker->broker->link);
    ck_ok(apm_broker_park(parker->broker, unit, delivery, apm_clock_wall_us() + 1200000, err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    side_free(parker);
    side_consume(s, side_queue("another"), 10);
    run_until(ask("LLEN q") == 1);
    ck_assert_int_eq(ask("HLEN unacked"), 0);
    side_free(s);
}
END_TEST

START_TEST(purging_takes_parked_entries_too)
{
    apium_error error, *err = &error;
    side *s = side_with(true, false);
    fate count = { 0 };

    side_consume(s, &plain_q, 10);
    ck_ok(side_publish(s, &plain_q, "x", err));
    apm_delivery *delivery = side_receive(s);
    apm_unit *unit = apm_unit_new(s->broker->link);
    ck_ok(apm_broker_park(s->broker, unit, delivery, apm_clock_wall_us() + INT64_C(86400000000),
                          err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    apm_broker_window(s->broker, 1, false);
    s->broker->ops->purge(s->broker, "q", note_count, &count);
    run_until(count.known);
    ck_assert_int_eq(count.n, 1);
    ck_assert_int_eq(ask("ZCARD unacked_index"), 0);
    side_free(s);
}
END_TEST

/* ---- Waiting ---- */

static int
by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Median time from a publication to its delivery, for each priority in turn. */
static int64_t
wake_up_ms(side *sender, side *s)
{
    enum { N = 40 };
    apium_error error, *err = &error;
    int64_t took[N];
    apm_route route = side_route(&plain_q);

    ask("CONFIG SET appendonly no"); /* not the time of the disk */
    for (int i = 0; i < N; i++) {
        apm_message msg = side_message("x");
        msg.priority = i % 10;
        run_for(20);
        int64_t start = apm_clock_ms();
        apm_unit *unit = apm_unit_new(sender->broker->link);
        ck_ok(apm_broker_publish(sender->broker, unit, &route, &msg, err));
        apm_unit_commit(unit, NULL, NULL);
        apm_delivery *delivery = side_receive(s);
        took[i] = delivery->received_ms - start;
        ck_ok(side_settle(s, delivery, APM_ACK, NULL, err));
    }
    qsort(took, N, sizeof(*took), by_value);
    return took[N / 2];
}

START_TEST(an_idle_consumer_wakes_at_once_at_every_priority)
{
    side *sender = side_with(true, false), *s = side_with(true, false);
    side_consume(s, &plain_q, 4);
    run_for(300);
    int64_t median = wake_up_ms(sender, s);
    ck_assert_msg(median < 5, "%lld ms",
                  (long long)median); /* a loaded machine; alone it is below one ms */
    side_free(s);
    side_free(sender);
}
END_TEST

START_TEST(idle_consumers_ask_for_next_to_nothing)
{
    side *all[4];

    for (int i = 0; i < 4; i++) {
        all[i] = side_with(true, false);
        apm_redis_broker_times(all[i]->broker, &(redis_times){ .renew_ms = 15000,
                                                               .lease_ms = 60000,
                                                               .sweep_ms = 20000,
                                                               .stale_ms = 20000 });
        side_consume(all[i], &plain_q, 4);
    }
    run_for(1500);
    ask("CONFIG RESETSTAT");
    run_for(3000);
    char *info = ask_text("INFO stats");
    const char *at = strstr(info, "total_commands_processed:");
    ck_assert_ptr_nonnull(at);
    /* One script a second each; what scripts call counts too. */
    int commands = atoi(at + strlen("total_commands_processed:"));
    ck_assert_int_lt(commands, 4 * 4 * 8);
    free(info);
    for (int i = 0; i < 4; i++)
        side_free(all[i]);
}
END_TEST

START_TEST(without_blmove_the_lists_are_looked_at_often)
{
    redis_teardown();
    redis_setup_with((const char *const[]){ "--rename-command", "BLMOVE", "", NULL });
    side *sender = side_with(true, false), *s = side_with(true, false);
    side_consume(s, &plain_q, 4);
    run_for(300);
    int64_t median = wake_up_ms(sender, s);
    ck_assert_msg(median < 100, "%lld ms", (long long)median);
    side_free(s);
    side_free(sender);
}
END_TEST

START_TEST(more_lists_than_waiting_connections_are_all_served)
{
    enum { N = 20 }; /* 80 lists */
    apium_error error, *err = &error;
    side *sender = side_with(true, false), *s = side_with(true, false);
    const apm_queue *queues[N];

    for (int i = 0; i < N; i++) {
        queues[i] = side_queue("q");
        side_consume(s, queues[i], 100);
    }
    run_for(500);
    char *clients = ask_text("CLIENT LIST");
    int waiting = 0;
    for (const char *at = clients; (at = strstr(at, "cmd=blmove")); at++)
        waiting++;
    ck_assert_int_eq(waiting, 64);
    free(clients);
    for (int i = 0; i < N; i++) {
        apm_message msg = side_message("x");
        apm_route route = side_route(queues[i]);
        msg.priority = 9;
        ck_ok(side_publish_message(sender, &route, &msg, err));
    }
    run_until(s->n_got == N);
    side_free(s);
    side_free(sender);
}
END_TEST

START_TEST(more_queues_than_a_fetch_looks_at_are_all_served)
{
    enum { N = 150 };
    static const int priorities[] = { 0, 9, 3 };
    apium_error error, *err = &error;
    side *sender = side_with(true, false), *s = side_with(true, false);
    const apm_queue *queues[N];

    for (int i = 0; i < N; i++) {
        queues[i] = side_queue("q");
        side_consume(s, queues[i], 1000);
    }
    for (int round = 1; round <= 3; round++) { /* awake in the first, asleep before the others */
        for (int i = 0; i < N; i++) {
            apm_message msg = side_message("x");
            apm_route route = side_route(queues[i]);
            msg.priority = priorities[(i + round) % 3];
            ck_ok(side_publish_message(sender, &route, &msg, err));
        }
        run_until(s->n_got == (size_t)(round * N));
        run_for(300);
    }
    side_free(s);
    side_free(sender);
}
END_TEST

START_TEST(a_far_server_is_asked_for_more_at_once)
{
    enum { N = 3000 };
    redis_through_proxy();
    proxy_delay(net, 1500);
    side *s = side_with(true, false);
    const redis_broker *broker = redis_of(s->broker);
    char *text = envelope(0);
    unsigned most = 0;

    ask("EVAL %s 1 q %s %d", "for i = 1, ARGV[2] do redis.call('RPUSH', KEYS[1], ARGV[1]) end",
        text, N);
    free(text);
    side_consume(s, &plain_q, N);
    run_until((most = broker->n_fetching > most ? broker->n_fetching : most, s->n_got == N));
    ck_assert_int_ge(s->broker->trip_us, 3000);
    ck_assert_uint_gt(most, 4);
    ck_assert_uint_le(most, 8);
    side_free(s);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        keys_are_those_of_kombu,
        a_prefix_goes_before_every_key,
        a_fanout_exchange_is_a_channel,
        topic_bindings_of_kombu_are_obeyed_with_their_quirks,
        a_message_given_back_keeps_its_text_and_its_priority,
        what_is_no_message_is_kept_and_never_comes_again,
        keys_of_another_type_are_named_and_left_alone,
        one_bad_key_fails_one_settlement_of_many,
        the_entries_of_a_dead_node_come_back_with_their_priority,
        what_a_living_node_holds_is_not_taken_however_long,
        entries_of_kombu_come_back_after_the_visibility_timeout,
        a_node_that_was_away_renews_before_it_sweeps,
        a_parked_entry_is_moved_to_its_list_when_due_and_not_before,
        a_parked_entry_of_a_queue_nobody_here_consumes_goes_to_its_list,
        purging_takes_parked_entries_too,
        an_idle_consumer_wakes_at_once_at_every_priority,
        idle_consumers_ask_for_next_to_nothing,
        without_blmove_the_lists_are_looked_at_often,
        more_lists_than_waiting_connections_are_all_served,
        more_queues_than_a_fetch_looks_at_are_all_served,
        a_far_server_is_asked_for_more_at_once,
        NULL,
    };
    int rc = redis_installed();
    return rc ? rc : suite_run_with("redis_broker", tests, 60, redis_setup, redis_teardown);
}
