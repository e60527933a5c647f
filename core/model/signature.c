/* signature.c - see signature.h */
#include "core/model/signature.h"

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"

static bool
given(apm_json val)
{
    return val.type != APM_JSON_NONE && val.type != APM_JSON_NULL;
}

static apm_json
ifgiven(apm_json val)
{
    return given(val) ? val : (apm_json){ 0 };
}

apium_status
apm_signature_read(apm_json text, apm_arena *arena, apm_signature *sig, apium_error *err)
{
    if (text.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a signature: not an object but %.*s",
                        (int)(text.text.len < 40 ? text.text.len : 40),
                        text.text.p ? text.text.p : "nothing");
    *sig = (apm_signature){ .kind = APM_SIG_TASK };
    apm_json task = apm_json_get(text, "task");
    if (task.type != APM_JSON_STRING)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a signature: it has no \"task\"");
    apium_status st = apm_json_string(task, "task", arena, &sig->task, err);
    if (st != APIUM_OK)
        return st;
    sig->args = ifgiven(apm_json_get(text, "args"));
    sig->kwargs = ifgiven(apm_json_get(text, "kwargs"));
    sig->options = ifgiven(apm_json_get(text, "options"));
    if (given(sig->args) && sig->args.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot read the signature of %.*s: its args are no array",
                        APM_STR_ARG(sig->task));
    if (given(sig->kwargs) && sig->kwargs.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot read the signature of %.*s: its kwargs are no object",
                        APM_STR_ARG(sig->task));
    if (given(sig->options) && sig->options.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot read the signature of %.*s: its options are no object",
                        APM_STR_ARG(sig->task));
    apm_json immutable = apm_json_get(text, "immutable");
    if (immutable.type == APM_JSON_BOOL)
        (void)apm_json_bool(immutable, "immutable", &sig->immutable, NULL);

    apm_json type = apm_json_get(text, "subtask_type");
    apm_str word = APM_STR_NONE;
    if (type.type == APM_JSON_STRING &&
        (st = apm_json_string(type, "subtask_type", arena, &word, err)) != APIUM_OK)
        return st;
    if (apm_str_eqz(word, "chain"))
        sig->kind = APM_SIG_CHAIN;
    else if (apm_str_eqz(word, "group"))
        sig->kind = APM_SIG_GROUP;
    else if (apm_str_eqz(word, "chord"))
        sig->kind = APM_SIG_CHORD;
    return APIUM_OK;
}

/* One array out of two, as text: nothing of either is printed again. */
static apm_str
concat_arrays(apm_str a, apm_str b, apm_arena *arena)
{
    size_t na = a.len, nb = b.len;
    /* Without the brackets; space inside them does not matter. */
    apm_json ja = { APM_JSON_ARRAY, a }, jb = { APM_JSON_ARRAY, b };
    bool some_a = apm_json_at(ja, 0).type != APM_JSON_NONE,
         some_b = apm_json_at(jb, 0).type != APM_JSON_NONE;
    if (!some_a)
        return b;
    if (!some_b)
        return a;
    char *p = apm_arena_bytes(arena, na + nb + 1);
    if (!p)
        return APM_STR_NONE;
    memcpy(p, a.p, na - 1);
    p[na - 1] = ',';
    p[na] = ' ';
    memcpy(p + na + 1, b.p + 1, nb - 1);
    return (apm_str){ p, na + nb };
}

/* Reading options: each remembers the first failure. */
struct reader {
    apm_json options;
    apm_arena *arena;
    apium_status st;
    apium_error *err;
};

static apm_str
text_option(struct reader *r, const char *name)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    apm_str out = APM_STR_NONE;
    if (r->st == APIUM_OK && given(val))
        r->st = apm_json_string(val, name, r->arena, &out, r->err);
    return out;
}

static const char *
cstr_option(struct reader *r, const char *name)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    const char *out = NULL;
    if (r->st == APIUM_OK && given(val))
        r->st = apm_json_cstr(val, name, r->arena, &out, r->err);
    return out;
}

static int64_t
int_option(struct reader *r, const char *name, int64_t otherwise)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    if (r->st == APIUM_OK && given(val))
        r->st = apm_json_int64(val, name, &otherwise, r->err);
    return otherwise;
}

static double
double_option(struct reader *r, const char *name, double otherwise)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    if (r->st == APIUM_OK && given(val))
        r->st = apm_json_double(val, name, &otherwise, r->err);
    return otherwise;
}

static apm_str
raw_option(struct reader *r, const char *name)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    return given(val) ? val.text : APM_STR_NONE;
}

