/*
 * formats.h - bodies that are not JSON, and what their converters share: a JSON text as a flat run
 * of tokens, so that deep nesting costs one pass and no recursion.
 */
#ifndef APM_MODEL_FORMATS_H
#define APM_MODEL_FORMATS_H

#include "core/base/json.h"

apium_status apm_yaml_to_json(apm_str bytes, apm_arena *arena, apm_str *json, apium_error *err);
apium_status apm_yaml_from_json(apm_str json, apm_arena *arena, apm_str *bytes, apium_error *err);
apium_status apm_msgpack_to_json(apm_str bytes, apm_arena *arena, apm_str *json, apium_error *err);
apium_status
apm_msgpack_from_json(apm_str json, apm_arena *arena, apm_str *bytes, apium_error *err);

typedef enum apm_token_type {
    APM_T_END,   /* of the text */
    APM_T_VALUE, /* a scalar */
    APM_T_BYTES, /* {"__type__": "bytes" or "base64", "__value__": ...}, as kombu 5.6 has bytes */
    APM_T_DATE,  /* the same of "date" or "datetime", where `dates` asks for it */
    APM_T_KEY,
    APM_T_OPEN_ARRAY,
    APM_T_OPEN_OBJECT,
    APM_T_CLOSE,
} apm_token_type;

typedef struct apm_token {
    apm_token_type type;
    apm_json val; /* of a value, a key (a string), and of bytes and dates the "__value__" */
    bool base64;  /* of bytes */
} apm_token;

/* Zeroed but for at and end, the text of a validated document, and dates. */
typedef struct apm_tokens {
    const char *at, *end;
    int depth;
    bool object[APM_JSON_DEPTH + 1]; /* what is open at each depth */
    bool value_next;                 /* a key has just been given */
    bool dates;                      /* tell dates from other objects */
} apm_tokens;

apm_token apm_token_next(apm_tokens *tokens);

/* Bytes as kombu 5.6 writes them in JSON. */
void apm_json_add_bytes(apm_buf *buf, apm_str bytes);
/* And back, into the arena. */
apium_status
apm_token_bytes(const apm_token *token, apm_arena *arena, apm_str *out, apium_error *err);

/* Take a conversion's output into the arena and clear the buffer. */
apium_status
apm_format_keep(apm_buf *buf, apm_arena *arena, apm_str *out, const char *format, apium_error *err);

#endif
