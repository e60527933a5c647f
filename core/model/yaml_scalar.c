/* yaml_scalar.c - numbers, words and strings told apart. */
#include "core/model/yaml_scalar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static bool
one_of(apm_str s, const char *words)
{
    for (const char *at = words; *at;) {
        size_t len = strcspn(at, "|");
        if (s.len == len && memcmp(s.p, at, len) == 0)
            return true;
        at += len + (at[len] == '|');
    }
    return false;
}

static size_t
span(const char *at, const char *end, const char *set)
{
    size_t n = 0;

    while (at + n < end && at[n] && strchr(set, at[n]))
        n++;
    return n;
}

/* [1-9][0-9_]*(:[0-5]?[0-9])+ and, with a fraction, its float: numbers to the base of 60. */
static bool
sexagesimal(const char *at, const char *end, bool negative, apm_yaml_plain *out)
{
    double value = 0;
    bool fraction = false, zero_first = at < end && *at == '0';
    int parts = 0;

    while (at < end) {
        size_t n = span(at, end, parts ? "0123456789" : "0123456789_");
        int part = 0;
        if (n == 0 || n > 9 || (parts && (n > 2 || (n == 2 && *at > '5'))))
            return false;
        for (; n; n--, at++)
            if (*at != '_')
                part = part * 10 + (*at - '0');
        value = value * 60 + part;
        parts++;
        if (at < end && *at == '.') {
            double scale = 0.1;
            fraction = true;
            for (at++; at < end && strchr("0123456789_", *at); at++)
                if (*at != '_') {
                    value += (*at - '0') * scale;
                    scale /= 10;
                }
            if (at < end)
                return false;
        } else if (at < end && *at++ != ':') {
            return false;
        }
    }
    if (parts < 2 || value > 9e15 || (zero_first && !fraction))
        return false;
    out->type = fraction ? APM_JSON_FLOAT : APM_JSON_INT;
    if (fraction)
        snprintf(out->text, sizeof out->text, "%s%.17g", negative ? "-" : "", value);
    else
        snprintf(out->text, sizeof out->text, "%s%.0f", negative ? "-" : "", value);
    return true;
}

/* Digits to a base, with underscores. False when they are not, or too many for 64 bits. */
static bool
based(const char *at, const char *end, const char *digits, int base, bool negative,
      apm_yaml_plain *out)
{
    char clean[72], *stop;
    size_t n = 0;

    if (at == end || span(at, end, digits) != (size_t)(end - at))
        return false;
    for (; at < end; at++)
        if (*at != '_') {
            if (n + 1 == sizeof clean)
                return false;
            clean[n++] = *at;
        }
    clean[n] = '\0';
    errno = 0;
    uint64_t value = strtoull(clean, &stop, base);
    if (n == 0 || *stop || errno)
        return false;
    out->type = APM_JSON_INT;
    snprintf(out->text, sizeof out->text, "%s%" PRIu64, negative ? "-" : "", value);
    return true;
}

static bool
integer(const char *at, const char *end, bool negative, apm_yaml_plain *out)
{
    if (end - at > 2 && at[0] == '0' && at[1] == 'b')
        return based(at + 2, end, "01_", 2, negative, out);
    if (end - at > 2 && at[0] == '0' && at[1] == 'x')
        return based(at + 2, end, "0123456789abcdefABCDEF_", 16, negative, out);
    if (end - at > 1 && at[0] == '0')
        return based(at + 1, end, "01234567_", 8, negative, out);
    if (at == end || *at == '_' || span(at, end, "0123456789_") != (size_t)(end - at))
        return false;
    out->type = APM_JSON_INT;
    out->digits = (apm_str){ at, (size_t)(end - at) };
    out->negative = negative;
    return true;
}

/* [0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)? or, without a sign, the same beginning with the dot. */
static bool
floating(const char *at, const char *end, bool negative, bool sign, apm_yaml_plain *out)
{
    char clean[400];
    size_t n = 0, whole = span(at, end, "0123456789_");
    double value;

    if ((whole && *at == '_') || at + whole == end || at[whole] != '.' || (!whole && sign))
        return false;
    const char *rest = at + whole + 1;
    size_t fraction = span(rest, end, "0123456789_");
    if (!whole && (!fraction || *rest == '_'))
        return false;
    rest += fraction;
    if (rest < end) {
        if ((*rest != 'e' && *rest != 'E') || end - rest < 3 ||
            (rest[1] != '-' && rest[1] != '+') ||
            span(rest + 2, end, "0123456789") != (size_t)(end - rest - 2))
            return false;
    }
    for (; at < end; at++)
        if (*at != '_') {
            if (n + 1 == sizeof clean)
                return false;
            clean[n++] = *at;
        }
    clean[n] = '\0';
    value = strtod(clean, NULL);
    out->type = APM_JSON_FLOAT;
    apm_buf buf;
    apm_buf_init(&buf, sizeof out->text);
    apm_json_add_double(&buf, negative ? -value : value);
    memcpy(out->text, apm_buf_str(&buf).p, buf.len);
    out->text[buf.len] = '\0';
    apm_buf_clear(&buf);
    return true;
}

