/* test_date.c - core/base/clock.h: clocks, dates and zones */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/ids.h"
#include "tests/support/suite.h"

#define US ((int64_t)1000000)

static apium_error error, *err = &error;

START_TEST(the_clocks_move_on_and_a_test_may_move_them)
{
    int64_t ns = apm_clock_ns(), ms = apm_clock_ms(), wall = apm_clock_wall_us();

    ck_assert_int_ge(apm_clock_ns(), ns);
    apm_clock_fake(10000);
    ck_assert_int_ge(apm_clock_ns(), ns + 10000 * INT64_C(1000000));
    ck_assert_int_ge(apm_clock_ms(), ms + 10000);
    ck_assert_int_lt(apm_clock_ms(), ms + 20000);
    ck_assert_int_ge(apm_clock_wall_us(), wall + 10 * US);
    apm_clock_fake(-10000);
    ck_assert_int_lt(apm_clock_ms(), ms + 10000);
}
END_TEST

START_TEST(dates_are_printed_as_isoformat_does)
{
    static const struct {
        int64_t us;
        int offset;
        const char *text;
    } known[] = {
        { 0, 0, "1970-01-01T00:00:00+00:00" },
        { 1, 0, "1970-01-01T00:00:00.000001+00:00" },
        { -1, 0, "1969-12-31T23:59:59.999999+00:00" },
        { 1795331865184896, 0, "2026-11-22T07:17:45.184896+00:00" },
        { 1795331865000000, 3600, "2026-11-22T08:17:45+01:00" },
        { 1795331865500000, -12600, "2026-11-22T03:47:45.500000-03:30" },
        { 951782400 * US, 0, "2000-02-29T00:00:00+00:00" },
        { 951868800 * US, 0, "2000-03-01T00:00:00+00:00" },
        { 0, 1172, "1970-01-01T00:19:32+00:19:32" },
        { -62135596800 * US, 0, "0001-01-01T00:00:00+00:00" },
        { 253402300799 * US + 999999, 0, "9999-12-31T23:59:59.999999+00:00" },
        { INT64_MAX, 3600, "9999-12-31T23:59:59.999999+01:00" },
        { INT64_MIN, -3600, "0001-01-01T00:00:00-01:00" },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        char out[APM_DATE_MAX];
        apm_date_print(known[i].us, known[i].offset, out);
        ck_assert_str_eq(out, known[i].text);
    }
}
END_TEST

START_TEST(dates_are_read_as_fromisoformat_does)
{
    static const struct {
        const char *text;
        int64_t us;
    } known[] = {
        { "2030-01-02T03:04:05.123456+00:00", 1893553445 * US + 123456 },
        { "2030-01-02T03:04:05.5+00:00", 1893553445 * US + 500000 },
        { "2030-01-02T03:04:05.123+00:00", 1893553445 * US + 123000 },
        { "2030-01-02T03:04:05.123456789+00:00", 1893553445 * US + 123456 },
        { "2030-01-02T03:04:05.000000999999999999999999999999Z", 1893553445 * US },
        { "2030-01-02T03:04:05,5Z", 1893553445 * US + 500000 },
        { "2030-01-02T03:04:05Z", 1893553445 * US },
        { "2030-01-02T03:04:05-00:00", 1893553445 * US },
        { "2030-01-02T03:04:05+02:00", 1893546245 * US },
        { "2030-01-02T03:04:05+0200", 1893546245 * US },
        { "2030-01-02T03:04:05+02", 1893546245 * US },
        { "2030-01-02T03:04:05-03:30", 1893566045 * US },
        { "2030-01-02T03:04:05+00:00:30.5", 1893553414 * US + 500000 },
        { "2030-01-02 03:04:05 +00:00", 1893553445 * US },
        { "2030-01-02T03:04:05", 1893553445 * US },
        { "2030-01-02 03:04:05", 1893553445 * US },
        { "2030-01-02T03:04", 1893553440 * US },
        { "2030-01-02T03:04Z", 1893553440 * US },
        { "2030-01-02T03", 1893553200 * US },
        { "2030-01-02T0304", 1893553440 * US },
        { "2030-01-02", 1893542400 * US },
        { "20300102", 1893542400 * US },
        { "20300102T030405Z", 1893553445 * US },
        { "2030-W01-3", 1893542400 * US },
        { "2030W013", 1893542400 * US },
        { "2030-W01", 1893369600 * US },
        { "2020-W53-7", 1609632000 * US },
        { "2024-02-29", 1709164800 * US },
        { "0001-01-01T00:00:00+01:00", -62135600400 * US },
        { "9999-12-31T23:59:59.999999Z", 253402300799 * US + 999999 },
    };

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        int64_t us = 1;
        ck_ok(apm_date_parse(apm_strz(known[i].text), 0, &us, err));
        ck_assert_msg(us == known[i].us, "%s: %lld", known[i].text, (long long)us);
    }
}
END_TEST

