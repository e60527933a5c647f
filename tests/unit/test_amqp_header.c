/* test_amqp_header.c - AMQP field tables and content headers against JSON, and against what Celery's own client sent. */
#include <stdio.h>
#include <stdlib.h>

#include "core/link/amqp.h"
#include "core/link/amqp_table.h"
#include "core/model/request_fields.h"
#include "tests/support/suite.h"

static apium_error error, *const err = &error;

static const char *
show(const apm_buf *buf)
{
    return buf->p ? buf->p : "";
}

/* What JSON becomes on the wire and back. */
static const char *
round_trip(const char *json)
{
    static apm_buf bytes, back;
    size_t used;

    apm_buf_clear(&bytes);
    apm_buf_clear(&back);
    apm_buf_init(&bytes, APM_BUF_MAX);
    apm_buf_init(&back, APM_BUF_MAX);
    ck_ok(apm_amqp_table_write(&bytes, apm_strz(json), err));
    ck_ok(apm_amqp_table_read(&back, apm_buf_str(&bytes), NULL, NULL, &used, err));
    ck_assert_uint_eq(used, bytes.len);
    return show(&back);
}

/* What these bytes of one entry's value, under the key "k", are as JSON. */
static const char *
value_of(const char *bytes, size_t len)
{
    static apm_buf back;
    unsigned char table[256] = { 0, 0, 0, (unsigned char)(len + 2), 1, 'k' };
    size_t used;

    memcpy(table + 6, bytes, len);
    apm_buf_clear(&back);
    apm_buf_init(&back, APM_BUF_MAX);
    ck_ok(apm_amqp_table_read(&back, (apm_str){ (char *)table, len + 6 }, NULL, NULL, &used, err));
    return show(&back);
}
#define VALUE(bytes) value_of(bytes, sizeof(bytes) - 1)

