/* args_convert.c - from JSON to the C types that apium_args() knows; see apium/task.h. */
#include "client/args.h"

#include "core/base/b64.h"

const apm_arg_type_info apm_arg_types[APM_ARG_TYPES] = {
    [APM_ARG_INT] = { "int", "int", false },
    [APM_ARG_FLOAT] = { "float", "float", false },
    [APM_ARG_NUMBER] = { "number", "int or float", false },
    [APM_ARG_BOOL] = { "bool", "bool", false },
    [APM_ARG_STR] = { "str", "str", true },
    [APM_ARG_BYTES] = { "bytes", "str or bytes", true },
    [APM_ARG_JSON] = { "json", "anything", true },
    [APM_ARG_ARRAY] = { "array", "list", true },
    [APM_ARG_OBJECT] = { "object", "dict", true },
    [APM_ARG_INTS] = { "int[]", "list", true },
    [APM_ARG_FLOATS] = { "float[]", "list", true },
    [APM_ARG_NUMBERS] = { "number[]", "list", true },
    [APM_ARG_STRS] = { "str[]", "list", true },
};

/* Raise, beginning with "add() argument 'x' "; the answer is false. */
#define REFUSE(arg, type, fmt, ...)                                                                \
    (apm_task_raisef((arg)->task, (arg)->site, type, "%.*s() argument '%.*s' " fmt,                \
                     APM_STR_ARG((arg)->func), APM_STR_ARG((arg)->name), ##__VA_ARGS__),           \
     false)

static bool
no_memory(const apm_arg *arg)
{
    return REFUSE(arg, "MemoryError", "does not fit in memory");
}

static const char *
python_type(apm_json val)
{
    switch (val.type) {
    case APM_JSON_NULL:
        return "NoneType";
    case APM_JSON_BOOL:
        return "bool";
    case APM_JSON_INT:
        return "int";
    case APM_JSON_FLOAT:
        return "float";
    case APM_JSON_STRING:
        return "str";
    case APM_JSON_ARRAY:
        return "list";
    case APM_JSON_OBJECT:
        return "dict";
    case APM_JSON_NONE:
        break;
    }
    return "nothing";
}

static bool
wrong_type(const apm_arg *arg, apm_json val)
{
    return REFUSE(arg, "TypeError", "must be %s, not %s", apm_arg_types[arg->type].python,
                  python_type(val));
}

static bool
to_int(const apm_arg *arg, apm_json val, int64_t *out)
{
    if (val.type != APM_JSON_INT)
        return wrong_type(arg, val);
    if (apm_json_int64(val, "argument", out, NULL) == APIUM_OK)
        return true;
    int shown = val.text.len > 40 ? 40 : (int)val.text.len;
    return REFUSE(arg, "OverflowError", "does not fit in 64 bits: %.*s%s", shown, val.text.p,
                  val.text.len > 40 ? "..." : "");
}

static bool
to_double(const apm_arg *arg, apm_json val, double *out)
{
    if (val.type != APM_JSON_INT && val.type != APM_JSON_FLOAT)
        return wrong_type(arg, val);
    return apm_json_double(val, "argument", out, NULL) == APIUM_OK ||
           REFUSE(arg, "OverflowError", "is an int too large to convert to float");
}

static bool
to_number(const apm_arg *arg, apm_json val, apium_number *out)
{
    *out = (apium_number){ .is_float = val.type == APM_JSON_FLOAT };
    return (val.type != APM_JSON_INT || to_int(arg, val, &out->i)) && to_double(arg, val, &out->d);
}

static bool
to_bool(const apm_arg *arg, apm_json val, bool *out)
{
    if (val.type != APM_JSON_BOOL)
        return wrong_type(arg, val);
    *out = val.text.p[0] == 't';
    return true;
}

/* A string's characters, terminated, in the arena. */
static bool
to_text(const apm_arg *arg, apm_json val, apium_text *out)
{
    apm_str text;
    bool ok = true;
    if (val.type != APM_JSON_STRING)
        return wrong_type(arg, val);
    if (apm_json_string(val, "argument", arg->task->arena, &text, NULL) != APIUM_OK)
        return no_memory(arg);
    if (text.p >= val.text.p && text.p <= val.text.p + val.text.len) /* borrowed: not terminated */
        text = apm_arena_str(arg->task->arena, text, &ok);
    *out = (apium_text){ text.p, text.len };
    return ok || no_memory(arg);
}

static bool
to_str(const apm_arg *arg, apm_json val, const char **out)
{
    apium_text text;
    if (!to_text(arg, val, &text))
        return false;
    if (memchr(text.p, '\0', text.len))
        return REFUSE(arg, "ValueError", "has a NUL character");
    *out = text.p;
    return true;
}

/* Bytes: a string, or what kombu 5.6 makes of bytes: {"__type__": "bytes" or "base64", "__value__":
 * text}. */
static bool
to_bytes(const apm_arg *arg, apm_json val, apium_text *out)
{
    if (val.type != APM_JSON_OBJECT)
        return to_text(arg, val, out);

    apm_json type = apm_json_get(val, "__type__"), inner = apm_json_get(val, "__value__");
    apium_text name, text;
    if (apm_json_count(val) != 2 || type.type != APM_JSON_STRING || inner.type != APM_JSON_STRING)
        return wrong_type(arg, val);
    if (!to_text(arg, type, &name) || !to_text(arg, inner, &text))
        return false;
    if (strcmp(name.p, "bytes") == 0) {
        *out = text;
        return true;
    }
    if (strcmp(name.p, "base64") != 0)
        return wrong_type(arg, val);

    apium_error err;
    size_t len;
    char *bytes = apm_arena_bytes(arg->task->arena, text.len / 4 * 3 + 4);
    if (!bytes)
        return no_memory(arg);
    if (apm_b64_decode((apm_str){ text.p, text.len }, bytes, &len, &err) != APIUM_OK)
        return REFUSE(arg, "ValueError", "cannot be read: %s", err.text);
    bytes[len] = '\0';
    *out = (apium_text){ bytes, len };
    return true;
}

/* JSON text, terminated; type NONE takes any. */
static bool
to_json(const apm_arg *arg, apm_json val, apm_json_type type, const char **out)
{
    bool ok = true;
    if (type != APM_JSON_NONE && val.type != type)
        return wrong_type(arg, val);
    *out = apm_arena_str(arg->task->arena, val.text, &ok).p;
    return ok || no_memory(arg);
}

/* --- arrays --- */

static const struct {
    apm_arg_type item;
    size_t size;
} arrays[APM_ARG_TYPES] = {
    [APM_ARG_INTS] = { APM_ARG_INT, sizeof(int64_t) },
    [APM_ARG_FLOATS] = { APM_ARG_FLOAT, sizeof(double) },
    [APM_ARG_NUMBERS] = { APM_ARG_NUMBER, sizeof(apium_number) },
    [APM_ARG_STRS] = { APM_ARG_STR, sizeof(char *) },
};

/* One item; a wrong one is named "x[3]". */
static bool
convert_item(const apm_arg *arg, size_t i, apm_json val, void *out)
{
    apm_arg_value value = { 0 };
    apm_arg item = *arg;
    item.type = arrays[arg->type].item;
    if (!apm_arg_convert(&item, val, &value)) {
        /* Said again with its place, which only a wrong item is worth being written down for. */
        const char *name =
            apm_arena_printf(arg->task->arena, "%.*s[%zu]", APM_STR_ARG(arg->name), i);
        item.name = apm_strz(name ? name : "an item");
        return apm_arg_convert(&item, val, &value);
    }
    apm_arg_store(item.type, &value, out);
    return true;
}

static bool
to_array(const apm_arg *arg, apm_json val, apm_arg_value *out)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    size_t size = arrays[arg->type].size, i = 0;

    if (val.type != APM_JSON_ARRAY)
        return wrong_type(arg, val);
    size_t n = apm_json_count(val);
    char *items = apm_arena_alloc(arg->task->arena, n ? n * size : 1);
    if (!items || apm_json_open(&it, val.text, NULL) != APIUM_OK)
        return no_memory(arg);
    for (; i < n && apm_json_next(&it, &key, &item, NULL) > 0; i++)
        if (!convert_item(arg, i, item, items + i * size))
            return false;
    out->array.items = items;
    out->array.n = i;
    return true;
}

