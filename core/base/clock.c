/* clock.c - see clock.h */
#include "core/base/clock.h"

#include <stdatomic.h>
#include <time.h>

static _Atomic int64_t fake_ms;

static int64_t
read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec +
           atomic_load_explicit(&fake_ms, memory_order_relaxed) * 1000000;
}

int64_t
apm_clock_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t
apm_clock_ms(void)
{
    return read_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t
apm_clock_wall_us(void)
{
    return read_ns(CLOCK_REALTIME) / 1000;
}

void
apm_clock_fake(int64_t add_ms)
{
    atomic_fetch_add_explicit(&fake_ms, add_ms, memory_order_relaxed);
}
