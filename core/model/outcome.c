/* outcome.c - outcomes as flat bytes for a pool's slots, and exceptions as text and as JSON. */
#include "core/model/outcome.h"

#include "core/base/error.h"
#include "core/model/pack.h"

#define MAGIC 0x74756f61u /* "aout" */

/* How much of an exception's arguments a log line shows. */
#define REPR_MAX 4096

static const size_t texts[] = {
    offsetof(apm_outcome, result),     offsetof(apm_outcome, exc.type),
    offsetof(apm_outcome, exc.module), offsetof(apm_outcome, exc.args),
    offsetof(apm_outcome, traceback),  offsetof(apm_outcome, retry_request),
    offsetof(apm_outcome, children),   offsetof(apm_outcome, replacement),
    offsetof(apm_outcome, added),
};
#define TEXTS (sizeof texts / sizeof *texts)

struct numbers {
    int64_t retry_eta_us, retries, runtime_ns;
    uint32_t kind, states, expected, requeue;
    uint64_t behind; /* the result has so many bytes and is behind; 0: it is where it belongs */
};

void
apm_outcome_pack(const apm_outcome *outcome, apm_buf *out, apm_str *behind)
{
    const bool is_long = behind && outcome->result.len >= APM_PACK_BEHIND;
    struct numbers numbers = {
        .retry_eta_us = outcome->retry_eta_us,
        .retries = outcome->retries,
        .runtime_ns = outcome->runtime_ns,
        .kind = outcome->kind,
        .states = outcome->states,
        .expected = outcome->expected,
        .requeue = outcome->requeue,
        .behind = is_long ? outcome->result.len : 0,
    };

    if (behind)
        *behind = is_long ? outcome->result : APM_STR_NONE;
    apm_pack_u32(out, MAGIC);
    apm_pack_bytes(out, &numbers, sizeof numbers);
    for (size_t i = 0; i < TEXTS; i++) /* the result is the first */
        apm_pack_str(out, i || !is_long ? *(const apm_str *)((const char *)outcome + texts[i])
                                        : APM_STR_NONE);
}

bool
apm_outcome_keep(const apm_outcome *outcome, apm_arena *arena, apm_outcome *out)
{
    *out = *outcome;
    for (size_t i = 0; i < TEXTS; i++) {
        apm_str *text = (apm_str *)((char *)out + texts[i]);
        if (apm_str_is(*text) && !apm_str_is(*text = apm_arena_str(arena, *text, NULL)))
            return false;
    }
    return true;
}

/* Absent, or JSON of that type; NONE is any. */
static bool
is_json(apm_str text, apm_json_type type)
{
    apm_json val;

    return !apm_str_is(text) || (apm_json_parse(text, &val, NULL) == APIUM_OK &&
                                 (type == APM_JSON_NONE || val.type == type));
}

/* User code can scribble over a slot; what goes into a document as it is must not break it. */
static bool
sound(const apm_outcome *outcome)
{
    return is_json(outcome->result, APM_JSON_NONE) && is_json(outcome->exc.args, APM_JSON_ARRAY) &&
           is_json(outcome->retry_request, APM_JSON_OBJECT) &&
           is_json(outcome->children, APM_JSON_NONE) &&
           is_json(outcome->replacement, APM_JSON_OBJECT) &&
           is_json(outcome->added, APM_JSON_ARRAY) && apm_utf8_valid(outcome->exc.type, true) &&
           apm_utf8_valid(outcome->exc.module, true) && apm_utf8_valid(outcome->traceback, true);
}

apium_status
apm_outcome_unpack(apm_str bytes, apm_outcome *out, apium_error *err)
{
    apm_unpack in = { bytes.p, bytes.p + bytes.len, false };
    struct numbers numbers;
    apm_outcome outcome = { 0 };

    if (apm_unpack_u32(&in) != MAGIC)
        return apm_fail(err, APIUM_E_DECODE, "a pool slot holds no outcome");
    apm_unpack_bytes(&in, &numbers, sizeof numbers);
    if (numbers.behind > (size_t)(in.end - in.at))
        in.bad = true;
    else
        in.end -= numbers.behind;
    for (size_t i = 0; i < TEXTS; i++)
        *(apm_str *)((char *)&outcome + texts[i]) = apm_unpack_str(&in);
    if (in.bad || in.at != in.end || numbers.kind < APM_DONE_SUCCESS ||
        numbers.kind > APM_DONE_REVOKED)
        return apm_fail(err, APIUM_E_DECODE, "an outcome in a pool slot is damaged");
    if (numbers.behind)
        outcome.result = (apm_str){ in.end, numbers.behind };
    if (!sound(&outcome))
        return apm_fail(err, APIUM_E_DECODE, "an outcome in a pool slot holds what is no JSON");
    outcome.kind = (apm_outcome_kind)numbers.kind;
    outcome.retry_eta_us = numbers.retry_eta_us;
    outcome.retries = numbers.retries;
    outcome.runtime_ns = numbers.runtime_ns;
    outcome.states = numbers.states;
    outcome.expected = numbers.expected != 0;
    outcome.requeue = numbers.requeue != 0;
    *out = outcome;
    return APIUM_OK;
}

/* The text of an exception that tells of another one, which tells of another one ..., doubles its escapes each time. */
static void
cut(apm_buf *buf, size_t max)
{
    if (buf->len <= max || buf->failed)
        return;
    while (max && ((unsigned char)buf->p[max] & 0xc0) == 0x80)
        max--;
    buf->len = max;
    apm_buf_addz(buf, "...");
}

void
apm_exception_repr(apm_buf *buf, const apm_exception *exc)
{
    apm_json args;
    size_t before = buf->len;

    apm_buf_adds(buf, apm_str_is(exc->type) ? exc->type : APM_STR("Exception"));
    apm_buf_addc(buf, '(');
    if (apm_str_is(exc->args) && apm_json_parse(exc->args, &args, NULL) == APIUM_OK) {
        size_t n = args.type == APM_JSON_ARRAY ? apm_json_count(args) : 0;
        for (size_t i = 0; i < n; i++) {
            apm_buf_addz(buf, i ? ", " : "");
            apm_json_python(buf, apm_json_at(args, i));
        }
    }
    cut(buf, before + REPR_MAX);
    apm_buf_addc(buf, ')');
}

void
apm_exception_json(apm_buf *buf, const apm_exception *exc)
{
    /* A reader refuses an exception without a type. */
    apm_buf_addz(buf, "{\"exc_type\": ");
    apm_json_add_string(buf, apm_str_is(exc->type) ? exc->type : APM_STR("Exception"));
    apm_buf_addz(buf, ", \"exc_message\": ");
    apm_buf_adds(buf, apm_str_is(exc->args) ? exc->args : APM_STR("[]"));
    apm_buf_addz(buf, ", \"exc_module\": ");
    apm_json_add_string(buf, apm_str_is(exc->module) ? exc->module : APM_STR("builtins"));
    apm_buf_addc(buf, '}');
}
