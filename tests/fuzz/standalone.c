/*
 * standalone.c - drives a fuzz target without libFuzzer:
 *     fuzz_json ROUNDS [SEED]    random changes to the target's seeds
 *     fuzz_json FILE...          exactly these inputs, to look into a finding
 * An input that makes the target crash is left in ./fuzz-input.
 */
#include <signal.h>
#include <string.h>
#include <time.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX 4096

static uint64_t state;

static size_t
below(size_t n)
{
    /* xorshift64*: the same seed finds the same input again, on every machine. */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (size_t)(state * UINT64_C(2685821657736338717) >> 33) % n;
}

static const char *
pick_seed(void)
{
    size_t n = 0;

    while (fuzz_seeds[n])
        n++;
    return fuzz_seeds[below(n)];
}

/* Overwrite, insert, delete, double, or splice with another seed. */
static size_t
change(uint8_t *text, size_t len)
{
    size_t at = below(len + 1), n = below(8) + 1;
    const char *other = pick_seed();

    switch (below(6)) {
    case 0:
        if (at < len)
            text[at] = (uint8_t)below(256);
        return len;
    case 1: /* a byte that occurs in well-formed text is likelier to mean something */
        if (at < len)
            text[at] = (uint8_t)other[below(strlen(other))];
        return len;
    case 2:
        if (len == INPUT_MAX)
            return len;
        memmove(text + at + 1, text + at, len - at);
        text[at] = (uint8_t)other[below(strlen(other))];
        return len + 1;
    case 3:
        n = n > len - at ? len - at : n;
        memmove(text + at, text + at + n, len - at - n);
        return len - n;
    case 4:
        n = below(len - at + 1);
        if (n > INPUT_MAX - len)
            return len;
        memmove(text + at + n, text + at, len - at);
        return len + n;
    default:
        n = below(strlen(other) + 1);
        if (n > INPUT_MAX - at)
            return len;
        memcpy(text + at, other, n);
        return at + n > len ? at + n : len;
    }
}

static void
run(const uint8_t *text, size_t len)
{
    /* Its own block of exactly this size, so that a sanitizer sees a byte too far. */
    uint8_t *copy = malloc(len);

    if (len > 0)
        memcpy(copy, text, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static int
run_file(const char *path)
{
    static uint8_t text[1 << 20];
    FILE *f = fopen(path, "rb");

    if (!f) {
        perror(path);
        return 1;
    }
    run(text, fread(text, 1, sizeof(text), f));
    fclose(f);
    return 0;
}

/* The input being tried, for crashed(). */
static uint8_t current[INPUT_MAX];
static size_t current_len;

static void
crashed(int sig)
{
    FILE *f =
        fopen("fuzz-input", "wb"); /* not for signal handlers, but there is nothing left to lose */

    if (f) {
        fwrite(current, 1, current_len, f);
        fclose(f);
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

int
main(int argc, char **argv)
{
    char *end = NULL;
    long rounds = argc > 1 ? strtol(argv[1], &end, 10) : 100000;

    if (end && *end) {
        int status = 0;
        for (int i = 1; i < argc; i++)
            status |= run_file(argv[i]);
        return status;
    }
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)state);
    fflush(stdout);
    state = (state + 1) * UINT64_C(0x9e3779b97f4a7c15);
    signal(SIGABRT, crashed);
    signal(SIGSEGV, crashed);
    for (long i = 0; i < rounds; i++) {
        const char *seed = pick_seed();
        current_len = strlen(seed);
        memcpy(current, seed, current_len);
        for (size_t n = below(8); n > 0; n--)
            current_len = change(current, current_len);
        run(current, current_len);
    }
    return 0;
}
