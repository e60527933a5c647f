/*
 * error.h - filling in an apium_error. Both return the status, so that a failure is one statement:
 *     return apm_fail(err, APIUM_E_CLOSED, "cannot publish to \"%s\": %s", queue, why);
 * The text says what we could not do, then why. URLs in it have no passwords (apm_url_print).
 */
#ifndef APM_BASE_ERROR_H
#define APM_BASE_ERROR_H

#include <apium/status.h>

/* E_TIMEOUT, E_CLOSED and E_BUSY are marked retriable; set err->retriable afterwards where that is wrong. */
apium_status apm_fail(apium_error *err, apium_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* E_SYSTEM (E_NOMEM for ENOMEM) with ": <strerror>" appended. */
apium_status
apm_fail_sys(apium_error *err, int sys, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
