/*
 * lib.h - libraries that are loaded when they are first needed: their relocations and tables cost each process hundreds of kilobytes of
 * its own, and most use none of them.
 *
 * A header x_lib.h takes the place of the library's: it includes that, lists the functions we call in a macro X_FUNCTIONS(F), declares
 * a table of pointers of their types, and makes each name mean its pointer. x_load() fills the table; before it none may be called.
 */
#ifndef APM_BASE_LIB_H
#define APM_BASE_LIB_H

#include <apium/status.h>
#include <stddef.h>

#define APM_LIB_POINTER(f) __typeof__(f) *f;
#define APM_LIB_NAME(f)    #f,

/* Load the library, once, and find its functions: names ended by NULL, pointers in their order. E_CONFIG names what is missing. May be called from any thread. */
apium_status
apm_lib_load(const char *file, const char *const *names, void **pointers, apium_error *err);

#endif
