/* test_redis_reader.c - core/link/redis_reader: the same replies as hiredis's reader makes, however the bytes come */
#include <stdlib.h>

#include "core/link/redis_reader.h"
#include "tests/support/suite.h"

#define SIZE 4096 /* what is read at once */

static apium_error error, *err = &error;

/* Everything there is, with a text that is longer than the buffer and one that is longer than what is read to its place. */
static char *
conversation(size_t *len)
{
    static const char some[] = "+OK\r\n"
                               "-ERR no such thing\r\n"
                               ":-9223372036854775808\r\n"
                               ":9223372036854775807\r\n"
                               "$0\r\n\r\n"
                               "$-1\r\n"
                               "*-1\r\n"
                               "*0\r\n"
                               "$6\r\na\r\nb\0c\r\n"
                               "*3\r\n:1\r\n*2\r\n$1\r\nx\r\n*0\r\n+y\r\n"
                               "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:7\r\n"
                               "*4\r\n:1\r\n$5000\r\n";
    const size_t longs[] = { 5000, 100000, 20000 };
    char *text = malloc(sizeof(some) + 130000), *at = text + sizeof(some) - 1;

    memcpy(text, some, sizeof(some) - 1);
    for (int i = 0; i < 3; i++) {
        if (i > 0)
            at += sprintf(at, "$%zu\r\n", longs[i]);
        for (size_t k = 0; k < longs[i]; k++)
            *at++ = (char)(k % 251);
        memcpy(at, "\r\n", 2);
        at += 2;
    }
    at += sprintf(at, "+end\r\n");
    *len = (size_t)(at - text);
    return text;
}

static void
same(const redisReply *a, const redisReply *b)
{
    ck_assert_int_eq(a->type, b->type);
    switch (a->type) {
    case REDIS_REPLY_INTEGER:
        ck_assert_int_eq(a->integer, b->integer);
        break;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
        ck_assert_uint_eq(a->len, b->len);
        ck_assert_mem_eq(a->str, b->str, b->len + 1);
        break;
    case REDIS_REPLY_ARRAY:
        ck_assert_uint_eq(a->elements, b->elements);
        for (size_t i = 0; i < a->elements; i++)
            same(a->element[i], b->element[i]);
    }
}

/* Give it all bytes, at most `step` at a time, and take what is complete after each. Their number. */
static int
read_all(apm_redis_reader *reader, const char *text, size_t len, size_t step, redisReader *other)
{
    int n = 0;
    redisReply *reply;
    void *wanted = NULL;

    for (size_t at = 0, room; at < len; at += room) {
        char *to = apm_redis_reader_room(reader, &room);
        ck_assert_uint_gt(room, 0);
        room = room < step ? room : step;
        room = room < len - at ? room : len - at;
        memcpy(to, text + at, room);
        apm_redis_reader_read(reader, room);
        for (;;) {
            ck_ok(apm_redis_reader_next(reader, &reply, err));
            if (!reply)
                break;
            ck_assert_int_eq(redisReaderGetReply(other, &wanted), REDIS_OK);
            ck_assert_ptr_nonnull(wanted);
            same(reply, wanted);
            freeReplyObject(wanted);
            freeReplyObject(reply);
            n++;
        }
    }
    return n;
}

START_TEST(replies_are_those_of_hiredis_however_they_come)
{
    static const size_t steps[] = { 1, 2, 3, 7, 64, 1000, 4095, 4096, 20000, 1 << 20 };
    size_t len;
    char *text = conversation(&len);

    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        apm_redis_reader reader;
        redisReader *other = redisReaderCreate();
        ck_assert_int_eq(redisReaderFeed(other, text, len), REDIS_OK);
        ck_ok(apm_redis_reader_init(&reader, SIZE, err));
        ck_assert_int_eq(read_all(&reader, text, len, steps[i], other), 13);
        apm_redis_reader_clear(&reader);
        redisReaderFree(other);
    }
    free(text);
}
END_TEST

