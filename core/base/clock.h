/*
 * clock.h - time. Durations and deadlines are int64 milliseconds (or nanoseconds where the name says ns) on
 * the monotonic clock; eta, expires and dates alone are wall time, in microseconds since 1970 UTC.
 * apm_clock_fake() lets a test move both.
 */
#ifndef APM_BASE_CLOCK_H
#define APM_BASE_CLOCK_H

#include <apium/status.h>

#include "core/base/str.h"

int64_t apm_clock_ns(void);      /* monotonic */
int64_t apm_clock_ms(void);      /* monotonic */
int64_t apm_clock_wall_us(void); /* since 1970 UTC */
/* Test only: add to both clocks. */
void apm_clock_fake(int64_t add_ms);

#define APM_DATE_MAX 40 /* bytes for any printed date, with its NUL */

/* "2026-11-22T07:18:45.184896+00:00": six digits of fraction or none, as Python's isoformat(); `offset_s` is
 * the zone's offset from UTC in seconds. Years 1 to 9999. */
void apm_date_print(int64_t wall_us, int offset_s, char out[APM_DATE_MAX]);
/* Read an ISO-8601 date as Celery 5.6 does (the table in docs/protocol.md "Dates"): with or without T, fraction
 * of any length cut to microseconds, Z, +HH:MM, +HHMM, +HH; without an offset it is in the zone of
 * `naive_offset_s`. E_DECODE names the text. */
apium_status apm_date_parse(apm_str text, int naive_offset_s, int64_t *wall_us, apium_error *err);
/* Offset from UTC in seconds that the IANA zone `name` (NULL or "UTC": 0) has at that time. E_CONFIG for an
 * unknown zone. */
apium_status apm_zone_offset(const char *name, int64_t wall_us, int *offset_s, apium_error *err);

#endif
