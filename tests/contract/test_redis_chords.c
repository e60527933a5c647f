/*
 * test_redis_chords.c - chords in Redis beside Celery's workers: the commands of theirs are those of
 * celery.backends.redis.RedisBackend.on_chord_part_return(), which looks at nothing that is there. In both layouts.
 */
#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chords.h"
#include "core/base/clock.h"

static redisContext *raw;
static char text[1024];

/* A command of somebody else's; a string or status of its answer is in `text`. */
static long long
redis(const char *format, ...)
{
    va_list ap;
    if (!raw) {
        int port = 0;
        sscanf(side_url, "redis://127.0.0.1:%d", &port);
        raw = redisConnect("127.0.0.1", port);
        ck_assert(raw && !raw->err);
        freeReplyObject(redisCommand(raw, "SELECT 2"));
    }
    va_start(ap, format);
    redisReply *reply = redisvCommand(raw, format, ap);
    va_end(ap);
    ck_assert_ptr_nonnull(reply);
    ck_assert_msg(reply->type != REDIS_REPLY_ERROR, "%s", reply->str);
    snprintf(text, sizeof(text), "%s", reply->str ? reply->str : "");
    long long n = reply->type == REDIS_REPLY_NIL ? -1 : reply->integer;
    freeReplyObject(reply);
    return n;
}

static side *
open_both(void)
{
    raw = NULL;
    return open_side(false);
}

static void
close_both(side *s)
{
    redisFree(raw);
    raw = NULL;
    side_free(s);
}

/* A part returns on a Celery worker. */
static void
celery_part(const char *group, const char *id, int index, const char *result)
{
    char member[256];
    snprintf(member, sizeof(member), "[1, \"%s\", \"SUCCESS\", %s]", id, result);
    if (unordered)
        redis("RPUSH celery-taskset-meta-%s.j %s", group, member);
    else if (index < 0)
        redis("ZADD celery-taskset-meta-%s.j +inf %s", group, member);
    else
        redis("ZADD celery-taskset-meta-%s.j %d %s", group, index, member);
}

static long long
celery_count(const char *group)
{
    return redis(unordered ? "LLEN celery-taskset-meta-%s.j" : "ZCARD celery-taskset-meta-%s.j",
                 group);
}

START_TEST(celery_finds_what_it_looks_for)
{
    side *s = open_both();
    const char *group = fresh_id(), *id = fresh_id();
    char member[128];
    s->settings.result_expires = 500;
    expect(s, group, 7);
    extend(s, group, 2);
    arrive(s, group, id, 3, "42");
    redis("GET celery-taskset-meta-%s.s", group);
    ck_assert_str_eq(text, "7");
    redis("GET celery-taskset-meta-%s.t", group);
    ck_assert_str_eq(text, "2");
    snprintf(member, sizeof(member), "[1, \"%s\", \"SUCCESS\", 42]", id);
    if (unordered) {
        redis("LINDEX celery-taskset-meta-%s.j 0", group);
        ck_assert_str_eq(text, member);
    } else {
        redis("ZSCORE celery-taskset-meta-%s.j %s", group, member);
        ck_assert_str_eq(text, "3");
    }
    static const char *const suffixes[] = { ".j", ".s", ".t" };
    for (int i = 0; i < 3; i++) {
        long long left = redis("TTL celery-taskset-meta-%s%s", group, suffixes[i]);
        ck_assert_int_gt(left, 490);
        ck_assert_int_le(left, 500);
    }
    if (!unordered) {
        arrive(s, group, fresh_id(), -1, "43");
        ck_assert_int_eq(redis("ZCOUNT celery-taskset-meta-%s.j +inf +inf", group), 1);
        ck_assert_int_eq(redis("EXISTS celery-taskset-meta-%s.i", group), 0);
    }
    save_group(s, group, "{\"result\": 1}");
    redis("GET celery-taskset-meta-%s", group);
    ck_assert_str_eq(text, "{\"result\": 1}");
    close_both(s);
}
END_TEST

START_TEST(a_taken_header_leaves_nothing_behind)
{
    apium_error error, *err = &error;
    side *s = open_both();
    const char *group = fresh_id();
    extend(s, group, 1);
    expect(s, group, 1);
    arrive(s, group, fresh_id(), 0, "1");
    ck_assert(arrive(s, group, fresh_id(), 0, "1"));
    ck_ok(claim(s, group, err));
    redis("EVAL %s 0 celery-taskset-meta-%s*", "return #redis.call('KEYS', ARGV[1])", group);
    ck_assert_int_eq(
        redis("EVAL %s 0 celery-taskset-meta-%s*", "return #redis.call('KEYS', ARGV[1])", group),
        0);
    close_both(s);
}
END_TEST

