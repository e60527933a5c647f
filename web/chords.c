/* chords.c - the parts of a chord's header as resources of their own, for whoever speaks plain HTTP; workers send units. */
#include "web/inner.h"

#include <stdio.h>
#include <stdlib.h>

static bool
counts(apm_web_call *call)
{
    if (apm_backend_can(call->web->backend, APM_BACKEND_BARRIER))
        return true;
    apm_web_error(call, 501, "this store cannot count the parts of chords");
    return false;
}

static void
begin_op(const apm_web_call *call, apm_buf *op, const char *name)
{
    apm_buf_init(op, APM_BUF_MAX);
    apm_buf_addf(op, "[\"%s\", ", name);
    apm_json_add_string(op, call->args[0]);
}

void
apm_chord_size_put(apm_web_call *call)
{
    apm_json size;
    apm_buf op;
    if (apm_json_parse(apm_http_body(call->req), &size, NULL) != APIUM_OK ||
        size.type != APM_JSON_INT) {
        apm_web_error(call, 400, "the body is the number of parts");
        return;
    }
    begin_op(call, &op, "expect");
    apm_buf_addz(&op, ", ");
    apm_buf_adds(&op, size.text);
    apm_buf_addc(&op, ']');
    apm_units_one(call, APM_STR_NONE, &op);
}

void
apm_chord_part_put(apm_web_call *call)
{
    apm_json member, place;
    apm_str index = APM_STR("-1");
    apm_buf op;
    if (!apm_web_json(call, APM_JSON_ARRAY, &member))
        return;
    (void)apm_web_param(call, "index", &index);
    if (apm_json_parse(index, &place, NULL) != APIUM_OK || place.type != APM_JSON_INT) {
        apm_web_error(call, 400, "index is a number");
        return;
    }
    begin_op(call, &op, "arrive");
    apm_buf_addz(&op, ", ");
    apm_json_add_string(&op, call->args[1]);
    apm_buf_addz(&op, ", ");
    apm_buf_adds(&op, place.text);
    apm_buf_addz(&op, ", ");
    apm_buf_adds(&op, member.text);
    apm_buf_addc(&op, ']');
    apm_units_one(call, APM_STR_NONE, &op);
}

void
apm_chord_claim_put(apm_web_call *call)
{
    apm_json claimant;
    const char *text;
    apm_buf op;
    if (apm_json_parse(apm_http_body(call->req), &claimant, NULL) != APIUM_OK ||
        apm_json_cstr(claimant, "claimant", &call->arena, &text, NULL) != APIUM_OK || !*text) {
        apm_web_error(call, 400, "the body is the claimant's name, a JSON string");
        return;
    }
    begin_op(call, &op, "claim");
    apm_buf_addz(&op, ", ");
    apm_buf_adds(&op, claimant.text);
    apm_buf_addc(&op, ']');
    apm_units_one(call, APM_STR_NONE, &op);
}

void
apm_chord_parts_delete(apm_web_call *call)
{
    apm_buf op;
    if (!counts(call))
        return;
    begin_op(call, &op, "take");
    apm_buf_addc(&op, ']');
    apm_units_one(call, APM_STR_NONE, &op);
}

/* ---- how many have returned ---- */

typedef struct arrival {
    apm_web_call *call;
    size_t n;
    bool complete;
} arrival;

static void
on_arrived(void *arg, const apm_parts *parts, const apium_error *err)
{
    arrival *a = arg;
    apm_buf body;
    a->n += parts ? parts->n : 0;
    if (parts && parts->more)
        return;
    if (err && err->status != APIUM_E_NOTFOUND) {
        apm_web_fail(a->call, err);
    } else {
        apm_buf_init(&body, 128);
        apm_buf_addf(&body, "{\"parts\": %zu, \"complete\": %s}", a->n,
                     a->complete ? "true" : "false");
        apm_web_answer(a->call, 200, &body);
    }
    free(a);
}

void
apm_chord_answer_arrival(apm_web_call *call, bool complete)
{
    arrival *a = malloc(sizeof(*a));
    if (!a) {
        apm_web_error(call, 503, "out of memory");
        return;
    }
    *a = (arrival){ .call = call, .complete = complete };
    call->web->backend->ops->parts(call->web->backend, call->args[0].p, on_arrived, a);
}

typedef struct gather {
    apm_web_call *call;
    apm_buf body;
    size_t n;
} gather;

static void
on_parts(void *arg, const apm_parts *parts, const apium_error *err)
{
    gather *g = arg;
    apm_web_call *call = g->call;
    for (size_t i = 0; parts && i < parts->n; i++) {
        apm_buf_addz(&g->body, g->n++ ? ", " : "");
        apm_buf_adds(&g->body, parts->members[i]);
    }
    if (parts && apm_str_is(parts->tree)) {
        /* It comes with the first call, so it can be kept aside until the list is closed. */
        apm_buf tree;
        apm_buf_init(&tree, APM_BUF_MAX);
        apm_buf_addz(&tree, "{\"tree\": ");
        apm_buf_adds(&tree, parts->tree);
        apm_buf_addz(&tree, ", ");
        apm_buf_addz(&tree, g->body.p ? g->body.p + 1 : "");
        apm_buf_clear(&g->body);
        g->body = tree;
    }
    if (parts && parts->more)
        return;
    apm_buf_addz(&g->body, "]}");
    if (parts)
        apm_web_answer(call, 200, &g->body);
    else
        apm_web_fail(call, err);
    apm_buf_clear(&g->body);
    free(g);
}

void
apm_chord_parts_get(apm_web_call *call)
{
    gather *g = counts(call) ? calloc(1, sizeof(*g)) : NULL;
    if (!g) {
        if (apm_backend_can(call->web->backend, APM_BACKEND_BARRIER))
            apm_web_error(call, 503, "out of memory");
        return;
    }
    g->call = call;
    apm_buf_init(&g->body, APM_BUF_MAX);
    apm_buf_addz(&g->body, "{\"parts\": [");
    call->web->backend->ops->parts(call->web->backend, call->args[0].p, on_parts, g);
}
