/* test_chords.c - how every result backend that counts counts the parts of chords and gives headers away (backends/backend.h). */
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "chords.h"

/* ---- counting ---- */

START_TEST(the_last_part_completes_the_header)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    expect(s, group, 3);
    ck_assert(!arrive(s, group, fresh_id(), 0, "0"));
    ck_assert(!arrive(s, group, fresh_id(), 1, "1"));
    ck_assert(arrive(s, group, fresh_id(), 2, "2"));
    check_results(s, group, (const char *[]){ "0", "1", "2" }, 3);
    side_free(s);
}
END_TEST

START_TEST(a_part_that_returns_again_counts_once)
{
    side *s = open_side(false);
    const char *group = fresh_id(), *first = fresh_id(), *second = fresh_id();
    expect(s, group, 3);
    ck_assert(!arrive(s, group, first, 0, "\"a\""));
    ck_assert(!arrive(s, group, first, 0, "\"a\""));
    ck_assert(!arrive(s, group, first, 0, "\"another result\""));
    ck_assert(!arrive(s, group, second, -1, "\"b\""));
    ck_assert(!arrive(s, group, second, -1, "\"c\""));
    ck_assert(arrive(s, group, fresh_id(), -1, "\"d\""));
    gathered g = parts_of(s, group);
    ck_assert_uint_eq(g.n, 3);
    ck_assert_ptr_nonnull(strstr(g.text, "\"SUCCESS\", \"a\"]"));
    ck_assert_ptr_nonnull(strstr(g.text, "\"SUCCESS\", \"b\"]"));
    ck_assert_ptr_nonnull(strstr(g.text, "\"SUCCESS\", \"d\"]"));
    free(g.text);
    side_free(s);
}
END_TEST

START_TEST(parts_have_the_order_of_the_header)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    expect(s, group, 5);
    arrive(s, group, fresh_id(), -1, "\"unknown\"");
    arrive(s, group, fresh_id(), 10, "10");
    arrive(s, group, fresh_id(), 2, "2");
    arrive(s, group, fresh_id(), 0, "0");
    ck_assert(arrive(s, group, fresh_id(), 9, "9"));
    if (unordered)
        check_results(s, group, (const char *[]){ "\"unknown\"", "10", "2", "0", "9" }, 5);
    else
        check_results(s, group, (const char *[]){ "0", "2", "9", "10", "\"unknown\"" }, 5);
    side_free(s);
}
END_TEST

START_TEST(parts_of_one_place_are_told_apart)
{
    side *s = open_side(false);
    const char *group = fresh_id(), *ids[8];
    expect(s, group, 8);
    for (int i = 0; i < 8; i++)
        ids[i] = fresh_id();
    for (int i = 0; i < 7; i++)
        ck_assert(!arrive(s, group, ids[i], 4, "1"));
    for (int i = 6; i >= 0; i--)
        ck_assert(!arrive(s, group, ids[i], 4, "2"));
    ck_assert(arrive(s, group, ids[7], 4, "1"));
    gathered g = parts_of(s, group);
    ck_assert_uint_eq(g.n, 8);
    ck_assert_ptr_null(strstr(g.text, "SUCCESS\", 2]"));
    free(g.text);
    side_free(s);
}
END_TEST

START_TEST(an_id_with_quotes_is_an_id)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    apium_error error, *err = &error;
    uint32_t completed = 0;
    expect(s, group, 2);
    for (int i = 0; i < 4; i++) {
        static const char *const ids[] = { "a\"b", "a\"c" };
        static const char *const members[] = { "[1, \"a\\\"b\", \"SUCCESS\", 1]",
                                               "[1, \"a\\\"c\", \"SUCCESS\", 2]" };
        apm_unit *unit = apm_unit_new(s->backend->link);
        const apm_part part = { .group_id = apm_strz(group),
                                .task_id = apm_strz(ids[i / 2]),
                                .index = i / 2,
                                .member = apm_strz(members[i / 2]) };
        unit->completed = &completed;
        ck_ok(s->backend->ops->arrive(s->backend, unit, &part, err));
        ck_ok(side_commit(unit, err));
        ck_assert_uint_eq(completed, i > 1);
    }
    check_results(s, group, (const char *[]){ "1", "2" }, 2);
    side_free(s);
}
END_TEST

START_TEST(a_size_that_comes_late_is_found_by_the_part_after_it)
{
    side *s = open_side(false);
    const char *group = fresh_id(), *first = fresh_id();
    ck_assert(!arrive(s, group, first, 0, "0"));
    ck_assert(!arrive(s, group, fresh_id(), 1, "1"));
    expect(s, group, 3);
    expect(s, group, 3);
    ck_assert(!arrive(s, group, first, 0, "0"));
    ck_assert(arrive(s, group, fresh_id(), 2, "2"));
    side_free(s);
}
END_TEST

