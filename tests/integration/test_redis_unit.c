/*
 * test_redis_unit.c - what one unit of a Redis link does: the order of its pushes, what a result finds under its key, and what
 * happens of it when a part of it cannot be.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis_side.h"

typedef struct count {
    size_t ok, failed;
    char why[256];
} count;

static void
on_counted(void *arg, apium_status status, const apium_error *err)
{
    count *c = arg;
    if (status == APIUM_OK)
        c->ok++;
    else
        c->failed++;
    if (err)
        snprintf(c->why, sizeof(c->why), "%s", err->text);
}

static void
push(apm_unit *unit, const char *key, bool right, const char *value)
{
    apm_redis_unit_push(unit, 0, apm_strz(key), right, apm_strz(value));
}

static void
expect_text(const char *expected, const char *fmt, const char *key)
{
    char *text = ask_text(fmt, key);
    ck_assert_str_eq(text, expected);
    free(text);
}

START_TEST(pushes_keep_their_order_however_many_there_are)
{
    enum { N = 450 };
    side *s = side_with(true, false);
    apm_unit *unit = apm_unit_new(s->broker->link);
    count c = { 0 };
    char value[16];

    for (int i = 0; i < N; i++) { /* 0 is the first to come out at the right end */
        snprintf(value, sizeof(value), "%d", i);
        push(unit, "long", false, value);
        if (i == 100)
            push(unit, "other", false, "once");
    }
    push(unit, "long", true, "before-0");
    push(unit, "long", true, "before-that");
    apm_unit_commit(unit, on_counted, &c);
    run_until(c.ok + c.failed);
    ck_assert_msg(c.ok == 1, "%s", c.why);
    ck_assert_int_eq(ask("LLEN long"), N + 2);
    expect_text("before-that", "RPOP %s", "long");
    expect_text("before-0", "RPOP %s", "long");
    for (int i = 0; i < N; i++) {
        snprintf(value, sizeof(value), "%d", i);
        expect_text(value, "RPOP %s", "long");
    }
    expect_text("once", "RPOP %s", "other");
    side_free(s);
}
END_TEST

START_TEST(a_value_that_is_too_big_leaves_those_around_it)
{
    side *s = side_with(true, false);
    apm_unit *unit = apm_unit_new(s->broker->link);
    count c = { 0 };
    size_t len;

    for (int i = 0; i < 5; i++) {
        bool big = i == 0 || i == 3; /* as the first of a run, and within it */
        apm_redis_unit_push(unit, 0, APM_STR("mine"), false, APM_STR_NONE);
        apm_buf_addz(apm_redis_unit_value(unit), big ? "much too big" : "small");
        ck_assert(apm_redis_unit_value_end(unit, 8, &len) == !big);
    }
    apm_unit_commit(unit, on_counted, &c);
    run_until(c.ok + c.failed);
    ck_assert_msg(c.ok == 1, "%s", c.why);
    ck_assert_int_eq(ask("LLEN mine"), 3);
    for (int i = 0; i < 3; i++)
        expect_text("small", "RPOP %s", "mine");
    side_free(s);
}
END_TEST

/* A unit of these results of one task, in their order. */
static void
store(side *s, const char *const *docs)
{
    apm_unit *unit = apm_unit_new(s->broker->link);
    count c = { 0 };

    for (; *docs; docs++)
        apm_redis_unit_record(unit, 0, APM_STR("result"), 100, apm_strz(*docs));
    apm_unit_commit(unit, on_counted, &c);
    run_until(c.ok + c.failed);
    ck_assert_msg(c.ok == 1, "%s", c.why);
}

START_TEST(a_result_gives_way_to_a_success_alone)
{
    static const char failed[] = "{\"status\": \"FAILURE\", \"n\": 1}",
                      well[] = "{\"status\": \"SUCCESS\", \"n\": 2}",
                      late[] = "{\"status\": \"FAILURE\", \"n\": 3}";
    side *s = side_with(true, false);

    store(s, (const char *const[]){ late, failed, NULL });
    expect_text(failed, "GET %s", "result");
    ck_assert_int_gt(ask("TTL result"), 90);
    store(s, (const char *const[]){ late, NULL });
    expect_text(late, "GET %s", "result");
    store(s, (const char *const[]){ failed, well, late, NULL });
    expect_text(well, "GET %s", "result");
    store(s, (const char *const[]){ late, NULL });
    expect_text(well, "GET %s", "result");
    side_free(s);
}
END_TEST

