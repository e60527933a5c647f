/*
 * doc.h - small JSON documents as trees, for reading: what a program is configured by, asked and answered. (Such
 * documents are written with apm_json_add_*().) A task's values never come here: a tree rounds 2^53+1 and forgets
 * whether a number was 1 or 1.0; json.h carries them as text.
 *
 * A path leads from a value to one within: "pool.processes[0].pid", or "" for the value itself. Keys keep their case,
 * and of keys that repeat the last counts, as in Python. A getter that fails names the path:
 *   APIUM_E_NOTFOUND  nothing is there
 *   APIUM_E_INVALID   a value of another type is there
 *   APIUM_E_TOOBIG    an integer beyond 2^53, which a tree does not hold exactly
 */
#ifndef APM_BASE_DOC_H
#define APM_BASE_DOC_H

#include <apium/status.h>

#include "core/base/str.h"

typedef struct cJSON apm_doc; /* any value of a tree */

/* Parse a whole document. E_DECODE says what is wrong and at which byte: also NaN, Infinity, lone surrogates and NUL
 * characters, which Python writes and a tree cannot hold. */
apium_status apm_doc_parse(apm_str text, apm_doc **out, apium_error *err);
/* Release what apm_doc_parse gave, which may be NULL. */
void apm_doc_free(apm_doc *root);

/* The value at a path, borrowed; NULL when nothing is there. */
const apm_doc *apm_doc_at(const apm_doc *doc, const char *path);
/* Walk the members of an array or object; NULL behind the last, and at once for any other value. */
const apm_doc *apm_doc_first(const apm_doc *doc);
const apm_doc *apm_doc_next(const apm_doc *member);
/* The name of a member of an object; NULL in an array. */
const char *apm_doc_key(const apm_doc *member);

/* Strings are borrowed from the tree. */
apium_status
apm_doc_string(const apm_doc *doc, const char *path, const char **out, apium_error *err);
apium_status apm_doc_int64(const apm_doc *doc, const char *path, int64_t *out, apium_error *err);
apium_status apm_doc_double(const apm_doc *doc, const char *path, double *out, apium_error *err);
apium_status apm_doc_bool(const apm_doc *doc, const char *path, bool *out, apium_error *err);

#endif