START_TEST(the_keys_have_the_prefix_that_celery_was_told)
{
    apium_error error, *err = &error;
    side *s = side_with(false, false);
    const char *group = fresh_id();
    raw = NULL;
    s->settings.result_keyprefix = "pfx";
    s->settings.result_chord_ordered = !unordered;
    ck_ok(apm_backend_open(s->links, side_url, side_url, &s->backend, err));
    expect(s, group, 2);
    arrive(s, group, fresh_id(), 0, "1");
    save_group(s, group, "{\"result\": 1}");
    static const char *const suffixes[] = { "", ".j", ".s" };
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(redis("EXISTS pfx_celery-taskset-meta-%s%s", group, suffixes[i]), 1);
    close_both(s);
}
END_TEST

START_TEST(size_and_growth_may_be_celerys)
{
    side *s = open_both();
    const char *group = fresh_id();
    ck_assert(!arrive(s, group, fresh_id(), 0, "1"));
    redis("SETEX celery-taskset-meta-%s.s 86400 2", group);
    redis("INCRBY celery-taskset-meta-%s.t 1", group);
    celery_part(group, fresh_id(), 1, "2");
    ck_assert(arrive(s, group, fresh_id(), 2, "3"));
    check_results(s, group, (const char *[]){ "1", "2", "3" }, 3);
    close_both(s);
}
END_TEST

START_TEST(a_part_that_celery_counted_is_not_counted_again)
{
    side *s = open_both();
    const char *group = fresh_id(), *id = fresh_id(), *v1 = fresh_id();
    expect(s, group, 3);
    celery_part(group, id, 0, "1");
    celery_part(group, v1, -1, "2");
    ck_assert(!arrive(s, group, id, 0, "1"));
    ck_assert(!arrive(s, group, id, 0, "\"another\""));
    ck_assert(!arrive(s, group, v1, -1, "\"another\""));
    ck_assert_int_eq(celery_count(group), 2);
    ck_assert(arrive(s, group, fresh_id(), -1, "3"));
    gathered g = parts_of(s, group);
    ck_assert_uint_eq(g.n, 3);
    ck_assert_ptr_null(strstr(g.text, "another"));
    free(g.text);
    close_both(s);
}
END_TEST

START_TEST(a_part_that_celery_counted_twice_counts_once)
{
    side *s = open_both();
    const char *group = fresh_id(), *first = fresh_id(), *second = fresh_id();
    expect(s, group, 4);
    celery_part(group, first, 0, "1");
    celery_part(group, first, 0, "9");
    ck_assert(!arrive(s, group, second, 1, "2"));
    celery_part(group, second, 1, "3");
    ck_assert(!arrive(s, group, fresh_id(), 2, "4"));
    /* and what was too much is gone, so that Celery's workers count right */
    ck_assert_int_eq(celery_count(group), 3);
    celery_part(group, first, 0, "9");
    ck_assert(arrive(s, group, fresh_id(), 3, "5"));
    check_results(s, group, (const char *[]){ "1", "2", "4", "5" }, 4);
    close_both(s);
}
END_TEST

START_TEST(a_part_that_celery_counts_again_after_the_last_is_not_given)
{
    side *s = open_both();
    const char *group = fresh_id(), *first = fresh_id();
    expect(s, group, 2);
    celery_part(group, first, 0, "1");
    ck_assert(arrive(s, group, fresh_id(), 1, "2"));
    celery_part(group, first, 0, "9");
    check_results(s, group, (const char *[]){ "1", "2" }, 2);
    close_both(s);
}
END_TEST

START_TEST(a_header_that_celery_completed_may_be_sent_again)
{
    side *s = open_both();
    const char *group = fresh_id(), *ids[4] = { fresh_id(), fresh_id(), fresh_id(), fresh_id() };
    for (int turn = 0; turn < 4; turn++) {
        expect(s, group, 4);
        /* whose parts return first is another in each turn */
        for (int i = 0; i < 3; i++)
            if ((turn >> (i % 2)) & 1)
                celery_part(group, ids[(i + turn) % 4], (i + turn) % 4, "1");
            else
                ck_assert(!arrive(s, group, ids[(i + turn) % 4], (i + turn) % 4, "1"));
        ck_assert_int_eq(celery_count(group), 3);
        if (turn % 2)
            celery_part(group, ids[(3 + turn) % 4], (3 + turn) % 4, "1");
        else
            ck_assert(arrive(s, group, ids[(3 + turn) % 4], (3 + turn) % 4, "1"));
        ck_assert_int_eq(celery_count(group), 4);
        redis("DEL celery-taskset-meta-%s.j celery-taskset-meta-%s.s celery-taskset-meta-%s.t",
              group, group, group);
    }
    close_both(s);
}
END_TEST