START_TEST(a_result_whose_key_is_a_list_fails_its_unit_before_anything_happens)
{
    side *s = side_with(true, false);
    count c = { 0 };

    ask("RPUSH result x");
    for (int i = 0; i < 3; i++) { /* the middle one is the bad one; all may be in one call */
        apm_unit *unit = apm_unit_new(s->broker->link);
        apm_redis_unit_record(unit, 0, i == 1 ? APM_STR("result") : APM_STR("fine"), 100,
                              APM_STR("{\"status\": \"FAILURE\"}"));
        push(unit, "next", false, i == 1 ? "bad" : "good");
        apm_unit_commit(unit, on_counted, &c);
    }
    run_until(c.ok + c.failed == 3);
    ck_assert_uint_eq(c.failed, 1);
    ck_assert_ptr_nonnull(strstr(c.why, "WRONGTYPE"));
    ck_assert_int_eq(ask("LLEN next"), 2);
    expect_text("good", "RPOP %s", "next");
    expect_text("good", "RPOP %s", "next");
    side_free(s);
}
END_TEST

START_TEST(a_list_that_is_none_any_more_is_noticed_within_a_call)
{
    side *s = side_with(true, false);
    count c = { 0 };

    for (int i = 0; i < 3; i++) {
        apm_unit *unit = apm_unit_new(s->broker->link);
        if (i == 1) /* "key" is free until here */
            apm_redis_unit_record(unit, 0, APM_STR("key"), 100, APM_STR("{}"));
        else if (i == 0)
            push(unit, "result", false, "x");
        else
            push(unit, "key", false, "x");
        apm_unit_commit(unit, on_counted, &c);
    }
    run_until(c.ok + c.failed == 3);
    ck_assert_uint_eq(c.ok, 2);
    ck_assert_ptr_nonnull(strstr(c.why, "WRONGTYPE"));
    expect_text("{}", "GET %s", "key");
    side_free(s);
}
END_TEST

START_TEST(a_call_that_is_sent_twice_says_twice_which_of_its_units_failed)
{
    redis_through_proxy();
    side *s = side_with(true, false);
    count c = { 0 };

    apm_unit *warm = apm_unit_new(s->broker->link); /* from then on the server has the script */
    push(warm, "warm", false, "x");
    apm_unit_commit(warm, on_counted, &c);
    run_until(c.ok);
    c.ok = 0;
    ask("SET none x");
    proxy_swallow(net, true);
    for (int i = 0; i < 3; i++) {
        apm_unit *unit = apm_unit_new(s->broker->link);
        push(unit, i == 1 ? "none" : "some", false, "x");
        apm_unit_commit(unit, on_counted, &c);
    }
    run_until(ask("LLEN some") == 2);
    proxy_cut(net);
    proxy_swallow(net, false);
    run_until(c.ok + c.failed == 3);
    ck_assert_uint_eq(c.ok, 2);
    ck_assert_ptr_nonnull(strstr(c.why, "WRONGTYPE none is a string, not a list"));
    run_for(100);
    ck_assert_int_eq(ask("LLEN some"), 2);
    side_free(s);
}
END_TEST

