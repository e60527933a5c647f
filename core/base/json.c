/*
 * json.c - the scanner and what walks by it; see json.h. Reading single values is json_read.c, appending
 * json_write.c, comparing json_equal.c, showing json_repr.c.
 *
 * A value is scanned in one loop. Where a recursive parser would call itself, one bit remembers whether the
 * enclosing container is an object; that bit and the depth are all the state there is.
 */
#include "core/base/json.h"

#include "core/base/error.h"
#include "core/base/json_scan.h"
#include "core/base/utf8.h"

typedef struct scan {
    const char *end;
    const char *at;  /* where it went wrong */
    const char *why; /* set with it */
    bool deep;
} scan;

static const char *
wrong(scan *sc, const char *at, const char *why)
{
    sc->at = at;
    sc->why = why;
    return NULL;
}

static apium_status
fail(const scan *sc, const char *start, apium_error *err)
{
    return apm_fail(err, sc->deep ? APIUM_E_TOOBIG : APIUM_E_DECODE,
                    "cannot parse JSON: %s at byte %zu", sc->why, (size_t)(sc->at - start));
}

static bool
is_digit(const char *at, const char *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

static const char *
pass_digits(const char *at, const char *end)
{
    while (is_digit(at, end))
        at++;
    return at;
}

static bool
is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Behind the string whose opening quote is at `at`; NULL when it is malformed. */
static const char *
scan_string(scan *sc, const char *at)
{
    const char *end = sc->end, *open = at++;

    for (;;) {
        at = apm_json_plain(at, end);
        if (at == end)
            return wrong(sc, open, "unterminated string");
        if (*at == '"')
            return at + 1;
        if (*at == '\\') {
            if (end - at < 2)
                return wrong(sc, open, "unterminated string");
            switch (at[1]) {
            case '"':
            case '\\':
            case '/':
            case 'b':
            case 'f':
            case 'n':
            case 'r':
            case 't':
                at += 2;
                break;
            case 'u':
                if (end - at < 6 || !is_hex(at[2]) || !is_hex(at[3]) || !is_hex(at[4]) ||
                    !is_hex(at[5]))
                    return wrong(sc, at, "bad \\u escape");
                at += 6;
                break;
            default:
                return wrong(sc, at, "bad escape");
            }
        } else if ((unsigned char)*at < 0x20) {
            return wrong(sc, at, "control character in a string");
        } else {
            /* Text that is not ASCII comes in runs. */
            do {
                int len = apm_utf8_len(at, end, false);
                if (len == 0)
                    return wrong(sc, at, "invalid UTF-8");
                at += len;
            } while (at < end && (unsigned char)*at >= 0x80);
        }
    }
}

static const char *
scan_word(scan *sc, const char *at, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(sc->end - at) < len || memcmp(at, word, len) != 0)
        return wrong(sc, at, "expected a value");
    return at + len;
}

static const char *
scan_number(scan *sc, const char *at, apm_json_type *type)
{
    const char *end = sc->end, *start = at;

    *type = APM_JSON_INT;
    if (*at == '-')
        at++;
    if (at < end && *at == 'I') {
        *type = APM_JSON_FLOAT;
        return scan_word(sc, at, "Infinity");
    }
    if (!is_digit(at, end))
        return wrong(sc, start, "expected a value");
    at = *at == '0' ? at + 1 : pass_digits(at, end);
    if (at < end && *at == '.') {
        if (!is_digit(++at, end))
            return wrong(sc, at, "expected a digit");
        *type = APM_JSON_FLOAT;
        at = pass_digits(at, end);
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        if (!is_digit(at, end))
            return wrong(sc, at, "expected a digit");
        *type = APM_JSON_FLOAT;
        at = pass_digits(at, end);
    }
    return at;
}

static const char *
scan_scalar(scan *sc, const char *at, apm_json_type *type)
{
    switch (*at) {
    case '"':
        *type = APM_JSON_STRING;
        return scan_string(sc, at);
    case 't':
        *type = APM_JSON_BOOL;
        return scan_word(sc, at, "true");
    case 'f':
        *type = APM_JSON_BOOL;
        return scan_word(sc, at, "false");
    case 'n':
        *type = APM_JSON_NULL;
        return scan_word(sc, at, "null");
    case 'N':
        *type = APM_JSON_FLOAT;
        return scan_word(sc, at, "NaN");
    case 'I':
        *type = APM_JSON_FLOAT;
        return scan_word(sc, at, "Infinity");
    default:
        return scan_number(sc, at, type);
    }
}

/* Behind a member's key and colon, at its value. `at` is where the key should be. */
static const char *
scan_key(scan *sc, const char *at, apm_str *key)
{
    if (at == sc->end || *at != '"')
        return wrong(sc, at, "expected a string as key");
    const char *start = at;
    if (!(at = scan_string(sc, at)))
        return NULL;
    *key = (apm_str){ start, (size_t)(at - start) };
    at = apm_json_space(at, sc->end);
    if (at == sc->end || *at != ':')
        return wrong(sc, at, "expected ':'");
    return apm_json_space(at + 1, sc->end);
}

