/* test_sig_fixtures.c - every signature that real Celery programs have sent inside their messages: read and written again it is the same. */
#include <apium/canvas.h>

#include <string.h>

#include "client/sig.h"
#include "core/model/message.h"
#include "tests/support/fixture.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;
static size_t seen, composites;

static void
check_one(const fixture *one, apm_json sig)
{
    apium_sig *read;
    apm_json again;
    apm_arena arena = { 0 };
    const char *text = apm_arena_str(&arena, sig.text, NULL).p;
    apium_status st = apium_sig_parse(text, &read, err);
    ck_assert_msg(st == APIUM_OK, "%s, message %zu: %s", one->file, one->number, err->text);
    const char *json = apium_sig_json(read, err);
    ck_assert_msg(json, "%s: %s", one->file, err->text);
    ck_ok(apm_json_parse(apm_strz(json), &again, err));
    ck_assert_msg(apm_json_equal(sig, again), "%s, message %zu: %s instead of %s", one->file,
                  one->number, json, text);
    seen++;
    composites += strcmp(apium_sig_kind(read), "task") != 0;
    apium_sig_free(read);
    apm_arena_clear(&arena);
}

static void
check_list(const fixture *one, apm_json list)
{
    if (list.type == APM_JSON_OBJECT)
        check_one(one, list);
    for (size_t i = 0; list.type == APM_JSON_ARRAY && i < apm_json_count(list); i++)
        check_one(one, apm_json_at(list, i));
}

/* Messages in JSON of protocol 2 whose body is not compressed carry theirs in the third part of the body. */
static void
visit(const fixture *one)
{
    static const char *const places[] = { "callbacks", "errbacks", "chain", "chord" };
    apm_arena arena = { 0 };
    apm_message msg;
    apm_str tag;
    apm_json body;
    if (one->kind == FIXTURE_ENVELOPE && strncmp(one->name, "mal_", 4) != 0 &&
        apm_envelope_read(one->text, &arena, &msg, &tag, NULL) == APIUM_OK &&
        apm_json_parse(msg.body, &body, NULL) == APIUM_OK && body.type == APM_JSON_ARRAY)
        for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++)
            check_list(one, apm_json_get(apm_json_at(body, 2), places[i]));
    apm_arena_clear(&arena);
}

START_TEST(every_signature_is_written_as_it_was_read)
{
    ck_assert_uint_gt(fixtures_each(visit), 50);
    ck_assert_uint_gt(seen, 50);
    ck_assert_uint_gt(composites, 10);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = { every_signature_is_written_as_it_was_read, NULL };
    return suite_run("sig_fixtures", tests, 60);
}
