/*
 * codec.c - reads messages or results, a JSON text a line, and writes each again as apium would
 * send or store it: for tests that hold both against Celery. A line that cannot be read is answered
 * with "!" and why.
 *     codec message|result
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/request_fields.h"
#include "core/model/result.h"
#include "core/model/serializer.h"

static const char *
keep(apm_arena *arena, apm_str text)
{
    return apm_str_is(text) ? apm_arena_str(arena, text, NULL).p : NULL;
}

static apium_status
message(apm_str line, apm_arena *arena, apm_buf *out, apium_error *err)
{
    const apm_decode_opts decode = { .accept =
                                         APM_ACCEPT_JSON | APM_ACCEPT_YAML | APM_ACCEPT_MSGPACK };
    apm_message msg, again;
    apm_malformed how;
    apm_request req;
    apm_str tag;
    apium_status st;

    if ((st = apm_envelope_read(line, arena, &msg, &tag, err)) != APIUM_OK ||
        (st = apm_request_read(&msg, &decode, arena, &req, &how, err)) != APIUM_OK)
        return st;
    const apm_encode_opts encode = { .serializer = keep(arena, req.serializer),
                                     .compression = keep(arena, req.compression),
                                     .protocol = req.protocol };
    if ((st = apm_request_write(&req, &encode, arena, &again, err)) != APIUM_OK)
        return st;
    apm_envelope_write(out, &again, keep(arena, tag));
    return APIUM_OK;
}

static apium_status
result(apm_str line, apm_arena *arena, apm_buf *out, apium_error *err)
{
    apm_request req;
    apm_result_doc doc;
    apium_status st;

    if ((st = apm_result_read(line, arena, &doc, err)) != APIUM_OK)
        return st;
    apm_request_init(&req);
    req.id = doc.task_id;
    req.group = doc.group_id;
    req.parent_id = doc.parent_id;
    req.task = doc.name;
    req.args = doc.args.text;
    req.kwargs = doc.kwargs.text;
    req.retries = doc.retries;
    req.routing_key = doc.queue;
    const apm_result_opts opts = { .extended = apm_str_is(doc.name),
                                   .worker = keep(arena, doc.worker),
                                   .now_us = doc.date_done_us };
    apm_outcome outcome = { .kind = apm_str_eqz(doc.status, APM_STATE_SUCCESS)   ? APM_DONE_SUCCESS
                                    : apm_str_eqz(doc.status, APM_STATE_RETRY)   ? APM_DONE_RETRY
                                    : apm_str_eqz(doc.status, APM_STATE_REVOKED) ? APM_DONE_REVOKED
                                                                                 : APM_DONE_FAILURE,
                            .result = doc.result.text,
                            .exc = doc.exc,
                            .traceback = doc.traceback,
                            .children = doc.children.text };
    if (apm_state_ready(doc.status) || apm_state_exception(doc.status))
        apm_result_write(out, &req, &outcome, &opts);
    else
        apm_result_write_state(out, &req, doc.status, doc.result.text, &opts);
    return APIUM_OK;
}

int
main(int argc, char **argv)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t len;

    if (argc != 2 || (strcmp(argv[1], "message") != 0 && strcmp(argv[1], "result") != 0)) {
        fprintf(stderr, "usage: codec message|result\n");
        return 2;
    }
    while ((len = getline(&line, &room, stdin)) > 0) {
        apm_str text = { line, (size_t)len - (line[len - 1] == '\n') };
        apm_arena arena = { 0 };
        apium_error err = { 0 };
        apm_buf out;
        apm_buf_init(&out, APM_BUF_MAX);
        apium_status st = strcmp(argv[1], "message") == 0 ? message(text, &arena, &out, &err)
                                                          : result(text, &arena, &out, &err);
        if (st == APIUM_OK && !out.failed)
            printf("%s\n", out.p);
        else
            printf("!%s\n", err.text);
        apm_buf_clear(&out);
        apm_arena_clear(&arena);
    }
    free(line);
    return 0;
}