/* Behind the value at `at` (no space before it), `depth` containers deep. */
static const char *
scan_value(scan *sc, const char *at, int depth, apm_json_type *type)
{
    const char *end = sc->end;
    const int floor = depth;
    uint64_t objects[(APM_JSON_DEPTH + 63) / 64 + 1];
    apm_json_type t;
    apm_str key;
    bool object;

#define BIT(d) ((uint64_t)1 << ((d) % 64))
    for (;;) {
        /* At a value. */
        if (at == end)
            return wrong(sc, at, "expected a value");
        if (*at == '{' || *at == '[') {
            object = *at == '{';
            if (depth == floor)
                *type = object ? APM_JSON_OBJECT : APM_JSON_ARRAY;
            if (depth == APM_JSON_DEPTH) {
                sc->deep = true;
                return wrong(sc, at, "nested too deep");
            }
            depth++;
            if (object)
                objects[depth / 64] |= BIT(depth);
            else
                objects[depth / 64] &= ~BIT(depth);
            at = apm_json_space(at + 1, end);
            if (at < end && *at == (object ? '}' : ']')) {
                depth--;
                at++;
            } else if (!object || (at = scan_key(sc, at, &key))) {
                continue;
            } else {
                return NULL;
            }
        } else {
            if (!(at = scan_scalar(sc, at, &t)))
                return NULL;
            if (depth == floor)
                *type = t;
        }
        /* Behind a value: to the next one, through what closes. */
        for (;;) {
            if (depth == floor)
                return at;
            object = objects[depth / 64] & BIT(depth);
            at = apm_json_space(at, end);
            if (at < end && *at == ',') {
                at = apm_json_space(at + 1, end);
                if (object && !(at = scan_key(sc, at, &key)))
                    return NULL;
                break;
            }
            if (at == end || *at != (object ? '}' : ']'))
                return wrong(sc, at, object ? "expected ',' or '}'" : "expected ',' or ']'");
            at++;
            depth--;
        }
    }
#undef BIT
}

apium_status
apm_json_parse(apm_str text, apm_json *out, apium_error *err)
{
    return apm_json_parse_within(text, APM_JSON_DEPTH, out, err);
}

apium_status
apm_json_parse_within(apm_str text, int depth, apm_json *out, apium_error *err)
{
    scan sc = { .end = text.p + text.len };
    const char *start = apm_json_space(text.p, sc.end);
    apm_json_type type = APM_JSON_NONE;

    const char *at = scan_value(&sc, start, APM_JSON_DEPTH - depth, &type);
    if (!at)
        return fail(&sc, text.p, err);
    const char *rest = apm_json_space(at, sc.end);
    if (rest != sc.end) {
        wrong(&sc, rest, "extra data");
        return fail(&sc, text.p, err);
    }
    *out = (apm_json){ type, { start, (size_t)(at - start) } };
    return APIUM_OK;
}

apium_status
apm_json_open(apm_json_iter *it, apm_str text, apium_error *err)
{
    scan sc = { .end = text.p + text.len };
    const char *at = apm_json_space(text.p, sc.end);

    if (at == sc.end || (*at != '{' && *at != '[')) {
        wrong(&sc, at, "expected an array or object");
        return fail(&sc, text.p, err);
    }
    *it = (apm_json_iter){
        .start = text.p, .at = at + 1, .end = sc.end, .object = *at == '{', .first = true
    };
    return APIUM_OK;
}

int
apm_json_next(apm_json_iter *it, apm_str *key, apm_json *val, apium_error *err)
{
    scan sc = { .end = it->end };
    apm_str name = APM_STR_NONE;
    apm_json_type type = APM_JSON_NONE;

    if (it->done)
        return 0;
    const char *at = apm_json_space(it->at, it->end);
    if (at < it->end && *at == (it->object ? '}' : ']')) {
        at = apm_json_space(at + 1, it->end);
        if (at != it->end) {
            wrong(&sc, at, "extra data");
            goto malformed;
        }
        it->done = true;
        return 0;
    }
    if (!it->first) {
        if (at == it->end || *at != ',') {
            wrong(&sc, at, it->object ? "expected ',' or '}'" : "expected ',' or ']'");
            goto malformed;
        }
        at = apm_json_space(at + 1, it->end);
    }
    if (it->object && !(at = scan_key(&sc, at, &name)))
        goto malformed;
    const char *start = at;
    if (!(at = scan_value(&sc, start, 1, &type)))
        goto malformed;
    it->at = at;
    it->first = false;
    if (key)
        *key = name;
    *val = (apm_json){ type, { start, (size_t)(at - start) } };
    return 1;
malformed:
    fail(&sc, it->start, err);
    return -1;
}

