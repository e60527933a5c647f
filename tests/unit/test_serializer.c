/* Bodies in JSON, YAML and msgpack, and compressed ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/serializer.h"
#include "tests/support/suite.h"

static apm_arena arena;
static apium_error the_error, *err = &the_error;

static const apm_serializer *
format(const char *name)
{
    const apm_serializer *found = apm_serializer_find(apm_strz(name));

    ck_assert_ptr_nonnull(found);
    return found;
}

static void
same(apm_str a, apm_str b)
{
    apm_json x, y;

    ck_ok(apm_json_parse(a, &x, err));
    ck_ok(apm_json_parse(b, &y, err));
    ck_assert_msg(apm_json_equal(x, y), "%.*s is not %.*s", APM_STR_ARG(a), APM_STR_ARG(b));
}

/* JSON of bytes in a format. */
static apm_str
json_of(const char *name, apm_str bytes)
{
    apm_str out;

    ck_ok(format(name)->to_json(bytes, &arena, &out, err));
    return out;
}

static void
there_and_back(const char *name, const char *json)
{
    apm_str bytes;

    ck_ok(format(name)->from_json(apm_strz(json), &arena, &bytes, err));
    same(apm_strz(json), json_of(name, bytes));
}

static void
refused(const char *name, apm_str bytes, apium_status status)
{
    apm_str out = APM_STR("untouched");

    ck_fails(format(name)->to_json(bytes, &arena, &out, err), status);
    ck_assert(apm_str_eqz(out, "untouched"));
}

static const char *const documents[] = {
    "[[2, 3], {}, {\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": null}]",
    "[[[], {}, \"\"], {\"a\": {\"b\": [1, [2, [3, {}]]]}}, [[[]]]]",
    "[true, false, null, 0, -1, 127, 128, -32, -33, -128, -129, 255, 256, 65535, 65536, "
    "2147483648, -2147483649, "
    "4294967295, 4294967296, 9223372036854775807, -9223372036854775808, 18446744073709551615]",
    "[1.0, 0.1, -0.0, 1e+22, 1e-07, 1.5e+300, 123456.789, Infinity, -Infinity]",
    "[\"true\", \"no\", \"null\", \"~\", \"12\", \"1.5\", \"0x1f\", \"1:30\", \"2001-01-01\", "
    "\"=\", \"<<\", \".inf\", \"-\", "
    "\"- a\", \"a: b\", \"#x\", \"&a\", \"*a\", \"!t\", \"%d\", \"@\", \"`\", "
    "\"\\u0000\\u001f\\n\\t\", \" x \", \"017\", \"1_000\"]",
    "[\"h\\u00e9llo \\u4e16\\u754c \\ud83d\\ude00\", \"\\\"\\\\/\", \"multi\\nline\\n\", "
    "\"\\ufeff\", \"\\u2028\\u0085\"]",
    "[{\"__type__\": \"bytes\", \"__value__\": \"abc\"}, {\"__type__\": \"base64\", \"__value__\": "
    "\"//4=\"}]",
    "[{\"__type__\": \"datetime\", \"__value__\": \"2020-01-02T03:04:05.000006+02:00\"}, "
    "{\"__type__\": "
    "\"date\", \"__value__\": \"2020-01-02\"}, \"2020-01-02\"]",
    "{\"\": 1, \"k\": {\"__type__\": \"uuid\", \"__value__\": {\"hex\": \"11\"}}, \"yes\": 2, "
    "\"1\": 3}",
    "\"text\"",
    "5",
    "[]",
};

