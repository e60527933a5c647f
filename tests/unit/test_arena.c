/* test_arena.c - core/base/arena */
#include <stdint.h>
#include <stdlib.h>

#include "core/base/arena.h"
#include "tests/support/suite.h"

START_TEST(allocations_are_zeroed_and_aligned_for_anything)
{
    static const char zeros[300];
    apm_arena arena = { 0 };

    for (size_t size = 0; size < 300; size++) {
        ck_assert_ptr_nonnull(apm_arena_bytes(&arena, size % 7)); /* spoils the alignment */
        unsigned char *p = apm_arena_alloc(&arena, size);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % _Alignof(max_align_t), 0);
        ck_assert_mem_eq(p, zeros, size);
        memset(p, 0xff, size);
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(pieces_never_overlap)
{
    apm_arena arena = { 0 };
    static unsigned char *piece[2000];

    for (int i = 0; i < 2000; i++) {
        size_t size = (size_t)(i * 37 % 900) + 1;
        piece[i] = i % 3 ? apm_arena_bytes(&arena, size) : apm_arena_alloc(&arena, size);
        memset(piece[i], i & 0xff, size);
    }
    for (int i = 0; i < 2000; i++)
        for (size_t k = 0; k < (size_t)(i * 37 % 900) + 1; k++)
            if (piece[i][k] != (i & 0xff))
                ck_abort_msg("byte %zu of piece %d was overwritten", k, i);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_big_piece_leaves_the_current_block_in_use)
{
    apm_arena arena = { 0 };

    char *a = apm_arena_bytes(&arena, 10);
    char *big = apm_arena_bytes(&arena, 1 << 20);
    char *b = apm_arena_bytes(&arena, 10);
    memset(big, 1, 1 << 20);
    ck_assert_ptr_eq(b, a + 10);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_big_piece_may_come_first)
{
    apm_arena arena = { 0 };

    memset(apm_arena_alloc(&arena, 5000), 1, 5000);
    memset(apm_arena_alloc(&arena, 50), 1, 50);
    ck_assert_ptr_nonnull(apm_arena_bytes(&arena, 0));
    apm_arena_clear(&arena);
    ck_assert_ptr_null(arena.blocks);
}
END_TEST

START_TEST(an_impossible_size_is_refused_and_the_arena_stays_usable)
{
    apm_arena arena = { 0 };
    bool ok = true;

    ck_assert_ptr_null(apm_arena_alloc(&arena, SIZE_MAX));
    ck_assert_ptr_null(apm_arena_bytes(&arena, SIZE_MAX - 8));
    ck_assert(!apm_str_is(apm_arena_str(&arena, (apm_str){ "x", SIZE_MAX }, &ok)));
    ck_assert(!ok);
    ck_assert_str_eq(apm_arena_printf(&arena, "%s-%d", "still", 1), "still-1");
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(text_is_copied_with_a_terminator_and_absent_stays_absent)
{
    apm_arena arena = { 0 };
    bool ok = true;
    char from[] = "text and more";

    apm_str s = apm_arena_str(&arena, (apm_str){ from, 4 }, &ok);
    memset(from, 'x', 4);
    ck_assert_str_eq(s.p, "text");
    ck_assert_uint_eq(s.len, 4);
    apm_str empty = apm_arena_str(&arena, APM_STR(""), &ok);
    ck_assert_str_eq(empty.p, "");
    ck_assert(!apm_str_is(apm_arena_str(&arena, APM_STR_NONE, &ok)));
    ck_assert(ok);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_cleared_arena_can_be_used_again)
{
    apm_arena arena = { 0 };

    for (int i = 0; i < 3; i++) {
        ck_assert_str_eq(apm_arena_printf(&arena, "%05000d", i) + 4999, i == 0   ? "0"
                                                                        : i == 1 ? "1"
                                                                                 : "2");
        apm_arena_clear(&arena);
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(what_is_adopted_dies_with_the_arena)
{
    apm_arena arena = { 0 };

    for (int i = 0; i < 3; i++) /* AddressSanitizer tells when one is leaked, or freed twice */
        ck_assert(apm_arena_adopt(&arena, malloc(100000)));
    apm_arena_clear(&arena);
    ck_assert_ptr_null(arena.foreign);
}
END_TEST

START_TEST(a_first_block_of_a_given_size_holds_a_big_piece)
{
    apm_arena arena = { .next_block = 1000 };

    char *a = apm_arena_bytes(&arena, 900);
    char *b = apm_arena_bytes(&arena, 100);
    ck_assert_ptr_eq(b, a + 900);
    apm_arena_clear(&arena);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        allocations_are_zeroed_and_aligned_for_anything,
        pieces_never_overlap,
        a_big_piece_leaves_the_current_block_in_use,
        a_big_piece_may_come_first,
        an_impossible_size_is_refused_and_the_arena_stays_usable,
        text_is_copied_with_a_terminator_and_absent_stays_absent,
        a_cleared_arena_can_be_used_again,
        what_is_adopted_dies_with_the_arena,
        a_first_block_of_a_given_size_holds_a_big_piece,
        NULL,
    };
    return suite_run("arena", tests, 10);
}