apm_json_type
apm_json_type_at(const char *at, const char *end)
{
    if (at == end)
        return APM_JSON_NONE;
    switch (*at) {
    case '"':
        return APM_JSON_STRING;
    case '{':
        return APM_JSON_OBJECT;
    case '[':
        return APM_JSON_ARRAY;
    case 't':
    case 'f':
        return APM_JSON_BOOL;
    case 'n':
        return APM_JSON_NULL;
    case 'N':
    case 'I':
        return APM_JSON_FLOAT;
    default:
        break;
    }
    if (*at != '-' && !is_digit(at, end))
        return APM_JSON_NONE;
    for (at++; at < end; at++) {
        if (*at == '.' || *at == 'e' || *at == 'E' || *at == 'I')
            return APM_JSON_FLOAT;
        if (!is_digit(at, end))
            break;
    }
    return APM_JSON_INT;
}

static const char *
pass_string(const char *at, const char *end)
{
    at++;
    for (;;) {
        const char *quote = memchr(at, '"', (size_t)(end - at));
        if (!quote)
            return end;
        const char *back = quote;
        while (back > at && back[-1] == '\\')
            back--;
        at = quote + 1;
        if ((quote - back) % 2 == 0)
            return at;
    }
}

/* A number or a word: up to what may follow a value. */
static const char *
pass_word(const char *at, const char *end)
{
    while (at < end && *at != ',' && *at != ']' && *at != '}' && *at != ':' &&
           !apm_json_is_space(*at))
        at++;
    return at;
}

const char *
apm_json_pass(const char *at, const char *end)
{
    size_t depth = 0;

    while (at < end) {
        switch (*at) {
        case '"':
            at = pass_string(at, end);
            if (depth == 0)
                return at;
            break;
        case '{':
        case '[':
            depth++;
            at++;
            break;
        case '}':
        case ']':
            if (depth <= 1)
                return depth == 0 ? at : at + 1;
            depth--;
            at++;
            break;
        default:
            if (depth == 0)
                return pass_word(at, end);
            at++;
        }
    }
    return end;
}

apm_json_walk
apm_json_walk_open(apm_json val)
{
    bool container = val.type == APM_JSON_ARRAY || val.type == APM_JSON_OBJECT;

    if (!container || val.text.len < 2)
        return (apm_json_walk){ 0 };
    return (apm_json_walk){ val.text.p + 1, val.text.p + val.text.len - 1,
                            val.type == APM_JSON_OBJECT };
}

bool
apm_json_walk_next(apm_json_walk *walk, apm_str *key, apm_json *val)
{
    const char *end = walk->end, *at = apm_json_space(walk->at, end);

    if (at < end && *at == ',')
        at = apm_json_space(at + 1, end);
    if (at == end)
        return false;
    *key = APM_STR_NONE;
    if (walk->object) {
        const char *start = at;
        at = apm_json_pass(at, end);
        *key = (apm_str){ start, (size_t)(at - start) };
        at = apm_json_space(at, end);
        if (at < end) /* the colon */
            at = apm_json_space(at + 1, end);
    }
    walk->at = apm_json_pass(at, end);
    *val = (apm_json){ apm_json_type_at(at, end), { at, (size_t)(walk->at - at) } };
    return walk->at > at;
}

apm_json
apm_json_get(apm_json object, const char *name)
{
    apm_json val, found = { 0 };
    apm_str key;

    if (object.type != APM_JSON_OBJECT)
        return found;
    for (apm_json_walk walk = apm_json_walk_open(object); apm_json_walk_next(&walk, &key, &val);)
        if (apm_json_key_is(key, name))
            found = val;
    return found;
}

apm_json
apm_json_at(apm_json array, size_t n)
{
    apm_json val;
    apm_str key;

    if (array.type != APM_JSON_ARRAY)
        return (apm_json){ 0 };
    for (apm_json_walk walk = apm_json_walk_open(array); apm_json_walk_next(&walk, &key, &val); n--)
        if (n == 0)
            return val;
    return (apm_json){ 0 };
}

size_t
apm_json_count(apm_json value)
{
    apm_json val;
    apm_str key;
    size_t n = 0;

    for (apm_json_walk walk = apm_json_walk_open(value); apm_json_walk_next(&walk, &key, &val);)
        n++;
    return n;
}

apm_json
apm_json_last(apm_json array, size_t *n)
{
    apm_json val, last = { 0 };
    apm_str key;
    size_t count = 0;

    if (array.type == APM_JSON_ARRAY)
        for (apm_json_walk walk = apm_json_walk_open(array); apm_json_walk_next(&walk, &key, &val);
             count++)
            last = val;
    if (n)
        *n = count;
    return last;
}

bool
apm_json_empty(apm_json value)
{
    size_t at = 1;

    while (at < value.text.len && strchr(" \t\r\n", value.text.p[at]))
        at++;
    return at < value.text.len && (value.text.p[at] == ']' || value.text.p[at] == '}');
}