START_TEST(a_part_beside_a_hundred_thousand_costs_no_more)
{
    side *s = open_both();
    int64_t took[2] = { 0 };
    for (int big = 0; big < 2; big++) {
        const char *group = fresh_id();
        enum { TIMES = 400 };
        /* All of one place, as those of add_to_chord() are: the hardest case. */
        redis("EVAL %s 0 celery-taskset-meta-%s.j %d %s",
              "for i = 1, tonumber(ARGV[2]) do local m = '[1, \"' .. i .. '-x\", \"SUCCESS\", ' .. "
              "i .. ']' "
              "if ARGV[3] == 'list' then redis.call('RPUSH', ARGV[1], m) else redis.call('ZADD', "
              "ARGV[1], 5, m) "
              "end end",
              group, big ? 100000 : 100, unordered ? "list" : "zset");
        expect(s, group, 200000);
        ck_assert(!arrive(s, group, "first", 5, "1"));
        int64_t start = apm_clock_ms();
        for (int i = 0; i < TIMES; i++)
            ck_assert(!arrive(s, group, fresh_id(), 5, "1"));
        took[big] = apm_clock_ms() - start;
        ck_assert(!arrive(s, group, "7-x", 5, "\"again\""));
        ck_assert_int_eq(celery_count(group), (big ? 100000 : 100) + TIMES + 1);
    }
    printf("%s: 400 arrivals %lld ms, beside 100,000 parts %lld ms\n", unordered ? "list" : "zset",
           (long long)took[0], (long long)took[1]);
    ck_assert_int_lt(took[1], 5 * took[0] + 200);
    close_both(s);
}
END_TEST

START_TEST(keys_that_are_something_else_fail_the_unit_alone)
{
    apium_error error, *err = &error;
    side *s = open_both();
    static const char *const suffixes[] = { ".j", ".s", ".t" };
    for (int i = 0; i < 3; i++) {
        const char *group = fresh_id(), *well = fresh_id();
        redis("HSET celery-taskset-meta-%s%s a 1", group, suffixes[i]);
        expect(s, well, 1);
        apm_unit *bad = apm_unit_new(s->backend->link);
        uint32_t completed = 0;
        bad->completed = &completed;
        add_arrival(s, bad, well, fresh_id(), 0, "1");
        add_arrival(s, bad, group, fresh_id(), 0, "1");
        ck_fails(side_commit(bad, err), APIUM_E_REFUSED);
        ck_assert_uint_eq(completed, 0);
        ck_assert(arrive(s, well, fresh_id(), 0, "1"));
    }
    const char *group = fresh_id();
    redis("SET celery-taskset-meta-%s.t nonsense", group);
    apm_unit *unit = apm_unit_new(s->backend->link);
    ck_ok(s->backend->ops->expect(s->backend, unit, apm_strz(group), 1, err));
    ck_ok(s->backend->ops->extend(s->backend, unit, apm_strz(group), 1, err));
    ck_fails(side_commit(unit, err), APIUM_E_REFUSED);
    ck_assert_int_eq(redis("EXISTS celery-taskset-meta-%s.s", group), 0);
    close_both(s);
}
END_TEST

/* ---- the list ---- */

static const chord_test list[] = {
    { &celery_finds_what_it_looks_for },
    { &a_taken_header_leaves_nothing_behind },
    { &the_keys_have_the_prefix_that_celery_was_told },
    { &size_and_growth_may_be_celerys },
    { &a_part_that_celery_counted_is_not_counted_again },
    { &a_part_that_celery_counted_twice_counts_once },
    { &a_part_that_celery_counts_again_after_the_last_is_not_given },
    { &a_header_that_celery_completed_may_be_sent_again },
    { &a_part_beside_a_hundred_thousand_costs_no_more },
    { &keys_that_are_something_else_fail_the_unit_alone },
    { 0 },
};

int
main(int argc, char **argv)
{
    return chords_run(argc, argv, list);
}
