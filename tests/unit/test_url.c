/* test_url.c - core/base/url */
#include <stdlib.h>

#include "core/base/ids.h"
#include "core/base/url.h"
#include "tests/support/suite.h"

static apium_error error, *err = &error;

static void
ck_same(const char *a, const char *b, const char *text, const char *what)
{
    if (!a || !b)
        ck_assert_msg(a == b, "%s: %s is %s instead of %s", text, what, a ? a : "NULL",
                      b ? b : "NULL");
    else
        ck_assert_msg(strcmp(a, b) == 0, "%s: %s is \"%s\" instead of \"%s\"", text, what, a, b);
}

START_TEST(each_part_is_found_and_decoded)
{
    static const struct {
        const char *text;
        apm_url url;
    } known[] = {
        { "redis://localhost", { "redis", NULL, NULL, "localhost", 0, NULL, NULL } },
        { "redis://localhost:6379/1", { "redis", NULL, NULL, "localhost", 6379, "1", NULL } },
        { "REDIS://h/", { "redis", NULL, NULL, "h", 0, "", NULL } },
        { "redis://:secret@h:1/0", { "redis", NULL, "secret", "h", 1, "0", NULL } },
        { "redis://me:@h", { "redis", "me", NULL, "h", 0, NULL, NULL } },
        { "redis://me@h", { "redis", "me", NULL, "h", 0, NULL, NULL } },
        { "amqp://g%40st:p%2Fw%3A%25@h:5672//", { "amqp", "g@st", "p/w:%", "h", 5672, "/", NULL } },
        { "amqp://u:a@b@h/v", { "amqp", "u", "a@b", "h", 0, "v", NULL } },
        { "amqp://u:a:b@h/v", { "amqp", "u", "a:b", "h", 0, "v", NULL } },
        { "amqp://", { "amqp", NULL, NULL, "", 0, NULL, NULL } },
        { "amqp://h:/v", { "amqp", NULL, NULL, "h", 0, "v", NULL } },
        { "amqp://h/my%20vhost", { "amqp", NULL, NULL, "h", 0, "my vhost", NULL } },
        { "redis://[::1]:7000/2", { "redis", NULL, NULL, "::1", 7000, "2", NULL } },
        { "redis://:p@[fe80::1]", { "redis", NULL, "p", "fe80::1", 0, NULL, NULL } },
        { "redis+socket:///var/run/r.sock?virtual_host=3",
          { "redis+socket", NULL, NULL, "", 0, "var/run/r.sock", "virtual_host=3" } },
        { "sqlite:///rel/a.db", { "sqlite", NULL, NULL, "", 0, "rel/a.db", NULL } },
        { "sqlite:////abs/me@home/a.db",
          { "sqlite", NULL, NULL, "", 0, "/abs/me@home/a.db", NULL } },
        { "memory://", { "memory", NULL, NULL, "", 0, NULL, NULL } },
        { "rediss://h?ssl_cert_reqs=none",
          { "rediss", NULL, NULL, "h", 0, NULL, "ssl_cert_reqs=none" } },
        { "redis://h/0%zz%4", { "redis", NULL, NULL, "h", 0, "0%zz%4", NULL } },
        { "redis://h:65535", { "redis", NULL, NULL, "h", 65535, NULL, NULL } },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_urls urls = { 0 };
        const char *text = known[i].text;
        const apm_url *url = &known[i].url;
        ck_ok(apm_urls_parse(&urls, text, err));
        ck_assert_uint_eq(urls.n, 1);
        ck_same(urls.items[0].scheme, url->scheme, text, "scheme");
        ck_same(urls.items[0].user, url->user, text, "user");
        ck_same(urls.items[0].password, url->password, text, "password");
        ck_same(urls.items[0].host, url->host, text, "host");
        ck_assert_int_eq(urls.items[0].port, url->port);
        ck_same(urls.items[0].path, url->path, text, "path");
        ck_same(urls.items[0].query, url->query, text, "query");
        apm_urls_clear(&urls);
    }
}
END_TEST

