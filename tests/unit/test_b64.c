/* test_b64.c - core/base/b64 */
#include <stdlib.h>

#include "core/base/b64.h"
#include "core/base/ids.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;

START_TEST(text_is_encoded_with_padding)
{
    static const char *const known[][2] = {
        { "", "" },
        { "f", "Zg==" },
        { "fo", "Zm8=" },
        { "foo", "Zm9v" },
        { "foob", "Zm9vYg==" },
        { "fooba", "Zm9vYmE=" },
        { "foobar", "Zm9vYmFy" },
        { "\xff\xfe\xfd", "//79" },
        { "\xfb\xef\xbe", "++++" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_buf buf = { 0 };
        apm_b64_add(&buf, known[i][0], strlen(known[i][0]));
        ck_assert_str_eq(apm_buf_str(&buf).p, known[i][1]);
        ck_assert_uint_eq(buf.len, APM_B64_LEN(strlen(known[i][0])));
        apm_buf_clear(&buf);
    }
}
END_TEST

START_TEST(encoding_past_the_limit_fails_the_buffer)
{
    apm_buf buf;

    apm_buf_init(&buf, 7);
    apm_b64_add(&buf, "foob", 4);
    ck_assert(buf.failed);
    apm_buf_clear(&buf);
}
END_TEST

START_TEST(any_bytes_come_back)
{
    unsigned char in[600], out[603];
    size_t n;

    for (size_t len = 0; len < sizeof(in); len++) {
        apm_buf buf = { 0 };
        for (size_t i = 0; i < len; i++)
            in[i] = (unsigned char)apm_random64();
        apm_b64_add(&buf, in, len);
        ck_ok(apm_b64_decode(apm_buf_str(&buf), out, &n, err));
        ck_assert_uint_eq(n, len);
        ck_assert_mem_eq(out, in, len);
        apm_buf_clear(&buf);
    }
}
END_TEST

START_TEST(foreign_characters_and_odd_padding_are_read_as_python_reads_them)
{
    /* What base64.b64decode() of CPython 3.11 gives; NULL where it raises. */
    static const struct {
        const char *text, *bytes;
    } known[] = {
        { "Zm9v\nYmFy\n", "foobar" },
        { " Z m 9 v ", "foo" },
        { "Zm-9_v", "foo" },
        { "Zg==Zm9v", "f" },
        { "Zg=Zm9v", NULL },
        { "Zg", NULL },
        { "Zg=", NULL },
        { "Zm8", NULL },
        { "Z", NULL },
        { "Z===", NULL },
        { "=", "" },
        { "====", "" },
        { "=Zm9v", "foo" },
        { "Zm9v=", "foo" },
        { "Zm9v====", "foo" },
        { "Zg=\n=", "f" },
        { "Zg=a=", "f\x06" },
        { "Zm=9v", "foo" },
        { "Zm8=Zg==", "fo" },
        { "\xff\xfeZm9v", "foo" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char out[64];
        size_t n;
        if (known[i].bytes) {
            ck_ok(apm_b64_decode(apm_strz(known[i].text), out, &n, err));
            ck_assert_uint_eq(n, strlen(known[i].bytes));
            ck_assert_mem_eq(out, known[i].bytes, n);
        } else {
            ck_fails(apm_b64_decode(apm_strz(known[i].text), out, &n, err), APIUM_E_DECODE);
        }
    }
}
END_TEST

/* Every character at every place of a long text: read as alone, a group of four at a time. */
START_TEST(long_texts_are_read_as_short_ones)
{
    enum { LEN = 96 };
    char text[LEN];
    unsigned char out[LEN], expected[LEN + 3];

    for (int c = 0; c < 256; c++)
        for (size_t at = 0; at < LEN; at++) {
            size_t n = 0, sum = 0, one;
            for (size_t i = 0; i < LEN; i++)
                text[i] = "abcXYZ0189+/"[(i * 7 + at) % 12];
            text[at] = (char)c;
            bool foreign = !(c == '+' || c == '/' || (c >= '0' && c <= '9') ||
                             (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'));
            if (c == '=')
                continue;
            if (foreign) { /* skipped, but one is missing at the end */
                ck_fails(apm_b64_decode((apm_str){ text, LEN }, out, &n, err), APIUM_E_DECODE);
                continue;
            }
            ck_ok(apm_b64_decode((apm_str){ text, LEN }, out, &n, err));
            for (size_t i = 0; i < LEN; i += 4, sum += one)
                ck_ok(apm_b64_decode((apm_str){ text + i, 4 }, expected + sum, &one, err));
            ck_assert_uint_eq(n, sum);
            ck_assert_mem_eq(out, expected, n);
        }
}
END_TEST

START_TEST(decoding_stays_within_its_storage_whatever_comes)
{
    static const char parts[] = "ABab01+/==== \n\xff-";

    for (int round = 0; round < 20000; round++) {
        size_t len = apm_random64() % 100, n = 0;
        char *text = malloc(len + 1),
             *out = malloc(len / 4 * 3 + 3); /* so that ASan sees a byte too far */
        for (size_t i = 0; i < len; i++)
            text[i] = parts[apm_random64() % (sizeof(parts) - 1)];
        if (apm_b64_decode((apm_str){ text, len }, out, &n, err) == APIUM_OK)
            ck_assert_uint_le(n, len / 4 * 3 + 3);
        free(text);
        free(out);
    }
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        text_is_encoded_with_padding,
        encoding_past_the_limit_fails_the_buffer,
        any_bytes_come_back,
        foreign_characters_and_odd_padding_are_read_as_python_reads_them,
        long_texts_are_read_as_short_ones,
        decoding_stays_within_its_storage_whatever_comes,
        NULL,
    };
    return suite_run("b64", tests, 10);
}
