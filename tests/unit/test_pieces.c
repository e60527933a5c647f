/* test_pieces.c - workflows/pieces: a chain that is cut and joined again is the chain it was. */
#include "workflows/pieces.h"

#include <stdlib.h>

#include "tests/support/suite.h"

static apium_error error, *err = &error;
static apm_arena arena;

static struct kept {
    apm_str id, doc;
} kept[4096];
static size_t n_kept;

static apium_status
note(void *arg, const apm_canvas_op *op, apium_error *e)
{
    (void)arg;
    (void)e;
    ck_assert_int_eq(op->kind, APM_CANVAS_KEEP);
    ck_assert_uint_lt(n_kept, 4096);
    kept[n_kept++] = (struct kept){ op->group_id, op->doc };
    return APIUM_OK;
}

static apm_str
piece_of(apm_str id)
{
    apm_str list;
    for (size_t i = 0; i < n_kept; i++) {
        if (apm_str_eq(kept[i].id, id)) {
            ck_ok(apm_pieces_read(kept[i].doc, &arena, &list, err));
            return list;
        }
    }
    ck_abort_msg("no piece %.*s", APM_STR_ARG(id));
}

/* n steps, the last one first, each with a queue of its own; spaced as Celery does it, or not at all. */
static apm_str
chain_of(size_t n, bool tight)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_buf_addc(&buf, '[');
    for (size_t i = n; i > 0; i--)
        apm_buf_addf(
            &buf,
            "%s{\"task\": \"t.step\", \"args\": [%zu, \"a, [\\\"]\"], \"kwargs\": {}, "
            "\"options\": {\"task_id\": \"s%zu\", \"queue\": \"q%zu\", \"priority\": %zu}, "
            "\"subtask_type\": null, \"immutable\": %s}",
            i == n  ? ""
            : tight ? ","
                    : ", ",
            i, i, i, i % 10, i % 2 ? "true" : "false");
    apm_buf_addc(&buf, ']');
    apm_str out = apm_arena_str(&arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

static void
equal(apm_str a, apm_str b)
{
    apm_json x, y;
    ck_ok(apm_json_parse(a, &x, err));
    ck_ok(apm_json_parse(b, &y, err));
    ck_assert_msg(apm_json_equal(x, y), "%.*s instead of %.*s", APM_STR_ARG(a), APM_STR_ARG(b));
}

static apm_str
cut(apm_str chain, size_t piece)
{
    apm_sending how = { .arena = &arena, .piece = piece, .emit = note };
    n_kept = 0;
    ck_ok(apm_pieces_cut(&how, &chain, err));
    return chain;
}

START_TEST(what_is_cut_is_joined_again)
{
    for (size_t piece = 1; piece <= 12; piece += piece < 4 ? 1 : 4) {
        for (size_t n = 0; n <= 60; n++) {
            apm_str whole = chain_of(n, n % 2), rest = cut(whole, piece), lists[64];
            bool alone;
            size_t k = 0, longest = 0;
            for (apm_str list = rest, id; k < 64; list = piece_of(id)) {
                size_t items = apm_json_count((apm_json){ APM_JSON_ARRAY, list });
                lists[k++] = list;
                longest = items > longest ? items : longest;
                if (!apm_str_is(id = apm_pieces_mark(&arena, list, &alone)))
                    break;
                ck_assert_int_eq(alone, items == 1);
            }
            ck_assert_uint_le(longest, piece == 1 ? 2 : 2 * piece);
            ck_assert_uint_eq(n_kept, k - 1);
            ck_assert_int_eq(n_kept > 0, n > 2 * piece);
            equal(apm_pieces_join(&arena, lists, k), whole);
            apm_arena_clear(&arena);
        }
    }
}
END_TEST

START_TEST(a_mark_goes_where_the_step_behind_it_goes)
{
    apm_str rest = cut(chain_of(10, false), 3);
    apm_json mark = apm_json_at((apm_json){ APM_JSON_ARRAY, rest }, 0), options;
    apm_signature sig;
    ck_ok(apm_signature_read(mark, &arena, &sig, err));
    ck_assert(apm_str_eqz(sig.task, "apium.chain"));
    options = sig.options;
    /* The message carries steps 1 to 3 of the rest. */
    ck_assert(apm_str_eqz(apm_json_get(options, "queue").text, "\"q4\""));
    ck_assert(apm_str_eqz(apm_json_get(options, "priority").text, "4"));
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(an_ordinary_list_has_no_mark)
{
    static const char *const lists[] = {
        "[]",
        "[1]",
        "[\"apium.chain\"]",
        "[{\"task\": \"t.a\", \"args\": [\"apium.chain\"], \"options\": {\"task_id\": \"x\"}}]",
        "[{\"task\": \"t.\\u00e9\\n\", \"args\": [\"apium.chain\"], \"options\": {\"task_id\": "
        "\"x\"}}]",
        "[{\"task\": 7, \"args\": [\"apium.chain\"], \"options\": {\"task_id\": \"x\"}}]",
        "[{\"task\": \"apium.chain\", \"options\": {}}]",
        "[{\"task\": \"apium.chain\", \"options\": {\"task_id\": 5}}]",
        "[{\"task\": \"apium.chain\", \"options\": {\"task_id\": \"\"}}]",
        "[{\"task\": \"t.a\"}, {\"task\": \"apium.chain\", \"options\": {\"task_id\": \"x\"}}]",
    };
    bool alone;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        ck_assert_msg(!apm_str_is(apm_pieces_mark(&arena, apm_strz(lists[i]), &alone)), "%s",
                      lists[i]);
    ck_assert(!apm_str_is(apm_pieces_mark(&arena, APM_STR_NONE, &alone)));
    apm_str id = apm_pieces_mark(
        &arena, APM_STR("[{\"options\":{\"task_id\":\"x\"},\"task\":\"apium.chain\"}]"), &alone);
    ck_assert(apm_str_eqz(id, "x") && alone);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(what_is_no_piece_is_told)
{
    static const char *const docs[] = { "",
                                        "nothing",
                                        "[]",
                                        "{}",
                                        "{\"result\": []}",
                                        "{\"result\": {\"a\": 1}}",
                                        "{\"result\": null}" };
    apm_str list;
    for (size_t i = 0; i < sizeof(docs) / sizeof(docs[0]); i++) {
        ck_assert_int_eq(apm_pieces_read(apm_strz(docs[i]), &arena, &list, err), APIUM_E_DECODE);
        ck_assert(*err->text);
    }
    apm_arena_clear(&arena);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        what_is_cut_is_joined_again,
        a_mark_goes_where_the_step_behind_it_goes,
        an_ordinary_list_has_no_mark,
        what_is_no_piece_is_told,
        NULL,
    };
    return suite_run("pieces", tests, 10);
}
