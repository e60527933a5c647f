/*
 * yaml.c - bodies and configuration in YAML, with the meaning that PyYAML's safe_load gives it: YAML 1.1, where yes is true, 017
 * is fifteen and 1:30 is ninety. What safe_load would turn into a date stays the text that it is.
 */
#include "core/model/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

#include "core/base/b64.h"
#include "core/base/error.h"

#define TAG(name) "tag:yaml.org,2002:" name

/* What a plain scalar means. */
typedef struct plain {
    apm_json_type type; /* STRING: nothing but itself */
    char text[64];      /* its JSON, but for strings and long numbers */
    apm_str digits;     /* a decimal integer's digits, as many as there are */
    bool negative;
} plain;

static bool
one_of(apm_str s, const char *words)
{
    for (const char *at = words; *at;) {
        size_t len = strcspn(at, "|");
        if (s.len == len && memcmp(s.p, at, len) == 0)
            return true;
        at += len + (at[len] == '|');
    }
    return false;
}

static size_t
span(const char *at, const char *end, const char *set)
{
    size_t n = 0;

    while (at + n < end && at[n] && strchr(set, at[n]))
        n++;
    return n;
}

/* [1-9][0-9_]*(:[0-5]?[0-9])+ and, with a fraction, its float: numbers to the base of 60. */
static bool
sexagesimal(const char *at, const char *end, bool negative, plain *out)
{
    double value = 0;
    bool fraction = false, zero_first = at < end && *at == '0';
    int parts = 0;

    while (at < end) {
        size_t n = span(at, end, parts ? "0123456789" : "0123456789_");
        int part = 0;
        if (n == 0 || n > 9 || (parts && (n > 2 || (n == 2 && *at > '5'))))
            return false;
        for (; n; n--, at++)
            if (*at != '_')
                part = part * 10 + (*at - '0');
        value = value * 60 + part;
        parts++;
        if (at < end && *at == '.') {
            double scale = 0.1;
            fraction = true;
            for (at++; at < end && strchr("0123456789_", *at); at++)
                if (*at != '_') {
                    value += (*at - '0') * scale;
                    scale /= 10;
                }
            if (at < end)
                return false;
        } else if (at < end && *at++ != ':') {
            return false;
        }
    }
    if (parts < 2 || value > 9e15 || (zero_first && !fraction))
        return false;
    out->type = fraction ? APM_JSON_FLOAT : APM_JSON_INT;
    if (fraction)
        snprintf(out->text, sizeof out->text, "%s%.17g", negative ? "-" : "", value);
    else
        snprintf(out->text, sizeof out->text, "%s%.0f", negative ? "-" : "", value);
    return true;
}

/* Digits to a base, with underscores. False when they are not, or too many for 64 bits. */
static bool
based(const char *at, const char *end, const char *digits, int base, bool negative, plain *out)
{
    char clean[72], *stop;
    size_t n = 0;

    if (at == end || span(at, end, digits) != (size_t)(end - at))
        return false;
    for (; at < end; at++)
        if (*at != '_') {
            if (n + 1 == sizeof clean)
                return false;
            clean[n++] = *at;
        }
    clean[n] = '\0';
    errno = 0;
    uint64_t value = strtoull(clean, &stop, base);
    if (n == 0 || *stop || errno)
        return false;
    out->type = APM_JSON_INT;
    snprintf(out->text, sizeof out->text, "%s%" PRIu64, negative ? "-" : "", value);
    return true;
}

static bool
integer(const char *at, const char *end, bool negative, plain *out)
{
    if (end - at > 2 && at[0] == '0' && at[1] == 'b')
        return based(at + 2, end, "01_", 2, negative, out);
    if (end - at > 2 && at[0] == '0' && at[1] == 'x')
        return based(at + 2, end, "0123456789abcdefABCDEF_", 16, negative, out);
    if (end - at > 1 && at[0] == '0')
        return based(at + 1, end, "01234567_", 8, negative, out);
    if (at == end || *at == '_' || span(at, end, "0123456789_") != (size_t)(end - at))
        return false;
    out->type = APM_JSON_INT;
    out->digits = (apm_str){ at, (size_t)(end - at) };
    out->negative = negative;
    return true;
}

