/*
 * json.h - JSON values carried as text. One pass, iterative, bounded in depth; Python's dialect: NaN,
 * Infinity, -Infinity, lone surrogates, NUL escapes, integers of any size, 1 and 1.0 distinct, duplicate
 * keys (last wins). Nothing here builds a tree: it validates, and yields slices of the text it was given.
 *
 * A value is an apm_json: a type and the exact text of the value without surrounding space. What is passed
 * along (args, results, the rest of a chain) is sliced out and never printed again.
 */
#ifndef APM_BASE_JSON_H
#define APM_BASE_JSON_H

#include <apium/status.h>

#include "core/base/arena.h"
#include "core/base/buf.h"

#define APM_JSON_DEPTH                                                                             \
    512 /* deepest nesting accepted; Python's own parser gives up at about 1,000 */

typedef enum apm_json_type {
    APM_JSON_NONE, /* absent: a zeroed apm_json */
    APM_JSON_NULL,
    APM_JSON_BOOL,
    APM_JSON_INT,   /* any number of digits */
    APM_JSON_FLOAT, /* has a fraction or exponent, or is NaN or infinite */
    APM_JSON_STRING,
    APM_JSON_ARRAY,
    APM_JSON_OBJECT,
} apm_json_type;

typedef struct apm_json {
    apm_json_type type;
    apm_str text;
} apm_json;

/* Validate a whole document: one value, valid UTF-8 (raw surrogates refused), space around it allowed.
 * E_DECODE names the byte offset and what is wrong; E_TOOBIG when nested deeper than APM_JSON_DEPTH. */
apium_status apm_json_parse(apm_str text, apm_json *out, apium_error *err);
/* The same for a value that is to be nested less deep: at most APM_JSON_DEPTH. */
apium_status apm_json_parse_within(apm_str text, int depth, apm_json *out, apium_error *err);

/*
 * Walk the members of an array or object. Works on unvalidated text: each member is validated as it is
 * passed, and the end of the document after the last one, so walking to the end is one scan.
 *     apm_json_iter it;
 *     if (apm_json_open(&it, text, err) != APIUM_OK) ...          not an array or object
 *     while ((more = apm_json_next(&it, &key, &val, err)) > 0) ... 1 a member, 0 the end, -1 malformed
 * key is the key's raw text with its quotes (apm_json_key_is, apm_json_string read it); absent in arrays.
 */
typedef struct apm_json_iter {
    const char *start, *at, *end;
    bool object, first, done;
} apm_json_iter;

apium_status apm_json_open(apm_json_iter *it, apm_str text, apium_error *err);
int apm_json_next(apm_json_iter *it, apm_str *key, apm_json *val, apium_error *err);
/* Is this raw key (with quotes, perhaps with escapes) the given name? */
bool apm_json_key_is(apm_str raw_key, const char *name);

/* The last member of that name in a *validated* object; type APM_JSON_NONE when there is none or `object`
 * is not an object. */
apm_json apm_json_get(apm_json object, const char *name);
/* The n-th item of a *validated* array, APM_JSON_NONE past its end. */
apm_json apm_json_at(apm_json array, size_t n);
/* The last item, in one pass; *n (may be NULL) becomes the number of items. NONE when there is none. */
apm_json apm_json_last(apm_json array, size_t *n);
/* Has a validated array or object no members? Looks at its first bytes only. */
bool apm_json_empty(apm_json value);
/* Number of members of a validated array or object. */
size_t apm_json_count(apm_json value);

/*
 * Typed reading. `what` names the value in the error ("timelimit[0]"). A value outside the asked type is
 * E_INVALID; an integer outside int64 is E_TOOBIG.
 */
apium_status apm_json_int64(apm_json val, const char *what, int64_t *out, apium_error *err);
/* Accepts integers too, rounding as Python's float() does. */
apium_status apm_json_double(apm_json val, const char *what, double *out, apium_error *err);
apium_status apm_json_bool(apm_json val, const char *what, bool *out, apium_error *err);
/* Text without quotes and escapes, as UTF-8 with lone surrogates encoded as three bytes each (WTF-8). May
 * hold NUL bytes. Borrowed from the JSON text when it has no escapes, otherwise in the arena, which also
 * makes it terminated; use apm_json_cstr for a C string. */
apium_status
apm_json_string(apm_json val, const char *what, apm_arena *arena, apm_str *out, apium_error *err);
/* The same as a terminated string in the arena; a NUL inside is E_INVALID. */
apium_status
apm_json_cstr(apm_json val, const char *what, apm_arena *arena, const char **out, apium_error *err);

/* Appending, in the exact form of Python's json.dumps (ASCII only, lower-case \uXXXX, shortest floats).
 * Bytes that are not (W)UTF-8 make the buffer fail: check with apm_utf8_valid first where they may occur. */
void apm_json_add_string(apm_buf *buf, apm_str text);
/* Append it if it is (W)UTF-8; false, and nothing is appended, when it is not. */
bool apm_json_try_string(apm_buf *buf, apm_str text);
void apm_json_add_stringz(apm_buf *buf, const char *text); /* NULL gives null */
void apm_json_add_int(apm_buf *buf, int64_t value);
void apm_json_add_double(apm_buf *buf, double value);
/* Append a member `"name": ` with the comma that is due, after the text of an open object. */
void apm_json_add_key(apm_buf *buf, const char *name);

/* Valid UTF-8; with `surrogates`, encoded lone surrogates pass (WTF-8). */
bool apm_utf8_valid(apm_str text, bool surrogates);

/* Are two validated values equal as Python would compare what it decodes from them, with 1 and 1.0, and
 * -0.0 and 0.0, told apart, and NaN equal to itself? Key order does not matter. False, too, without memory. For tests and
 * comparisons off the hot path. */
bool apm_json_equal(apm_json a, apm_json b);

/*
 * Python's repr of a validated value as Celery shows it in argsrepr, kwargsrepr and log lines (its saferepr()): single
 * quotes, None/True/False, nesting deeper than 3 as [...] or {...}, cut after about max_chars characters (0: never)
 * with "...", open brackets closed. `tuple` prints the outermost array with round brackets, (2,) for one item.
 * Members of one name are shown each.
 */
void apm_json_repr(apm_buf *buf, apm_json val, bool tuple, size_t max_chars);

/* Python's repr() of a validated value, whole: "it's" in double quotes, escapes where Python has them. Nesting deeper than 64 is shown as
 * "...". */
void apm_json_python(apm_buf *buf, apm_json val);

#endif
