/* rate.c - see rate.h */
#include "worker/rate.h"

#include <math.h>
#include <stdlib.h>

#include "core/base/error.h"

struct apm_rate {
    const apm_task_info *task;
    double per_second;
    int64_t next_us; /* when the next token is there */
    apm_rate *next;
};

apium_status
apm_rate_parse(const char *text, double *per_second, apium_error *err)
{
    *per_second = 0;
    if (!text || !*text)
        return APIUM_OK;
    char *end;
    double n = strtod(text, &end);
    double seconds = 1;
    if (end[0] == '/' && end[1] && !end[2]) {
        seconds = end[1] == 's' ? 1 : end[1] == 'm' ? 60 : end[1] == 'h' ? 3600 : 0;
        end += 2;
    }
    if (end == text || *end || !isfinite(n) || n < 0 || seconds == 0)
        return apm_fail(
            err, APIUM_E_CONFIG,
            "cannot use the rate limit \"%s\": expected a number, or one with /s, /m or /h", text);
    *per_second = n / seconds;
    return APIUM_OK;
}

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
        (void)apm_rate_parse(text, &rate->per_second, NULL);
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
