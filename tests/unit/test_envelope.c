/* The JSON envelope in which Redis and SQLite keep a message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/message.h"
#include "tests/support/suite.h"

#define CELERYS                                                                                    \
    "{\"body\": \"W1syLCAzXSwge30sIHt9XQ==\", \"content-encoding\": \"utf-8\", \"content-type\": " \
    "\"application/json\", \"headers\": {\"task\": \"t.add\", \"id\": \"i-1\"}, \"properties\": "  \
    "{\"correlation_id\": \"i-1\", \"reply_to\": \"r-1\", \"expiration\": \"120000\", "            \
    "\"delivery_mode\": 2, \"delivery_info\": {\"exchange\": \"\", \"routing_key\": \"celery\"}, " \
    "\"priority\": 3, \"body_encoding\": \"base64\", \"delivery_tag\": \"tag-1\"}}"

static apm_arena arena;
static apium_error the_error, *err = &the_error;
static apm_message msg;
static apm_str tag;
static apm_buf buf;

static void
setup(void)
{
    apm_buf_init(&buf, APM_BUF_MAX);
}

static void
teardown(void)
{
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
}

static void
read_it(const char *text)
{
    ck_ok(apm_envelope_read(apm_strz(text), &arena, &msg, &tag, err));
}

/* The error that reading it gives. */
static const char *
refusal(const char *text)
{
    char *copy = strdup(text); /* of its own size, so that a sanitizer sees a read beyond */
    ck_fails(apm_envelope_read((apm_str){ copy, strlen(text) }, &arena, &msg, &tag, err),
             APIUM_E_DECODE);
    free(copy);
    return err->text;
}

START_TEST(celerys_envelope_is_read_whole)
{
    read_it(CELERYS);
    ck_assert(apm_str_eqz(msg.body, "[[2, 3], {}, {}]"));
    ck_assert(apm_str_eqz(msg.content_type, "application/json"));
    ck_assert(apm_str_eqz(msg.content_encoding, "utf-8"));
    ck_assert(apm_str_eqz(msg.headers, "{\"task\": \"t.add\", \"id\": \"i-1\"}"));
    ck_assert(apm_str_eqz(msg.correlation_id, "i-1"));
    ck_assert(apm_str_eqz(msg.reply_to, "r-1"));
    ck_assert(apm_str_eqz(msg.expiration, "120000"));
    ck_assert(apm_str_eqz(msg.routing_key, "celery"));
    ck_assert(apm_str_is(msg.exchange) && msg.exchange.len == 0);
    ck_assert_int_eq(msg.priority, 3);
    ck_assert_int_eq(msg.delivery_mode, 2);
    ck_assert(!msg.redelivered);
    ck_assert(apm_str_eqz(tag, "tag-1"));
}
END_TEST

START_TEST(it_is_written_byte_for_byte_as_kombu_writes_it)
{
    read_it(CELERYS);
    apm_envelope_write(&buf, &msg, "tag-1");
    ck_assert_str_eq(buf.p, CELERYS);
}
END_TEST

START_TEST(unknown_properties_and_odd_priorities_survive)
{
    read_it("{\"properties\": {\"delivery_info\": {\"exchange\": \"e\", \"routing_key\": \"k\"}, "
            "\"x\": [1.0], \"priority\": -1}, "
            "\"body\": \"text\", \"content-type\": \"t\"}");
    ck_assert_int_eq(msg.priority, -1);
    apm_envelope_write(&buf, &msg, "tag");
    ck_assert_ptr_nonnull(strstr(buf.p, "\"x\": [1.0]"));
    ck_assert_ptr_nonnull(strstr(buf.p, "\"priority\": -1"));
    ck_assert_ptr_nonnull(strstr(buf.p, "\"delivery_mode\": 2"));
}
END_TEST

START_TEST(a_plain_body_is_taken_as_it_is)
{
    static const char *const encodings[] = { "", ", \"body_encoding\": null",
                                             ", \"body_encoding\": \"utf-8\"" };

    for (int i = 0; i < 3; i++) {
        char text[300];
        snprintf(text, sizeof text,
                 "{\"body\": \"[\\\"h\\u00e9\\\"]\", \"properties\": {\"delivery_info\": {}%s}}",
                 encodings[i]);
        read_it(text);
        ck_assert(apm_str_eqz(msg.body, "[\"h\xc3\xa9\"]"));
        ck_assert(apm_str_eqz(msg.headers, "{}"));
        ck_assert(!apm_str_is(tag));
        ck_assert(!apm_str_is(msg.content_type));
        ck_assert_int_eq(msg.priority, APM_PRIORITY_NONE);
    }
}
END_TEST

