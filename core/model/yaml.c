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
    bool fraction = false;
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
    if (parts < 2 || value > 9e15)
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

/* Reading a tree of libyaml's. Aliases make it a graph: the bounds on depth and output hold cycles and bombs. */
struct reader {
    yaml_document_t doc;
    apm_buf out;
    apm_arena *arena;
    apium_error *err;
};

static apium_status
malformed(struct reader *r, const yaml_node_t *node, const char *why)
{
    return apm_fail(r->err, APIUM_E_DECODE, "cannot decode YAML: %s (line %zu)", why,
                    node->start_mark.line + 1);
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
read_binary(struct reader *r, const yaml_node_t *node, apm_str text)
{
    size_t len;
    char *bytes = apm_arena_bytes(r->arena, text.len / 4 * 3 + 4);

    if (!bytes)
        return apm_fail(r->err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    if (apm_b64_decode(text, bytes, &len, NULL) != APIUM_OK)
        return malformed(r, node, "!!binary is not base64");
    apm_json_add_bytes(&r->out, (apm_str){ bytes, len });
    return APIUM_OK;
}

static apium_status
read_scalar(struct reader *r, const yaml_node_t *node, bool key)
{
    apm_str text = { (const char *)node->data.scalar.value, node->data.scalar.length };
    const char *tag = (const char *)node->tag;
    plain value = { .type = APM_JSON_STRING };

    /* libyaml calls every scalar without a tag a string; only the style tells those that were quoted. */
    bool untagged = strcmp(tag, TAG("str")) == 0;
    if (!untagged || node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        value = resolve(text);
    if (!untagged) {
        apm_json_type want = strcmp(tag, TAG("int")) == 0     ? APM_JSON_INT
                             : strcmp(tag, TAG("float")) == 0 ? APM_JSON_FLOAT
                             : strcmp(tag, TAG("bool")) == 0  ? APM_JSON_BOOL
                             : strcmp(tag, TAG("null")) == 0  ? APM_JSON_NULL
                                                              : APM_JSON_NONE;
        if (strcmp(tag, TAG("binary")) == 0 && !key)
            return read_binary(r, node, text);
        if (strcmp(tag, TAG("timestamp")) == 0)
            value.type = APM_JSON_STRING;
        else if (want == APM_JSON_NONE)
            return malformed(r, node, "a tag that safe_load does not know");
        else if (value.type != want)
            return malformed(r, node, "a value is not of the type that its tag says");
    }
    if (value.type == APM_JSON_STRING) {
        apm_json_add_string(&r->out, text);
        return APIUM_OK;
    }
    /* A key of an object has to be a string in JSON: it gets quotes, as Python's json gives it. */
    apm_buf_addz(&r->out, key ? "\"" : "");
    add_number(&r->out, &value);
    apm_buf_addz(&r->out, key ? "\"" : "");
    return APIUM_OK;
}

static apium_status
read_node(struct reader *r, int index, bool key, int depth)
{
    const yaml_node_t *node = yaml_document_get_node(&r->doc, index);
    apium_status st = APIUM_OK;

    if (r->out.failed)
        return apm_fail(r->err, APIUM_E_TOOBIG,
                        "cannot decode YAML: it unfolds to more than %zu bytes", r->out.max);
    if (depth > APM_JSON_DEPTH)
        return apm_fail(r->err, APIUM_E_TOOBIG, "cannot decode YAML: nested deeper than %d",
                        APM_JSON_DEPTH);
    if (node->type == YAML_SCALAR_NODE)
        return read_scalar(r, node, key);
    if (key)
        return malformed(r, node, "a list or mapping is the key of a mapping");
    if (node->type == YAML_SEQUENCE_NODE) {
        if (strcmp((const char *)node->tag, TAG("seq")) != 0)
            return malformed(r, node, "a tag that safe_load does not know");
        apm_buf_addc(&r->out, '[');
        for (yaml_node_item_t *item = node->data.sequence.items.start;
             st == APIUM_OK && item < node->data.sequence.items.top; item++) {
            apm_buf_addz(&r->out, item == node->data.sequence.items.start ? "" : ", ");
            st = read_node(r, *item, false, depth + 1);
        }
        apm_buf_addc(&r->out, ']');
        return st;
    }
    if (strcmp((const char *)node->tag, TAG("map")) != 0)
        return malformed(r, node, "a tag that safe_load does not know");
    apm_buf_addc(&r->out, '{');
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         st == APIUM_OK && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&r->doc, pair->key);
        if (name->type == YAML_SCALAR_NODE && name->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
            name->data.scalar.length == 2 && memcmp(name->data.scalar.value, "<<", 2) == 0)
            return malformed(r, name, "merge keys (<<) are not supported");
        apm_buf_addz(&r->out, pair == node->data.mapping.pairs.start ? "" : ", ");
        if ((st = read_node(r, pair->key, true, depth + 1)) != APIUM_OK)
            break;
        apm_buf_addz(&r->out, ": ");
        st = read_node(r, pair->value, false, depth + 1);
    }
    apm_buf_addc(&r->out, '}');
    return st;
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
    yaml_parser_t parser;
    yaml_document_t second;
    apium_status st;

    if (!yaml_parser_initialize(&parser))
        return apm_fail(err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes.p, bytes.len);
    if (!yaml_parser_load(&parser, &r.doc)) {
        st = parser_failed(&parser, err);
        yaml_parser_delete(&parser);
        return st;
    }
    apm_buf_init(&r.out, APM_BUF_MAX);
    if (!yaml_document_get_root_node(&r.doc))
        apm_buf_addz(&r.out, "null"), st = APIUM_OK; /* an empty document */
    else
        st = read_node(&r, 1, false, 1);
    if (st == APIUM_OK && yaml_parser_load(&parser, &second)) {
        if (yaml_document_get_root_node(&second))
            st = apm_fail(err, APIUM_E_DECODE, "cannot decode YAML: more than one document");
        yaml_document_delete(&second);
    } else if (st == APIUM_OK) {
        st = parser_failed(&parser, err);
    }
    yaml_document_delete(&r.doc);
    yaml_parser_delete(&parser);
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