/* [0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)? or, without a sign, the same beginning with the dot. */
static bool
floating(const char *at, const char *end, bool negative, bool sign, plain *out)
{
    char clean[400];
    size_t n = 0, whole = span(at, end, "0123456789_");
    double value;

    if ((whole && *at == '_') || at + whole == end || at[whole] != '.' || (!whole && sign))
        return false;
    const char *rest = at + whole + 1;
    size_t fraction = span(rest, end, "0123456789_");
    if (!whole && (!fraction || *rest == '_'))
        return false;
    rest += fraction;
    if (rest < end) {
        if ((*rest != 'e' && *rest != 'E') || end - rest < 3 ||
            (rest[1] != '-' && rest[1] != '+') ||
            span(rest + 2, end, "0123456789") != (size_t)(end - rest - 2))
            return false;
    }
    for (; at < end; at++)
        if (*at != '_') {
            if (n + 1 == sizeof clean)
                return false;
            clean[n++] = *at;
        }
    clean[n] = '\0';
    value = strtod(clean, NULL);
    out->type = APM_JSON_FLOAT;
    apm_buf buf;
    apm_buf_init(&buf, sizeof out->text);
    apm_json_add_double(&buf, negative ? -value : value);
    memcpy(out->text, apm_buf_str(&buf).p, buf.len);
    out->text[buf.len] = '\0';
    apm_buf_clear(&buf);
    return true;
}

static plain
resolve(apm_str s)
{
    plain out = { .type = APM_JSON_STRING };
    const char *at = s.p, *end = s.p + s.len;
    bool sign = s.len && (*at == '-' || *at == '+'), negative = s.len && *at == '-';

    if (s.len == 0 || one_of(s, "~|null|Null|NULL")) {
        out.type = APM_JSON_NULL;
        strcpy(out.text, "null");
    } else if (one_of(s, "yes|Yes|YES|true|True|TRUE|on|On|ON")) {
        out.type = APM_JSON_BOOL;
        strcpy(out.text, "true");
    } else if (one_of(s, "no|No|NO|false|False|FALSE|off|Off|OFF")) {
        out.type = APM_JSON_BOOL;
        strcpy(out.text, "false");
    } else if (one_of(s, ".nan|.NaN|.NAN")) {
        out.type = APM_JSON_FLOAT;
        strcpy(out.text, "NaN");
    } else if (one_of((apm_str){ at + sign, s.len - sign }, ".inf|.Inf|.INF")) {
        out.type = APM_JSON_FLOAT;
        strcpy(out.text, negative ? "-Infinity" : "Infinity");
    } else if (strchr("-+.0123456789", *at)) {
        at += sign;
        (void)(integer(at, end, negative, &out) || floating(at, end, negative, sign, &out) ||
               (at < end && *at != '_' && sexagesimal(at, end, negative, &out)));
    }
    return out;
}

/* Text that was given a name, as the JSON that it became. */
struct anchor {
    char *name;
    size_t start, len; /* in the output; len 0: not complete yet */
};

/*
 * Reading: the parser's events become JSON as they come. An alias is a copy of the JSON of its anchor, so that a bomb of aliases is held by
 * the bound on the output, and an anchor that contains itself has no text yet.
 */
struct reader {
    yaml_parser_t parser;
    apm_buf out;
    apm_arena *arena;
    apium_error *err;
    struct anchor *anchors;
    size_t n_anchors, room;
    int depth;
    struct {
        bool map, empty, key_next;
        size_t anchor; /* its index + 1 */
    } open[APM_JSON_DEPTH + 1];
};

static apium_status
malformed(struct reader *r, const yaml_event_t *event, const char *why)
{
    return apm_fail(r->err, APIUM_E_DECODE, "cannot decode YAML: %s (line %zu)", why,
                    event->start_mark.line + 1);
}

static bool
is_key(const struct reader *r)
{
    return r->depth > 0 && r->open[r->depth].map && r->open[r->depth].key_next;
}

