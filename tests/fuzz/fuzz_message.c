/* fuzz_message.c - whatever the bytes are: as an envelope, as a body of each format, as a result,
 * as a slot of a pool. */
#include "core/model/request_fields.h"
#include "core/model/result.h"
#include "core/model/serializer.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {
    "{\"body\": \"W1syLCAzXSwge30sIHsiY2FsbGJhY2tzIjogW10sICJjaGFpbiI6IG51bGx9XQ==\", "
    "\"content-encoding\": \"utf-8\", "
    "\"content-type\": \"application/json\", \"headers\": {\"lang\": \"py\", \"task\": \"t.add\", "
    "\"id\": \"i\", \"eta\": "
    "\"2030-01-02T03:04:05.5+02:00\", \"expires\": null, \"group_index\": 1, \"retries\": 0, "
    "\"timelimit\": [1.5, null], "
    "\"stamped_headers\": [\"a\"], \"stamps\": {\"a\": 1}, \"x\": []}, \"properties\": "
    "{\"correlation_id\": \"i\", \"reply_to\": "
    "\"\", \"delivery_mode\": 2, \"delivery_info\": {\"exchange\": \"\", \"routing_key\": "
    "\"celery\"}, \"priority\": 0, "
    "\"body_encoding\": \"base64\", \"delivery_tag\": \"t\"}}",
    "{\"body\": \"{\\\"task\\\": \\\"t\\\", \\\"id\\\": \\\"i\\\", \\\"args\\\": \\\"ab\\\", "
    "\\\"utc\\\": false}\", \"content-type\": "
    "\"application/json\", \"properties\": {\"delivery_info\": {}}}",
    "[[2, 3.5, \"a\\u00e9\"], {\"k\": {\"__type__\": \"base64\", \"__value__\": \"//4=\"}}, "
    "{\"callbacks\": [{}], \"chord\": null}]",
    "- [&x 2, 0x1f, 1:30, ~, *x, 'q', \"\\u00e9\"]\n- {a: .5, 1: yes}\n- !!binary YWJj\n",
    "\x93\x92\x02\xcb\x3f\xf8\x01\x01\x01\x01\x01\x01\x81\xa1k\xc4\x02\xff\xfe\xc0",
    "{\"status\": \"FAILURE\", \"result\": {\"exc_type\": \"E\", \"exc_message\": [\"m\"], "
    "\"exc_module\": null}, \"traceback\": "
    "null, \"children\": [], \"date_done\": \"2026-11-22T07:18:41.873319\", \"group_id\": \"g\", "
    "\"task_id\": \"i\"}",
    "\x78\x9c\x8b\x8e\x36\xd2\x51\x30\x8e\x05\x01\x0a\x2e\x02\x35",
    "areqaout",
    NULL,
};

#define ACCEPT_ALL (APM_ACCEPT_JSON | APM_ACCEPT_YAML | APM_ACCEPT_MSGPACK | APM_ACCEPT_PICKLE)

/* What was read can be written, and reads as the same again. */
static void
check_request(const apm_request *req, apm_arena *arena)
{
    const apm_decode_opts decode = { .accept = ACCEPT_ALL };
    apm_encode_opts encode = { .protocol = req->protocol };
    apm_request again;
    apm_message msg;
    apm_malformed how;
    apm_buf packed = { 0 };

    fuzz_check(apm_request_write(req, &encode, arena, &msg, NULL) == APIUM_OK);
    fuzz_check(apm_request_read(&msg, &decode, arena, &again, &how, NULL) == APIUM_OK);
    fuzz_check(apm_str_eq(req->args, again.args) && apm_str_eq(req->kwargs, again.kwargs));
    fuzz_check(apm_str_eq(req->id, again.id) && apm_str_eq(req->callbacks, again.callbacks));
    fuzz_check(req->eta_us == again.eta_us && req->retries == again.retries);
    apm_buf_init(&packed, APM_BUF_MAX);
    apm_request_pack(req, &packed, NULL);
    fuzz_check(apm_request_unpack(apm_buf_str(&packed), &again, NULL) == APIUM_OK);
    fuzz_check(apm_str_eq(req->chain, again.chain) && apm_str_eq(req->headers, again.headers));
    apm_buf_clear(&packed);
}

