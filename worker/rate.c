/* rate.c - see rate.h */
#include "worker/rate.h"

#include <stdlib.h>

struct apm_rate {
    const apm_task_info *task;
    double per_second;
    int64_t next_us; /* when the next token is there */
    apm_rate *next;
};

int64_t
apm_rate_take(apm_rate **rates, const apm_task_info *task, const char *text, int64_t now_us)
{
    apm_rate *rate = *rates;
    while (rate && rate->task != task)
        rate = rate->next;
    if (!rate) {
        rate = calloc(1, sizeof(*rate));
        if (!rate)
            return now_us;
        rate->task = task;
        (void)apm_rate_parse(apm_strz(text), &rate->per_second, NULL);
        rate->next = *rates;
        *rates = rate;
    }
    if (rate->per_second <= 0)
        return now_us;
    int64_t at = rate->next_us > now_us ? rate->next_us : now_us;
    rate->next_us = at + (int64_t)(1e6 / rate->per_second);
    return at;
}

void
apm_rate_free(apm_rate *rates)
{
    while (rates) {
        apm_rate *next = rates->next;
        free(rates);
        rates = next;
    }
}
