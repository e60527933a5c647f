/* lib.c - see lib.h */
#include "core/base/lib.h"

#include <dlfcn.h>
#include <pthread.h>

#include "core/base/error.h"

apium_status
apm_lib_load(const char *file, const char *const *names, void **pointers, apium_error *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    apium_status st = APIUM_OK;
    size_t last = 0;

    while (names[last + 1])
        last++;
    pthread_mutex_lock(&lock);
    void *lib = pointers[last] ? NULL : dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!lib && !pointers[last])
        st = apm_fail(err, APIUM_E_CONFIG, "cannot load the library %s: %s", file, dlerror());
    for (size_t i = 0; lib && i <= last; i++) {
        pointers[i] = dlsym(lib, names[i]);
        if (!pointers[i]) {
            st = apm_fail(err, APIUM_E_CONFIG, "the library %s has no %s", file, names[i]);
            pointers[last] = NULL;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return st;
}
