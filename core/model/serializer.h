/*
 * serializer.h - content types (kombu's names) and compressions, to and from the JSON text that
 * everything inside is. YAML by libyaml, msgpack by our own hand, pickle refused by name. Bytes
 * inside msgpack become {"__type__": "bytes" | "base64", "__value__": ...} as kombu 5.6 writes them
 * in JSON.
 */
#ifndef APM_MODEL_SERIALIZER_H
#define APM_MODEL_SERIALIZER_H

#include "core/base/json.h"

#define APM_ACCEPT_JSON    0x1u
#define APM_ACCEPT_YAML    0x2u
#define APM_ACCEPT_MSGPACK 0x4u
#define APM_ACCEPT_PICKLE  0x8u /* may be configured; still refused by name: pickle runs code */

typedef struct apm_serializer {
    const char *name, *content_type, *content_encoding;
    unsigned accept_bit;
    /* NULL for JSON itself. */
    apium_status (*to_json)(apm_str bytes, apm_arena *arena, apm_str *json, apium_error *err);
    apium_status (*from_json)(apm_str json, apm_arena *arena, apm_str *bytes, apium_error *err);
} apm_serializer;

/* By name ("json") or content type ("application/json"); NULL when unknown. */
const apm_serializer *apm_serializer_find(apm_str name_or_type);

/* The header's value for an alias or MIME name; NULL when unknown. */
const char *apm_compression_mime(apm_str name);
/* By alias or MIME name. *mime is the header's value. E_UNSUPPORTED names it. */
apium_status apm_compress(apm_str name, apm_str bytes, apm_arena *arena, apm_str *out,
                          const char **mime, apium_error *err);
/* Bounded by max_bytes (E_TOOBIG): a bomb is refused without being unpacked. */
apium_status apm_decompress(apm_str name, apm_str bytes, size_t max_bytes, apm_arena *arena,
                            apm_str *out, apium_error *err);

#endif