START_TEST(what_is_long_is_read_to_its_place)
{
    apm_redis_reader reader;
    redisReply *reply;
    size_t room;

    ck_ok(apm_redis_reader_init(&reader, SIZE, err));
    char *to = apm_redis_reader_room(&reader, &room);
    ck_assert_uint_eq(room, SIZE);
    memcpy(to, "$100000\r\nab", 11);
    apm_redis_reader_read(&reader, 11);
    ck_ok(apm_redis_reader_next(&reader, &reply, err));
    ck_assert_ptr_null(reply);
    to = apm_redis_reader_room(&reader, &room);
    ck_assert_uint_eq(room, 100000 - 2 + 2); /* and the end of its line; nothing of what follows */
    memset(to, 'c', room - 2);
    memcpy(to + room - 2, "\r\n", 2);
    apm_redis_reader_read(&reader, room);
    ck_ok(apm_redis_reader_next(&reader, &reply, err));
    ck_assert_ptr_eq(reply->str + 2, to);

    apm_arena arena = { 0 };
    bool ok = true;
    apm_str text = apm_redis_keep(reply, &arena, &ok);
    ck_assert_ptr_eq(text.p + 2, to);
    freeReplyObject(reply); /* of which the text is no part any more */
    ck_assert(ok && text.len == 100000 && text.p[0] == 'a' && text.p[99999] == 'c' &&
              text.p[100000] == '\0');
    apm_arena_clear(&arena);
    apm_redis_reader_clear(&reader);
}
END_TEST

START_TEST(a_short_text_is_copied)
{
    apm_arena arena = { 0 };
    bool ok = true;
    char text[] = "short";
    const redisReply reply = { .type = REDIS_REPLY_STRING, .str = text, .len = 5 };

    apm_str kept = apm_redis_keep(&reply, &arena, &ok);
    ck_assert(ok && kept.p != text && apm_str_eqz(kept, "short"));
    ck_assert_ptr_eq(reply.str, text);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(what_is_no_reply_is_refused_and_leaks_nothing)
{
    static const char *const bad[] = {
        "hello\r\n",
        "\r\n",
        ":\r\n",
        ":1x\r\n",
        ":9223372036854775808\r\n",
        "$-2\r\n",
        "$999999999999\r\n",
        "$3\r\nabcde\r\n",
        "*-2\r\n",
        "*999999999\r\n",
        "*2\r\n$4\r\nkept\r\n?\r\n",
        "+no CR\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        apm_redis_reader reader;
        redisReply *reply;
        size_t room;
        ck_ok(apm_redis_reader_init(&reader, SIZE, err));
        memcpy(apm_redis_reader_room(&reader, &room), bad[i], strlen(bad[i]));
        apm_redis_reader_read(&reader, strlen(bad[i]));
        if (apm_redis_reader_next(&reader, &reply, err) != APIUM_E_DECODE)
            ck_abort_msg("%s was taken for a reply", bad[i]);
        ck_assert_int_eq(strncmp(err->text, "Protocol error", 14), 0);
        apm_redis_reader_clear(&reader);
    }
}
END_TEST

START_TEST(a_line_has_to_fit)
{
    apm_redis_reader reader;
    redisReply *reply;
    size_t room;

    ck_ok(apm_redis_reader_init(&reader, SIZE, err));
    char *to = apm_redis_reader_room(&reader, &room);
    memset(to, 'x', room);
    to[0] = '+';
    apm_redis_reader_read(&reader, room);
    ck_fails(apm_redis_reader_next(&reader, &reply, err), APIUM_E_DECODE);
    apm_redis_reader_clear(&reader);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        replies_are_those_of_hiredis_however_they_come,
        what_is_long_is_read_to_its_place,
        a_short_text_is_copied,
        what_is_no_reply_is_refused_and_leaks_nothing,
        a_line_has_to_fit,
        NULL,
    };
    return suite_run("redis_reader", tests, 10);
}
