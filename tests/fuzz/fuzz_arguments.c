/*
 * fuzz_arguments.c - whatever the bytes are: as the arguments of a task, as a specification of arguments, as a signature,
 * as a template.
 */
#include "client/sig.h"
#include "client/task.h"
#include "tests/fuzz/fuzz.h"

const char *const fuzz_seeds[] = {
    "[1, 2.5, \"a\\u0000b\", {\"__type__\": \"base64\", \"__value__\": \"//4=\"}, [1, 1.0], "
    "[\"x\", \"y\"], null]",
    "{\"x\": 1, \"y\": [99999999999999999999], \"b\": {\"__type__\": \"bytes\", \"__value__\": "
    "\"q\"}, \"extra\": {}}",
    "x:int y:float=1.5 *rest z:str='a b' n:number[]=[1, 2] **more",
    "a:json=null b:array? * c:object={\"k\": [1]}",
    "{\"task\": \"t.a\", \"args\": [1], \"kwargs\": {\"k\": 2}, \"options\": {\"queue\": \"q\", "
    "\"eta\": "
    "\"2030-01-02T03:04:05+00:00\", \"expires\": 5.5, \"priority\": 3, \"headers\": {\"h\": 1}, "
    "\"link\": [{\"task\": \"t.b\"}], "
    "\"chord\": {}}, \"subtask_type\": null, \"immutable\": true, \"chord_size\": 3}",
    "[%% \"a%%b\", \"\\\\\"]",
    NULL,
};

static const char *spec;

static apium_verdict
read_all(apium_task *task)
{
    int64_t i = 0;
    apium_number number = { 0 };
    apium_text bytes = { 0 };
    apium_numbers numbers = { 0 };
    apium_strs strs = { 0 };
    const char *json = NULL, *rest = NULL, *more = NULL;

    if (!apium_args(task, "x:int? y:number? b:bytes? n:number[]? s:str[]? j:json=null *rest **more",
                    &i, &number, &bytes, &numbers, &strs, &json, &rest, &more))
        return APIUM_FAILURE;
    apm_json val;
    fuzz_check(apm_json_parse(apm_strz(rest), &val, NULL) == APIUM_OK &&
               val.type == APM_JSON_ARRAY);
    fuzz_check(apm_json_parse(apm_strz(more), &val, NULL) == APIUM_OK &&
               val.type == APM_JSON_OBJECT);
    fuzz_check(!json || apm_json_parse(apm_strz(json), &val, NULL) == APIUM_OK);
    for (size_t n = 0; n < strs.n; n++)
        fuzz_check(strs.items[n] != NULL);
    return apium_return(task, apium_json(rest));
}

/* A specification from anywhere: room for whatever the types in it may be. */
static apium_verdict
read_by_spec(apium_task *task)
{
    union {
        int64_t i;
        apium_text text;
        apium_number number;
        const char *json;
    } v[40] = { 0 };
#define FOUR(n) &v[n], &v[n + 1], &v[n + 2], &v[n + 3]
    if (!apium_args(task, spec, FOUR(0), FOUR(4), FOUR(8), FOUR(12), FOUR(16), FOUR(20), FOUR(24),
                    FOUR(28), FOUR(32), FOUR(36)))
        return APIUM_FAILURE;
    return APIUM_SUCCESS;
}

static void
run(apium_handler *handler, apm_str args, apm_str kwargs)
{
    const apium_task_def def = { .name = "t.fuzz", .run = handler };
    const apm_run_env env = { .hostname = "fuzz" };
    const apm_request req = {
        .id = APM_STR("id"), .task = APM_STR("t.fuzz"), .args = args, .kwargs = kwargs
    };
    apm_arena arena = { 0 };
    apm_outcome out;
    apm_json val;

    apm_run(&env, &def, &req, &arena, &out);
    fuzz_check(out.kind == APM_DONE_SUCCESS || out.kind == APM_DONE_FAILURE);
    if (out.kind == APM_DONE_SUCCESS)
        fuzz_check(apm_json_parse(out.result, &val, NULL) == APIUM_OK);
    else
        fuzz_check(apm_json_parse(out.exc.args, &val, NULL) == APIUM_OK &&
                   val.type == APM_JSON_ARRAY);
    apm_arena_clear(&arena);
}

/* What a signature is written as is read again as the same. */
static void
check_signature(const char *text)
{
    apium_sig *sig, *again;
    apm_json a, b;

    if (apium_sig_parse(text, &sig, NULL) != APIUM_OK)
        return;
    const char *json = apium_sig_json(sig, NULL);
    fuzz_check(json && apm_json_parse(apm_strz(json), &a, NULL) == APIUM_OK);
    fuzz_check(apium_sig_parse(json, &again, NULL) == APIUM_OK);
    fuzz_check(apm_json_parse(apm_strz(apium_sig_json(again, NULL)), &b, NULL) == APIUM_OK);
    fuzz_check(apm_json_equal(a, b));
    apium_sig_free(sig);
    apium_sig_free(again);
}

/* Only templates without conversions: the compiler checks those that have some. */
static void
check_template(const char *text)
{
    apm_arena arena = { 0 };
    apm_json out, val;

    for (const char *p = strchr(text, '%'); p; p = strchr(p + 2, '%'))
        if (p[1] != '%')
            return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    if (apm_value_take(apium_jsonf(text), &arena, &out, NULL) == APIUM_OK)
        fuzz_check(apm_json_parse(out.text, &val, NULL) == APIUM_OK);
#pragma GCC diagnostic pop
    apm_arena_clear(&arena);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    apm_json val;
    bool json = apm_json_parse((apm_str){ text, size }, &val, NULL) == APIUM_OK;
    if (json && val.type == APM_JSON_ARRAY)
        run(read_all, val.text, APM_STR("{}"));
    else if (json && val.type == APM_JSON_OBJECT)
        run(read_all, APM_STR("[]"), val.text);
    else
        run(read_all, (apm_str){ text, size }, APM_STR("{}"));
    spec = text;
    run(read_by_spec, APM_STR("[1, \"a\", [1], {}]"), APM_STR("{\"z\": 5, \"c\": {}}"));
    check_signature(text);
    check_template(text);
    free(text);
    return 0;
}