/* A call of settlements whose answer is lost: one that is fine, one of a delivery that is not ours, one whose result has no place. */
static void
settle_twice(bool one_without_result)
{
    static const apm_redis_keys keys = { 0, "unacked", "unacked_index", "apium.dead", "", "|" };
    redis_through_proxy();
    side *s = side_with(true, false);
    count c[4] = { 0 };
    const char *const tags[] = { "fine", "gone", "bad", "early" };

    ask("RPUSH list x");
    ask("HSET unacked fine 1 bad 1 early 1 other 1");
    apm_unit *warm = apm_unit_new(s->broker->link); /* from then on the server has the script */
    apm_redis_unit_ack(warm, &keys, APM_STR("other"));
    apm_unit_commit(warm, on_counted, &c[0]);
    run_until(c[0].ok);
    c[0].ok = 0;
    proxy_swallow(net, true);
    for (int i = 0; i < (one_without_result ? 4 : 3); i++) {
        apm_unit *unit = apm_unit_new(s->broker->link);
        if (i < 3)
            apm_redis_unit_record(unit, 0, i == 2 ? APM_STR("list") : APM_STR("stored"), 100,
                                  APM_STR("{\"status\": \"FAILURE\"}"));
        apm_redis_unit_ack(unit, &keys, apm_strz(tags[i]));
        apm_unit_commit(unit, on_counted, &c[i]);
    }
    run_until(ask("HLEN unacked") == (one_without_result ? 1 : 2));
    proxy_cut(net);
    proxy_swallow(net, false);
    run_until(c[0].ok && c[1].ok + c[1].failed && c[2].failed);
    ck_assert_ptr_nonnull(strstr(c[2].why, "WRONGTYPE"));
    if (one_without_result) {
        run_until(c[3].ok);
        ck_assert_uint_eq(c[1].failed, 1);
    }
    expect_text("{\"status\": \"FAILURE\"}", "GET %s", "stored");
    ck_assert_int_eq(ask("HEXISTS unacked bad"), 1);
    side_free(s);
}

START_TEST(settlements_that_are_sent_twice_are_settled_once)
{
    settle_twice(false);
}
END_TEST

START_TEST(an_acknowledgement_without_result_that_is_sent_twice_is_still_known)
{
    settle_twice(true);
}
END_TEST

/* Results without acknowledgements, as workers store them whose broker is another: what somebody stored since stays. */
START_TEST(results_alone_that_are_sent_twice_are_stored_once)
{
    static const char started[] = "{\"status\": \"STARTED\"}",
                      other[] = "{\"status\": \"FAILURE\"}";
    static const apm_redis_keys keys = { 0, "unacked", "unacked_index", "apium.dead", "", "|" };
    redis_through_proxy();
    side *s = side_with(true, false);
    count c[3] = { 0 };

    store(s, (const char *const[]){ other, NULL }); /* from then on the server has the script */
    ask("RPUSH list x");
    ask("HSET unacked tag 1");
    proxy_swallow(net, true);
    for (int i = 0; i < 3; i++) {
        apm_unit *unit = apm_unit_new(s->broker->link);
        if (i < 2)
            apm_redis_unit_record(unit, 0, i ? APM_STR("list") : APM_STR("result"), 100,
                                  apm_strz(started));
        else
            apm_redis_unit_ack(unit, &keys, APM_STR("tag"));
        apm_unit_commit(unit, on_counted, &c[i]);
    }
    run_until(ask("HLEN unacked") == 0);
    expect_text(started, "GET %s", "result");
    free(ask_text("SET result %s", other));
    proxy_cut(net);
    proxy_swallow(net, false);
    run_until(c[0].ok && c[1].failed && c[2].ok);
    ck_assert_ptr_nonnull(strstr(c[1].why, "WRONGTYPE"));
    expect_text(other, "GET %s", "result");
    side_free(s);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        pushes_keep_their_order_however_many_there_are,
        a_value_that_is_too_big_leaves_those_around_it,
        a_result_gives_way_to_a_success_alone,
        a_result_whose_key_is_a_list_fails_its_unit_before_anything_happens,
        a_list_that_is_none_any_more_is_noticed_within_a_call,
        a_call_that_is_sent_twice_says_twice_which_of_its_units_failed,
        settlements_that_are_sent_twice_are_settled_once,
        an_acknowledgement_without_result_that_is_sent_twice_is_still_known,
        results_alone_that_are_sent_twice_are_stored_once,
        NULL,
    };
    int rc = redis_installed();
    return rc ? rc : suite_run_with("redis_unit", tests, 60, redis_setup, redis_teardown);
}
