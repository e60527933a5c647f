/* test_gather.c - the results of a complete header become the body's argument. */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "tests/support/suite.h"
#include "workflows/gather.h"

static apm_arena arena;
static apm_gathered all;

static void
begin(const char *tree)
{
    apium_error error, *err = &error;
    ck_ok(apm_gather_init(&all, &arena, tree ? apm_strz(tree) : APM_STR_NONE, err));
}

static void
add(const char *member)
{
    apium_error error, *err = &error;
    const apm_str text = apm_strz(member);
    ck_ok(apm_gather_add(&all, &text, 1, err));
}

static void
end_as(const char *want)
{
    apium_error error, *err = &error;
    apm_buf args;
    ck_ok(apm_gather_args(&all, &args, err));
    ck_assert_str_eq(args.p, want);
    apm_buf_clear(&args);
    apm_gather_clear(&all);
    apm_arena_clear(&arena);
}

START_TEST(results_are_a_list_in_the_order_of_the_parts)
{
    begin(NULL);
    add("[1, \"a\", \"SUCCESS\", 1.0]");
    add("[1,\"b\",\"SUCCESS\",{\"x\": [null, \"FAILURE\"]}]");
    add("[1, \"c\", \"SUCCESS\", NaN]");
    end_as("[[1.0, {\"x\": [null, \"FAILURE\"]}, NaN]]");
}
END_TEST

START_TEST(a_header_of_nothing_gives_an_empty_list)
{
    begin(NULL);
    end_as("[[]]");
}
END_TEST

START_TEST(a_stored_tree_gives_the_results_its_shape)
{
    begin("{\"result\": [[\"g\", null], [[[\"b\", null], null], [[\"h\", [[\"p\", null], null]], "
          "[[[\"c\", [[\"b\", null], null]], null], [\"a\", null]]], [[\"i\", null], []]]]}");
    add("[1, \"a\", \"SUCCESS\", 1]");
    add("[1, \"c\", \"SUCCESS\", \"three\"]");
    add("[1, \"b\", \"SUCCESS\", 2]");
    end_as("[[2, [\"three\", 1], []]]");
}
END_TEST

START_TEST(a_tree_that_does_not_fit_gives_a_list)
{
    static const char *const trees[] = {
        "{\"result\": [[\"g\", null], [[[\"a\", null], null], [[\"unknown\", null], null]]]}",
        "{\"result\": [[\"g\", null], [[[\"a\", null], null]]]}",
        "{\"result\": [[\"g\", null], []]}",
        "{\"result\": 5}",
        "{}",
        "[]",
        "no JSON",
    };
    for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++) {
        begin(trees[i]);
        add("[1, \"b\", \"SUCCESS\", 2]");
        add("[1, \"a\", \"SUCCESS\", 1]");
        end_as("[[2, 1]]");
    }
}
END_TEST

START_TEST(the_first_part_that_failed_is_kept)
{
    begin(NULL);
    add("[1, \"a\", \"SUCCESS\", 1]");
    ck_assert(!apm_str_is(all.failed));
    add("[1, \"b\", \"REVOKED\", {\"exc_type\": \"TaskRevokedError\"}]");
    add("[1, \"c\", \"FAILURE\", {\"exc_type\": \"ValueError\"}]");
    add("[1, \"d\", \"SUCCESS\", 1]");
    ck_assert(
        apm_str_eqz(all.failed, "[1, \"b\", \"REVOKED\", {\"exc_type\": \"TaskRevokedError\"}]"));
    apm_gather_clear(&all);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(what_is_no_part_is_refused)
{
    static const char *const members[] = { "",
                                           "5",
                                           "[1, \"a\", \"SUCCESS\"]",
                                           "[1, \"a\", \"SUCCESS\", ]",
                                           "[1, \"a\", \"SUCCESS\", 1",
                                           "{\"a\": 1" };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        apium_error error, *err = &error;
        const apm_str text = apm_strz(members[i]);
        begin(NULL);
        ck_fails(apm_gather_add(&all, &text, 1, err), APIUM_E_DECODE);
        apm_gather_clear(&all);
        apm_arena_clear(&arena);
    }
}
END_TEST

START_TEST(many_small_results_are_not_kept_as_parts)
{
    char member[128];
    begin(NULL);
    for (int i = 0; i < 100000; i++) {
        snprintf(member, sizeof(member), "[1, \"4f3cb0e2-8a3b-4c1e-9d27-%012d\", \"SUCCESS\", %d]",
                 i, i);
        add(member);
    }
    ck_assert_uint_lt(all.list.cap, 2 * all.list.len + 256);
    ck_assert_ptr_null(all.ids.p);
    ck_assert_ptr_null(all.parts);
    apm_gather_clear(&all);
    apm_arena_clear(&arena);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        results_are_a_list_in_the_order_of_the_parts, a_header_of_nothing_gives_an_empty_list,
        a_stored_tree_gives_the_results_its_shape,    a_tree_that_does_not_fit_gives_a_list,
        the_first_part_that_failed_is_kept,           what_is_no_part_is_refused,
        many_small_results_are_not_kept_as_parts,     NULL,
    };
    return suite_run("gather", tests, 20);
}