/* link and link_error: one signature or a list of them. */
static apm_str
list_option(struct reader *r, const char *name)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    if (!given(val) || (val.type == APM_JSON_ARRAY && apm_json_at(val, 0).type == APM_JSON_NONE))
        return APM_STR_NONE;
    if (val.type == APM_JSON_ARRAY)
        return val.text;
    const char *list = apm_arena_printf(r->arena, "[%.*s]", APM_STR_ARG(val.text));
    if (!list)
        r->st = apm_fail(r->err, APIUM_E_NOMEM, "cannot read \"%s\": out of memory", name);
    return apm_strz(list);
}

/* What is beyond any date stays that. */
static int64_t
after(int64_t now_us, double seconds)
{
    return seconds > -1e11 && seconds < 1e11 ? now_us + (int64_t)(seconds * 1e6) : INT64_MAX;
}

/* A date in text, or seconds from now. */
static int64_t
time_option(struct reader *r, const char *name, int64_t now_us)
{
    apm_json val = ifgiven(apm_json_get(r->options, name));
    int64_t us = APM_TIME_NONE;
    if (r->st != APIUM_OK || !given(val))
        return us;
    if (val.type == APM_JSON_STRING) {
        apm_str text;
        if ((r->st = apm_json_string(val, name, r->arena, &text, r->err)) == APIUM_OK && text.len)
            r->st = apm_date_parse(text, 0, &us, r->err);
        return us;
    }
    double seconds;
    if ((r->st = apm_json_double(val, name, &seconds, r->err)) == APIUM_OK)
        us = after(now_us, seconds);
    return us;
}

apium_status
apm_signature_request(const apm_signature *sig, apm_str partial, int64_t now_us, apm_arena *arena,
                      apm_sig_send *out, apium_error *err)
{
    struct reader r = { sig->options, arena, APIUM_OK, err };
    apm_str args = given(sig->args) ? sig->args.text : APM_STR("[]");
    if (!sig->immutable && apm_str_is(partial))
        args = concat_arrays(partial, args, arena);
    if (!apm_str_is(args))
        return apm_fail(err, APIUM_E_NOMEM, "cannot send %.*s: out of memory",
                        APM_STR_ARG(sig->task));

    *out = (apm_sig_send){ .choice = { .queue = cstr_option(&r, "queue"),
                                       .exchange = cstr_option(&r, "exchange"),
                                       .routing_key = cstr_option(&r, "routing_key"),
                                       .priority =
                                           (int)int_option(&r, "priority", APM_PRIORITY_NONE) },
                           .serializer = cstr_option(&r, "serializer"),
                           .compression = cstr_option(&r, "compression"),
                           .headers = raw_option(&r, "headers") };
    apm_request *req = &out->req;
    *req = (apm_request){
        .id = text_option(&r, "task_id"),
        .task = sig->task,
        .root_id = text_option(&r, "root_id"),
        .parent_id = text_option(&r, "parent_id"),
        .group = text_option(&r, "group_id"),
        .group_index = int_option(&r, "group_index", -1),
        .shadow = text_option(&r, "shadow"),
        .argsrepr = text_option(&r, "argsrepr"),
        .kwargsrepr = text_option(&r, "kwargsrepr"),
        .eta_us = time_option(&r, "eta", now_us),
        .expires_us = time_option(&r, "expires", now_us),
        .retries = int_option(&r, "retries", 0),
        .time_limit_s = double_option(&r, "time_limit", 0),
        .soft_time_limit_s = double_option(&r, "soft_time_limit", 0),
        .ignore_result = APM_UNSET,
        .replaced_task_nesting = int_option(&r, "replaced_task_nesting", 0),
        .args = args,
        .kwargs = given(sig->kwargs) ? sig->kwargs.text : APM_STR("{}"),
        .callbacks = list_option(&r, "link"),
        .errbacks = list_option(&r, "link_error"),
        .chord = raw_option(&r, "chord"),
        .reply_to = text_option(&r, "reply_to"),
        .priority = out->choice.priority,
        .delivery_mode = (int)int_option(&r, "delivery_mode", 0), /* as the settings say */
        .protocol = 2,
    };
    double countdown = double_option(&r, "countdown", -1);
    if (countdown >= 0 && req->eta_us == APM_TIME_NONE)
        req->eta_us = after(now_us, countdown);
    apm_json ignore = apm_json_get(sig->options, "ignore_result");
    if (ignore.type == APM_JSON_BOOL)
        req->ignore_result = apm_str_eqz(ignore.text, "true") ? APM_YES : APM_NO;
    if (r.st == APIUM_OK && !apm_str_is(req->id)) {
        char id[APM_UUID_LEN + 1];
        apm_uuid4(id);
        req->id = apm_arena_str(arena, apm_strz(id), NULL);
        if (!apm_str_is(req->id))
            return apm_fail(err, APIUM_E_NOMEM, "cannot send %.*s: out of memory",
                            APM_STR_ARG(sig->task));
    }
    return r.st;
}
