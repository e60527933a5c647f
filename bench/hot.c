/*
 * hot.c - the stations of a task's way that are pure code, each run so many times: what `./dev bench --guard` counts the
 * instructions of, under callgrind.
 *
 *     hot COUNT
 */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/ids.h"
#include "core/model/result.h"
#include "core/model/serializer.h"
#include "workflows/follow.h"

/* As a Celery 5.6 producer writes it. */
static const char envelope[] =
    "{\"body\": \"W1tdLCB7fSwgeyJjYWxsYmFja3MiOiBudWxsLCAiZXJyYmFja3MiOiBudWxsLCAiY2hhaW4iOiBudWxsL"
    "CAiY2hvcmQiOiBudWxsfV0=\", \"content-encoding\": \"utf-8\", \"content-type\": "
    "\"application/json\", \"headers\": {\"lang\": \"py\", \"task\": \"tasks.noop\", \"id\": "
    "\"8c1b1ad5-3a0b-4f2c-a1ad-4a5c94f1fbd2\", \"shadow\": null, \"eta\": null, \"expires\": null, "
    "\"group\": null, \"group_index\": null, \"retries\": 0, \"timelimit\": [null, null], "
    "\"root_id\": \"8c1b1ad5-3a0b-4f2c-a1ad-4a5c94f1fbd2\", \"parent_id\": null, \"argsrepr\": "
    "\"()\", \"kwargsrepr\": \"{}\", \"origin\": \"gen1@bench\", \"ignore_result\": false, "
    "\"replaced_task_nesting\": 0, \"stamped_headers\": null, \"stamps\": {}}, \"properties\": "
    "{\"correlation_id\": \"8c1b1ad5-3a0b-4f2c-a1ad-4a5c94f1fbd2\", \"reply_to\": "
    "\"5a46f3a6-6f6a-3f5c-8a53-2b8e7e6fd5a9\", \"delivery_mode\": 2, \"delivery_info\": "
    "{\"exchange\": \"\", \"routing_key\": \"celery\"}, \"priority\": 0, \"body_encoding\": "
    "\"base64\", \"delivery_tag\": \"c26a3b8a-5f4e-4c9e-8c4b-0d9b6f2a6f11\"}}";

static apium_error err;

static void
must(apium_status st)
{
    if (st == APIUM_OK)
        return;
    fprintf(stderr, "hot: %s\n", err.text);
    exit(1);
}

/* A list element becomes a request. */
__attribute__((noinline)) static void
station_read(apm_arena *arena, apm_request *req)
{
    const apm_decode_opts opts = { .accept = APM_ACCEPT_JSON };
    apm_message msg;
    apm_str tag;
    apm_malformed how;
    must(apm_envelope_read(apm_strz(envelope), arena, &msg, &tag, &err));
    must(apm_request_read(&msg, &opts, arena, req, &how, &err));
}

/* A request becomes a list element. */
__attribute__((noinline)) static void
station_write(const apm_request *req, apm_arena *arena, apm_buf *out)
{
    const apm_encode_opts opts = { .protocol = 2, .origin = "gen1@bench" };
    char tag[APM_UUID_LEN + 1];
    apm_message msg;
    must(apm_request_write(req, &opts, arena, &msg, &err));
    msg.routing_key = APM_STR("celery");
    apm_uuid4(tag);
    apm_envelope_write(out, &msg, tag);
}

/* To a pool process's slot and back: the request, then the outcome. */
__attribute__((noinline)) static void
station_slot(const apm_request *req, apm_buf *out)
{
    const apm_outcome done = { .kind = APM_DONE_SUCCESS, .result = APM_STR("null") };
    apm_request seen;
    apm_outcome brought;
    apm_request_pack(req, out, NULL);
    must(apm_request_unpack(apm_buf_str(out), &seen, &err));
    apm_buf_reset(out);
    apm_outcome_pack(&done, out, NULL);
    must(apm_outcome_unpack(apm_buf_str(out), &brought, &err));
}

static apium_status
no_emit(void *arg, const apm_canvas_op *op, apium_error *why)
{
    (void)arg;
    (void)op;
    return apm_fail(why, APIUM_E_INVALID, "nothing follows this task");
}

/* What follows an outcome, and the document that it leaves. */
__attribute__((noinline)) static void
station_settle(const apm_request *req, apm_arena *arena, apm_buf *out)
{
    const apm_outcome done = { .kind = APM_DONE_SUCCESS, .result = APM_STR("null") };
    const apm_result_opts opts = { .now_us = 1795000000000000 };
    apm_sending how = { .arena = arena, .emit = no_emit };
    apm_follow follow = { 0 };
    must(apm_follow_outcome(&how, req, &done, true, &follow, &err));
    apm_result_write(out, req, &done, &opts);
}

int
main(int argc, char **argv)
{
    apm_buf buf;
    const long count = argc == 2 ? atol(argv[1]) : 0;
    if (count < 1) {
        fprintf(stderr, "usage: hot COUNT\n");
        return 2;
    }
    apm_buf_init(&buf, APM_BUF_MAX);
    for (long i = 0; i < count; i++) {
        apm_arena arena = { .next_block = 4096 };
        apm_request req;
        station_read(&arena, &req);
        apm_buf_reset(&buf);
        station_write(&req, &arena, &buf);
        apm_buf_reset(&buf);
        station_slot(&req, &buf);
        apm_buf_reset(&buf);
        station_settle(&req, &arena, &buf);
        apm_arena_clear(&arena);
    }
    apm_buf_clear(&buf);
    return 0;
}