START_TEST(json_comes_back_from_a_table_as_it_went)
{
    static const char *const texts[] = {
        "{}",
        "{\"a\": null, \"b\": true, \"c\": false}",
        "{\"i\": 0, \"j\": -1, \"k\": 2147483647, \"l\": -2147483648, \"m\": 9223372036854775807, "
        "\"n\": "
        "-9223372036854775808}",
        "{\"d\": 1.5, \"e\": -0.0, \"f\": 1e+300, \"g\": 0.1, \"h\": 1.0, \"inf\": Infinity, "
        "\"nan\": NaN}",
        "{\"s\": \"\", \"t\": \"\\u00e9\\ud83d\\ude00\\n\\\"\\\\\", \"nul\": \"a\\u0000b\", "
        "\"lone\": \"\\ud800\"}",
        "{\"l\": [], \"m\": [1, [2, [null]], {\"x\": [{}]}], \"o\": {\"p\": {\"q\": {}}}}",
        "{\"\": 1, \"key with \\u00e9\": 2}",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        ck_assert_str_eq(round_trip(texts[i]), texts[i]);
}
END_TEST

START_TEST(an_absent_object_is_an_empty_table)
{
    apm_buf bytes;

    apm_buf_init(&bytes, 100);
    ck_ok(apm_amqp_table_write(&bytes, APM_STR_NONE, err));
    ck_assert_uint_eq(bytes.len, 4);
    ck_assert_mem_eq(bytes.p, "\0\0\0\0", 4);
    apm_buf_clear(&bytes);
}
END_TEST

START_TEST(integers_have_the_tags_of_celerys_client)
{
    static const struct {
        const char *json;
        char tag;
    } cases[] = {
        { "{\"n\": 2147483647}", 'I' },
        { "{\"n\": -2147483647}", 'I' },
        { "{\"n\": 2147483648}", 'L' },
        { "{\"n\": -2147483648}", 'L' },
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        apm_buf bytes;
        apm_buf_init(&bytes, 100);
        ck_ok(apm_amqp_table_write(&bytes, apm_strz(cases[i].json), err));
        ck_assert_int_eq(bytes.p[6], cases[i].tag);
        apm_buf_clear(&bytes);
    }
}
END_TEST

START_TEST(every_tag_that_a_stranger_writes_is_read)
{
    ck_assert_str_eq(VALUE("b\xff"), "{\"k\": -1}");
    ck_assert_str_eq(VALUE("B\xff"), "{\"k\": 255}");
    ck_assert_str_eq(VALUE("s\xff\xfe"), "{\"k\": -2}");
    ck_assert_str_eq(VALUE("U\xff\xfe"), "{\"k\": -2}");
    ck_assert_str_eq(VALUE("u\xff\xfe"), "{\"k\": 65534}");
    ck_assert_str_eq(VALUE("I\xff\xff\xff\xfd"), "{\"k\": -3}");
    ck_assert_str_eq(VALUE("i\xff\xff\xff\xfd"), "{\"k\": 4294967293}");
    ck_assert_str_eq(VALUE("l\xff\xff\xff\xff\xff\xff\xff\xfc"), "{\"k\": -4}");
    ck_assert_str_eq(VALUE("L\xff\xff\xff\xff\xff\xff\xff\xfc"), "{\"k\": -4}");
    ck_assert_str_eq(VALUE("T\0\0\0\0\x65\0\0\0"), "{\"k\": 1694498816}");
    ck_assert_str_eq(VALUE("f\x3f\xc0\0\0"), "{\"k\": 1.5}");
    ck_assert_str_eq(VALUE("D\2\0\0\4\xd2"), "{\"k\": 12.34}");
    ck_assert_str_eq(VALUE("x\0\0\0\3\1\xff"
                           "a"),
                     "{\"k\": \"\\u0001\\u00ff\\u0061\"}");
    ck_assert_str_eq(VALUE("S\0\0\0\2\xff\xfe"), "{\"k\": \"\\u00ff\\u00fe\"}");
}
END_TEST

START_TEST(what_a_table_cannot_hold_is_named)
{
    char json[400];
    apm_buf bytes;

    apm_buf_init(&bytes, 1000);
    ck_fails(apm_amqp_table_write(&bytes, APM_STR("{\"huge\": 9223372036854775808}"), err),
             APIUM_E_ENCODE);
    ck_assert_ptr_nonnull(strstr(err->text, "huge"));
    snprintf(json, sizeof(json), "{\"%0300d\": 1}", 7);
    ck_fails(apm_amqp_table_write(&bytes, apm_strz(json), err), APIUM_E_ENCODE);
    ck_assert_int_ne(apm_amqp_table_write(&bytes, APM_STR("[1]"), err), APIUM_OK);
    ck_assert_int_ne(apm_amqp_table_write(&bytes, APM_STR("{\"a\": "), err), APIUM_OK);
    apm_buf_clear(&bytes);
}
END_TEST

/* A table nested in itself, n deep. */
static char *
nested(size_t n, size_t *len)
{
    /* from the inside out: length, then per level one key and tag */
    *len = 4 + n * 7;
    unsigned char *p = calloc(1, *len);

    for (size_t i = 0; i < n; i++) {
        size_t rest = *len - i * 7 - 4;
        unsigned char *at = p + i * 7;
        at[0] = (unsigned char)(rest >> 24), at[1] = (unsigned char)(rest >> 16),
        at[2] = (unsigned char)(rest >> 8), at[3] = (unsigned char)rest;
        at[4] = 1, at[5] = 'k', at[6] = 'F';
    }
    return (char *)p;
}

START_TEST(a_table_nested_without_end_is_refused)
{
    /* as deep as JSON may be, one deeper, and as deep as one frame can be */
    static const size_t depths[] = { 100, APM_JSON_DEPTH - 1, APM_JSON_DEPTH, 18000 };
    apm_buf json;
    apm_json read;
    size_t len, used;

    apm_buf_init(&json, APM_BUF_MAX);
    for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++) {
        char *bytes = nested(depths[i], &len);
        apm_buf_reset(&json);
        apium_status st =
            apm_amqp_table_read(&json, (apm_str){ bytes, len }, NULL, NULL, &used, err);
        if (depths[i] < APM_JSON_DEPTH) {
            ck_ok(st);
            ck_ok(apm_json_parse(apm_buf_str(&json), &read, err));
        } else {
            ck_fails(st, APIUM_E_DECODE);
        }
        free(bytes);
    }
    apm_buf_clear(&json);
}
END_TEST

