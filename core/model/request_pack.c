/*
 * request_pack.c - a request as flat bytes, for a pool process's slot.
 *
 *     magic | numbers | headers | embed | the other texts | one of them, if it is long
 *
 * Most texts of a request are slices of its headers or its embed; those travel as a position in
 * them, so that a slot is hardly longer than the message was.
 */
#include "core/model/pack.h"
#include "core/model/request_fields.h"

#include "core/base/error.h"

#define MAGIC 0x71657261u /* "areq" */

/* Where a text is. */
enum place { ABSENT, INLINE, IN_HEADERS, IN_EMBED, BEHIND };

static const size_t texts[] = {
    offsetof(apm_request, id),
    offsetof(apm_request, task),
    offsetof(apm_request, root_id),
    offsetof(apm_request, parent_id),
    offsetof(apm_request, group),
    offsetof(apm_request, shadow),
    offsetof(apm_request, origin),
    offsetof(apm_request, argsrepr),
    offsetof(apm_request, kwargsrepr),
    offsetof(apm_request, args),
    offsetof(apm_request, kwargs),
    offsetof(apm_request, callbacks),
    offsetof(apm_request, errbacks),
    offsetof(apm_request, chain),
    offsetof(apm_request, chord),
    offsetof(apm_request, reply_to),
    offsetof(apm_request, correlation_id),
    offsetof(apm_request, exchange),
    offsetof(apm_request, routing_key),
    offsetof(apm_request, serializer),
    offsetof(apm_request, compression),
};
#define TEXTS (sizeof texts / sizeof *texts)

/* What is not text, as one block. */
struct numbers {
    int64_t group_index, eta_us, expires_us, retries, replaced_task_nesting;
    double time_limit_s, soft_time_limit_s;
    int32_t ignore_result, priority, delivery_mode, redelivered, protocol, unused;
};

static bool
within(apm_str part, apm_str whole, size_t *offset)
{
    if (!whole.p || part.p < whole.p || part.p + part.len > whole.p + whole.len)
        return false;
    *offset = (size_t)(part.p - whole.p);
    return true;
}

static void
pack_text(apm_buf *out, const apm_request *req, apm_str text, apm_str *behind)
{
    size_t offset;

    if (!apm_str_is(text)) {
        apm_buf_addc(out, ABSENT);
    } else if (within(text, req->headers, &offset) || within(text, req->embed, &offset)) {
        apm_buf_addc(out, within(text, req->headers, &offset) ? IN_HEADERS : IN_EMBED);
        apm_pack_u32(out, (uint32_t)offset);
        apm_pack_u32(out, (uint32_t)text.len);
    } else if (text.len >= APM_PACK_BEHIND && behind && !apm_str_is(*behind)) {
        apm_buf_addc(out, BEHIND);
        apm_pack_u32(out, (uint32_t)text.len);
        *behind = text;
    } else {
        apm_buf_addc(out, INLINE);
        apm_pack_str(out, text);
    }
}

void
apm_request_pack(const apm_request *req, apm_buf *out, apm_str *behind)
{
    struct numbers numbers = {
        .group_index = req->group_index,
        .eta_us = req->eta_us,
        .expires_us = req->expires_us,
        .retries = req->retries,
        .replaced_task_nesting = req->replaced_task_nesting,
        .time_limit_s = req->time_limit_s,
        .soft_time_limit_s = req->soft_time_limit_s,
        .ignore_result = req->ignore_result,
        .priority = req->priority,
        .delivery_mode = req->delivery_mode,
        .redelivered = req->redelivered,
        .protocol = req->protocol,
    };

    if (behind)
        *behind = APM_STR_NONE;
    apm_pack_u32(out, MAGIC);
    apm_pack_bytes(out, &numbers, sizeof numbers);
    apm_pack_str(out, req->headers);
    apm_pack_str(out, req->embed);
    for (size_t i = 0; i < TEXTS; i++)
        pack_text(out, req, *(const apm_str *)((const char *)req + texts[i]), behind);
}

/* What is behind is cut off the end. */
static apm_str
unpack_text(apm_unpack *in, const apm_request *req)
{
    char place;

    apm_unpack_bytes(in, &place, 1);
    switch (place) {
    case ABSENT:
        return APM_STR_NONE;
    case INLINE:
        return apm_unpack_str(in);
    case IN_HEADERS:
    case IN_EMBED: {
        apm_str whole = place == IN_HEADERS ? req->headers : req->embed;
        uint32_t offset = apm_unpack_u32(in), len = apm_unpack_u32(in);
        if (!in->bad && apm_str_is(whole) && offset <= whole.len && len <= whole.len - offset)
            return (apm_str){ whole.p + offset, len };
        break;
    }
    case BEHIND: {
        uint32_t len = apm_unpack_u32(in);
        if (in->bad || len == 0 || len > (size_t)(in->end - in->at))
            break;
        in->end -= len;
        return (apm_str){ in->end, len };
    }
    }
    in->bad = true;
    return APM_STR_NONE;
}

apium_status
apm_request_unpack(apm_str bytes, apm_request *out, apium_error *err)
{
    apm_unpack in = { bytes.p, bytes.p + bytes.len, false };
    struct numbers numbers;
    apm_request req;

    if (apm_unpack_u32(&in) != MAGIC)
        return apm_fail(err, APIUM_E_DECODE, "a pool slot holds no request");
    apm_request_init(&req);
    apm_unpack_bytes(&in, &numbers, sizeof numbers);
    req.headers = apm_unpack_str(&in);
    req.embed = apm_unpack_str(&in);
    for (size_t i = 0; i < TEXTS; i++)
        *(apm_str *)((char *)&req + texts[i]) = unpack_text(&in, &req);
    if (in.bad || in.at != in.end)
        return apm_fail(err, APIUM_E_DECODE, "a request in a pool slot is damaged");
    req.group_index = numbers.group_index;
    req.eta_us = numbers.eta_us;
    req.expires_us = numbers.expires_us;
    req.retries = numbers.retries;
    req.replaced_task_nesting = numbers.replaced_task_nesting;
    req.time_limit_s = numbers.time_limit_s;
    req.soft_time_limit_s = numbers.soft_time_limit_s;
    req.ignore_result = numbers.ignore_result > 0    ? APM_YES
                        : numbers.ignore_result == 0 ? APM_NO
                                                     : APM_UNSET;
    req.priority = numbers.priority;
    req.delivery_mode = numbers.delivery_mode;
    req.redelivered = numbers.redelivered != 0;
    req.protocol = numbers.protocol;
    *out = req;
    return APIUM_OK;
}
