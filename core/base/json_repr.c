/*
 * json_repr.c - a JSON value as Celery's saferepr() would show what Python decodes from it; see json.h.
 *
 * saferepr() emits tokens (a bracket, a separator, a scalar) and looks before each whether characters are left.
 * When none are, it drops that token, prints ", ..." and then every closing bracket that is still to come. We
 * do the same, token by token, so that the result is the same to the last character.
 */
#include <math.h>

#include "core/base/json_scan.h"

#define MAX_LEVELS 3

typedef struct level {
    apm_json_walk walk;
    size_t n; /* members begun */
    bool tuple;
} level;

typedef struct printer {
    apm_buf *buf;
    size_t left; /* characters, not bytes */
    level levels[MAX_LEVELS];
    int depth;
} printer;

static void
spend(printer *pr, size_t chars)
{
    pr->left = chars < pr->left ? pr->left - chars : 0;
}

/* A token that is never cut. */
static void
add(printer *pr, const char *z)
{
    apm_buf_addz(pr->buf, z);
    spend(pr, strlen(z));
}

/* A scalar that is no string: what does not fit is cut. (It holds no space that the cut could go back to.) */
static void
add_scalar(printer *pr, apm_str s)
{
    bool whole = s.len < pr->left;

    if (!whole)
        s.len = pr->left;
    apm_buf_adds(pr->buf, s);
    if (!whole)
        apm_buf_addz(pr->buf, "...");
    spend(pr, s.len);
}

static void
add_number(printer *pr, apm_json val)
{
    char text[APM_DOUBLE_MAX];
    double v;

    if (val.type == APM_JSON_INT) {
        add_scalar(pr, apm_str_eqz(val.text, "-0") ? APM_STR("0") : val.text);
    } else if (!apm_json_number(val.text, &v)) {
        pr->buf->failed = true;
    } else if (isfinite(v)) {
        int len = apm_double_repr(v, text);
        add_scalar(pr, (apm_str){ text, (size_t)len });
    } else {
        add_scalar(pr, apm_strz(isnan(v) ? "nan" : v < 0 ? "-inf" : "inf"));
    }
}

/* A string, cut before its last word when it does not fit; its quotes come on top, and only single ones are escaped. */
static void
add_string(printer *pr, apm_str raw)
{
    const char *at = raw.p + 1, *end = raw.p + raw.len - 1;
    apm_buf *buf = pr->buf;
    size_t chars = 0, printed = 2, word_chars = 0, word_len = 0;

    apm_buf_addc(buf, '\'');
    while (at < end && chars < pr->left) {
        /* A stretch of characters at a time: none takes more than 4 bytes. */
        char *room = apm_buf_reserve(buf, 4 * 64), *to = room;
        if (!room)
            return;
        for (int i = 0; i < 64 && at < end && chars < pr->left; i++, chars++, printed++) {
            if (*at == ' ') {
                word_len = buf->len + (size_t)(to - room);
                word_chars = printed;
            }
            if (*at == '\'') {
                *to++ = '\\';
                printed++;
            }
            if (*at != '\\' && (signed char)*at >= 0)
                *to++ = *at++;
            else
                to += apm_json_char(&at, end, to);
        }
        buf->len += (size_t)(to - room);
    }
    if (chars == pr->left) {
        if (word_len > 0) {
            buf->len = word_len;
            printed = word_chars;
        }
        apm_buf_addz(buf, "...");
        printed += 3;
    }
    apm_buf_addc(buf, '\'');
    spend(pr, printed);
}

static const char *
closing(const level *lv, size_t n)
{
    if (lv->walk.object)
        return "}";
    return !lv->tuple ? "]" : n == 1 ? ",)" : ")";
}

static void
add_value(printer *pr, apm_json val)
{
    switch (val.type) {
    case APM_JSON_STRING:
        add_string(pr, val.text);
        break;
    case APM_JSON_INT:
    case APM_JSON_FLOAT:
        add_number(pr, val);
        break;
    case APM_JSON_BOOL:
        add_scalar(pr, apm_strz(val.text.p[0] == 't' ? "True" : "False"));
        break;
    case APM_JSON_ARRAY:
        add_scalar(pr, APM_STR("[...]"));
        break;
    case APM_JSON_OBJECT:
        add_scalar(pr, APM_STR("{...}"));
        break;
    case APM_JSON_NULL:
    case APM_JSON_NONE:
        add_scalar(pr, APM_STR("None"));
        break;
    }
}

/* Print until everything is closed or no characters are left; false in the latter case. */
static bool
print(printer *pr, apm_json val, bool tuple)
{
    apm_str key;

    for (;;) {
        bool container = val.type == APM_JSON_ARRAY || val.type == APM_JSON_OBJECT;
        if (container && pr->depth < MAX_LEVELS) {
            level *lv = &pr->levels[pr->depth++];
            *lv = (level){ .walk = apm_json_walk_open(val),
                           .tuple = tuple && pr->depth == 1 && val.type == APM_JSON_ARRAY };
            if (pr->left == 0)
                return false;
            add(pr, lv->walk.object ? "{" : lv->tuple ? "(" : "[");
        } else {
            if (pr->left == 0)
                return false;
            add_value(pr, val);
        }
        for (;;) {
            if (pr->depth == 0)
                return true;
            level *lv = &pr->levels[pr->depth - 1];
            if (apm_json_walk_next(&lv->walk, &key, &val)) {
                if (lv->n++ > 0) {
                    if (pr->left == 0)
                        return false;
                    add(pr, ", ");
                }
                if (lv->walk.object) {
                    if (pr->left == 0)
                        return false;
                    add_string(pr, key);
                    if (pr->left == 0)
                        return false;
                    add(pr, ": ");
                }
                break;
            }
            pr->depth--;
            if (pr->left == 0)
                return false;
            add(pr, closing(lv, lv->n));
        }
    }
}

void
apm_json_repr(apm_buf *buf, apm_json val, bool tuple, size_t max_chars)
{
    printer pr = { .buf = buf, .left = max_chars ? max_chars : SIZE_MAX };
    apm_str key;

    if (print(&pr, val, tuple))
        return;
    apm_buf_addz(buf, ", ...");
    while (pr.depth > 0) {
        level *lv = &pr.levels[--pr.depth];
        /* Whether a tuple has one item is asked of all its items, not of those shown. */
        size_t n = lv->n + (lv->n < 2 && apm_json_walk_next(&lv->walk, &key, &val));
        apm_buf_addz(buf, closing(lv, n));
    }
}