/* ---- headers ---- */

static apm_buf scratch;

/* Call with every content header that was captured in a fixture. */
static size_t
each_captured(const char *file, void (*visit)(apm_str header))
{
    static char text[4 << 20];
    static unsigned char bytes[65536];
    char path[400];
    size_t n = 0;

    snprintf(path, sizeof(path), "%s/%s", APM_TEST_FIXTURES, file);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "cannot read %s", path);
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    for (const char *at = text; (at = strstr(at, "\"header_hex\": \"")); n++) {
        unsigned byte;
        size_t len = 0;
        for (at += 15; sscanf(at, "%2x", &byte) == 1; at += 2)
            bytes[len++] = (unsigned char)byte;
        /* class, weight and body size come before the properties */
        visit((apm_str){ (char *)bytes + 12, len - 12 });
    }
    return n;
}

static void
same_bytes_again(apm_str header)
{
    apm_arena arena = { 0 };
    apm_message msg;
    apm_buf out;

    ck_ok(apm_amqp_header_read(header, &arena, &scratch, &msg, err));
    apm_buf_init(&out, APM_BUF_MAX);
    ck_ok(apm_amqp_header_write(&out, &msg, err));
    ck_assert_uint_eq(out.len, header.len);
    ck_assert_mem_eq(out.p, header.p, header.len);
    apm_buf_clear(&out);
    apm_arena_clear(&arena);
}

START_TEST(a_header_that_celery_sent_is_written_again_byte_for_byte)
{
    apm_buf_init(&scratch, APM_BUF_MAX);
    ck_assert_uint_gt(each_captured("5.6.2/amqp_msg_options.json", same_bytes_again), 0);
    ck_assert_uint_gt(each_captured("5.6.2/amqp_connect_publish.json", same_bytes_again), 0);
    ck_assert_uint_gt(each_captured("5.2.6/amqp_msg_options.json", same_bytes_again), 0);
    ck_assert_uint_gt(each_captured("5.2.6/amqp_msg_expires.json", same_bytes_again), 0);
    ck_assert_uint_gt(each_captured("5.2.6/amqp_msg_gzip.json", same_bytes_again), 0);
    apm_buf_clear(&scratch);
}
END_TEST

static void
cut_everywhere(apm_str header)
{
    for (size_t len = 0; len < header.len; len++) {
        apm_arena arena = { 0 };
        apm_message msg;
        char *copy = malloc(len + 1); /* so that a read beyond the end is seen */
        memcpy(copy, header.p, len);
        ck_fails(apm_amqp_header_read((apm_str){ copy, len }, &arena, &scratch, &msg, err),
                 APIUM_E_DECODE);
        free(copy);
        apm_arena_clear(&arena);
    }
}

START_TEST(a_header_that_is_cut_short_is_refused_wherever_it_is_cut)
{
    apm_buf_init(&scratch, APM_BUF_MAX);
    ck_assert_uint_gt(each_captured("5.6.2/amqp_msg_options.json", cut_everywhere), 0);
    apm_buf_clear(&scratch);
}
END_TEST

/* What was found while the text was written is what a look at the text finds. */
static void
same_fields(const apm_message *msg)
{
    apm_json seen[APM_FIELDS] = { 0 };

    ck_ok(apm_fields_read(msg->headers, APM_F_HEADERS, seen, err));
    if (!msg->fields) {
        ck_assert_str_eq(msg->headers.p, "{}");
        return;
    }
    ck_assert_ptr_eq(msg->fields->of, msg->headers.p);
    for (int i = 0; i < APM_F_HEADERS; i++) {
        ck_assert_int_eq(msg->fields->field[i].type, seen[i].type);
        ck_assert_ptr_eq(msg->fields->field[i].text.p, seen[i].text.p);
        ck_assert_uint_eq(msg->fields->field[i].text.len, seen[i].text.len);
    }
}