START_TEST(a_date_without_offset_is_in_the_given_zone)
{
    int64_t us;

    ck_ok(apm_date_parse(APM_STR("2030-01-02T03:04:05"), 3600, &us, err));
    ck_assert_int_eq(us, 1893549845 * US);
    ck_ok(apm_date_parse(APM_STR("2030-01-02"), -3600, &us, err));
    ck_assert_int_eq(us, 1893546000 * US);
    ck_ok(apm_date_parse(APM_STR("2030-01-02T03:04:05Z"), 3600, &us, err));
    ck_assert_int_eq(us, 1893553445 * US);
}
END_TEST

START_TEST(what_is_no_date_is_refused_by_name)
{
    static const char *const bad[] = {
        "",
        "x",
        "2030",
        "2030-1-2T03:04:05",
        "2030-13-01",
        "2030-00-01",
        "2030-01-32",
        "2030-01-00",
        "2023-02-29",
        "1900-02-29",
        "2030-0102",
        "203001-02",
        "0000-01-01",
        "10000-01-01",
        "+2030-01-01",
        "2030-01-02T",
        "2030-01-02 ",
        "2030-01-02Z",
        "2030-01-02T3",
        "2030-01-02T24:00",
        "2030-01-02T03:60",
        "2030-01-02T03:04:60",
        "2030-01-02T03:0405",
        "2030-01-02T0304:05",
        "2030-01-02T03:04:05.",
        "2030-01-02T03:04:05.Z",
        "2030-01-02T03:04:05.-1",
        "2030-01-02T03:04:05 ",
        "2030-01-02T03:04:05+",
        "2030-01-02T03:04:05+24:00",
        "2030-01-02T03:04:05+01:60",
        "2030-01-02T03:04:05Z0",
        "2030-01-02T03:04:05+01:00Z",
        "2030-01-02T03:04:05 UTC",
        "2021-W53-1",
        "2030-W00-1",
        "2030-W01-8",
        "9999-W52-7",
        "2030-01-02T-3:04:05",
        "tomorrow",
    };
    int64_t us = 42;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char expected[100];
        snprintf(expected, sizeof(expected), "cannot read the date \"%s\"", bad[i]);
        ck_fails(apm_date_parse(apm_strz(bad[i]), 0, &us, err), APIUM_E_DECODE);
        ck_assert_str_eq(err->text, expected);
    }
    ck_fails(apm_date_parse(APM_STR_NONE, 0, &us, err), APIUM_E_DECODE);
    ck_fails(apm_date_parse((apm_str){ "2030-01-02\0", 11 }, 0, &us, err), APIUM_E_DECODE);
    ck_assert_int_eq(us, 42);
}
END_TEST

START_TEST(what_is_printed_is_read_back)
{
    for (int i = 0; i < 20000; i++) {
        int64_t us = (int64_t)(apm_random64() % (315537897600 * (uint64_t)US)) - 62135596800 * US,
                back;
        int offset = (int)(apm_random64() % 172799) - 86399;
        char text[APM_DATE_MAX];
        apm_date_print(us, offset, text);
        ck_ok(apm_date_parse(apm_strz(text), 0, &back, err));
        /* At both ends of time the local year would be 0 or 10000. */
        int64_t local = us + offset * US;
        if (local >= -62135596800 * US && local < 253402300800 * US)
            ck_assert_msg(back == us, "%lld, %d: %s", (long long)us, offset, text);
    }
}
END_TEST

START_TEST(broken_dates_are_never_read_past_their_end)
{
    static const char whole[] = "2030-01-02T03:04:05.123456+00:00";

    for (int round = 0; round < 50000; round++) {
        size_t len = apm_random64() % sizeof(whole);
        char *text = malloc(len);
        int64_t us;
        memcpy(text, whole, len);
        for (uint64_t n = apm_random64() % 3; n > 0 && len > 0; n--)
            text[apm_random64() % len] = "0123456789-:.,+TWZ "[apm_random64() % 19];
        apm_date_parse((apm_str){ text, len }, 0, &us, err);
        free(text);
    }
}
END_TEST

START_TEST(utc_needs_no_files)
{
    int offset = 1;

    setenv("TZDIR", "/nonexistent", 1);
    ck_ok(apm_zone_offset(NULL, 0, &offset, err));
    ck_assert_int_eq(offset, 0);
    ck_ok(apm_zone_offset("UTC", 1 * US, &offset, err));
    ck_assert_int_eq(offset, 0);
}
END_TEST

