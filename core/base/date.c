/* date.c - dates as ISO-8601 text; see clock.h. Zones are zone.c's business. */
#include <stdio.h>

#include "core/base/clock.h"
#include "core/base/date.h"
#include "core/base/error.h"

#define US          ((int64_t)1000000)
#define DAY_SECONDS 86400

/* Days are counted in years that begin in March: the day that comes and goes is then the last. */
int64_t
apm_date_days(int64_t year, int month, int day)
{
    int64_t y = month > 2 ? year : year - 1;
    int64_t era = (y >= 0 ? y : y - 399) / 400, in_era = y - era * 400;
    int64_t in_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;

    return era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

void
apm_date_civil(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, in_era = days - era * 146097;
    int64_t y = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    int64_t in_year = in_era - (365 * y + y / 4 - y / 100);
    int64_t m = (5 * in_year + 2) / 153;

    *day = (int)(in_year - (153 * m + 2) / 5 + 1);
    *month = (int)(m < 10 ? m + 3 : m - 9);
    *year = y + era * 400 + (m >= 10);
}

int
apm_date_weekday(int64_t days)
{
    return (int)(((days + 4) % 7 + 7) % 7); /* 1970 began on a Thursday */
}

static int64_t
floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static int64_t
between(int64_t low, int64_t v, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* So many digits and what follows them; where to go on. Every result document has a date: printf costs more than all
 * the rest of it. */
static char *
put(char *at, int n, int width, char then)
{
    for (int i = width; i-- > 0; n /= 10)
        at[i] = (char)('0' + n % 10);
    at[width] = then;
    return at + width + 1;
}

void
apm_date_print(int64_t wall_us, int offset_s, char out[APM_DATE_MAX])
{
    const int64_t first = apm_date_days(1, 1, 1) * DAY_SECONDS * US;
    const int64_t last = apm_date_days(10000, 1, 1) * DAY_SECONDS * US - 1;
    int64_t year;
    int month, day;

    offset_s %= DAY_SECONDS;
    /* Twice, so that the sum cannot overflow. */
    int64_t local =
        between(first - DAY_SECONDS * US, wall_us, last + DAY_SECONDS * US) + offset_s * US;
    local = between(first, local, last);
    int64_t days = floor_div(local, DAY_SECONDS * US), in_day = local - days * DAY_SECONDS * US;
    int s = (int)(in_day / US), us = (int)(in_day % US), off = offset_s < 0 ? -offset_s : offset_s;
    apm_date_civil(days, &year, &month, &day);

    char *at = put(put(put(out, (int)year, 4, '-'), month, 2, '-'), day, 2, 'T');
    at = put(put(put(at, s / 3600, 2, ':'), s / 60 % 60, 2, ':'), s % 60, 2, us ? '.' : '\0');
    at = us ? put(at, us, 6, '\0') : at;
    at[-1] = offset_s < 0 ? '-' : '+';
    at = put(put(at, off / 3600, 2, ':'), off / 60 % 60, 2, off % 60 ? ':' : '\0');
    if (off % 60)
        put(at, off % 60, 2, '\0');
}

typedef struct reader {
    const char *at, *end;
} reader;

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
take(reader *rd, char c)
{
    if (rd->at == rd->end || *rd->at != c)
        return false;
    rd->at++;
    return true;
}

/* A number of exactly `width` digits between low and high. */
static bool
take_number(reader *rd, int width, int low, int high, int *out)
{
    int v = 0;

    if (rd->end - rd->at < width)
        return false;
    for (; width > 0; width--, rd->at++) {
        if (!is_digit(*rd->at))
            return false;
        v = v * 10 + (*rd->at - '0');
    }
    *out = v;
    return v >= low && v <= high;
}

static bool
is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int
month_days(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* The Monday of a year's first week, which is the week with January 4th in it. */
static int64_t
first_monday(int year)
{
    int64_t fourth = apm_date_days(year, 1, 4);

    return fourth - (apm_date_weekday(fourth) + 6) % 7;
}

/* 2030-01-02, 20300102, 2030-W01-3, 2030W013, 2030-W01: in days since 1970. */
static bool
take_day(reader *rd, int64_t *days)
{
    int year, month, day, week;

    if (!take_number(rd, 4, 1, 9999, &year))
        return false;
    bool dashes = take(rd, '-');
    if (take(rd, 'W')) {
        day = 1;
        if (!take_number(rd, 2, 1, 53, &week))
            return false;
        if (dashes ? take(rd, '-') : rd->at < rd->end && is_digit(*rd->at))
            if (!take_number(rd, 1, 1, 7, &day))
                return false;
        *days = first_monday(year) + (week - 1) * 7 + day - 1;
        return *days < first_monday(year + 1) && *days < apm_date_days(10000, 1, 1);
    }
    if (!take_number(rd, 2, 1, 12, &month) || (dashes && !take(rd, '-')) ||
        !take_number(rd, 2, 1, month_days(year, month), &day))
        return false;
    *days = apm_date_days(year, month, day);
    return true;
}

/* HH, HH:MM, HHMM, HH:MM:SS[.f], HHMMSS[.f]: in microseconds. */
static bool
take_time(reader *rd, int64_t *us)
{
    int h, m = 0, s = 0, fraction = 0, scale = 100000;

    if (!take_number(rd, 2, 0, 23, &h))
        return false;
    bool colons = take(rd, ':');
    if (colons || (rd->at < rd->end && is_digit(*rd->at))) {
        if (!take_number(rd, 2, 0, 59, &m))
            return false;
        if (colons ? take(rd, ':') : rd->at < rd->end && is_digit(*rd->at)) {
            if (!take_number(rd, 2, 0, 59, &s))
                return false;
            if (take(rd, '.') || take(rd, ',')) {
                if (rd->at == rd->end || !is_digit(*rd->at))
                    return false;
                for (; rd->at < rd->end && is_digit(*rd->at); rd->at++, scale /= 10)
                    fraction += (*rd->at - '0') * scale;
            }
        }
    }
    *us = ((int64_t)h * 3600 + m * 60 + s) * US + fraction;
    return true;
}

apium_status
apm_date_parse(apm_str text, int naive_offset_s, int64_t *wall_us, apium_error *err)
{
    reader rd = { text.p, text.p + text.len };
    int64_t days, time = 0, offset = naive_offset_s * US;

    if (!take_day(&rd, &days))
        goto bad;
    if (rd.at < rd.end) {
        if (!take(&rd, 'T') && !take(&rd, ' ') && !take(&rd, 't'))
            goto bad;
        if (!take_time(&rd, &time))
            goto bad;
        bool gap = take(&rd, ' '), minus = rd.at < rd.end && *rd.at == '-';
        if (take(&rd, 'Z') || take(&rd, 'z'))
            offset = 0;
        else if (take(&rd, '+') || take(&rd, '-')) {
            if (!take_time(&rd, &offset))
                goto bad;
            if (minus)
                offset = -offset;
        } else if (gap)
            goto bad;
        if (rd.at < rd.end)
            goto bad;
    }
    *wall_us = days * DAY_SECONDS * US + time - offset;
    return APIUM_OK;
bad:
    return apm_fail(err, APIUM_E_DECODE, "cannot read the date \"%.*s\"%s",
                    text.len > 60 ? 60 : (int)text.len, text.p ? text.p : "",
                    text.len > 60 ? "..." : "");
}
