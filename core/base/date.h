/* date.h - the calendar that date.c and zone.c share: days since 1970-01-01 and what they are called. */
#ifndef APM_BASE_DATE_H
#define APM_BASE_DATE_H

#include <stdint.h>

int64_t apm_date_days(int64_t year, int month, int day);
void apm_date_civil(int64_t days, int64_t *year, int *month, int *day);
/* 0 is Sunday. */
int apm_date_weekday(int64_t days);

#endif
