/* table.c - the tasks that a pool can run, by name */
#include <stdlib.h>
#include <string.h>

#include "worker/pool_inner.h"

static int
compare_tasks(const void *a, const void *b)
{
    return strcmp(((const apm_task_info *)a)->name, ((const apm_task_info *)b)->name);
}

void
apm_pool_tasks(apm_pool *pool, apm_task_info *tasks, size_t n)
{
    if (pool->tasks) {
        /* A fork server that was started again: the worker points into the first table. */
        free(tasks);
        return;
    }
    if (n > 0)
        qsort(tasks, n, sizeof(*tasks), compare_tasks);
    pool->tasks = tasks;
    pool->n_tasks = n;
}

static int
compare_name(apm_str name, const char *with)
{
    size_t len = strlen(with);
    int order = memcmp(name.p, with, name.len < len ? name.len : len);
    return order != 0 ? order : (name.len > len) - (name.len < len);
}

const apm_task_info *
apm_pool_task(const apm_pool *pool, apm_str name)
{
    size_t low = 0, high = name.p ? pool->n_tasks : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_name(name, pool->tasks[middle].name);
        if (order == 0)
            return &pool->tasks[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const apm_task_info *
apm_pool_task_at(const apm_pool *pool, size_t n)
{
    return n < pool->n_tasks ? &pool->tasks[n] : NULL;
}
