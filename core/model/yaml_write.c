/* yaml_write.c - JSON to YAML in block style, as PyYAML's safe_dump writes it but for the order of
 * keys. */
#include "core/model/formats.h"

#include <stdio.h>
#include <yaml.h>

#include "core/base/b64.h"
#include "core/base/error.h"
#include "core/model/yaml_scalar.h"

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
        return emit_scalar(emitter, APM_YAML_TAG("float"), APM_STR(".nan"), true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    if (val.text.p[0] == 'I' || (val.text.len > 1 && val.text.p[1] == 'I'))
        return emit_scalar(emitter, APM_YAML_TAG("float"),
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
    ok = emit_scalar(emitter, APM_YAML_TAG("float"), apm_strz(with_dot), true, false,
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
        bool ok = emit_scalar(emitter, APM_YAML_TAG("binary"), apm_buf_str(&b64), false, false,
                              YAML_LITERAL_SCALAR_STYLE);
        apm_buf_clear(&b64);
        return ok;
    }
    if (token->type == APM_T_DATE &&
        apm_json_string(token->val, "date", arena, &text, NULL) == APIUM_OK &&
        apm_yaml_resolve(text).type == APM_JSON_OBJECT)
        return emit_scalar(emitter, APM_YAML_TAG("timestamp"), text, true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    switch (token->val.type) {
    case APM_JSON_NULL:
        return emit_scalar(emitter, APM_YAML_TAG("null"), APM_STR("null"), true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    case APM_JSON_BOOL:
        return emit_scalar(emitter, APM_YAML_TAG("bool"), token->val.text, true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    case APM_JSON_INT:
        return emit_scalar(emitter, APM_YAML_TAG("int"), token->val.text, true, false,
                           YAML_PLAIN_SCALAR_STYLE);
    case APM_JSON_FLOAT:
        return emit_float(emitter, token->val);
    default:
        if (apm_json_string(token->val, "string", arena, &text, NULL) != APIUM_OK ||
            !apm_utf8_valid(text, false))
            return false;
        /* Plain only if it would not be read as something else: dates and = and << among it. */
        bool plain_ok = apm_yaml_resolve(text).type == APM_JSON_STRING && text.len &&
                        !strchr("0123456789+-.=<", text.p[0]);
        return emit_scalar(emitter, APM_YAML_TAG("str"), text, plain_ok, true,
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
    apm_tokens tokens = { .at = json.p, .end = json.p + json.len, .dates = true };
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
