/* fuzz.h - what a fuzz target defines; the entry point has libFuzzer's name, so that either driver can call it. */
#ifndef APM_TESTS_FUZZ_H
#define APM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Decode the bytes, and fuzz_check() what must hold whatever they are. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Well-formed inputs that the standalone driver starts from; NULL ends the list. */
extern const char *const fuzz_seeds[];

/* Like assert(), in every kind of build. */
#define fuzz_check(what)                                                                           \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #what);               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