START_TEST(a_header_grows_before_and_after_its_size_is_known)
{
    side *s = open_side(false);
    const char *group = fresh_id();
    extend(s, group, 1);
    ck_assert(!arrive(s, group, fresh_id(), 0, "0"));
    expect(s, group, 1);
    extend(s, group, 2);
    ck_assert(!arrive(s, group, fresh_id(), 0, "1"));
    ck_assert(!arrive(s, group, fresh_id(), 0, "2"));
    ck_assert(arrive(s, group, fresh_id(), 0, "3"));
    side_free(s);
}
END_TEST

START_TEST(chords_of_one_unit_are_counted_each_by_itself)
{
    apium_error error, *err = &error;
    side *s = open_side(false);
    const char *groups[3] = { fresh_id(), fresh_id(), fresh_id() };
    expect(s, groups[0], 1);
    expect(s, groups[1], 2);
    expect(s, groups[2], 1);
    apm_unit *unit = apm_unit_new(s->backend->link);
    uint32_t completed = 0;
    unit->completed = &completed;
    for (int i = 0; i < 3; i++)
        add_arrival(s, unit, groups[i], fresh_id(), 0, "1");
    ck_assert_uint_eq(unit->arrivals, 3);
    ck_ok(side_commit(unit, err));
    ck_assert_uint_eq(completed, 5);
    side_free(s);
}
END_TEST

START_TEST(two_nodes_count_together)
{
    side *a = open_side(false), *b = open_side(false);
    const char *group = fresh_id();
    enum { N = 40 };
    expect(a, group, N);
    size_t last = 0;
    for (int i = 0; i < N; i++)
        last += arrive(i % 2 ? a : b, group, fresh_id(), i, "1");
    ck_assert_uint_eq(last, 1);
    ck_assert_uint_eq(count_parts(b, group), N);
    side_free(a);
    side_free(b);
}
END_TEST

/* ---- taking ---- */

START_TEST(a_header_is_taken_once)
{
    apium_error error, *err = &error;
    side *a = open_side(false), *b = open_side(false);
    const char *group = fresh_id();
    expect(a, group, 1);
    ck_assert(arrive(a, group, fresh_id(), 0, "1"));
    ck_ok(claim(a, group, err));
    ck_fails(claim(a, group, err), APIUM_E_NOTFOUND);
    ck_fails(claim(b, group, err), APIUM_E_NOTFOUND);
    ck_assert_int_eq(ask_parts(b, group), APIUM_E_NOTFOUND);
    side_free(a);
    side_free(b);
}
END_TEST

START_TEST(what_was_never_expected_cannot_be_taken)
{
    apium_error error, *err = &error;
    side *s = open_side(false);
    const char *group = fresh_id();
    ck_fails(claim(s, group, err), APIUM_E_NOTFOUND);
    ck_assert(!arrive(s, group, fresh_id(), 0, "1"));
    ck_fails(claim(s, group, err), APIUM_E_NOTFOUND);
    ck_assert_int_eq(ask_parts(s, group), APIUM_E_NOTFOUND);
    side_free(s);
}
END_TEST

