/*
 * zone.c - the offset of a time zone at a moment; see clock.h.
 *
 * The system's own files are read (TZif, RFC 8536): libc knows only one zone at a time, the process's, and
 * changing that one under other threads would be worse. A zone is read once and kept for good.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/date.h"
#include "core/base/error.h"

#define MAX_FILE    ((size_t)1 << 20)
#define MAX_OFFSET  (26 * 3600)
#define DAY_SECONDS 86400

/* When in the year summer time begins or ends. */
typedef struct turn {
    char kind; /* 'M' m.w.d, 'J' day 1..365 without February 29th, '0' day 0..365 */
    int month, week, day;
    int time_s; /* local time, by the clock before the turn */
} turn;

/* What holds behind the last transition: the footer of the file, "CET-1CEST,M3.5.0,M10.5.0/3". */
typedef struct rule {
    bool is, summer;
    int offset, summer_offset;
    turn begin, end;
} rule;

typedef struct zone zone;
struct zone {
    zone *next;
    size_t n;
    int64_t *at; /* ascending, in seconds since 1970 UTC */
    int *offset; /* from then on */
    int before;  /* the offset before the first */
    rule rule;
    char name[];
};

static zone *zones;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool
take_int(const char **at, int most, int *out)
{
    int v = 0;

    if (**at < '0' || **at > '9')
        return false;
    for (; **at >= '0' && **at <= '9'; ++*at)
        if ((v = v * 10 + (**at - '0')) > most)
            return false;
    *out = v;
    return true;
}

/* "CET", "<+03>" */
static bool
take_name(const char **at)
{
    const char *start = *at;

    if (**at == '<') {
        *at = strchr(start, '>');
        return *at && ++*at;
    }
    while ((**at >= 'a' && **at <= 'z') || (**at >= 'A' && **at <= 'Z'))
        ++*at;
    return *at - start >= 3;
}

/* [+-]hh[:mm[:ss]] */
static bool
take_hms(const char **at, int *seconds)
{
    int h, m = 0, s = 0;
    bool minus = **at == '-';

    if (**at == '-' || **at == '+')
        ++*at;
    if (!take_int(at, 167, &h))
        return false;
    if (**at == ':' && (++*at, !take_int(at, 59, &m)))
        return false;
    if (**at == ':' && (++*at, !take_int(at, 59, &s)))
        return false;
    *seconds = (minus ? -1 : 1) * (h * 3600 + m * 60 + s);
    return true;
}

static bool
take_turn(const char **at, turn *out)
{
    *out = (turn){ .kind = '0', .time_s = 2 * 3600 };
    if (*(*at)++ != ',')
        return false;
    if (**at == 'M') {
        out->kind = *(*at)++;
        if (!take_int(at, 12, &out->month) || out->month < 1 || *(*at)++ != '.' ||
            !take_int(at, 5, &out->week) || out->week < 1 || *(*at)++ != '.' ||
            !take_int(at, 6, &out->day))
            return false;
    } else {
        if (**at == 'J')
            out->kind = *(*at)++;
        if (!take_int(at, 365, &out->day) || (out->kind == 'J' && out->day < 1))
            return false;
    }
    return **at != '/' || (++*at, take_hms(at, &out->time_s));
}

static bool
parse_rule(const char *at, rule *out)
{
    rule r = { .is = true };

    if (!take_name(&at) || !take_hms(&at, &r.offset))
        return false;
    r.offset = -r.offset; /* POSIX counts westwards */
    if (*at) {
        r.summer = true;
        r.summer_offset = r.offset + 3600;
        if (!take_name(&at))
            return false;
        if (*at != ',') {
            if (!take_hms(&at, &r.summer_offset))
                return false;
            r.summer_offset = -r.summer_offset;
        }
        if (!take_turn(&at, &r.begin) || !take_turn(&at, &r.end) || *at)
            return false;
    }
    *out = r;
    return true;
}