static void
try_envelope(apm_str text, apm_arena *arena)
{
    const apm_decode_opts decode = { .accept = ACCEPT_ALL };
    apm_message msg, again;
    apm_malformed how;
    apm_request req;
    apm_str tag;
    apm_buf buf;

    if (apm_envelope_read(text, arena, &msg, &tag, NULL) != APIUM_OK)
        return;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_envelope_write(&buf, &msg, "tag");
    fuzz_check(!buf.failed);
    fuzz_check(apm_envelope_read(apm_buf_str(&buf), arena, &again, &tag, NULL) == APIUM_OK);
    fuzz_check(apm_str_eq(msg.body, again.body) && apm_str_eq(msg.headers, again.headers));
    apm_buf_reset(&buf);
    fuzz_check(apm_envelope_redelivered(&buf, text, NULL) == APIUM_OK);
    fuzz_check(apm_envelope_read(apm_buf_str(&buf), arena, &again, &tag, NULL) == APIUM_OK &&
               again.redelivered);
    apm_buf_clear(&buf);
    if (apm_request_read(&msg, &decode, arena, &req, &how, NULL) == APIUM_OK)
        check_request(&req, arena);
    else
        fuzz_check(how != APM_MAL_NONE);
}

static void
try_body(apm_str text, const char *type, const char *headers, apm_arena *arena)
{
    const apm_decode_opts decode = { .accept = ACCEPT_ALL };
    apm_message msg = { .content_type = apm_strz(type),
                        .headers = apm_strz(headers),
                        .body = text };
    apm_malformed how;
    apm_request req;

    if (apm_request_read(&msg, &decode, arena, &req, &how, NULL) == APIUM_OK)
        check_request(&req, arena);
}

/* A format's JSON is JSON and goes there and back; from the second time on nothing changes any more
 * (base64 may be sloppy once). */
static void
try_format(apm_str text, const char *name, apm_arena *arena)
{
    const apm_serializer *format = apm_serializer_find(apm_strz(name));
    apm_str json, bytes;
    apm_json was = { 0 }, now;

    if (format->to_json(text, arena, &json, NULL) != APIUM_OK)
        return;
    for (int round = 0; round < 3; round++) {
        fuzz_check(apm_json_parse(json, &now, NULL) == APIUM_OK);
        if (round == 2)
            fuzz_check(apm_json_equal(was, now));
        was = now;
        if (format->from_json(json, arena, &bytes, NULL) != APIUM_OK)
            return;
        fuzz_check(format->to_json(bytes, arena, &json, NULL) == APIUM_OK);
    }
}

static void
try_json(apm_str json, const char *name, apm_arena *arena)
{
    const apm_serializer *format = apm_serializer_find(apm_strz(name));
    apm_json val;
    apm_str bytes, again;

    if (apm_json_parse(json, &val, NULL) == APIUM_OK &&
        format->from_json(json, arena, &bytes, NULL) == APIUM_OK)
        fuzz_check(format->to_json(bytes, arena, &again, NULL) == APIUM_OK);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const compressions[] = { "zlib", "bzip2", "lzma", "brotli", "zstd" };
    apm_str text = { size ? (const char *)data : "", size }, out;
    apm_arena arena = { 0 };
    apm_result_doc doc;
    apm_request req;
    apm_outcome outcome;
    apm_buf buf;

    try_envelope(text, &arena);
    try_body(text, "application/json", "{\"task\": \"t\", \"id\": \"i\"}", &arena);
    try_body(text, "application/json", "{}", &arena);
    try_body(text, "application/x-yaml", "{\"task\": \"t\", \"id\": \"i\"}", &arena);
    try_body(text, "application/x-msgpack", "{\"task\": \"t\", \"id\": \"i\"}", &arena);
    try_body(APM_STR("[[], {}, {}]"), "application/json", apm_arena_str(&arena, text, NULL).p,
             &arena);
    try_format(text, "yaml", &arena);
    try_format(text, "msgpack", &arena);
    try_json(text, "yaml", &arena);
    try_json(text, "msgpack", &arena);
    for (int i = 0; i < 5; i++)
        (void)apm_decompress(apm_strz(compressions[i]), text, 1 << 16, &arena, &out, NULL);
    (void)apm_result_read(text, &arena, &doc, NULL);
    apm_buf_init(&buf, APM_BUF_MAX);
    if (apm_request_unpack(text, &req, NULL) == APIUM_OK)
        apm_request_pack(&req, &buf, NULL);
    if (apm_outcome_unpack(text, &outcome, NULL) == APIUM_OK)
        apm_outcome_pack(&outcome, &buf, NULL);
    apm_buf_clear(&buf);
    apm_arena_clear(&arena);
    return 0;
}
