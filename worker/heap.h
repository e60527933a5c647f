/*
 * heap.h - how much freed memory a worker's process keeps for its next messages. By default glibc gives back what is more than
 * 128 KB at the end of the heap, and a message of that size pays for new pages each time. What is bigger than a few messages
 * still goes back at once.
 */
#ifndef APM_WORKER_HEAP_H
#define APM_WORKER_HEAP_H

/* For this process and what it forks. MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ of the environment hold. */
void apm_heap_keep(void);

#endif