/* The turn in a given year, in seconds since 1970 on a clock that shows `offset`. */
static int64_t
turn_at(const turn *t, int64_t year, int offset)
{
    int64_t days = apm_date_days(year, 1, 1);

    if (t->kind == 'M') {
        int64_t first = apm_date_days(year, t->month, 1);
        int64_t next =
            t->month == 12 ? apm_date_days(year + 1, 1, 1) : apm_date_days(year, t->month + 1, 1);
        days = first + (t->day - apm_date_weekday(first) + 7) % 7 + (t->week - 1) * 7;
        if (days >= next) /* the fifth is the last */
            days -= 7;
    } else if (t->kind == 'J') {
        bool leap = apm_date_days(year + 1, 1, 1) - days == 366;
        days += t->day - 1 + (leap && t->day >= 60);
    } else {
        days += t->day;
    }
    return days * DAY_SECONDS + t->time_s - offset;
}

static int
rule_offset(const rule *r, int64_t t)
{
    int64_t year;
    int month, day;

    if (!r->summer)
        return r->offset;
    int64_t local = t + r->offset;
    apm_date_civil(local / DAY_SECONDS - (local % DAY_SECONDS < 0), &year, &month, &day);
    int64_t begin = turn_at(&r->begin, year, r->offset),
            end = turn_at(&r->end, year, r->summer_offset);
    /* In the south, summer spans the new year. */
    bool summer = begin < end ? t >= begin && t < end : t >= begin || t < end;
    return summer ? r->summer_offset : r->offset;
}

static int64_t
big_endian(const char *p, int size)
{
    uint64_t v = 0;

    for (int i = 0; i < size; i++)
        v = v << 8 | (unsigned char)p[i];
    return size == 4 ? (int32_t)(uint32_t)v : (int64_t)v;
}

/* A header and the sizes of the block that follows it. */
typedef struct block {
    size_t times, types, size;
    const char *data;
} block;

static bool
read_block(const char **at, const char *end, int time_size, block *out)
{
    size_t n[6], size;

    if (end - *at < 44 || memcmp(*at, "TZif", 4) != 0)
        return false;
    for (int i = 0; i < 6; i++)
        if ((n[i] = (size_t)(uint32_t)big_endian(*at + 20 + 4 * i, 4)) > MAX_FILE)
            return false;
    /* In the file's order: indicators of UT, of standard time, leap seconds, times, types, characters. */
    size = n[3] * (size_t)time_size + n[3] + n[4] * 6 + n[5] + n[2] * (size_t)(time_size + 4) +
           n[1] + n[0];
    *at += 44;
    if ((size_t)(end - *at) < size || n[4] == 0)
        return false;
    *out = (block){ .times = n[3], .types = n[4], .size = size, .data = *at };
    *at += size;
    return true;
}

static bool
fill(zone *z, const char *at, const char *end)
{
    int time_size = 4;
    block b;

    bool version2 = end - at > 4 && at[4] >= '2';
    if (!read_block(&at, end, 4, &b))
        return false;
    if (version2) {
        time_size = 8;
        if (!read_block(&at, end, 8, &b))
            return false;
        /* The footer is a line of its own; an empty one says nothing. */
        const char *newline =
            end - at > 1 && *at == '\n' ? memchr(at + 1, '\n', (size_t)(end - at - 1)) : NULL;
        char text[128];
        if (newline && newline > at + 1 && newline - at <= (ptrdiff_t)sizeof(text)) {
            memcpy(text, at + 1, (size_t)(newline - at - 1));
            text[newline - at - 1] = '\0';
            if (!parse_rule(text, &z->rule))
                return false;
        }
    }
    const char *index = b.data + b.times * (size_t)time_size, *types = index + b.times;
    for (size_t i = 0; i < b.types; i++) {
        int64_t offset = big_endian(types + 6 * i, 4);
        if (offset > MAX_OFFSET || offset < -MAX_OFFSET)
            return false;
    }
    z->before = (int)big_endian(types, 4);
    if (b.times == 0)
        return true;
    z->at = calloc(b.times, sizeof(*z->at));
    z->offset = calloc(b.times, sizeof(*z->offset));
    if (!z->at || !z->offset)
        return false;
    for (z->n = 0; z->n < b.times; z->n++) {
        unsigned char type = (unsigned char)index[z->n];
        if (type >= b.types)
            return false;
        z->at[z->n] = big_endian(b.data + z->n * (size_t)time_size, time_size);
        z->offset[z->n] = (int)big_endian(types + 6 * type, 4);
    }
    return true;
}

