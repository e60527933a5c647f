/* error.c - see error.h */
#include "core/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *
apium_status_text(apium_status status)
{
    switch (status) {
#define XX(name, code, text)                                                                       \
    case APIUM_##name:                                                                             \
        return text;
        APIUM_STATUS_MAP(XX)
#undef XX
    }
    return "unknown status";
}

static void fill(apium_error *err, apium_status status, int sys, const char *fmt, va_list ap)
    __attribute__((format(printf, 4, 0)));

static void
fill(apium_error *err, apium_status status, int sys, const char *fmt, va_list ap)
{
    /* The text may quote err->text itself, so it is composed aside. */
    char text[sizeof(err->text)];
    vsnprintf(text, sizeof(text), fmt, ap);
    *err = (apium_error){
        .status = status,
        .sys = sys,
        .retriable =
            status == APIUM_E_TIMEOUT || status == APIUM_E_CLOSED || status == APIUM_E_BUSY,
    };
    memcpy(err->text, text, sizeof(text));
}

apium_status
apm_fail(apium_error *err, apium_status status, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, status, 0, fmt, ap);
        va_end(ap);
    }
    return status;
}

apium_status
apm_fail_sys(apium_error *err, int sys, const char *fmt, ...)
{
    apium_status status = sys == ENOMEM ? APIUM_E_NOMEM : APIUM_E_SYSTEM;
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, status, sys, fmt, ap);
        va_end(ap);
        size_t len = strlen(err->text);
        snprintf(err->text + len, sizeof(err->text) - len, ": %s", strerror(sys));
    }
    return status;
}