/* --- all --- */

bool
apm_arg_convert(const apm_arg *arg, apm_json val, apm_arg_value *out)
{
    switch (arg->type) {
    case APM_ARG_INT:
        return to_int(arg, val, &out->i);
    case APM_ARG_FLOAT:
        return to_double(arg, val, &out->d);
    case APM_ARG_NUMBER:
        return to_number(arg, val, &out->number);
    case APM_ARG_BOOL:
        return to_bool(arg, val, &out->b);
    case APM_ARG_STR:
        return to_str(arg, val, &out->text);
    case APM_ARG_BYTES:
        return to_bytes(arg, val, &out->bytes);
    case APM_ARG_JSON:
        return to_json(arg, val, APM_JSON_NONE, &out->text);
    case APM_ARG_ARRAY:
        return to_json(arg, val, APM_JSON_ARRAY, &out->text);
    case APM_ARG_OBJECT:
        return to_json(arg, val, APM_JSON_OBJECT, &out->text);
    case APM_ARG_INTS:
    case APM_ARG_FLOATS:
    case APM_ARG_NUMBERS:
    case APM_ARG_STRS:
        return to_array(arg, val, out);
    case APM_ARG_TYPES:
        break;
    }
    return wrong_type(arg, val);
}

void
apm_arg_store(apm_arg_type type, const apm_arg_value *value, void *variable)
{
    switch (type) {
    case APM_ARG_INT:
        *(int64_t *)variable = value->i;
        break;
    case APM_ARG_FLOAT:
        *(double *)variable = value->d;
        break;
    case APM_ARG_NUMBER:
        *(apium_number *)variable = value->number;
        break;
    case APM_ARG_BOOL:
        *(bool *)variable = value->b;
        break;
    case APM_ARG_BYTES:
        *(apium_text *)variable = value->bytes;
        break;
    case APM_ARG_STR:
    case APM_ARG_JSON:
    case APM_ARG_ARRAY:
    case APM_ARG_OBJECT:
        *(const char **)variable = value->text;
        break;
    case APM_ARG_INTS:
        *(apium_ints *)variable = (apium_ints){ value->array.items, value->array.n };
        break;
    case APM_ARG_FLOATS:
        *(apium_floats *)variable = (apium_floats){ value->array.items, value->array.n };
        break;
    case APM_ARG_NUMBERS:
        *(apium_numbers *)variable = (apium_numbers){ value->array.items, value->array.n };
        break;
    case APM_ARG_STRS:
        *(apium_strs *)variable = (apium_strs){ value->array.items, value->array.n };
        break;
    case APM_ARG_TYPES:
        break;
    }
}
