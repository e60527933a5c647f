/* The result document. */
#include <string.h>

#include "core/model/request_fields.h"
#include "core/model/result.h"
#include "tests/support/suite.h"

static apm_arena arena;
static apium_error the_error, *err = &the_error;
static apm_request req;
static apm_buf buf;
static apm_result_doc doc;

static void
setup(void)
{
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_request_init(&req);
    req.id = APM_STR("i-1");
}

static void
teardown(void)
{
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
}

START_TEST(a_success_is_written_byte_for_byte_as_celery_writes_it)
{
    apm_outcome outcome = { .kind = APM_DONE_SUCCESS, .result = APM_STR("5") };

    apm_result_write(&buf, &req, &outcome,
                     &(apm_result_opts){ .now_us = INT64_C(1763795921873319) });
    ck_assert_str_eq(buf.p, "{\"status\": \"SUCCESS\", \"result\": 5, \"traceback\": null, "
                            "\"children\": [], \"date_done\": "
                            "\"2025-11-22T07:18:41.873319+00:00\", \"task_id\": \"i-1\"}");
}
END_TEST

START_TEST(an_extended_failure_says_what_was_called)
{
    apm_outcome outcome = { .kind = APM_DONE_LOST,
                            .exc = { APM_STR("WorkerLostError"), APM_STR("billiard.exceptions"),
                                     APM_STR("[\"gone\"]") } };

    req.task = APM_STR("t.add");
    req.args = APM_STR("[1.0]");
    req.kwargs = APM_STR("{}");
    req.retries = 2;
    req.routing_key = APM_STR("q");
    req.group = APM_STR("g");
    req.parent_id = APM_STR("p");
    req.headers =
        APM_STR("{\"stamped_headers\": [\"a\", \"b\"], \"stamps\": {\"b\": [1], \"a\": \"x\"}}");
    apm_result_write(
        &buf, &req, &outcome,
        &(apm_result_opts){ .extended = true, .worker = "w@h", .zone_offset_s = 3600 });
    ck_assert_str_eq(buf.p, "{\"status\": \"FAILURE\", \"result\": {\"exc_type\": "
                            "\"WorkerLostError\", \"exc_message\": [\"gone\"], "
                            "\"exc_module\": \"billiard.exceptions\"}, \"traceback\": null, "
                            "\"children\": [], \"date_done\": "
                            "\"1970-01-01T01:00:00+01:00\", \"group_id\": \"g\", \"parent_id\": "
                            "\"p\", \"name\": \"t.add\", \"args\": "
                            "[1.0], \"kwargs\": {}, \"worker\": \"w@h\", \"retries\": 2, "
                            "\"queue\": \"q\", \"stamped_headers\": "
                            "[\"a\", \"b\"], \"a\": \"x\", \"b\": [1], \"task_id\": \"i-1\"}");
}
END_TEST

START_TEST(a_state_that_is_not_final_has_no_date)
{
    apm_result_write_state(&buf, &req, APM_STR("PROGRESS"),
                           APM_STR("{\"current\": 1, \"total\": 2}"), &(apm_result_opts){ 0 });
    ck_assert_str_eq(buf.p, "{\"status\": \"PROGRESS\", \"result\": {\"current\": 1, \"total\": "
                            "2}, \"traceback\": null, "
                            "\"children\": [], \"date_done\": null, \"task_id\": \"i-1\"}");
    apm_buf_reset(&buf);
    apm_result_write(&buf, &req, &(apm_outcome){ .kind = APM_DONE_RETRY }, &(apm_result_opts){ 0 });
    ck_assert_ptr_nonnull(strstr(buf.p, "\"status\": \"RETRY\", \"result\": null"));
    ck_assert_ptr_nonnull(strstr(buf.p, "\"date_done\": null"));
}
END_TEST

START_TEST(documents_of_every_version_are_read)
{
    ck_ok(apm_result_read(
        APM_STR("{\"task_id\": \"i\", \"status\": \"SUCCESS\", \"result\": [1.0], \"date_done\": "
                "\"2026-11-22T07:18:41.873319\", \"new_in_6\": {}}"),
        &arena, &doc, err));
    ck_assert(apm_str_eqz(doc.result.text, "[1.0]"));
    ck_assert_int_eq(doc.date_done_us, INT64_C(1795331921873319));
    ck_assert_int_eq(doc.children.type, APM_JSON_NONE);
    ck_ok(apm_result_read(
        APM_STR("{\"status\": \"FAILURE\", \"result\": {\"exc_type\": \"E\", \"exc_message\": "
                "\"text\", "
                "\"exc_module\": null}, \"date_done\": \"never\", \"traceback\": null}"),
        &arena, &doc, err));
    ck_assert(apm_str_eqz(doc.exc.type, "E"));
    ck_assert(apm_str_eqz(doc.exc.args, "[\"text\"]"));
    ck_assert(!apm_str_is(doc.exc.module));
    ck_assert(!apm_str_is(doc.traceback));
    ck_assert_int_eq(doc.date_done_us, APM_TIME_NONE);
    /* A custom state's object is no exception, whatever its members are called. */
    ck_ok(apm_result_read(APM_STR("{\"status\": \"ODD\", \"result\": {\"exc_type\": \"E\"}}"),
                          &arena, &doc, err));
    ck_assert(!apm_str_is(doc.exc.type));
    ck_ok(apm_result_read(APM_STR("{\"status\": \"FAILURE\", \"result\": \"text\"}"), &arena, &doc,
                          err));
    ck_assert(!apm_str_is(doc.exc.type));
}
END_TEST

START_TEST(what_is_no_document_is_an_error)
{
    ck_fails(apm_result_read(APM_STR("{\"result\": 1}"), &arena, &doc, err), APIUM_E_DECODE);
    ck_fails(apm_result_read(APM_STR("{\"status\": 5}"), &arena, &doc, err), APIUM_E_DECODE);
    ck_fails(apm_result_read(APM_STR("[]"), &arena, &doc, err), APIUM_E_DECODE);
    ck_fails(apm_result_read(APM_STR("{\"status\": \"SUCCESS\""), &arena, &doc, err),
             APIUM_E_DECODE);
    ck_fails(apm_result_read(APM_STR("\x80\x04pickle"), &arena, &doc, err), APIUM_E_DECODE);
}
END_TEST

START_TEST(three_states_are_final_and_three_hold_exceptions)
{
    ck_assert(apm_state_ready(APM_STR("SUCCESS")) && apm_state_ready(APM_STR("FAILURE")) &&
              apm_state_ready(APM_STR("REVOKED")));
    ck_assert(!apm_state_ready(APM_STR("RETRY")) && !apm_state_ready(APM_STR("success")) &&
              !apm_state_ready(APM_STR_NONE));
    ck_assert(apm_state_exception(APM_STR("RETRY")) && apm_state_exception(APM_STR("REVOKED")));
    ck_assert(!apm_state_exception(APM_STR("SUCCESS")));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = { a_success_is_written_byte_for_byte_as_celery_writes_it,
                                   an_extended_failure_says_what_was_called,
                                   a_state_that_is_not_final_has_no_date,
                                   documents_of_every_version_are_read,
                                   what_is_no_document_is_an_error,
                                   three_states_are_final_and_three_hold_exceptions,
                                   NULL };

    return suite_run_with("result", tests, 4, setup, teardown);
}
