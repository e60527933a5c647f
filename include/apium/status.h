/*
 * apium/status.h - what a call answers: a status, and an error that says what could not be done and
 * why.
 *
 * Every function of apium that can fail returns an apium_status and takes an `apium_error *err`
 * last. err may be NULL. It is a plain struct on the caller's stack: nothing is allocated to fail,
 * nothing has to be released. It is written on failure only.
 */
#ifndef APIUM_STATUS_H
#define APIUM_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define APIUM_API __attribute__((visibility("default")))

#define APIUM_STATUS_MAP(XX)                                                                       \
    XX(OK, 0, "ok")                                                                                \
    XX(E_INVALID, 1, "invalid argument") /* the caller's mistake */                                \
    XX(E_NOMEM, 2, "out of memory")                                                                \
    XX(E_SYSTEM, 3, "system error")    /* err->sys is the errno */                                 \
    XX(E_TIMEOUT, 4, "timed out")      /* asking again is reasonable */                            \
    XX(E_CLOSED, 5, "connection lost") /* unreachable, or went away and did not come back */       \
    XX(E_REFUSED, 6, "refused by the server") /* credentials, permissions, a precondition */       \
    XX(E_NOTFOUND, 7, "not found")                                                                 \
    XX(E_TOOBIG, 8, "too big")       /* a bound of ours or of the server's was passed */           \
    XX(E_DECODE, 9, "cannot decode") /* bytes from outside are malformed */                        \
    XX(E_ENCODE, 10, "cannot encode")                                                              \
    XX(E_UNROUTABLE, 11, "unroutable") /* no queue would receive the message */                    \
    XX(E_FENCED, 12, "no longer ours") /* the delivery belongs to somebody else by now */          \
    XX(E_FAILED, 13, "task failed")                                                                \
    XX(E_REVOKED, 14, "task revoked")                                                              \
    XX(E_UNSUPPORTED, 15, "not supported") /* this build, adapter or pool cannot do it */          \
    XX(E_CONFIG, 16, "bad configuration")                                                          \
    XX(E_BUSY, 17, "busy") /* locked, full, or blocked for now */

typedef enum apium_status {
#define XX(name, code, text) APIUM_##name = code,
    APIUM_STATUS_MAP(XX)
#undef XX
} apium_status;

typedef struct apium_error {
    apium_status status;
    int sys;        /* errno where the system said no, otherwise 0 */
    bool retriable; /* the same call may succeed later without any change by the caller */
    char text[256]; /* what could not be done, then why; never NULL, always terminated */
} apium_error;

/* The short fixed text of a status, e.g. "timed out". */
APIUM_API const char *apium_status_text(apium_status status);

/*
 * Fill in an error of yours, in a hook for instance; the answer is the status, so that a failure is
 * one statement:
 *     return apium_fail(err, APIUM_E_CLOSED, "cannot open the database: %s", why);
 */
APIUM_API apium_status apium_fail(apium_error *err, apium_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The library's version, "0.1.0". */
APIUM_API const char *apium_version(void);

#ifdef __cplusplus
}
#endif
#endif
