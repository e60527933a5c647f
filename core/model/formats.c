/* formats.c - a JSON text as tokens, and bytes inside JSON. */
#include "core/model/formats.h"

#include "core/base/b64.h"
#include "core/base/error.h"

/* Space, and the commas and colons that valid text has where they belong. */
static const char *
skip(const char *at, const char *end)
{
    while (at < end &&
           (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r' || *at == ',' || *at == ':'))
        at++;
    return at;
}

static apm_json
take_scalar(apm_tokens *tokens)
{
    const char *at = tokens->at, *start = at;
    apm_json_type type = APM_JSON_INT;

    if (*at == '"') {
        for (at++; at < tokens->end && *at != '"'; at++)
            if (*at == '\\')
                at++;
        at = at < tokens->end ? at + 1 : tokens->end;
        type = APM_JSON_STRING;
    } else {
        while (at < tokens->end && !strchr(" \n\t\r,:]}", *at))
            at++;
        switch (*start) {
        case 'n':
            type = APM_JSON_NULL;
            break;
        case 't':
        case 'f':
            type = APM_JSON_BOOL;
            break;
        case 'N':
        case 'I':
            type = APM_JSON_FLOAT;
            break;
        default:
            for (const char *p = start; p < at; p++)
                if (*p == '.' || *p == 'e' || *p == 'E' || *p == 'I')
                    type = APM_JSON_FLOAT;
        }
    }
    tokens->at = at;
    return (apm_json){ type, { start, (size_t)(at - start) } };
}

/* At an opening brace: is this an object that stands for bytes or a date? Then pass it. */
static bool
take_typed(apm_tokens *tokens, apm_token *out)
{
    apm_json part[4];
    const char *start = tokens->at;

    tokens->at++;
    for (int i = 0; i < 4; i++) {
        tokens->at = skip(tokens->at, tokens->end);
        if (tokens->at == tokens->end || *tokens->at != '"')
            goto no;
        part[i] = take_scalar(tokens);
    }
    tokens->at = skip(tokens->at, tokens->end);
    if (tokens->at == tokens->end || *tokens->at != '}' ||
        !apm_str_eqz(part[0].text, "\"__type__\"") || !apm_str_eqz(part[2].text, "\"__value__\""))
        goto no;
    out->base64 = apm_str_eqz(part[1].text, "\"base64\"");
    bool date = tokens->dates && (apm_str_eqz(part[1].text, "\"date\"") ||
                                  apm_str_eqz(part[1].text, "\"datetime\""));
    if (!date && !out->base64 && !apm_str_eqz(part[1].text, "\"bytes\""))
        goto no;
    tokens->at++;
    out->type = date ? APM_T_DATE : APM_T_BYTES;
    out->val = part[3];
    return true;
no:
    tokens->at = start;
    return false;
}

apm_token
apm_token_next(apm_tokens *tokens)
{
    apm_token token = { .type = APM_T_END };

    tokens->at = skip(tokens->at, tokens->end);
    if (tokens->at == tokens->end)
        return token;
    bool value = tokens->depth == 0 || !tokens->object[tokens->depth] || tokens->value_next;
    tokens->value_next = false;
    switch (*tokens->at) {
    case '{':
        if (take_typed(tokens, &token))
            return token;
        /* fall through */
    case '[':
        if (tokens->depth == APM_JSON_DEPTH)
            return token; /* validated text is not that deep */
        token.type = *tokens->at == '{' ? APM_T_OPEN_OBJECT : APM_T_OPEN_ARRAY;
        tokens->object[++tokens->depth] = *tokens->at == '{';
        tokens->at++;
        return token;
    case '}':
    case ']':
        token.type = APM_T_CLOSE;
        tokens->at++;
        if (tokens->depth > 0)
            tokens->depth--;
        return token;
    default:
        token.type = value ? APM_T_VALUE : APM_T_KEY;
        token.val = take_scalar(tokens);
        tokens->value_next = !value;
        return token;
    }
}

void
apm_json_add_bytes(apm_buf *buf, apm_str bytes)
{
    bool text = apm_utf8_valid(bytes, false);

    apm_buf_addf(buf, "{\"__type__\": \"%s\", \"__value__\": ", text ? "bytes" : "base64");
    if (text) {
        apm_json_add_string(buf, bytes);
    } else {
        apm_buf_addc(buf, '"');
        apm_b64_add(buf, bytes.p, bytes.len);
        apm_buf_addc(buf, '"');
    }
    apm_buf_addc(buf, '}');
}

apium_status
apm_token_bytes(const apm_token *token, apm_arena *arena, apm_str *out, apium_error *err)
{
    apm_str text;
    apium_status st;

    if ((st = apm_json_string(token->val, "bytes", arena, &text, err)) != APIUM_OK)
        return st;
    if (!token->base64) {
        *out = text;
        return APIUM_OK;
    }
    size_t len;
    char *bytes = apm_arena_bytes(arena, text.len / 4 * 3 + 4);
    if (!bytes)
        return apm_fail(err, APIUM_E_NOMEM, "cannot convert a body: out of memory");
    if ((st = apm_b64_decode(text, bytes, &len, err)) != APIUM_OK)
        return st;
    *out = (apm_str){ bytes, len };
    return APIUM_OK;
}

apium_status
apm_format_keep(apm_buf *buf, apm_arena *arena, apm_str *out, const char *format, apium_error *err)
{
    bool ok = !buf->failed;

    if (ok)
        *out = apm_arena_str(arena, apm_buf_str(buf), &ok);
    apm_buf_clear(buf);
    return ok ? APIUM_OK
              : apm_fail(err, APIUM_E_TOOBIG, "cannot convert %s: too big, or out of memory",
                         format);
}
