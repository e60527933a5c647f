/* test_parts.c - what every result backend that counts keeps of chords and groups: many parts and big ones, for how long, and the trees
 * of groups (backends/backend.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "chords.h"
#include "core/base/clock.h"

/* ---- many parts ---- */

/* Count `n` parts, a hundred at a time, and read them; how many milliseconds. */
static int64_t
count_many(side *s, int64_t n)
{
    apium_error error, *err = &error;
    const char *group = fresh_id();
    char id[64];
    uint32_t completed[100];
    int64_t start = apm_clock_ms();

    expect(s, group, n);
    for (int64_t i = 0; i < n; i += 100) {
        bool known[100] = { 0 };
        for (int j = 0; j < 100; j++) {
            apm_unit *unit = apm_unit_new(s->backend->link);
            completed[j] = 0;
            unit->completed = &completed[j];
            int64_t index = n - 1 - i - j;
            char result[24];
            snprintf(result, sizeof(result), "%lld", (long long)index);
            snprintf(id, sizeof(id), "part-%08lld", (long long)index);
            add_arrival(s, unit, group, id, index, result);
            apm_unit_commit(unit, on_done, &known[j]);
        }
        for (int j = 0; j < 100; j++)
            run_until(known[j]);
        for (int j = 0; j < 100; j++)
            ck_assert_uint_eq(completed[j], i + j == n - 1);
    }
    gathered g = parts_of(s, group);
    ck_assert_int_eq(g.status, APIUM_OK);
    ck_assert_int_eq((int64_t)g.n, n);
    ck_assert_uint_le(g.most, APM_PARTS_MAX + 10);
    const char *line = g.text;
    for (int64_t i = 0; i < n; i++) {
        char want[128];
        int64_t index = unordered ? n - 1 - i : i;
        int len = snprintf(want, sizeof(want), "[1, \"part-%08lld\", \"SUCCESS\", %lld]\n",
                           (long long)index, (long long)index);
        ck_assert_msg(strncmp(line, want, (size_t)len) == 0, "part %lld is %.60s", (long long)i,
                      line);
        line += len;
    }
    free(g.text);
    ck_ok(claim(s, group, err));
    return apm_clock_ms() - start;
}

START_TEST(twenty_thousand_parts_take_ten_times_as_long_as_two_thousand)
{
    side *s = open_side(false);
    (void)count_many(s, 1000);
    /* Others may be at work beside it: once of three times is enough. */
    for (int left = 2;; left--) {
        int64_t small = count_many(s, 2000), big = count_many(s, 20000);
        printf("%s: 2,000 parts %lld ms, 20,000 parts %lld ms\n", side_adapter->name,
               (long long)small, (long long)big);
        if (big < 25 * (small + 20))
            break;
        ck_assert_msg(left > 0, "2,000 parts took %lld ms, 20,000 %lld ms", (long long)small,
                      (long long)big);
    }
    side_free(s);
}
END_TEST

START_TEST(big_parts_come_a_few_at_a_time)
{
    apium_error error, *err = &error;
    side *s = open_side(false);
    const char *group = fresh_id();
    enum { N = 40, SIZE = 300000 };
    char *member = malloc(SIZE + 200);
    expect(s, group, N);
    for (int i = 0; i < N; i++) {
        const char *id = fresh_id();
        int head = snprintf(member, 200, "[1, \"%s\", \"SUCCESS\", \"", id);
        memset(member + head, 'x', SIZE);
        memcpy(member + head + SIZE, "\"]", 3);
        apm_unit *unit = apm_unit_new(s->backend->link);
        const apm_part part = { apm_strz(group), apm_strz(id), i, apm_strz(member) };
        ck_ok(s->backend->ops->arrive(s->backend, unit, &part, err));
        ck_ok(side_commit(unit, err));
    }
    gathered g = parts_of(s, group);
    ck_assert_uint_eq(g.n, N);
    ck_assert_uint_gt(g.len, (size_t)N * SIZE);
    ck_assert_uint_le(g.most, 20);
    free(g.text);
    free(member);
    side_free(s);
}
END_TEST

typedef struct thief {
    side *s;
    const char *group;
    bool claimed;
    gathered g;
} thief;

static void
on_parts_take(void *arg, const apm_parts *parts, const apium_error *err)
{
    thief *t = arg;
    if (t->g.calls == 0) {
        apium_error error, *fault = &error;
        apm_unit *unit = apm_unit_new(t->s->backend->link);
        apium_status st = t->s->backend->ops->claim(t->s->backend, unit, apm_strz(t->group), fault);
        ck_assert_int_eq(st, APIUM_OK);
        apm_unit_commit(unit, on_done, &t->claimed);
    }
    on_parts(&t->g, parts, err);
}

START_TEST(a_header_that_is_taken_while_it_is_read_is_not_there)
{
    side *s = open_side(false);
    thief t = { .s = s, .group = fresh_id() };
    char id[32];
    enum { N = 5000 };
    apium_error error, *err = &error;
    expect(s, t.group, N);
    for (int i = 0; i < N;) {
        apm_unit *unit = apm_unit_new(s->backend->link);
        for (int j = 0; j < 25; j++, i++) {
            snprintf(id, sizeof(id), "%d", i);
            add_arrival(s, unit, t.group, id, i, "1");
        }
        ck_ok(side_commit(unit, err));
    }
    s->backend->ops->parts(s->backend, t.group, on_parts_take, &t);
    run_until(t.g.known && t.claimed);
    ck_assert_int_eq(t.g.status, APIUM_E_NOTFOUND);
    ck_assert_uint_lt(t.g.n, N);
    free(t.g.text);
    side_free(s);
}
END_TEST