START_TEST(a_refused_claim_takes_the_whole_unit_with_it)
{
    apium_error error, *err = &error;
    side *s = open_side(true);
    const apm_queue *queue = side_queue("q");
    const char *group = fresh_id(), *upper = fresh_id(), *saved = fresh_id();
    const apm_route route = side_route(queue);
    const apm_message body = side_message("body");

    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "part", err));
    apm_delivery *delivery = side_receive(s);
    expect(s, upper, 1);
    expect(s, group, 1);
    arrive(s, group, fresh_id(), 0, "1");
    ck_ok(claim(s, group, err));

    apm_unit *unit = apm_unit_new(s->backend->link);
    uint32_t completed = 0;
    unit->completed = &completed;
    ck_ok(apm_broker_publish(s->broker, unit, &route, &body, err));
    add_arrival(s, unit, upper, fresh_id(), 0, "1");
    ck_ok(s->backend->ops->save_group(s->backend, unit, apm_strz(saved), APM_STR("{\"result\": 1}"),
                                      err));
    ck_ok(s->backend->ops->claim(s->backend, unit, apm_strz(group), err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_fails(side_commit(unit, err), APIUM_E_NOTFOUND);
    apm_delivery_free(delivery);

    ck_assert_uint_eq(completed, 0);
    ck_assert_int_eq(side_inspect(s, queue).ready, 0);
    ck_assert_int_eq(side_inspect(s, queue).unacked, 1);
    ck_assert(!fetch_group(s, saved).there);
    ck_assert_int_eq(count_parts(s, upper), 0);
    side_free(s);
}
END_TEST

START_TEST(a_body_leaves_with_the_claim_and_the_ack)
{
    apium_error error, *err = &error;
    side *s = open_side(true);
    const apm_queue *queue = side_queue("q"), *after = side_queue("after");
    const char *group = fresh_id();
    const apm_route route = side_route(after);
    const apm_message body = side_message("body");

    side_consume(s, queue, 1);
    side_consume(s, after, 0);
    expect(s, group, 1);
    ck_ok(side_publish(s, queue, "part", err));
    apm_delivery *delivery = side_receive(s);
    ck_assert(arrive(s, group, fresh_id(), 0, "1"));
    apm_unit *unit = apm_unit_new(s->backend->link);
    ck_ok(s->backend->ops->claim(s->backend, unit, apm_strz(group), err));
    ck_ok(apm_broker_publish(s->broker, unit, &route, &body, err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    apm_delivery *got = side_receive(s);
    ck_assert(body_is(got, "body"));
    ck_ok(side_settle(s, got, APM_ACK, NULL, err));
    ck_fails(claim(s, group, err), APIUM_E_NOTFOUND);
    side_free(s);
}
END_TEST

START_TEST(a_part_whose_delivery_is_not_ours_does_not_count)
{
    apium_error error, *err = &error;
    side *s = open_side(true);
    const apm_queue *queue = side_queue("q");
    const char *group = fresh_id();
    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "part", err));
    apm_delivery *delivery = side_receive(s);
    expect(s, group, 1);
    side_adapter->steal(side_url);
    apm_unit *unit = apm_unit_new(s->backend->link);
    uint32_t completed = 0;
    unit->completed = &completed;
    add_arrival(s, unit, group, fresh_id(), 0, "1");
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_fails(side_commit(unit, err), APIUM_E_FENCED);
    apm_delivery_free(delivery);
    ck_assert_uint_eq(completed, 0);
    ck_assert(arrive(s, group, fresh_id(), 0, "2"));
    check_results(s, group, (const char *[]){ "2" }, 1);
    side_free(s);
}
END_TEST

START_TEST(until_it_is_taken_a_complete_header_says_so_to_each_part_that_returns_again)
{
    apium_error error, *err = &error;
    side *s = open_side(false), *other = open_side(false);
    const char *group = fresh_id(), *last = fresh_id(), *first = fresh_id();
    expect(s, group, 2);
    arrive(s, group, first, 0, "1");
    ck_assert(arrive(s, group, last, 1, "2"));
    side_free(s); /* it dies before it claims; the part is given to another node */
    ck_assert(arrive(other, group, last, 1, "2"));
    ck_assert(arrive(other, group, first, 0, "3"));
    check_results(other, group, (const char *[]){ "1", "2" }, 2);
    ck_ok(claim(other, group, err));
    ck_assert(!arrive(other, group, last, 1, "2"));
    ck_fails(claim(other, group, err), APIUM_E_NOTFOUND);
    side_free(other);
}
END_TEST

START_TEST(a_header_that_was_taken_may_be_sent_again)
{
    apium_error error, *err = &error;
    side *s = open_side(false);
    const char *group = fresh_id(), *ids[2] = { fresh_id(), fresh_id() };
    for (int turn = 0; turn < 2; turn++) {
        expect(s, group, 2);
        ck_assert(!arrive(s, group, ids[0], 0, "1"));
        ck_assert(arrive(s, group, ids[1], 1, "2"));
        ck_ok(claim(s, group, err));
    }
    side_free(s);
}
END_TEST

/* ---- the list ---- */

static const chord_test list[] = {
    { &the_last_part_completes_the_header },
    { &a_part_that_returns_again_counts_once },
    { &parts_have_the_order_of_the_header },
    { &parts_of_one_place_are_told_apart },
    { &an_id_with_quotes_is_an_id },
    { &a_size_that_comes_late_is_found_by_the_part_after_it },
    { &a_header_grows_before_and_after_its_size_is_known },
    { &chords_of_one_unit_are_counted_each_by_itself },
    { &two_nodes_count_together },
    { &a_header_is_taken_once },
    { &what_was_never_expected_cannot_be_taken },
    { &a_refused_claim_takes_the_whole_unit_with_it, .broker = true },
    { &a_body_leaves_with_the_claim_and_the_ack, .broker = true },
    { &a_part_whose_delivery_is_not_ours_does_not_count, .broker = true, .steals = true },
    { &until_it_is_taken_a_complete_header_says_so_to_each_part_that_returns_again },
    { &a_header_that_was_taken_may_be_sent_again },
    { 0 },
};

int
main(int argc, char **argv)
{
    return chords_run(argc, argv, list);
}