START_TEST(headers_are_found_while_they_are_written)
{
    const apm_message sent = { .headers = APM_STR(
                                   "{\"task\": \"t\", \"id\": \"i\\\"\\ud800\", \"mine\": [1, "
                                   "{\"id\": 2}], \"retries\": 3, "
                                   "\"expires\": 1.5, \"timelimit\": [null, 2], \"stamps\": "
                                   "{\"eta\": \"x\"}, \"eta\": null, "
                                   "\"ignore_result\": true, \"group\": \"\", \"t\u00e4sk\": 0}") };
    apm_arena arena = { 0 };
    apm_message msg;
    apm_buf bytes;

    apm_buf_init(&scratch, APM_BUF_MAX);
    apm_buf_init(&bytes, APM_BUF_MAX);
    ck_ok(apm_amqp_header_write(&bytes, &sent, err));
    ck_ok(apm_amqp_header_read(apm_buf_str(&bytes), &arena, &scratch, &msg, err));
    ck_assert_ptr_nonnull(msg.fields);
    same_fields(&msg);
    ck_assert(apm_str_eqz(msg.fields->field[APM_F_RETRIES].text, "3"));
    ck_assert_int_eq(msg.fields->field[APM_F_EXPIRES].type, APM_JSON_FLOAT);
    ck_assert_int_eq(msg.fields->field[APM_F_PARENT_ID].type, APM_JSON_NONE);
    apm_buf_clear(&bytes);
    apm_buf_clear(&scratch);
    apm_arena_clear(&arena);
}
END_TEST

static void
flip_everywhere(apm_str header)
{
    char *copy = malloc(header.len);

    for (size_t i = 0; i < header.len; i++) {
        for (int bit = 0; bit < 8; bit++) {
            apm_arena arena = { 0 };
            apm_message msg;
            memcpy(copy, header.p, header.len);
            copy[i] ^= (char)(1 << bit);
            if (apm_amqp_header_read((apm_str){ copy, header.len }, &arena, &scratch, &msg, err) ==
                APIUM_OK) {
                apm_json headers; /* whatever it says now, it is JSON */
                ck_ok(apm_json_parse(msg.headers, &headers, err));
                same_fields(&msg);
            }
            apm_arena_clear(&arena);
        }
    }
    free(copy);
}

START_TEST(a_damaged_header_is_refused_or_is_still_json)
{
    apm_buf_init(&scratch, APM_BUF_MAX);
    ck_assert_uint_gt(each_captured("5.6.2/amqp_msg_options.json", flip_everywhere), 0);
    apm_buf_clear(&scratch);
}
END_TEST

START_TEST(a_message_without_properties_has_none)
{
    apm_arena arena = { 0 };
    apm_message msg;

    apm_buf_init(&scratch, 100);
    ck_ok(apm_amqp_header_read((apm_str){ "\0\0", 2 }, &arena, &scratch, &msg, err));
    ck_assert(!apm_str_is(msg.content_type) && !apm_str_is(msg.correlation_id) &&
              !apm_str_is(msg.reply_to));
    ck_assert(apm_str_eqz(msg.headers, "{}"));
    ck_assert_int_eq(msg.priority, APM_PRIORITY_NONE);
    ck_assert_int_eq(msg.delivery_mode, 0);
    apm_arena_clear(&arena);
    apm_buf_clear(&scratch);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        json_comes_back_from_a_table_as_it_went,
        an_absent_object_is_an_empty_table,
        headers_are_found_while_they_are_written,
        integers_have_the_tags_of_celerys_client,
        every_tag_that_a_stranger_writes_is_read,
        what_a_table_cannot_hold_is_named,
        a_table_nested_without_end_is_refused,
        a_header_that_celery_sent_is_written_again_byte_for_byte,
        a_header_that_is_cut_short_is_refused_wherever_it_is_cut,
        a_damaged_header_is_refused_or_is_still_json,
        a_message_without_properties_has_none,
        NULL,
    };
    return suite_run("amqp_header", tests, 30);
}