START_TEST(a_backend_may_be_closed_while_parts_are_read)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    gathered g = { 0 };
    expect(s, group, 1);
    arrive(s, group, fresh_id(), 0, "1");
    s->backend->ops->parts(s->backend, group, on_parts, &g);
    side_free(s);
    ck_assert_uint_eq(g.n, 0);
    ck_assert(!g.known || g.status == APIUM_E_CLOSED);
}
END_TEST

/* ---- expiry ---- */

START_TEST(a_chord_expires_with_all_that_belongs_to_it)
{
    apium_error error, *err = &error;
    side *s = open_side(false);
    const char *kept = fresh_id(), *group = fresh_id(), *id = fresh_id();
    expect(s, kept, 1);
    s->settings.result_expires = 1;
    extend(s, group, 1);
    expect(s, group, 2);
    ck_assert(!arrive(s, group, id, 0, "1"));
    ck_assert_uint_eq(count_parts(s, group), 1);
    run_until(ask_parts(s, group) == APIUM_E_NOTFOUND);
    ck_fails(claim(s, group, err), APIUM_E_NOTFOUND);
    s->settings.result_expires = 86400;
    if (s->backend->ops->cleanup) {
        bool known = false;
        s->backend->ops->cleanup(s->backend, on_done, &known);
        run_until(known);
    }
    /* Nothing is left: not the size, not what was added to it, not the part. */
    expect(s, group, 2);
    ck_assert(!arrive(s, group, fresh_id(), 1, "2"));
    ck_assert(arrive(s, group, id, 0, "3"));
    ck_assert(arrive(s, kept, id, 0, "4"));
    side_free(s);
}
END_TEST

START_TEST(an_expired_chord_is_not_there_before_it_is_cleaned_up)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    s->settings.result_expires = 1;
    expect(s, group, 2);
    ck_assert(!arrive(s, group, fresh_id(), 0, "1"));
    run_until(ask_parts(s, group) == APIUM_E_NOTFOUND);
    ck_assert(!arrive(s, group, fresh_id(), 1, "2"));
    side_free(s);
}
END_TEST

START_TEST(every_arrival_keeps_a_chord_alive)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    s->settings.result_expires = 1;
    expect(s, group, 10);
    s->settings.result_expires = 3600;
    ck_assert(!arrive(s, group, fresh_id(), 0, "1"));
    run_for(1300);
    ck_assert_uint_eq(count_parts(s, group), 1);
    side_free(s);
}
END_TEST

/* ---- saved groups ---- */

START_TEST(a_saved_group_is_fetched_and_forgotten)
{
    side *s = open_side(false), *other = open_side(false);
    const char *group = fresh_id();
    const char *tree = "{\"result\": [[\"g\", null], [[[\"a\", null], null]]]}";
    bool known = false;
    ck_assert(!fetch_group(s, group).there);
    save_group(s, group, "{\"result\": 1}");
    save_group(s, group, tree);
    ck_assert_str_eq(fetch_group(other, group).doc, tree);
    s->backend->ops->forget_group(s->backend, group, on_done, &known);
    run_until(known);
    ck_assert(!fetch_group(other, group).there);
    side_free(s);
    side_free(other);
}
END_TEST

START_TEST(a_saved_group_is_no_task)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    answer a = { 0 };
    save_group(s, group, "{\"result\": 1}");
    s->backend->ops->fetch(s->backend, group, on_fetched, &a);
    run_until(a.known);
    ck_assert(!a.there);
    side_free(s);
}
END_TEST

START_TEST(parts_come_with_the_saved_tree_of_their_group)
{
    side *s = open_side(false);
    const char *group = fresh_id(), *plain = fresh_id();
    expect(s, group, 1);
    expect(s, plain, 1);
    save_group(s, group, "{\"result\": [[\"g\", null], []]}");
    arrive(s, group, fresh_id(), 0, "1");
    arrive(s, plain, fresh_id(), 0, "1");
    gathered g = parts_of(s, group), p = parts_of(s, plain);
    ck_assert(g.has_tree && !p.has_tree);
    ck_assert_str_eq(g.tree, "{\"result\": [[\"g\", null], []]}");
    free(g.text);
    free(p.text);
    side_free(s);
}
END_TEST

START_TEST(a_saved_group_expires)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    s->settings.result_expires = 1;
    save_group(s, group, "{\"result\": 1}");
    ck_assert(fetch_group(s, group).there);
    run_until(!fetch_group(s, group).there);
    expect(s, group, 1);
    arrive(s, group, fresh_id(), 0, "1");
    gathered g = parts_of(s, group);
    ck_assert(!g.has_tree);
    free(g.text);
    side_free(s);
}
END_TEST

/* ---- the list ---- */

static const chord_test list[] = {
    { &twenty_thousand_parts_take_ten_times_as_long_as_two_thousand },
    { &big_parts_come_a_few_at_a_time },
    { &a_header_that_is_taken_while_it_is_read_is_not_there },
    { &a_backend_may_be_closed_while_parts_are_read },
    { &a_chord_expires_with_all_that_belongs_to_it },
    { &an_expired_chord_is_not_there_before_it_is_cleaned_up },
    { &every_arrival_keeps_a_chord_alive },
    { &a_saved_group_is_fetched_and_forgotten },
    { &a_saved_group_is_no_task },
    { &parts_come_with_the_saved_tree_of_their_group },
    { &a_saved_group_expires },
    { 0 },
};

int
main(int argc, char **argv)
{
    return chords_run(argc, argv, list);
}
