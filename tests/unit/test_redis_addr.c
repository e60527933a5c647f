/* test_redis_addr.c - URLs of Redis, as kombu and redis-py read them. */
#include "core/link/redis_addr.h"

#include <stdio.h>

#include "../support/suite.h"

static apm_urls urls;
static apm_redis_addr addr;
static apium_error error, *err = &error;

static void
setup(void)
{
    urls = (apm_urls){ 0 };
}

static void
teardown(void)
{
    apm_urls_clear(&urls);
}

static apium_status
read_addr(const char *text)
{
    apm_urls_clear(&urls);
    apium_status st = apm_urls_parse(&urls, text, err);
    return st == APIUM_OK ? apm_redis_addr_read(&addr, &urls, 0, err) : st;
}

START_TEST(a_bare_url_is_the_local_server)
{
    ck_ok(read_addr("redis://"));
    ck_assert_str_eq(addr.host, "localhost");
    ck_assert_int_eq(addr.port, 6379);
    ck_assert_int_eq(addr.db, 0);
    ck_assert_ptr_null(addr.password);
    ck_assert(!addr.tls);
}
END_TEST

START_TEST(every_part_is_read)
{
    ck_ok(read_addr(
        "rediss://me:p%40ss@example.org:7000/12?ssl_ca_certs=/ca.pem&ssl_cert_reqs=CERT_NONE"));
    ck_assert_str_eq(addr.host, "example.org");
    ck_assert_int_eq(addr.port, 7000);
    ck_assert_int_eq(addr.db, 12);
    ck_assert_str_eq(addr.user, "me");
    ck_assert_str_eq(addr.password, "p@ss");
    ck_assert(addr.tls);
    ck_assert_int_eq(addr.tls_opts.verify, APM_TLS_NONE);
    ck_assert_str_eq(addr.tls_opts.ca_certs, "/ca.pem");
}
END_TEST

START_TEST(tls_verifies_unless_told_otherwise)
{
    ck_ok(read_addr("rediss://example.org"));
    ck_assert_int_eq(addr.tls_opts.verify, APM_TLS_REQUIRED);
    ck_fails(read_addr("rediss://example.org?ssl_cert_reqs=perhaps"), APIUM_E_CONFIG);
}
END_TEST

START_TEST(a_password_alone_has_no_user)
{
    ck_ok(read_addr("redis://:secret@h/1"));
    ck_assert_ptr_null(addr.user);
    ck_assert_str_eq(addr.password, "secret");
}
END_TEST

START_TEST(databases_are_read_as_kombu_reads_them)
{
    static const struct {
        const char *url;
        int db;
    } good[] = {
        { "redis://h", 0 }, { "redis://h/", 0 }, { "redis://h/3", 3 }, { "redis://h//5", 5 }
    };
    static const char *const bad[] = { "redis://h/abc", "redis://h/-1", "redis://h/1x",
                                       "redis://h/99999999999" };

    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        ck_ok(read_addr(good[i].url));
        ck_assert_msg(addr.db == good[i].db, "%s gave %d", good[i].url, addr.db);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        ck_fails(read_addr(bad[i]), APIUM_E_CONFIG);
    ck_fails(read_addr("redis://h/abc"), APIUM_E_CONFIG);
    ck_assert_str_eq(err->text, "Database is int between 0 and limit - 1, not abc");
}
END_TEST

START_TEST(a_socket_has_a_path_and_its_database_as_a_parameter)
{
    char text[256], where[160];

    ck_ok(read_addr("redis+socket:///run/redis.sock?virtual_host=3"));
    ck_assert_str_eq(addr.path, "/run/redis.sock");
    ck_assert_int_eq(addr.db, 3);
    apm_redis_addr_print(&addr, where, sizeof(where));
    ck_assert_str_eq(where, "/run/redis.sock");
    ck_fails(read_addr("redis+socket://"), APIUM_E_CONFIG);
    snprintf(text, sizeof(text), "redis+socket:///%0150d", 7);
    ck_fails(read_addr(text), APIUM_E_CONFIG);
}
END_TEST

START_TEST(the_same_server_is_recognised_whatever_the_database)
{
    apm_urls other = { 0 };
    apm_redis_addr b;
    static const struct {
        const char *url;
        bool same;
    } cases[] = { { "redis://u:p@h:7000/5", true },   { "redis://u:p@h:7001/1", false },
                  { "redis://v:p@h:7000/1", false },  { "redis://u:x@h:7000/1", false },
                  { "rediss://u:p@h:7000/1", false }, { "redis://u:p@g:7000/1", false } };

    ck_ok(read_addr("redis://u:p@h:7000/1"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        ck_ok(apm_urls_parse(&other, cases[i].url, err));
        ck_ok(apm_redis_addr_read(&b, &other, 0, err));
        ck_assert_msg(apm_redis_addr_same(&addr, &b) == cases[i].same, "%s", cases[i].url);
        apm_urls_clear(&other);
    }
}
END_TEST

START_TEST(a_sentinel_has_its_own_port)
{
    ck_ok(read_addr("sentinel://one;sentinel://two:26380/2"));
    ck_assert_int_eq(addr.port, 26379);
    ck_ok(apm_redis_addr_read(&addr, &urls, 1, err));
    ck_assert_int_eq(addr.port, 26380);
    ck_assert_int_eq(addr.db, 2);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_bare_url_is_the_local_server,
        every_part_is_read,
        tls_verifies_unless_told_otherwise,
        a_password_alone_has_no_user,
        databases_are_read_as_kombu_reads_them,
        a_socket_has_a_path_and_its_database_as_a_parameter,
        the_same_server_is_recognised_whatever_the_database,
        a_sentinel_has_its_own_port,
        NULL,
    };
    return suite_run_with("redis_addr", tests, 10, setup, teardown);
}