START_TEST(no_envelope_is_an_error_that_names_the_member)
{
    ck_assert_ptr_nonnull(refusal("{not json"));
    ck_assert_ptr_nonnull(refusal(""));
    ck_assert_ptr_nonnull(refusal("[]"));
    ck_assert_ptr_nonnull(refusal("{} x"));
    ck_assert_ptr_nonnull(strstr(refusal("{\"body\": \"\"}"), "properties"));
    ck_assert_ptr_nonnull(strstr(refusal("{\"body\": \"\", \"properties\": []}"), "properties"));
    ck_assert_ptr_nonnull(strstr(refusal("{\"body\": \"\", \"properties\": {}}"), "delivery_info"));
    ck_assert_ptr_nonnull(strstr(
        refusal("{\"body\": \"\", \"properties\": {\"delivery_info\": 5}}"), "delivery_info"));
    ck_assert_ptr_nonnull(strstr(refusal("{\"properties\": {\"delivery_info\": {}}}"), "body"));
    ck_assert_ptr_nonnull(
        strstr(refusal("{\"body\": {}, \"properties\": {\"delivery_info\": {}}}"), "body"));
    ck_assert_ptr_nonnull(
        strstr(refusal("{\"body\": \"\", \"headers\": 5, \"properties\": {\"delivery_info\": {}}}"),
               "headers"));
    ck_assert_ptr_nonnull(strstr(refusal("{\"body\": \"\", \"properties\": {\"delivery_info\": {}, "
                                         "\"body_encoding\": \"rot13\"}}"),
                                 "rot13"));
    ck_assert_ptr_nonnull(refusal("{\"body\": \"!!!notb64\", \"properties\": {\"delivery_info\": "
                                  "{}, \"body_encoding\": \"base64\"}}"));
    ck_assert_ptr_nonnull(refusal("{\"body\": \"\xff\", \"properties\": {\"delivery_info\": {}}}"));
}
END_TEST

START_TEST(an_envelope_cut_short_anywhere_is_an_error)
{
    for (size_t len = 0; len < strlen(CELERYS); len++) {
        char *copy = malloc(len + 1);
        memcpy(copy, CELERYS, len);
        ck_fails(apm_envelope_read((apm_str){ copy, len }, &arena, &msg, &tag, err),
                 APIUM_E_DECODE);
        free(copy);
    }
}
END_TEST

static void
becomes(const char *was, const char *is)
{
    apm_buf_reset(&buf);
    ck_ok(apm_envelope_redelivered(&buf, apm_strz(was), err));
    ck_assert_str_eq(buf.p, is);
    read_it(buf.p);
    ck_assert(msg.redelivered);
}

START_TEST(a_redelivered_message_is_marked_in_both_places_and_otherwise_untouched)
{
    becomes("{\"headers\": {\"n\": 1.0}, \"x\":[ ], \"body\": \"\", \"properties\": "
            "{\"delivery_info\": {\"exchange\": \"\"}}}",
            "{\"headers\": {\"n\": 1.0, \"redelivered\": true}, \"x\":[ ], \"body\": \"\", "
            "\"properties\": "
            "{\"delivery_info\": {\"exchange\": \"\", \"redelivered\": true}}}");
    becomes("{\"body\": \"\", \"properties\": {\"delivery_info\": {}}, \"headers\": {}}",
            "{\"body\": \"\", \"properties\": {\"delivery_info\": {\"redelivered\": true}}, "
            "\"headers\": "
            "{\"redelivered\": true}}");
    becomes("{\"body\": \"\", \"properties\": {\"delivery_info\": {\"redelivered\": false}}, "
            "\"headers\": "
            "{\"redelivered\": null, \"a\": 1}}",
            "{\"body\": \"\", \"properties\": {\"delivery_info\": {\"redelivered\": true}}, "
            "\"headers\": "
            "{\"redelivered\": true, \"a\": 1}}");
    becomes("{\"body\": \"\", \"properties\": {\"delivery_info\": {}}}",
            "{\"body\": \"\", \"properties\": {\"delivery_info\": {\"redelivered\": true}}, "
            "\"headers\": "
            "{\"redelivered\": true}}");
    becomes("{\"headers\": null, \"body\": \"\", \"properties\": {\"delivery_info\": {}}}",
            "{\"headers\": {\"redelivered\": true}, \"body\": \"\", \"properties\": "
            "{\"delivery_info\": {\"redelivered\": "
            "true}}}");
}
END_TEST

START_TEST(what_is_no_envelope_cannot_be_marked)
{
    ck_fails(apm_envelope_redelivered(&buf, APM_STR("{}"), err), APIUM_E_DECODE);
    ck_fails(apm_envelope_redelivered(
                 &buf, APM_STR("{\"properties\": {\"delivery_info\": {}}, \"headers\": 5}"), err),
             APIUM_E_DECODE);
    ck_fails(apm_envelope_redelivered(&buf, APM_STR("{\"properties\""), err), APIUM_E_DECODE);
}
END_TEST

START_TEST(of_equal_members_the_last_counts)
{
    read_it("{\"body\": \"a\", \"body\": \"b\", \"properties\": {\"delivery_info\": {}}}");
    ck_assert(apm_str_eqz(msg.body, "b"));
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        celerys_envelope_is_read_whole,
        it_is_written_byte_for_byte_as_kombu_writes_it,
        unknown_properties_and_odd_priorities_survive,
        a_plain_body_is_taken_as_it_is,
        no_envelope_is_an_error_that_names_the_member,
        an_envelope_cut_short_anywhere_is_an_error,
        a_redelivered_message_is_marked_in_both_places_and_otherwise_untouched,
        what_is_no_envelope_cannot_be_marked,
        of_equal_members_the_last_counts,
        NULL
    };

    return suite_run_with("envelope", tests, 4, setup, teardown);
}