START_TEST(an_unknown_zone_is_named)
{
    static const char *const bad[] = {
        "Mars/Olympus",  "",       "..", "../../etc/passwd", "/etc/localtime",
        "Europe/../UTC", "Europe", " "
    };
    int offset = 42;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char expected[100];
        snprintf(expected, sizeof(expected), "unknown time zone \"%s\"", bad[i]);
        ck_fails(apm_zone_offset(bad[i], 0, &offset, err), APIUM_E_CONFIG);
        ck_assert_msg(strstr(err->text, expected) == err->text, "%s", err->text);
    }
    ck_assert_int_eq(offset, 42);
}
END_TEST

/* Put a zone file of our own making into a directory of its own. */
static void
write_zone(const char *name, const char *bytes, size_t len)
{
    static char dir[] = "/tmp/apium-zones-XXXXXX";
    static bool made; /* not by the name: a made-up one may end in X as well */
    char path[100];

    if (!made) {
        ck_assert_ptr_nonnull(mkdtemp(dir));
        setenv("TZDIR", dir, 1);
        made = true;
    }
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

static void
remove_zones(void)
{
    char path[100];

    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof(path), "%s/%s", getenv("TZDIR"),
                 i == 0   ? "Test"
                 : i == 1 ? "Rule"
                          : "Bad");
        unlink(path);
    }
    ck_assert_int_eq(rmdir(getenv("TZDIR")), 0);
}

#define BE4(v)                                                                                     \
    (char)((v) >> 24 & 255), (char)((v) >> 16 & 255), (char)((v) >> 8 & 255), (char)((v)&255)
#define NO_V1                                                                                      \
    'T', 'Z', 'i', 'f', '2', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, BE4(0), BE4(0), BE4(0),  \
        BE4(0), BE4(1), BE4(1), BE4(0), 0, 0, 0

/* Two transitions, at 1000 (to +01:00) and at 2000 (to -00:30), standing at +00:10 before. */
static const char two_turns[] = {
    NO_V1,     'T',       'Z',    'i',        'f',    '2',    0,        0,      0,
    0,         0,         0,      0,          0,      0,      0,        0,      0,
    0,         0,         0,      BE4(0),     BE4(0), BE4(0), BE4(2),   BE4(3), BE4(1),
    BE4(0),    BE4(1000), BE4(0), BE4(2000),  1,      2,      BE4(600), 0,      0,
    BE4(3600), 1,         0,      BE4(-1800), 0,      0,      0,        '\n',   '\n',
};

START_TEST(transitions_are_found_by_time)
{
    static const int64_t at[][2] = { { 0, 600 },     { 999, 600 },    { 1000, 3600 },
                                     { 1999, 3600 }, { 2000, -1800 }, { 99999999, -1800 },
                                     { -5, 600 } };
    int offset;

    write_zone("Test", two_turns, sizeof(two_turns));
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        ck_ok(apm_zone_offset("Test", at[i][0] * US, &offset, err));
        ck_assert_int_eq(offset, at[i][1]);
    }
    ck_ok(apm_zone_offset("Test", 1000 * US - 1, &offset, err));
    ck_assert_int_eq(offset, 600);
    remove_zones();
}
END_TEST

/* A file without transitions and with this footer; the name must be new, because zones are kept. */
static void
ck_rule(const char *footer, int64_t t, int expected)
{
    static const char head[] = { NO_V1,  'T',    'Z',    'i',    'f', '2',    0,      0,
                                 0,      0,      0,      0,      0,   0,      0,      0,
                                 0,      0,      0,      0,      0,   BE4(0), BE4(0), BE4(0),
                                 BE4(0), BE4(1), BE4(1), BE4(0), 0,   0,      0,      '\n' };
    char file[300];
    int offset = 1;

    memcpy(file, head, sizeof(head));
    int n = snprintf(file + sizeof(head), sizeof(file) - sizeof(head), "%s\n", footer);
    write_zone("Rule", file, sizeof(head) + (size_t)n);
    pid_t pid = fork();
    if (pid == 0) {
        if (apm_zone_offset("Rule", t * US, &offset, err) != APIUM_OK)
            offset = 99999;
        if (offset != expected)
            fprintf(stderr, "%s at %lld: %d instead of %d (%s)\n", footer, (long long)t, offset,
                    expected, err->text);
        _exit(offset == expected ? 0 : 1);
    }
    ck_assert_int_gt(pid, 0);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(status == 0, "%s", footer);
}