static void
zone_free(zone *z)
{
    if (z) {
        free(z->at);
        free(z->offset);
        free(z);
    }
}

/* A name that leads to a file below the directory and nowhere else. */
static bool
is_zone_name(const char *name)
{
    size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/");

    return len > 0 && len < 100 && name[len] == '\0' && name[0] != '/';
}

static apium_status
read_zone(const char *name, apm_buf *file, apium_error *err)
{
    const char *dir = getenv("TZDIR"); /* where libc looks, too */
    char path[512];

    if (!dir || !*dir)
        dir = "/usr/share/zoneinfo";
    if (!is_zone_name(name) ||
        (size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) >= sizeof(path))
        return apm_fail(err, APIUM_E_CONFIG, "unknown time zone \"%.100s\"", name);
    FILE *f = fopen(path, "rbe");
    if (!f)
        return apm_fail(err, APIUM_E_CONFIG, "unknown time zone \"%s\": %s: %s", name, path,
                        strerror(errno));
    while (!file->failed && !feof(f) && !ferror(f)) {
        char *room = apm_buf_reserve(file, 8192);
        if (room)
            file->len += fread(room, 1, 8192, f);
    }
    bool ok = !file->failed && !ferror(f); /* a directory opens, but does not read */
    fclose(f);
    return ok ? APIUM_OK
              : apm_fail(err, APIUM_E_CONFIG, "unknown time zone \"%s\": cannot read %s", name,
                         path);
}

static apium_status
zone_load(const char *name, zone **out, apium_error *err)
{
    apm_buf file;
    size_t len = strlen(name) + 1;
    zone *z = NULL;

    apm_buf_init(&file, MAX_FILE);
    apium_status st = read_zone(name, &file, err);
    if (st != APIUM_OK)
        goto out;
    if (!(z = calloc(1, sizeof(*z) + len))) {
        st = apm_fail(err, APIUM_E_NOMEM, "cannot load time zone \"%s\": out of memory", name);
        goto out;
    }
    memcpy(z->name, name, len);
    if (!fill(z, file.p, file.p + file.len)) {
        st = apm_fail(err, APIUM_E_CONFIG, "unknown time zone \"%s\": its file is malformed", name);
        goto out;
    }
    *out = z;
    z = NULL;
out:
    zone_free(z);
    apm_buf_clear(&file);
    return st;
}

static int
zone_offset(const zone *z, int64_t t)
{
    size_t low = 0, high = z->n; /* the first transition behind t lies in low..high */

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (z->at[mid] <= t)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == z->n && z->rule.is)
        return rule_offset(&z->rule, t);
    return low == 0 ? z->before : z->offset[low - 1];
}

apium_status
apm_zone_offset(const char *name, int64_t wall_us, int *offset_s, apium_error *err)
{
    apium_status st = APIUM_OK;
    zone *z;

    if (!name || strcmp(name, "UTC") == 0) {
        *offset_s = 0;
        return APIUM_OK;
    }
    pthread_mutex_lock(&lock);
    for (z = zones; z && strcmp(z->name, name) != 0; z = z->next)
        ;
    if (!z && (st = zone_load(name, &z, err)) == APIUM_OK) {
        z->next = zones;
        zones = z;
    }
    pthread_mutex_unlock(&lock);
    if (st == APIUM_OK) /* what is in the list stays as it is */
        *offset_s = zone_offset(z, wall_us / 1000000 - (wall_us % 1000000 < 0));
    return st;
}
