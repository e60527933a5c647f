/* doc.c - see doc.h */
#include "core/base/doc.h"

#include <cjson/cJSON.h>
#include <math.h>

#include "core/base/error.h"
#include "core/base/json.h"

#define EXACT 9007199254740992.0 /* 2^53: from here on doubles skip integers */

/* Where text spells a NUL, "\u0000"; NULL when nowhere. Its backslash must not be escaped itself. */
static const char *
find_nul(apm_str text)
{
    static const char nul[] = "\\u0000";
    const char *at = text.p, *end = text.p + text.len;

    while ((at = memmem(at, (size_t)(end - at), nul, sizeof(nul) - 1))) {
        const char *back = at;
        while (back > text.p && back[-1] == '\\')
            back--;
        if ((at - back) % 2 == 0)
            return at;
        at++;
    }
    return NULL;
}

apium_status
apm_doc_parse(apm_str text, apm_doc **out, apium_error *err)
{
    const char *stop = NULL, *nul;
    apm_json whole;

    /* Our scanner first: it bounds the depth and says what is wrong. */
    apium_status st = apm_json_parse(text, &whole, err);
    if (st != APIUM_OK)
        return st;
    if ((nul = find_nul(text)))
        return apm_fail(err, APIUM_E_DECODE, "cannot parse JSON: NUL character at byte %zu",
                        (size_t)(nul - text.p));
    apm_doc *root = cJSON_ParseWithLengthOpts(whole.text.p, whole.text.len, &stop, false);
    if (!root)
        return apm_fail(err, APIUM_E_DECODE, "cannot parse JSON: unsupported value at byte %zu",
                        stop ? (size_t)(stop - text.p) : 0);
    *out = root;
    return APIUM_OK;
}

void
apm_doc_free(apm_doc *root)
{
    cJSON_Delete(root);
}

const apm_doc *
apm_doc_first(const apm_doc *doc)
{
    return cJSON_IsArray(doc) || cJSON_IsObject(doc) ? doc->child : NULL;
}

const apm_doc *
apm_doc_next(const apm_doc *member)
{
    return member->next;
}

const char *
apm_doc_key(const apm_doc *member)
{
    return member->string;
}

static const apm_doc *
find_key(const apm_doc *doc, const char *key, size_t len)
{
    const apm_doc *found = NULL;

    if (!cJSON_IsObject(doc))
        return NULL;
    for (const apm_doc *m = doc->child; m; m = m->next)
        if (strncmp(m->string, key, len) == 0 && m->string[len] == '\0')
            found = m;
    return found;
}

static const apm_doc *
find_index(const apm_doc *doc, size_t n)
{
    const apm_doc *m = cJSON_IsArray(doc) ? doc->child : NULL;

    for (; m && n > 0; n--)
        m = m->next;
    return m;
}

const apm_doc *
apm_doc_at(const apm_doc *doc, const char *path)
{
    while (doc && *path) {
        if (*path == '[') {
            size_t n = 0;
            for (path++; *path >= '0' && *path <= '9'; path++)
                if (n < SIZE_MAX / 10 - 1)
                    n = n * 10 + (size_t)(*path - '0');
            doc = find_index(doc, n);
            path += *path == ']';
        } else {
            size_t len = strcspn(path, ".[");
            doc = find_key(doc, path, len);
            path += len;
        }
        path += *path == '.';
    }
    return doc;
}

static const char *
type_text(const apm_doc *doc)
{
    switch (doc->type & 0xff) {
    case cJSON_False:
    case cJSON_True:
        return "a boolean";
    case cJSON_NULL:
        return "null";
    case cJSON_Number:
        return doc->valuedouble == trunc(doc->valuedouble) ? "an integer" : "a fraction";
    case cJSON_String:
        return "a string";
    case cJSON_Array:
        return "an array";
    default:
        return "an object";
    }
}

/* What to call the value in an error. */
static const char *
named(const char *path)
{
    return *path ? path : "the document";
}

/* The value at the path, if `is` agrees that it is what is wanted. */
static apium_status
find(const apm_doc *doc, const char *path, bool (*is)(const apm_doc *), const char *wanted,
     const apm_doc **out, apium_error *err)
{
    const apm_doc *found = apm_doc_at(doc, path);

    if (!found)
        return apm_fail(err, APIUM_E_NOTFOUND, "%s is missing", named(path));
    if (!is(found))
        return apm_fail(err, APIUM_E_INVALID, "%s must be %s, but is %s", named(path), wanted,
                        type_text(found));
    *out = found;
    return APIUM_OK;
}

static bool
is_string(const apm_doc *doc)
{
    return cJSON_IsString(doc);
}

static bool
is_number(const apm_doc *doc)
{
    return cJSON_IsNumber(doc);
}

static bool
is_integer(const apm_doc *doc)
{
    return cJSON_IsNumber(doc) && doc->valuedouble == trunc(doc->valuedouble);
}

static bool
is_bool(const apm_doc *doc)
{
    return cJSON_IsBool(doc);
}

apium_status
apm_doc_string(const apm_doc *doc, const char *path, const char **out, apium_error *err)
{
    const apm_doc *found = NULL;
    apium_status st = find(doc, path, is_string, "a string", &found, err);

    if (st == APIUM_OK)
        *out = found->valuestring;
    return st;
}

apium_status
apm_doc_int64(const apm_doc *doc, const char *path, int64_t *out, apium_error *err)
{
    const apm_doc *found = NULL;
    apium_status st = find(doc, path, is_integer, "an integer", &found, err);

    if (st != APIUM_OK)
        return st;
    if (fabs(found->valuedouble) >= EXACT)
        return apm_fail(err, APIUM_E_TOOBIG, "%s is too large an integer: %.17g", named(path),
                        found->valuedouble);
    *out = (int64_t)found->valuedouble;
    return APIUM_OK;
}

apium_status
apm_doc_double(const apm_doc *doc, const char *path, double *out, apium_error *err)
{
    const apm_doc *found = NULL;
    apium_status st = find(doc, path, is_number, "a number", &found, err);

    if (st == APIUM_OK)
        *out = found->valuedouble;
    return st;
}

apium_status
apm_doc_bool(const apm_doc *doc, const char *path, bool *out, apium_error *err)
{
    const apm_doc *found = NULL;
    apium_status st = find(doc, path, is_bool, "a boolean", &found, err);

    if (st == APIUM_OK)
        *out = cJSON_IsTrue(found);
    return st;
}