START_TEST(rules_hold_behind_the_last_transition)
{
    ck_rule("UTC0", 0, 0);
    ck_rule("<+0545>-5:45", 0, 20700);
    ck_rule("EST5", 0, -18000);
    /* Paris 2030: summer from March 31st 01:00 UTC to October 27th 01:00 UTC. */
    ck_rule("CET-1CEST,M3.5.0,M10.5.0/3", 1901149199, 3600);
    ck_rule("CET-1CEST,M3.5.0,M10.5.0/3", 1901149200, 7200);
    ck_rule("CET-1CEST,M3.5.0,M10.5.0/3", 1919293199, 7200);
    ck_rule("CET-1CEST,M3.5.0,M10.5.0/3", 1919293200, 3600);
    /* Sydney 2030: summer until April 7th, again from October 6th, both 16:00 UTC of the day before. */
    ck_rule("AEST-10AEDT,M10.1.0,M4.1.0/3", 1893553445, 39600);
    ck_rule("AEST-10AEDT,M10.1.0,M4.1.0/3", 1901721599, 39600);
    ck_rule("AEST-10AEDT,M10.1.0,M4.1.0/3", 1901721600, 36000);
    ck_rule("AEST-10AEDT,M10.1.0,M4.1.0/3", 1917446400, 39600);
    /* Dublin: winter time is the exception, an hour less. */
    ck_rule("IST-1GMT0,M10.5.0,M3.5.0/1", 1893553445, 0);
    ck_rule("IST-1GMT0,M10.5.0,M3.5.0/1", 1909000000, 3600);
    /* By day of the year: J60 is March 1st in every year, day 59 is February 29th in a leap year. */
    ck_rule("XXX0YYY,J60/0,J300/0", 1709251200 - 1, 0);
    ck_rule("XXX0YYY,J60/0,J300/0", 1709251200, 3600);
    ck_rule("XXX0YYY,59/0,300/0", 1709164800 - 1, 0);
    ck_rule("XXX0YYY,59/0,300/0", 1709164800, 3600);
    /* Times of the turn may lie outside its day. */
    ck_rule("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 1901149200 - 1, -7200);
    ck_rule("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", 1901149200, -3600);
    remove_zones();
}
END_TEST

START_TEST(malformed_zone_files_are_refused)
{
    static const char *const footers[] = {
        "X",
        "CET",
        "CET-",
        "CET-1CEST",
        "CET-1CEST,",
        "CET-1CEST,M3.5.0",
        "<+01",
        "CET-1CEST,M13.5.0,M10.5.0",
        "CET-1CEST,M3.6.0,M10.5.0",
        "CET-1CEST,M3.5.7,M10.5.0",
        "CET-1CEST,M3.5.0,M10.5.0x",
        "CET-1CEST,J0,J1",
        "CET-1CEST,366,1",
        "CET-999",
    };

    for (size_t i = 0; i < sizeof(footers) / sizeof(footers[0]); i++)
        ck_rule(footers[i], 0, 99999);
    for (size_t len = 0; len < sizeof(two_turns) - 3; len++) {
        int offset;
        write_zone("Bad", two_turns, len);
        ck_fails(apm_zone_offset("Bad", 0, &offset, err), APIUM_E_CONFIG);
    }
    remove_zones();
}
END_TEST

START_TEST(the_systems_zones_are_read_where_there_are_any)
{
    int offset;

    unsetenv("TZDIR");
    if (access("/usr/share/zoneinfo/Europe/Paris", R_OK) != 0)
        return; /* tzdata is not installed; the tests above cover the reading */
    ck_ok(apm_zone_offset("Europe/Paris", 1893553445 * US, &offset, err));
    ck_assert_int_eq(offset, 3600);
    ck_ok(apm_zone_offset("Europe/Paris", 1909000000 * US, &offset, err));
    ck_assert_int_eq(offset, 7200);
    ck_ok(apm_zone_offset("Europe/Paris", 4118094000 * US, &offset,
                          err)); /* July 2100, by the rule */
    ck_assert_int_eq(offset, 7200);
    ck_ok(apm_zone_offset("Asia/Kathmandu", 0, &offset, err));
    ck_assert_int_eq(offset, 19800);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        the_clocks_move_on_and_a_test_may_move_them,
        dates_are_printed_as_isoformat_does,
        dates_are_read_as_fromisoformat_does,
        a_date_without_offset_is_in_the_given_zone,
        what_is_no_date_is_refused_by_name,
        what_is_printed_is_read_back,
        broken_dates_are_never_read_past_their_end,
        utc_needs_no_files,
        an_unknown_zone_is_named,
        transitions_are_found_by_time,
        rules_hold_behind_the_last_transition,
        malformed_zone_files_are_refused,
        the_systems_zones_are_read_where_there_are_any,
        NULL,
    };
    return suite_run("date", tests, 10);
}
