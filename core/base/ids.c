/* ids.c - see ids.h */
#include "core/base/ids.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <uuid/uuid.h>

/*
 * Random bytes are fetched a page at a time, for each thread. A child of fork() holds a copy of its parent's
 * page and must never use it, or both would make up the same ids: `generation` tells it so.
 */
static _Thread_local struct {
    unsigned generation;
    unsigned used;
    unsigned char bytes[4096];
} pool;
static unsigned
    generation; /* 0 until the first use; written only there and by the one thread a fork leaves */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
forked(void)
{
    generation++;
}

static void
watch_forks(void)
{
    generation = 1;
    pthread_atfork(NULL, NULL, forked);
}

static void
refill(void)
{
    size_t have = 0;

    while (have < sizeof(pool.bytes)) {
        ssize_t n = getrandom(pool.bytes + have, sizeof(pool.bytes) - have, 0);
        if (n > 0)
            have += (size_t)n;
        else if (errno != EINTR)
            break;
    }
    /* Without getrandom (a strict sandbox) libuuid still knows other sources. */
    for (have &= ~(size_t)15; have < sizeof(pool.bytes); have += 16)
        uuid_generate_random(pool.bytes + have);
    pool.used = 0;
    pool.generation = generation;
}

static const unsigned char *
take(unsigned len)
{
    pthread_once(&once, watch_forks);
    if (pool.generation != generation || pool.used + len > sizeof(pool.bytes))
        refill();
    const unsigned char *p = pool.bytes + pool.used;
    pool.used += len;
    return p;
}

static void
print(unsigned char id[16], unsigned version, char out[APM_UUID_LEN + 1])
{
    static const char hex[] = "0123456789abcdef";

    id[6] = (unsigned char)((id[6] & 0x0f) | version << 4);
    id[8] = (unsigned char)((id[8] & 0x3f) | 0x80); /* the RFC's variant */
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *out++ = '-';
        *out++ = hex[id[i] >> 4];
        *out++ = hex[id[i] & 15];
    }
    *out = '\0';
}

void
apm_uuid4(char out[APM_UUID_LEN + 1])
{
    unsigned char id[16];

    memcpy(id, take(sizeof(id)), sizeof(id));
    print(id, 4, out);
}

void
apm_uuid7(int64_t wall_us, char out[APM_UUID_LEN + 1])
{
    unsigned char id[16];
    uint64_t ms = (uint64_t)(wall_us / 1000);

    memcpy(id, take(sizeof(id)), sizeof(id));
    for (int i = 0; i < 6; i++)
        id[i] = (unsigned char)(ms >> (40 - 8 * i));
    print(id, 7, out);
}

int64_t
apm_uuid7_time_us(const char *text, size_t len)
{
    int64_t ms = 0;

    if (len != APM_UUID_LEN || text[8] != '-' || text[13] != '-' || text[14] != '7' ||
        text[18] != '-')
        return 0;
    for (int i = 0; i < 13; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (i == 8)
            continue;
        if (digit < 0)
            return 0;
        ms = ms << 4 | digit;
    }
    return ms * 1000;
}

uint64_t
apm_random64(void)
{
    uint64_t v;

    memcpy(&v, take(sizeof(v)), sizeof(v));
    return v;
}

double
apm_random_unit(void)
{
    return (double)(apm_random64() >> 11) * 0x1p-53;
}
