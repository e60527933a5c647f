/* heap.c - see heap.h */
#include "worker/heap.h"

#include <malloc.h>
#include <stdlib.h>

#define KEEP_BYTES (4 << 20) /* glibc by itself goes up to 64 MB once a block of 32 was freed */

void
apm_heap_keep(void)
{
#ifdef __GLIBC__
    if (getenv("MALLOC_TRIM_THRESHOLD_") || getenv("MALLOC_MMAP_THRESHOLD_"))
        return;
    (void)mallopt(M_MMAP_THRESHOLD, KEEP_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 2 * KEEP_BYTES);
#endif
}
