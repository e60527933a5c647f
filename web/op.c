/*
 * op.c - one operation of a unit: what it is in JSON, and what it is for the store. See docs/http-result-protocol.md.
 */
#include "web/op.h"

#include "core/base/error.h"

static const struct {
    const char *name, *args; /* s an id, t any string, d a document, i an integer */
    bool chord;
} kinds[APM_OPS] = {
    [APM_OP_RECORD] = { "record", "std", false }, [APM_OP_GROUP] = { "group", "sd", false },
    [APM_OP_EXPECT] = { "expect", "si", true },   [APM_OP_EXTEND] = { "extend", "si", true },
    [APM_OP_ARRIVE] = { "arrive", "ssid", true }, [APM_OP_TAKE] = { "take", "s", true },
    [APM_OP_CLAIM] = { "claim", "st", true },     [APM_OP_CHECK] = { "check", "s", true },
};

static apium_status
read_argument(char type, apm_json val, apm_arena *arena, apm_op *out, apium_error *err)
{
    const char *text;
    switch (type) {
    case 'i':
        return apm_json_int64(val, "a number of an operation", &out->number, err);
    case 'd':
        out->doc = val;
        return APIUM_OK;
    default:
        break;
    }
    apium_status st = apm_json_cstr(val, "a string of an operation", arena, &text, err);
    if (st != APIUM_OK)
        return st;
    out->text[out->n_text++] = apm_strz(text);
    if (type == 's' && !apm_web_id_ok(apm_strz(text)))
        return apm_fail(err, APIUM_E_INVALID, "an id has 1 to %d bytes of UTF-8 without NUL",
                        APM_WEB_ID_MAX);
    return APIUM_OK;
}

apium_status
apm_op_read(const apm_web *web, apm_json val, apm_arena *arena, apm_op *out, apium_error *err)
{
    apm_json_iter it;
    apm_json item;
    apm_str key, name = APM_STR_NONE;
    *out = (apm_op){ .kind = APM_OPS };
    if (val.type != APM_JSON_ARRAY || apm_json_open(&it, val.text, err) != APIUM_OK ||
        apm_json_next(&it, &key, &item, err) <= 0 ||
        apm_json_string(item, "an operation", arena, &name, err) != APIUM_OK)
        return apm_fail(err, APIUM_E_INVALID, "an operation is an array that begins with its name");
    for (int k = 0; k < APM_OPS; k++)
        if (apm_str_eqz(name, kinds[k].name))
            out->kind = (apm_op_kind)k;
    if (out->kind == APM_OPS)
        return apm_fail(err, APIUM_E_INVALID, "there is no operation \"%.*s\"",
                        (int)(name.len < 32 ? name.len : 32), name.p);
    if (kinds[out->kind].chord && !apm_backend_can(web->backend, APM_BACKEND_BARRIER))
        return apm_fail(err, APIUM_E_UNSUPPORTED, "this store cannot count the parts of chords");
    if (out->kind == APM_OP_GROUP && !web->backend->ops->save_group)
        return apm_fail(err, APIUM_E_UNSUPPORTED, "this store keeps no groups");
    for (const char *type = kinds[out->kind].args; *type; type++) {
        if (apm_json_next(&it, &key, &item, err) <= 0)
            return apm_fail(err, APIUM_E_INVALID, "\"%s\" takes %zu arguments",
                            kinds[out->kind].name, strlen(kinds[out->kind].args));
        apium_status st = read_argument(*type, item, arena, out, err);
        if (st != APIUM_OK)
            return st;
    }
    if ((out->kind == APM_OP_EXPECT || out->kind == APM_OP_EXTEND) && out->number < 0)
        return apm_fail(err, APIUM_E_INVALID, "a size is not negative");
    if (out->kind == APM_OP_CLAIM && (out->text[1].len == 0 || out->text[1].len > APM_WEB_ID_MAX))
        return apm_fail(err, APIUM_E_INVALID, "a claimant has 1 to %d bytes", APM_WEB_ID_MAX);
    return APIUM_OK;
}

apium_status
apm_op_append(apm_web *web, apm_unit *to, const apm_op *o, bool done_before, apium_error *err)
{
    const apm_backend_ops *ops = web->backend->ops;
    switch (o->kind) {
    case APM_OP_RECORD:
        return ops->record(
            web->backend, to,
            &(apm_record){ .task_id = o->text[0], .state = o->text[1], .doc = o->doc.text }, err);
    case APM_OP_GROUP:
        return ops->save_group(web->backend, to, o->text[0], o->doc.text, err);
    case APM_OP_EXPECT:
        apm_header_release(web, o->text[0].p);
        return ops->expect(web->backend, to, o->text[0], o->number, err);
    case APM_OP_EXTEND:
        return done_before ? APIUM_OK : ops->extend(web->backend, to, o->text[0], o->number, err);
    case APM_OP_ARRIVE:
        return ops->arrive(web->backend, to,
                           &(apm_part){ .group_id = o->text[0],
                                        .task_id = o->text[1],
                                        .index = o->number,
                                        .member = o->doc.text },
                           err);
    case APM_OP_TAKE:
        return done_before ? APIUM_OK : ops->claim(web->backend, to, o->text[0], err);
    default:
        return APIUM_OK;
    }
}