static void
begin_item(struct reader *r)
{
    if (r->depth == 0)
        return;
    if (r->open[r->depth].map && !r->open[r->depth].key_next)
        apm_buf_addz(&r->out, ": ");
    else if (!r->open[r->depth].empty)
        apm_buf_addz(&r->out, ", ");
    r->open[r->depth].empty = false;
}

static void
end_item(struct reader *r)
{
    if (r->depth > 0)
        r->open[r->depth].key_next = !r->open[r->depth].key_next;
}

/* Give the item that begins now a name, if it has one. *index is 0 when it has none. */
static apium_status
drop_anchor(struct reader *r, const yaml_char_t *name, size_t *index)
{
    *index = 0;
    if (!name)
        return APIUM_OK;
    if (r->n_anchors == r->room) {
        size_t room = r->room ? r->room * 2 : 8;
        struct anchor *more = realloc(r->anchors, room * sizeof *more);
        if (!more)
            return apm_fail(r->err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
        r->anchors = more;
        r->room = room;
    }
    char *copy = strdup((const char *)name);
    if (!copy)
        return apm_fail(r->err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    r->anchors[r->n_anchors++] = (struct anchor){ .name = copy, .start = r->out.len };
    *index = r->n_anchors;
    return APIUM_OK;
}

static void
weigh_anchor(struct reader *r, size_t index)
{
    if (index)
        r->anchors[index - 1].len = r->out.len - r->anchors[index - 1].start;
}

static void
add_number(apm_buf *buf, const plain *value)
{
    if (!apm_str_is(value->digits)) {
        apm_buf_addz(buf, value->text);
        return;
    }
    apm_buf_addz(buf, value->negative ? "-" : "");
    for (size_t i = 0; i < value->digits.len; i++)
        if (value->digits.p[i] != '_')
            apm_buf_addc(buf, value->digits.p[i]);
}

static apium_status
read_binary(struct reader *r, const yaml_event_t *event, apm_str text)
{
    size_t len;
    char *bytes = apm_arena_bytes(r->arena, text.len / 4 * 3 + 4);

    if (!bytes)
        return apm_fail(r->err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    if (apm_b64_decode(text, bytes, &len, NULL) != APIUM_OK)
        return malformed(r, event, "!!binary is not base64");
    apm_json_add_bytes(&r->out, (apm_str){ bytes, len });
    return APIUM_OK;
}

/* What a scalar means by its tag, or without one by its style and look. */
static apium_status
read_meaning(struct reader *r, const yaml_event_t *event, apm_str text, plain *value)
{
    static const struct {
        const char *tag;
        apm_json_type type;
    } tags[] = {
        { TAG("int"), APM_JSON_INT },
        { TAG("float"), APM_JSON_FLOAT },
        { TAG("bool"), APM_JSON_BOOL },
        { TAG("null"), APM_JSON_NULL },
    };
    const char *tag = (const char *)event->data.scalar.tag;

    *value = (plain){ .type = APM_JSON_STRING };
    if (!tag) {
        if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
            *value = resolve(text);
        return APIUM_OK;
    }
    if (strcmp(tag, "!") == 0 || strcmp(tag, TAG("str")) == 0 || strcmp(tag, TAG("timestamp")) == 0)
        return APIUM_OK;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (strcmp(tag, tags[i].tag) == 0) {
            *value = resolve(text);
            return value->type == tags[i].type
                       ? APIUM_OK
                       : malformed(r, event, "a value is not of the type that its tag says");
        }
    return malformed(r, event, "a tag that safe_load does not know");
}

static apium_status
read_scalar(struct reader *r, const yaml_event_t *event)
{
    apm_str text = { (const char *)event->data.scalar.value, event->data.scalar.length };
    const char *tag = (const char *)event->data.scalar.tag;
    bool key = is_key(r), binary = tag && strcmp(tag, TAG("binary")) == 0;
    size_t anchor;
    plain value;
    apium_status st;

    if (key && apm_str_eqz(text, "<<") && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        return malformed(r, event, "merge keys (<<) are not supported");
    if (key && binary)
        return malformed(r, event, "binary data is the key of a mapping");
    if (!binary && (st = read_meaning(r, event, text, &value)) != APIUM_OK)
        return st;
    begin_item(r);
    if ((st = drop_anchor(r, event->data.scalar.anchor, &anchor)) != APIUM_OK)
        return st;
    if (binary) {
        if ((st = read_binary(r, event, text)) != APIUM_OK)
            return st;
    } else if (value.type == APM_JSON_STRING) {
        apm_json_add_string(&r->out, text);
    } else {
        /* A key of an object has to be a string in JSON: it gets quotes, as Python's json gives it. */
        apm_buf_addz(&r->out, key ? "\"" : "");
        add_number(&r->out, &value);
        apm_buf_addz(&r->out, key ? "\"" : "");
    }
    weigh_anchor(r, anchor);
    end_item(r);
    return APIUM_OK;
}

static apium_status
read_alias(struct reader *r, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    size_t i = r->n_anchors;

    while (i > 0 && strcmp(r->anchors[i - 1].name, name) != 0) /* the last of equal names counts */
        i--;
    if (i == 0)
        return malformed(r, event, "an alias of something that was not named");
    if (r->anchors[i - 1].len == 0)
        return malformed(r, event, "something contains itself");
    size_t start = r->anchors[i - 1].start, len = r->anchors[i - 1].len;
    if (r->out.failed)
        return APIUM_OK; /* reported by the loop */
    char first = r->out.p[start];
    bool quotes = is_key(r) && first != '"';
    if (is_key(r) && (first == '[' || first == '{'))
        return malformed(r, event, "a list or mapping is the key of a mapping");
    begin_item(r);
    apm_buf_addz(&r->out, quotes ? "\"" : "");
    char *room = apm_buf_reserve(&r->out, len);
    if (room) {
        memcpy(room, r->out.p + start, len); /* reserve may have moved the text */
        r->out.len += len;
    }
    apm_buf_addz(&r->out, quotes ? "\"" : "");
    end_item(r);
    return APIUM_OK;
}

static apium_status
read_open(struct reader *r, const yaml_event_t *event, bool map)
{
    const char *tag =
        (const char *)(map ? event->data.mapping_start.tag : event->data.sequence_start.tag);
    const yaml_char_t *name =
        map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    size_t anchor;
    apium_status st;

    if (tag && strcmp(tag, "!") != 0 && strcmp(tag, map ? TAG("map") : TAG("seq")) != 0)
        return malformed(r, event, "a tag that safe_load does not know");
    if (is_key(r))
        return malformed(r, event, "a list or mapping is the key of a mapping");
    if (r->depth == APM_JSON_DEPTH)
        return apm_fail(r->err, APIUM_E_TOOBIG, "cannot decode YAML: nested deeper than %d",
                        APM_JSON_DEPTH);
    begin_item(r);
    if ((st = drop_anchor(r, name, &anchor)) != APIUM_OK)
        return st;
    apm_buf_addc(&r->out, map ? '{' : '[');
    r->depth++;
    r->open[r->depth].map = r->open[r->depth].key_next = map;
    r->open[r->depth].empty = true;
    r->open[r->depth].anchor = anchor;
    return APIUM_OK;
}

static apium_status
read_event(struct reader *r, const yaml_event_t *event, int *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return ++*documents > 1 ? malformed(r, event, "more than one document") : APIUM_OK;
    case YAML_SCALAR_EVENT:
        return read_scalar(r, event);
    case YAML_ALIAS_EVENT:
        return read_alias(r, event);
    case YAML_SEQUENCE_START_EVENT:
        return read_open(r, event, false);
    case YAML_MAPPING_START_EVENT:
        return read_open(r, event, true);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        apm_buf_addc(&r->out, r->open[r->depth].map ? '}' : ']');
        weigh_anchor(r, r->open[r->depth].anchor);
        r->depth--;
        end_item(r);
        return APIUM_OK;
    default:
        return APIUM_OK;
    }
}

static apium_status
parser_failed(const yaml_parser_t *parser, apium_error *err)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    return apm_fail(err, APIUM_E_DECODE, "cannot decode YAML: %s (line %zu)",
                    parser->problem ? parser->problem : "malformed", parser->problem_mark.line + 1);
}

apium_status
apm_yaml_to_json(apm_str bytes, apm_arena *arena, apm_str *json, apium_error *err)
{
    struct reader r = { .arena = arena, .err = err };
    yaml_event_t event;
    apium_status st = APIUM_OK;
    int documents = 0;
    bool done = false;

    if (!yaml_parser_initialize(&r.parser))
        return apm_fail(err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)bytes.p, bytes.len);
    apm_buf_init(&r.out, APM_BUF_MAX);
    while (st == APIUM_OK && !done) {
        if (!yaml_parser_parse(&r.parser, &event)) {
            st = parser_failed(&r.parser, err);
            break;
        }
        done = event.type == YAML_STREAM_END_EVENT;
        st = read_event(&r, &event, &documents);
        yaml_event_delete(&event);
        if (st == APIUM_OK && r.out.failed)
            st = apm_fail(err, APIUM_E_TOOBIG,
                          "cannot decode YAML: it unfolds to more than %zu bytes", r.out.max);
    }
    if (documents == 0)
        apm_buf_addz(&r.out, "null");
    yaml_parser_delete(&r.parser);
    for (size_t i = 0; i < r.n_anchors; i++)
        free(r.anchors[i].name);
    free(r.anchors);
    if (st != APIUM_OK) {
        apm_buf_clear(&r.out);
        return st;
    }
    return apm_format_keep(&r.out, arena, json, "YAML", err);
}

static int
collect(void *arg, unsigned char *bytes, size_t len)
{
    apm_buf *buf = arg;

    apm_buf_add(buf, bytes, len);
    return !buf->failed;
}

static bool
emit_scalar(yaml_emitter_t *emitter, const char *tag, apm_str text, bool plain_ok, bool quoted_ok,
            yaml_scalar_style_t style)
{
    yaml_event_t event;

    return yaml_scalar_event_initialize(&event, NULL, (const yaml_char_t *)tag,
                                        (const yaml_char_t *)text.p, (int)text.len, plain_ok,
                                        quoted_ok, style) &&
           yaml_emitter_emit(emitter, &event);
}

/* YAML 1.1 knows a float by its dot, and an exponent by its sign. */
static bool
emit_float(yaml_emitter_t *emitter, apm_json val)
{
    apm_buf buf;
    double number;
    bool ok;

    if (val.text.p[0] == 'N')
        return emit_scalar(emitter, TAG("float"), APM_STR(".nan"), true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    if (val.text.p[0] == 'I' || (val.text.len > 1 && val.text.p[1] == 'I'))
        return emit_scalar(emitter, TAG("float"),
                           val.text.p[0] == '-' ? APM_STR("-.inf") : APM_STR(".inf"), true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    if (apm_json_double(val, "number", &number, NULL) != APIUM_OK)
        return false;
    apm_buf_init(&buf, 128);
    apm_json_add_double(&buf, number);
    apm_str text = apm_buf_str(&buf);
    char with_dot[128];
    const char *e = memchr(text.p, 'e', text.len);
    if (e && !memchr(text.p, '.', text.len))
        snprintf(with_dot, sizeof with_dot, "%.*s.0%s", (int)(e - text.p), text.p, e);
    else
        snprintf(with_dot, sizeof with_dot, "%s", text.p);
    ok = emit_scalar(emitter, TAG("float"), apm_strz(with_dot), true, false,
                     YAML_PLAIN_SCALAR_STYLE);
    apm_buf_clear(&buf);
    return ok;
}

static bool
emit_value(yaml_emitter_t *emitter, const apm_token *token, apm_arena *arena)
{
    apm_str text;

    if (token->type == APM_T_BYTES) {
        apm_buf b64;
        if (apm_token_bytes(token, arena, &text, NULL) != APIUM_OK)
            return false;
        apm_buf_init(&b64, APM_BUF_MAX);
        apm_b64_add(&b64, text.p, text.len);
        bool ok = emit_scalar(emitter, TAG("binary"), apm_buf_str(&b64), false, false,
                              YAML_LITERAL_SCALAR_STYLE);
        apm_buf_clear(&b64);
        return ok;
    }
    switch (token->val.type) {
    case APM_JSON_NULL:
        return emit_scalar(emitter, TAG("null"), APM_STR("null"), true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    case APM_JSON_BOOL:
        return emit_scalar(emitter, TAG("bool"), token->val.text, true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    case APM_JSON_INT:
        return emit_scalar(emitter, TAG("int"), token->val.text, true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    case APM_JSON_FLOAT:
        return emit_float(emitter, token->val);
    default:
        if (apm_json_string(token->val, "string", arena, &text, NULL) != APIUM_OK ||
            !apm_utf8_valid(text, false))
            return false;
        /* Plain only if it would not be read as something else: dates and = and << among it. */
        bool plain_ok = resolve(text).type == APM_JSON_STRING && text.len &&
                        !strchr("0123456789+-.=<", text.p[0]);
        return emit_scalar(emitter, TAG("str"), text, plain_ok, true,
                           plain_ok ? YAML_ANY_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE);
    }
}

static bool
emit_token(yaml_emitter_t *emitter, bool was_object, const apm_token *token, apm_arena *arena)
{
    yaml_event_t event;

    switch (token->type) {
    case APM_T_OPEN_ARRAY:
        return yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                                    YAML_BLOCK_SEQUENCE_STYLE) &&
               yaml_emitter_emit(emitter, &event);
    case APM_T_OPEN_OBJECT:
        return yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
                                                   YAML_BLOCK_MAPPING_STYLE) &&
               yaml_emitter_emit(emitter, &event);
    case APM_T_CLOSE:
        return (was_object ? yaml_mapping_end_event_initialize(&event)
                           : yaml_sequence_end_event_initialize(&event)) &&
               yaml_emitter_emit(emitter, &event);
    default:
        return emit_value(emitter, token, arena);
    }
}

apium_status
apm_yaml_from_json(apm_str json, apm_arena *arena, apm_str *bytes, apium_error *err)
{
    apm_tokens tokens = { .at = json.p, .end = json.p + json.len };
    yaml_emitter_t emitter;
    yaml_event_t event;
    apm_json whole;
    apm_buf buf;
    apium_status st;
    bool ok;

    if ((st = apm_json_parse(json, &whole, err)) != APIUM_OK)
        return st;
    if (!yaml_emitter_initialize(&emitter))
        return apm_fail(err, APIUM_E_NOMEM, "cannot encode in YAML: out of memory");
    apm_buf_init(&buf, APM_BUF_MAX);
    yaml_emitter_set_output(&emitter, collect, &buf);
    yaml_emitter_set_width(&emitter, -1);
    yaml_emitter_set_unicode(&emitter, 0);
    ok = yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
         yaml_emitter_emit(&emitter, &event) &&
         yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1) &&
         yaml_emitter_emit(&emitter, &event);
    while (ok) {
        bool in_object = tokens.depth > 0 && tokens.object[tokens.depth];
        apm_token token = apm_token_next(&tokens);
        if (token.type == APM_T_END)
            break;
        ok = emit_token(&emitter, in_object, &token, arena);
    }
    ok = ok && yaml_document_end_event_initialize(&event, 1) &&
         yaml_emitter_emit(&emitter, &event) && yaml_stream_end_event_initialize(&event) &&
         yaml_emitter_emit(&emitter, &event) && yaml_emitter_flush(&emitter);
    bool toobig = buf.failed;
    yaml_emitter_delete(&emitter);
    if (!ok) {
        apm_buf_clear(&buf);
        return toobig ? apm_fail(err, APIUM_E_TOOBIG,
                                 "cannot encode in YAML: too big, or out of memory")
                      : apm_fail(err, APIUM_E_ENCODE,
                                 "cannot encode in YAML: a string holds a lone surrogate");
    }
    return apm_format_keep(&buf, arena, bytes, "YAML", err);
}
