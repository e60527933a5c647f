/*
 * signature.h - a task call as a JSON object that travels inside other messages: links, the rest of a chain, a chord's body
 * (docs/protocol.md "Signatures"). Reading one, and making the request it stands for.
 */
#ifndef APM_MODEL_SIGNATURE_H
#define APM_MODEL_SIGNATURE_H

#include "core/model/request.h"
#include "core/model/settings.h"

typedef enum apm_sig_kind {
    APM_SIG_TASK, /* also map, starmap and chunks, which are tasks on the wire */
    APM_SIG_CHAIN,
    APM_SIG_GROUP,
    APM_SIG_CHORD,
} apm_sig_kind;

/* Slices of the text that was read; unknown members stay in it. */
typedef struct apm_signature {
    apm_sig_kind kind;
    apm_str task;          /* unescaped */
    apm_json args, kwargs; /* NONE when missing or null */
    apm_json options;      /* NONE when missing or null */
    bool immutable;
} apm_signature;

/* `text` is one validated signature. E_DECODE names what is wrong: no object, no task, args no array, ... */
apium_status
apm_signature_read(apm_json text, apm_arena *arena, apm_signature *sig, apium_error *err);

/*
 * The request that a task signature becomes when it is sent: `partial` (JSON array text, absent none) is put before its args
 * unless it is immutable; its options become the request's fields; countdown and expires count from now_us; a missing task_id is made
 * up. What the caller knows better (root, parent, the rest of a chain) it sets afterwards.
 */
typedef struct apm_sig_send {
    apm_request req;
    apm_choice choice; /* queue, exchange, routing_key, priority of its options */
    const char *serializer, *compression; /* NULL: the settings' */
    apm_str headers;                      /* its options' `headers`; absent none */
} apm_sig_send;

apium_status apm_signature_request(const apm_signature *sig, apm_str partial, int64_t now_us,
                                   apm_arena *arena, apm_sig_send *out, apium_error *err);

#endif
