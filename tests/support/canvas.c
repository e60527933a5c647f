/*
 * canvas.c - sends workflows into nowhere: for tests that hold what apium would publish against Celery. Reads requests, a JSON
 * object a line, and answers each with a line:
 *     {"read": SIGNATURE}                                               the signature as apium writes it
 *     {"signature": SIGNATURE, "args": [...], "options": {...}, "chords": "counted" | "polled" | "refused"}
 *         {"ops": [{"message": ENVELOPE} | {"size": [GROUP_ID, N]} ...], "result": TUPLE}
 * What cannot be done is answered with {"error": TEXT}.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/model/request.h"
#include "workflows/canvas.h"

struct sink {
    apm_arena *arena;
    apm_buf *out;
    bool any;
};

static apium_status
emit(void *arg, const apm_canvas_op *op, apium_error *err)
{
    struct sink *sink = arg;
    apm_buf_addz(sink->out, sink->any ? ", " : "");
    sink->any = true;
    if (op->kind == APM_CANVAS_SIZE) {
        apm_buf_addz(sink->out, "{\"size\": [");
        apm_json_add_string(sink->out, op->group_id);
        apm_buf_addf(sink->out, ", %lld]}", (long long)op->size);
        return APIUM_OK;
    }
    apm_message msg;
    const apm_encode_opts encode = { .serializer = op->send->serializer,
                                     .compression = op->send->compression,
                                     .extra_headers = op->send->headers,
                                     .origin = "gen1@test" };
    apium_status st = apm_request_write(&op->send->req, &encode, sink->arena, &msg, err);
    if (st != APIUM_OK)
        return st;
    msg.exchange = APM_STR("");
    msg.routing_key = apm_strz(op->send->choice.queue ? op->send->choice.queue : "celery");
    apm_buf_addz(sink->out, "{\"message\": ");
    apm_envelope_write(sink->out, &msg, "tag");
    apm_buf_addc(sink->out, '}');
    return APIUM_OK;
}

static apium_status
read_options(apm_json given, apm_arena *arena, apm_options *options, apium_error *err)
{
    apm_json_iter it;
    apm_str key;
    apm_json val;
    int more;
    apium_status st = apm_json_open(&it, given.text, err);
    if (st != APIUM_OK)
        return st;
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        const char *name;
        if ((st = apm_json_cstr((apm_json){ APM_JSON_STRING, key }, "an option", arena, &name,
                                err)) != APIUM_OK)
            return st;
        if (!apm_canvas_set_named(arena, options, name, val.text))
            return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    }
    return more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

static apium_status
answer(apm_str line, apm_arena *arena, apm_buf *out, apium_error *err)
{
    apm_json request;
    apm_canvas *sig;
    apium_status st = apm_json_parse(line, &request, err);
    if (st != APIUM_OK)
        return st;
    apm_json text = apm_json_get(request, "read");
    if (text.type != APM_JSON_NONE) {
        if ((st = apm_canvas_read(text, arena, &sig, err)) == APIUM_OK)
            apm_canvas_write(out, sig);
        return st;
    }
    apm_json args = apm_json_get(request, "args"), given = apm_json_get(request, "options"),
             chords = apm_json_get(request, "chords");
    apm_options options = { 0 };
    apm_handle *handle = NULL;
    struct sink sink = { arena, out, false };
    apm_sending how = { .arena = arena,
                        .now_us = apm_clock_wall_us(),
                        .chords = apm_str_eqz(chords.text, "\"polled\"")    ? APM_CHORDS_POLLED
                                  : apm_str_eqz(chords.text, "\"refused\"") ? APM_CHORDS_REFUSED
                                                                            : APM_CHORDS_COUNTED,
                        .store = "rpc",
                        .reply_to = APM_STR("00000000-0000-4000-8000-000000000000"),
                        .emit = emit,
                        .arg = &sink };
    if ((st = apm_canvas_read(apm_json_get(request, "signature"), arena, &sig, err)) != APIUM_OK)
        return st;
    if (given.type == APM_JSON_OBJECT &&
        (st = read_options(given, arena, &options, err)) != APIUM_OK)
        return st;
    apm_buf_addz(out, "{\"ops\": [");
    st = apm_canvas_apply(&how, sig, apm_json_count(args) ? args.text : APM_STR_NONE, &options,
                          &handle, err);
    if (st != APIUM_OK)
        return st;
    apm_buf_addz(out, "], \"result\": ");
    apm_handle_write(out, handle);
    apm_buf_addc(out, '}');
    return APIUM_OK;
}

int
main(void)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    while ((len = getline(&line, &room, stdin)) > 0) {
        apm_str text = { line, (size_t)len - (line[len - 1] == '\n') };
        apm_arena arena = { 0 };
        apium_error err = { 0 };
        apm_buf out;
        apm_buf_init(&out, APM_BUF_MAX);
        if (answer(text, &arena, &out, &err) != APIUM_OK || out.failed) {
            apm_buf_reset(&out);
            apm_buf_addz(&out, "{\"error\": ");
            apm_json_add_stringz(&out, err.text);
            apm_buf_addc(&out, '}');
        }
        printf("%s\n", out.p);
        apm_buf_clear(&out);
        apm_arena_clear(&arena);
    }
    free(line);
    return 0;
}
