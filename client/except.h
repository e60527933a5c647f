/* except.h - what Python knows of exceptions and we have to know too: which is a kind of which, and
 * how one reads. */
#ifndef APM_CLIENT_EXCEPT_H
#define APM_CLIENT_EXCEPT_H

#include "core/model/outcome.h"

/* Does `name` of a list ("ConnectionError", "mymod.Busy", "Exception") stand for this exception? */
bool apm_exception_is(const apm_exception *exc, const char *name);
/* The same for any name of a list that ends with NULL; a list that is NULL has none. */
bool apm_exception_in(const apm_exception *exc, const char *const *names);

/* Append the last line of Python's traceback, without its end: "ValueError: boom", "mymod.Busy". */
void apm_exception_line(apm_buf *buf, const apm_exception *exc);

#endif
