/* adapters.c - see adapters.h */
#include "adapters.h"

#include <string.h>

extern const adapter adapter_sqlite;

const adapter *const adapters[] = {
    &adapter_sqlite,
    NULL,
};

const adapter *
adapter_find(const char *name)
{
    for (const adapter *const *row = adapters; *row; row++)
        if (strcmp((*row)->name, name) == 0)
            return *row;
    return NULL;
}