START_TEST(later_items_of_a_list_borrow_the_first_scheme)
{
    apm_urls urls = { 0 };

    ck_ok(apm_urls_parse(&urls, "sentinel://a:26379;b:26380;;SENTINEL://:pw@c:26381/0;", err));
    ck_assert_uint_eq(urls.n, 3);
    ck_assert_str_eq(urls.items[1].scheme, "sentinel");
    ck_assert_str_eq(urls.items[1].host, "b");
    ck_assert_int_eq(urls.items[1].port, 26380);
    ck_assert_str_eq(urls.items[2].scheme, "sentinel");
    ck_assert_str_eq(urls.items[2].password, "pw");
    apm_urls_clear(&urls);
    ck_assert_ptr_null(urls.items);
}
END_TEST

START_TEST(what_is_wrong_is_said_and_the_password_is_not)
{
    static const struct {
        const char *text, *message;
    } known[] = {
        { "", "bad URL \"\": it is empty" },
        { ";", "bad URL \"\": it is empty" },
        { "localhost", "bad URL \"localhost\": it does not begin with a scheme, such as redis://" },
        { "guest:hunter2@localhost",
          "bad URL \"guest:**@localhost\": it does not begin with a scheme, such as redis://" },
        { "://h", "bad URL \"://h\": it does not begin with a scheme, such as redis://" },
        { "redis:/h", "bad URL \"redis:/h\": it does not begin with a scheme, such as redis://" },
        { "redis://:hunter2@h:port",
          "bad URL \"redis://:**@h:port\": the port is no number up to 65535 (in a "
          "password, write / as %2F, @ as %40, ; as %3B)" },
        { "redis://h:65536", "bad URL \"redis://h:65536\": the port is no number up to 65535 (in a "
                             "password, write / as %2F, @ as %40, ; as %3B)" },
        { "redis://me:hun/ter2@h",
          "bad URL \"redis://me:**@h\": the port is no number up to 65535 (in a "
          "password, write / as %2F, @ as %40, ; as %3B)" },
        { "redis://me:hun;ter2@h",
          "bad URL \"redis://me:**;ter2@h\": the port is no number up to 65535 (in a "
          "password, write / as %2F, @ as %40, ; as %3B)" },
        { "redis://me:hunt#er2@h", "bad URL \"redis://me:**@h\": write # as %23" },
        { "redis://[::1/0",
          "bad URL \"redis://[::1/0\": the brackets around an IPv6 address do not match" },
        { "redis://[::1]x/0",
          "bad URL \"redis://[::1]x/0\": the brackets around an IPv6 address do not match" },
        { "redis://a b", "bad URL \"redis://a b\": it holds a space or control character" },
        { "redis://a\n", "bad URL \"redis://a?\": it holds a space or control character" },
        { "redis://h/a%00b", "bad URL \"redis://h/a%00b\": it holds a NUL" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        apm_urls urls = { .n = 77 };
        ck_fails(apm_urls_parse(&urls, known[i].text, err), APIUM_E_CONFIG);
        ck_assert_str_eq(err->text, known[i].message);
        ck_assert_uint_eq(urls.n, 77);
    }
}
END_TEST

START_TEST(masking_hides_passwords_only)
{
    static const char *const known[][2] = {
        { "redis://localhost:6379/0", "redis://localhost:6379/0" },
        { "redis://:hunter2@h:6379/0", "redis://:**@h:6379/0" },
        { "amqp://me:hunter2@h//", "amqp://me:**@h//" },
        { "amqp://me@h:5672/v", "amqp://me@h:5672/v" },
        { "amqp://me:@h", "amqp://me:**@h" },
        { "amqp://me:h@nt@h/v", "amqp://me:**@h/v" },
        { "amqp://me:a/b?c@h/v", "amqp://me:**@h/v" },
        { "sentinel://:a@h1:1;:b@h2:2;sentinel://x:c@h3/0",
          "sentinel://:**@h1:1;:**@h2:2;sentinel://x:**@h3/0" },
        { "redis://[::1]:6379/0", "redis://[::1]:6379/0" },
        { "redis://:p@[::1]:6379", "redis://:**@[::1]:6379" },
        { "sqlite:////home/me@x:y/a.db", "sqlite:////home/me@x:y/a.db" },
        { "redis://h/0?password=x&db=1&sentinel_pass=y&auth_token=z&a",
          "redis://h/0?password=**&db=1&sentinel_pass=**&auth_token=**&a" },
        { "amqp://me:12345;678@h", "amqp://me:12345;678@h" }, /* as good as a port */
        { "redis://[:pw@h", "redis://[:**@h" },
        { "redis://[a:b]:pw@h", "redis://[a:**@h" },
        { "", "" },
        { "x", "x" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char out[200];
        apm_url_mask(known[i][0], out, sizeof(out));
        ck_assert_str_eq(out, known[i][1]);
    }
}
END_TEST

START_TEST(masking_fits_into_any_room)
{
    char out[64];

    for (size_t size = 0; size < sizeof(out); size++) {
        memset(out, 'x', sizeof(out));
        apm_url_mask("redis://me:hunter2@localhost:6379/0", out, size);
        ck_assert_int_eq(out[size], 'x');
        if (size > 0) {
            ck_assert_uint_lt(strlen(out), size);
            ck_assert_mem_eq(out, "redis://me:**@localhost:6379/0", strlen(out));
        }
    }
}
END_TEST

START_TEST(parameters_are_decoded_and_the_last_counts)
{
    apm_urls urls = { 0 };

    ck_ok(apm_urls_parse(&urls, "redis://h?a=1&b=x%20y+z&a=2&c&d=&%65=6", err));
    const apm_url *url = &urls.items[0];
    ck_assert_str_eq(apm_url_param(&urls, url, "a"), "2");
    ck_assert_str_eq(apm_url_param(&urls, url, "b"), "x y z");
    ck_assert_str_eq(apm_url_param(&urls, url, "c"), "");
    ck_assert_str_eq(apm_url_param(&urls, url, "d"), "");
    ck_assert_str_eq(apm_url_param(&urls, url, "e"), "6");
    ck_assert_ptr_null(apm_url_param(&urls, url, "f"));
    ck_assert_ptr_null(apm_url_param(&urls, url, ""));
    apm_urls_clear(&urls);
    ck_ok(apm_urls_parse(&urls, "redis://h", err));
    ck_assert_ptr_null(apm_url_param(&urls, &urls.items[0], "a"));
    apm_urls_clear(&urls);
}
END_TEST

START_TEST(random_text_never_reveals_the_password_when_it_parses)
{
    static const char *const parts[] = {
        "redis", "://", "u", ":", "hunter2", "@", "h",  "/", "?",
        "&",     "=",   "[", "]", ";",       "%", "%2", "6", "a="
    };
    enum { N = sizeof(parts) / sizeof(parts[0]) };

    for (int round = 0; round < 30000; round++) {
        char text[200] = "redis://", masked[300];
        apm_urls urls = { 0 };
        for (uint64_t n = apm_random64() % 12; n > 0; n--)
            strcat(text, parts[apm_random64() % N]);
        apm_url_mask(text, masked, sizeof(masked));
        if (apm_urls_parse(&urls, text, err) != APIUM_OK)
            continue;
        for (size_t i = 0; i < urls.n; i++) {
            /* Not where the same word also stands in the open. */
            if (!urls.items[i].password || strcmp(urls.items[i].password, "hunter2") != 0 ||
                strstr(strstr(text, "hunter2") + 1, "hunter2"))
                continue;
            ck_assert_msg(!strstr(masked, "hunter2"), "%s is shown as %s", text, masked);
        }
        apm_urls_clear(&urls);
    }
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        each_part_is_found_and_decoded,
        later_items_of_a_list_borrow_the_first_scheme,
        what_is_wrong_is_said_and_the_password_is_not,
        masking_hides_passwords_only,
        masking_fits_into_any_room,
        parameters_are_decoded_and_the_last_counts,
        random_text_never_reveals_the_password_when_it_parses,
        NULL,
    };
    return suite_run("url", tests, 10);
}
