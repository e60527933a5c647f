/* ids.h - names that are made up: task ids, node ids, random numbers. */
#ifndef APM_BASE_IDS_H
#define APM_BASE_IDS_H

#include <stdint.h>

#define APM_UUID_LEN 36

/* A lower-case version 4 UUID with its NUL. Fork-safe; costs a system call once in hundreds of ids. */
void apm_uuid4(char out[APM_UUID_LEN + 1]);
uint64_t apm_random64(void);
/* Evenly distributed in 0..1. */
double apm_random_unit(void);

#endif