/* From min to max digits as a number; -1 when they are not there. Moves *at. */
static int
take_digits(const char **at, const char *end, int min, int max)
{
    int n = 0, value = 0;

    for (; n < max && *at < end && **at >= '0' && **at <= '9'; n++)
        value = value * 10 + (*(*at)++ - '0');
    return n < min ? -1 : value;
}

static bool
take_char(const char **at, const char *end, char c)
{
    if (*at == end || **at != c)
        return false;
    ++*at;
    return true;
}

static bool
valid_day(int year, int month, int day)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);

    return year >= 1 && month >= 1 && month <= 12 && day >= 1 &&
           day <= days[month - 1] + (leap && month == 2);
}

/* The rest of a date: "Z", "+2", "-03:30", "+0530", perhaps behind space. Its offset in minutes. */
static bool
take_zone(const char **at, const char *end, int *minutes)
{
    int sign, hours, rest = 0;

    *minutes = 0;
    *at += span(*at, end, " \t");
    if (take_char(at, end, 'Z'))
        return true;
    sign = take_char(at, end, '-') ? -1 : 1;
    if (sign > 0 && !take_char(at, end, '+'))
        return false;
    if ((hours = take_digits(at, end, 1, 2)) < 0)
        return false;
    if (*at < end) {
        (void)take_char(at, end, ':');
        if ((rest = take_digits(at, end, 2, 2)) < 0)
            return false;
    }
    *minutes = sign * (hours * 60 + rest);
    return hours < 24 && rest < 60;
}

/* 2020-01-02, and 2020-1-2 3:04:05.5 +2 or with a T: as Python's isoformat() has them. */
static bool
timestamp(const char *at, const char *end, apm_yaml_plain *out)
{
    const char *start = at;
    int year, month, day, hour, minute, second, us = 0, zone;
    char date[48];

    if ((year = take_digits(&at, end, 4, 4)) < 0 || !take_char(&at, end, '-') ||
        (month = take_digits(&at, end, 1, 2)) < 0 || !take_char(&at, end, '-') ||
        (day = take_digits(&at, end, 1, 2)) < 0 || !valid_day(year, month, day))
        return false;
    if (at == end) {
        if (end - start != 10)
            return false;
        snprintf(out->text, sizeof out->text, "{\"__type__\": \"date\", \"__value__\": \"%.10s\"}",
                 start);
        out->type = APM_JSON_OBJECT;
        return true;
    }
    if (*at == 'T' || *at == 't')
        at++;
    else if (*at == ' ' || *at == '\t')
        at += span(at, end, " \t");
    else
        return false;
    if ((hour = take_digits(&at, end, 1, 2)) < 0 || !take_char(&at, end, ':') ||
        (minute = take_digits(&at, end, 2, 2)) < 0 || !take_char(&at, end, ':') ||
        (second = take_digits(&at, end, 2, 2)) < 0 || hour > 23 || minute > 59 || second > 59)
        return false;
    if (take_char(&at, end, '.'))
        for (int scale = 100000; at < end && *at >= '0' && *at <= '9'; at++, scale /= 10)
            us += (*at - '0') * scale;
    int len = snprintf(date, sizeof date, "%04d-%02d-%02dT%02d:%02d:%02d", year, month, day, hour,
                       minute, second);
    if (us)
        len += snprintf(date + len, sizeof date - (size_t)len, ".%06d", us);
    if (at < end) {
        if (!take_zone(&at, end, &zone) || at != end)
            return false;
        snprintf(date + len, sizeof date - (size_t)len, "%c%02d:%02d", zone < 0 ? '-' : '+',
                 abs(zone) / 60, abs(zone) % 60);
    }
    snprintf(out->text, sizeof out->text, "{\"__type__\": \"datetime\", \"__value__\": \"%s\"}",
             date);
    out->type = APM_JSON_OBJECT;
    return true;
}

apm_yaml_plain
apm_yaml_resolve(apm_str s)
{
    apm_yaml_plain out = { .type = APM_JSON_STRING };
    const char *at = s.p, *end = s.p + s.len;
    bool sign = s.len && (*at == '-' || *at == '+'), negative = s.len && *at == '-';

    if (s.len == 0 || one_of(s, "~|null|Null|NULL")) {
        out.type = APM_JSON_NULL;
        strcpy(out.text, "null");
    } else if (one_of(s, "yes|Yes|YES|true|True|TRUE|on|On|ON")) {
        out.type = APM_JSON_BOOL;
        strcpy(out.text, "true");
    } else if (one_of(s, "no|No|NO|false|False|FALSE|off|Off|OFF")) {
        out.type = APM_JSON_BOOL;
        strcpy(out.text, "false");
    } else if (one_of(s, ".nan|.NaN|.NAN")) {
        out.type = APM_JSON_FLOAT;
        strcpy(out.text, "NaN");
    } else if (one_of((apm_str){ at + sign, s.len - sign }, ".inf|.Inf|.INF")) {
        out.type = APM_JSON_FLOAT;
        strcpy(out.text, negative ? "-Infinity" : "Infinity");
    } else if (strchr("-+.0123456789", *at)) {
        if (timestamp(at, end, &out))
            return out;
        at += sign;
        (void)(integer(at, end, negative, &out) || floating(at, end, negative, sign, &out) ||
               (at < end && *at != '_' && sexagesimal(at, end, negative, &out)));
    }
    return out;
}
