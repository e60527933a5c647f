/*
 * apium/value.h - a JSON value on its way into apium: what a task returns, what a call is given.
 *
 *     apium_return(task, apium_int(42));
 *     apium_call(app, "img.resize", apium_jsonf("[%s, %d]", path, 128), NULL, &run, &err);
 *
 * A value is consumed by the call that it is handed to, also when that call fails: make it in the
 * argument list and forget it. Whatever is wrong with one (no memory, text that is no JSON) is
 * remembered in it and reported by the call that consumes it. Text is borrowed until that call
 * returns.
 */
#ifndef APIUM_VALUE_H
#define APIUM_VALUE_H

#include <apium/status.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum apium_kind {
    APIUM_NONE = 0, /* no value at all: a zeroed apium_value */
    APIUM_NULL,
    APIUM_BOOL,
    APIUM_INT,
    APIUM_DOUBLE,
    APIUM_STRING, /* text, to be escaped */
    APIUM_JSON,   /* text that is JSON already */
    APIUM_BROKEN, /* making it failed; text says how */
} apium_kind;

/* Make one with the functions below; the members are theirs. */
typedef struct apium_value {
    apium_kind kind;
    union {
        bool b;
        int64_t i;
        double d;
        const char *text;
    } u;
    size_t len;  /* of text, in bytes */
    char *owned; /* the value's own memory, NULL when it borrows */
} apium_value;

APIUM_API apium_value apium_null(void);
APIUM_API apium_value apium_bool(bool value);
APIUM_API apium_value apium_int(int64_t value);
/* NaN and the infinities travel as Python writes them. */
APIUM_API apium_value apium_double(double value);
/* UTF-8; NULL gives null. */
APIUM_API apium_value apium_string(const char *text);
/* The same with a length: the text may hold NUL bytes. */
APIUM_API apium_value apium_stringn(const char *text, size_t len);
/* JSON text, which is passed on byte for byte: integers of any size, 1.0 apart from 1. */
APIUM_API apium_value apium_json(const char *text);
APIUM_API apium_value apium_jsonn(const char *text, size_t len);
/* JSON text of malloc's memory, which the value takes over. */
APIUM_API apium_value apium_json_take(char *text);

/*
 * JSON by a template with printf's conversions, which the compiler checks:
 *     apium_jsonf("{\"path\": %s, \"sizes\": [%d, %d], \"scale\": %g, \"more\": %.*s}", ...)
 *   %s            a string, quoted and escaped (NULL gives null); %.*s as many bytes
 *   %d %i %u      integers, with hh h l ll j z t
 *   %f %g %e      a double in Python's shortest form: 1.0, 0.1, 1e+22
 *   %c            a character, as a string of one
 *   %%            a percent sign
 * Conversions stand where a value stands, or inside quotes, where they are escaped as a part of
 * that string: "\"item-%d\"". Other conversions, flags and widths are refused. Ready-made JSON goes
 * in by apium_json() alone.
 */
APIUM_API apium_value apium_jsonf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
APIUM_API apium_value apium_jsonv(const char *fmt, __builtin_va_list ap)
    __attribute__((format(printf, 1, 0)));

/* Release a value that was not handed to anything. */
APIUM_API void apium_value_free(apium_value value);

#ifdef __cplusplus
}
#endif
#endif