START_TEST(every_kind_of_value_survives_yaml_and_msgpack)
{
    for (size_t i = 0; i < sizeof documents / sizeof *documents; i++) {
        there_and_back("msgpack", documents[i]);
        there_and_back("yaml", documents[i]);
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_not_a_number_survives_as_well)
{
    const char *const names[] = { "yaml", "msgpack" };
    apm_str bytes;

    for (int i = 0; i < 2; i++) {
        ck_ok(format(names[i])->from_json(APM_STR("[NaN]"), &arena, &bytes, err));
        ck_assert(apm_str_eqz(json_of(names[i], bytes), "[NaN]"));
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(integers_of_any_size_survive_yaml_and_are_too_much_for_msgpack)
{
    apm_str bytes;

    there_and_back("yaml", "[1208925819614629174706176, -1208925819614629174706176]");
    ck_fails(format("msgpack")->from_json(APM_STR("[18446744073709551616]"), &arena, &bytes, err),
             APIUM_E_ENCODE);
    ck_fails(format("msgpack")->from_json(APM_STR("[-9223372036854775809]"), &arena, &bytes, err),
             APIUM_E_ENCODE);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_lone_surrogate_is_an_error_in_yaml_and_msgpack)
{
    apm_str bytes;

    ck_fails(format("yaml")->from_json(APM_STR("[\"\\ud800\"]"), &arena, &bytes, err),
             APIUM_E_ENCODE);
    ck_fails(format("msgpack")->from_json(APM_STR("[\"\\ud800\"]"), &arena, &bytes, err),
             APIUM_E_ENCODE);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(formats_are_found_by_name_and_by_content_type)
{
    ck_assert_ptr_eq(format("json"), format("application/json"));
    ck_assert_str_eq(format("application/x-msgpack")->name, "msgpack");
    ck_assert_str_eq(format("application/x-msgpack")->content_encoding, "binary");
    ck_assert_str_eq(format("yaml")->content_type, "application/x-yaml");
    ck_assert_ptr_null(apm_serializer_find(APM_STR("application/x-foo")));
    ck_assert_ptr_null(apm_serializer_find(APM_STR("")));
}
END_TEST

START_TEST(pickle_is_refused_by_name)
{
    refused("pickle", APM_STR("\x80\x04."), APIUM_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err->text, "pickle"));
}
END_TEST

#define DATETIME(text) "{\"__type__\": \"datetime\", \"__value__\": \"" text "\"}"

START_TEST(yaml_means_what_safe_load_makes_of_it)
{
    static const char *const cases[][2] = {
        { "yes", "true" },
        { "Off", "false" },
        { "~", "null" },
        { "", "null" },
        { "017", "15" },
        { "0x1F", "31" },
        { "0b101", "5" },
        { "+1_000", "1000" },
        { "-7", "-7" },
        { "1:30", "90" },
        { "190:20:30", "685230" },
        { "1:30.5", "90.5" },
        { "1.", "1.0" },
        { ".5", "0.5" },
        { "1e5", "\"1e5\"" },
        { "1.0e+5", "100000.0" },
        { "1.0e5", "\"1.0e5\"" },
        { "-.inf", "-Infinity" },
        { ".NaN", "NaN" },
        { "08", "\"08\"" },
        { "y", "\"y\"" },
        { "'12'", "\"12\"" },
        { "\"12\"", "\"12\"" },
        { "!!str 12", "\"12\"" },
        { "!!int 12", "12" },
        { "!!float 1.5", "1.5" },
        { "2001-12-14", "{\"__type__\": \"date\", \"__value__\": \"2001-12-14\"}" },
        { "2001-12-14t21:59:43.10-05:00", DATETIME("2001-12-14T21:59:43.100000-05:00") },
        { "2001-12-14 1:59:43", DATETIME("2001-12-14T01:59:43") },
        { "2001-2-4   01:59:43.0000009 Z", DATETIME("2001-02-04T01:59:43+00:00") },
        { "2001-12-14T01:59:43+0530", DATETIME("2001-12-14T01:59:43+05:30") },
        { "2001-2-4", "\"2001-2-4\"" },
        { "2001-02-29", "\"2001-02-29\"" },
        { "2001-12-14 1:59", "\"2001-12-14 1:59\"" },
        { "'2001-12-14'", "\"2001-12-14\"" },
        { "{2001-12-14: 1}", "{\"2001-12-14\": 1}" },
        { "!!binary YWJj", "{\"__type__\": \"bytes\", \"__value__\": \"abc\"}" },
        { "{1: a, null: b, true: c}", "{\"1\": \"a\", \"null\": \"b\", \"true\": \"c\"}" },
        { "[&x [1], *x]", "[[1], [1]]" },
        { "[&x 5, {*x : *x}, &x {}, *x]", "[5, {\"5\": 5}, {}, {}]" },
        { "|\n a\n b\n", "\"a\\nb\\n\"" },
        { "1:99", "\"1:99\"" },
        { "0:30", "\"0:30\"" },
        { "0:30.5", "30.5" },
        { "-0x1f", "-31" },
        { "+.5", "\"+.5\"" },
        { "1_0.0_1", "10.01" },
        { "99999999999999999999", "99999999999999999999" },
        { "_1", "\"_1\"" },
        { "-", "[null]" },
        { "+", "\"+\"" },
        { ".", "\".\"" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        apm_str got = json_of("yaml", apm_strz(cases[i][0]));
        ck_assert_msg(apm_str_eqz(got, cases[i][1]), "%s gives %.*s, not %s", cases[i][0],
                      APM_STR_ARG(got), cases[i][1]);
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(yaml_that_safe_load_refuses_is_refused)
{
    refused("yaml", APM_STR("!!python/object/apply:os.system [ls]"), APIUM_E_DECODE);
    refused("yaml", APM_STR("!!python/tuple [1]"), APIUM_E_DECODE);
    refused("yaml", APM_STR("!!int x"), APIUM_E_DECODE);
    refused("yaml", APM_STR("{[1]: 2}"), APIUM_E_DECODE);
    refused("yaml", APM_STR("{a"), APIUM_E_DECODE);
    refused("yaml", APM_STR("[a]\n[b]"), APIUM_E_DECODE);
    refused("yaml", APM_STR("a\n---\nb\n"), APIUM_E_DECODE);
    refused("yaml", APM_STR("\xff\xfe"), APIUM_E_DECODE);
    refused("yaml", APM_STR("*unknown"), APIUM_E_DECODE);
    refused("yaml", APM_STR("a: &x {}\nb:\n  <<: *x\n"), APIUM_E_DECODE);
}
END_TEST

/* Nine lists of nine references each: 9^9 strings. */
START_TEST(a_yaml_bomb_is_refused)
{
    char text[1200] =
        "- &a0 [\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\"]\n";

    for (int i = 1; i < 10; i++) {
        char line[100];
        snprintf(line, sizeof line, "- &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i,
                 i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
        strcat(text, line);
    }
    refused("yaml", apm_strz(text), APIUM_E_TOOBIG);
    refused("yaml", APM_STR("&a [*a]"), APIUM_E_DECODE);
    apm_arena_clear(&arena);
}
END_TEST

static char *
nested(size_t n, char open, char inside, char close)
{
    char *text = malloc(2 * n + 2);

    memset(text, open, n);
    text[n] = inside;
    memset(text + n + 1, close, n);
    text[2 * n + 1] = '\0';
    return text;
}

START_TEST(deep_nesting_is_bounded_in_every_format)
{
    char *fits = nested(APM_JSON_DEPTH, '[', '1', ']'), *deep = nested(10000, '[', '1', ']');

    there_and_back("msgpack", fits);
    there_and_back("yaml", fits);
    /* libyaml has a bound of its own, and says so in its own way. */
    apm_str out;
    ck_assert_int_ne(format("yaml")->to_json(apm_strz(deep), &arena, &out, err), APIUM_OK);
    memset(deep, (char)0x91, 10000);
    refused("msgpack", apm_strz(deep), APIUM_E_TOOBIG);
    free(fits);
    free(deep);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(msgpack_cut_short_anywhere_is_refused)
{
    apm_str bytes, out;

    ck_ok(format("msgpack")->from_json(
        APM_STR("[[2, \"text\", 1.5, 70000, {\"__type__\": \"base64\", \"__value__\": \"//4=\"}], "
                "{\"k\": [1]}, null]"),
        &arena, &bytes, err));
    for (size_t len = 0; len < bytes.len; len++) {
        char *copy =
            malloc(len + 1); /* at the end of a block, so that a sanitizer sees a read beyond */
        memcpy(copy, bytes.p, len);
        ck_assert_int_eq(format("msgpack")->to_json((apm_str){ copy, len }, &arena, &out, err),
                         APIUM_E_DECODE);
        free(copy);
    }
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(malformed_msgpack_is_refused)
{
    refused("msgpack", APM_STR("\xc1"), APIUM_E_DECODE);
    refused("msgpack", APM_STR("\x01\x02"), APIUM_E_DECODE);
    refused("msgpack", APM_STR("\xa2\xff\xfe"), APIUM_E_DECODE);
    refused("msgpack", APM_STR("\xd6\xff\x00\x00\x00\x00"), APIUM_E_DECODE); /* a timestamp */
    refused("msgpack", APM_STR("\xdd\xff\xff\xff\xff"),
            APIUM_E_DECODE);                                     /* four thousand million items */
    refused("msgpack", APM_STR("\x81\x90\x01"), APIUM_E_DECODE); /* a list as a key */
    refused("msgpack", APM_STR("\x81\xcb\x3f\xf8\0\0\0\0\0\0\x01"), APIUM_E_DECODE);
}
END_TEST

START_TEST(keys_that_are_no_strings_become_strings)
{
    ck_assert(apm_str_eqz(
        json_of("msgpack", APM_STR("\x84\x01\xa1\x61\xc0\xa1\x62\xc3\xa1\x63\xc4\x01\x6b\x04")),
        "{\"1\": \"a\", \"null\": \"b\", \"true\": \"c\", \"k\": 4}"));
    ck_assert(apm_str_eqz(
        json_of("msgpack",
                APM_STR("\x93\xca\x3f\xc0\x00\x00\xd0\x80\xcf\xff\xff\xff\xff\xff\xff\xff\xff")),
        "[1.5, -128, 18446744073709551615]"));
    apm_arena_clear(&arena);
}
END_TEST

static const char *const compressions[][2] = {
    { "zlib", "application/x-gzip" },     { "gzip", "application/x-gzip" },
    { "bzip2", "application/x-bz2" },     { "bzip", "application/x-bz2" },
    { "lzma", "application/x-lzma" },     { "xz", "application/x-lzma" },
    { "brotli", "application/x-brotli" }, { "zstd", "application/zstd" },
    { "zstandard", "application/zstd" },  { "application/x-gzip", "application/x-gzip" },
};
#define COMPRESSIONS (sizeof compressions / sizeof *compressions)

START_TEST(every_compression_goes_there_and_back)
{
    apm_str sizes[] = { APM_STR(""), APM_STR("x"), { NULL, 100000 } }, packed, out;
    char *noise = malloc(100000);
    const char *mime;

    srandom(1);
    for (int i = 0; i < 100000; i++)
        noise[i] = (char)random();
    sizes[2].p = noise;
    for (size_t i = 0; i < COMPRESSIONS; i++)
        for (int j = 0; j < 3; j++) {
            ck_ok(
                apm_compress(apm_strz(compressions[i][0]), sizes[j], &arena, &packed, &mime, err));
            ck_assert_str_eq(mime, compressions[i][1]);
            ck_assert_str_eq(apm_compression_mime(apm_strz(compressions[i][0])), mime);
            ck_ok(apm_decompress(apm_strz(mime), packed, sizes[j].len, &arena, &out, err));
            ck_assert(apm_str_eq(out, sizes[j]));
        }
    free(noise);
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(what_celery_calls_gzip_is_a_zlib_stream)
{
    apm_str packed, out;
    const char *mime;

    ck_ok(apm_compress(APM_STR("gzip"), APM_STR("[[], {}, {}]"), &arena, &packed, &mime, err));
    ck_assert_int_eq(packed.p[0], 0x78);
    ck_assert_uint_eq((unsigned char)packed.p[1], 0x9c);
    /* gzip -c of "hi": accepted, though nothing of Celery's sends it. */
    ck_ok(apm_decompress(APM_STR("gzip"),
                         APM_STR("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\xc8\x04\x00\xac\x2a"
                                 "\x93\xd8\x02\x00\x00\x00"),
                         100, &arena, &out, err));
    ck_assert(apm_str_eqz(out, "hi"));
    apm_arena_clear(&arena);
}
END_TEST

START_TEST(a_compressed_bomb_is_refused_at_the_bound)
{
    size_t size = (size_t)4 << 20;
    char *zeros = calloc(1, size);
    apm_str packed, out;
    const char *mime;

    for (size_t i = 0; i < COMPRESSIONS; i++) {
        ck_ok(apm_compress(apm_strz(compressions[i][0]), (apm_str){ zeros, size }, &arena, &packed,
                           &mime, err));
        ck_fails(apm_decompress(apm_strz(mime), packed, size - 1, &arena, &out, err),
                 APIUM_E_TOOBIG);
        ck_fails(apm_decompress(apm_strz(mime), packed, 10000, &arena, &out, err), APIUM_E_TOOBIG);
        apm_arena_clear(&arena);
    }
    free(zeros);
}
END_TEST

START_TEST(corrupt_and_truncated_streams_are_refused)
{
    apm_str packed, out;
    const char *mime;

    for (size_t i = 0; i < COMPRESSIONS; i++) {
        ck_ok(apm_compress(apm_strz(compressions[i][0]),
                           APM_STR("[[2, 3], {}, {\"callbacks\": null}]"), &arena, &packed, &mime,
                           err));
        for (size_t len = 0; len < packed.len; len++)
            ck_fails(
                apm_decompress(apm_strz(mime), (apm_str){ packed.p, len }, 1000, &arena, &out, err),
                APIUM_E_DECODE);
        ck_fails(
            apm_decompress(apm_strz(mime), APM_STR("no stream at all"), 1000, &arena, &out, err),
            APIUM_E_DECODE);
    }
    ck_fails(apm_decompress(APM_STR("application/x-nope"), packed, 1000, &arena, &out, err),
             APIUM_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err->text, "x-nope"));
    ck_fails(apm_compress(APM_STR("rar"), packed, &arena, &out, &mime, err), APIUM_E_UNSUPPORTED);
    apm_arena_clear(&arena);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = { every_kind_of_value_survives_yaml_and_msgpack,
                                   a_not_a_number_survives_as_well,
                                   integers_of_any_size_survive_yaml_and_are_too_much_for_msgpack,
                                   a_lone_surrogate_is_an_error_in_yaml_and_msgpack,
                                   formats_are_found_by_name_and_by_content_type,
                                   pickle_is_refused_by_name,
                                   yaml_means_what_safe_load_makes_of_it,
                                   yaml_that_safe_load_refuses_is_refused,
                                   a_yaml_bomb_is_refused,
                                   deep_nesting_is_bounded_in_every_format,
                                   msgpack_cut_short_anywhere_is_refused,
                                   malformed_msgpack_is_refused,
                                   keys_that_are_no_strings_become_strings,
                                   every_compression_goes_there_and_back,
                                   what_celery_calls_gzip_is_a_zlib_stream,
                                   a_compressed_bomb_is_refused_at_the_bound,
                                   corrupt_and_truncated_streams_are_refused,
                                   NULL };

    return suite_run("serializer", tests, 30);
}
