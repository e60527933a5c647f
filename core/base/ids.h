/* ids.h - names that are made up: task ids, node ids, random numbers. */
#ifndef APM_BASE_IDS_H
#define APM_BASE_IDS_H

#include <stddef.h>
#include <stdint.h>

#define APM_UUID_LEN 36

/* A lower-case version 4 UUID with its NUL. Fork-safe; costs a system call once in hundreds of ids. */
void apm_uuid4(char out[APM_UUID_LEN + 1]);
/* The same of version 7, which begins with a time: wall_us in milliseconds. */
void apm_uuid7(int64_t wall_us, char out[APM_UUID_LEN + 1]);
/* The time in one of version 7, in microseconds since 1970 UTC; 0 when the text is none. */
int64_t apm_uuid7_time_us(const char *text, size_t len);
uint64_t apm_random64(void);
/* Evenly distributed in 0..1. */
double apm_random_unit(void);

#endif
