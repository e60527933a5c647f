/*
 * args.c - apium_args(): the arguments of a request bound to a handler's variables as Python binds them to a
 * function's parameters, with Python's messages. The specification is described in apium/task.h.
 *
 *   parse the specification ─▶ bind positional, then named ones ─▶ convert all ─▶ write all
 */
#include "client/task.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/base/b64.h"

#define MAX_PARAMS 32

enum type {
    TYPE_INT,
    TYPE_FLOAT,
    TYPE_NUMBER,
    TYPE_BOOL,
    TYPE_STR,
    TYPE_BYTES,
    TYPE_JSON,
    TYPE_ARRAY,
    TYPE_OBJECT
};

static const struct {
    const char *name;   /* in a specification */
    const char *python; /* in a message */
} types[] = {
    [TYPE_INT] = { "int", "int" },
    [TYPE_FLOAT] = { "float", "float" },
    [TYPE_NUMBER] = { "number", "int or float" },
    [TYPE_BOOL] = { "bool", "bool" },
    [TYPE_STR] = { "str", "str" },
    [TYPE_BYTES] = { "bytes", "str or bytes" },
    [TYPE_JSON] = { "json", "anything" },
    [TYPE_ARRAY] = { "array", "list" },
    [TYPE_OBJECT] = { "object", "dict" },
};
#define N_TYPES (sizeof(types) / sizeof(*types))

typedef struct param {
    apm_str name;
    enum type type;
    bool optional;     /* has a default, or keeps the variable's value */
    bool keeps;        /* "?": absent and None leave the variable alone */
    bool none_ok;      /* "=null": None is allowed, and is NULL */
    apm_json fallback; /* the default; NONE with "?" */
    apm_json given;    /* what the caller gave; NONE when nothing */
    bool by_position;
    /* the converted value, by type */
    union {
        int64_t i;
        double d;
        bool b;
        const char *text;
        apium_number number;
        apium_text bytes;
    } value;
} param;

typedef struct binding {
    apium_task *task;
    const apm_site *site;
    apm_str func; /* the last part of the task's name, as Python's messages begin */
    param params[MAX_PARAMS];
    size_t n, n_positional; /* those after a lone * come by name only */
    bool has_rest, has_kwrest;
    size_t rest_at,
        kwrest_at;        /* after how many parameters they stand: the order of the variables */
    size_t n_given;       /* positional arguments */
    apm_buf rest, kwrest; /* what was left, as JSON without the closing bracket */
} binding;

#define FAIL(b, type, ...) (apm_task_raisef((b)->task, (b)->site, type, __VA_ARGS__), false)

/* --- the specification --- */

static bool
bad_spec(binding *b, const char *spec, const char *at, const char *why)
{
    return FAIL(b, "SystemError", "the argument specification \"%s\" is wrong at \"%.20s\": %s",
                spec, at, why);
}

static bool
is_space(char c)
{
    return c == ' ' || c == ',' || c == '\t' || c == '\n';
}

/* The end of a default that starts at p: a space or comma outside of brackets and strings. */
static const char *
default_end(const char *p)
{
    int depth = 0;
    for (; *p && !(depth == 0 && is_space(*p)); p++) {
        if (*p == '[' || *p == '{') {
            depth++;
        } else if (*p == ']' || *p == '}') {
            depth--;
        } else if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                if (*p == '\\' && p[1])
                    p++;
            if (!*p)
                return p;
        }
    }
    return p;
}

/* "=..." of a parameter; *p stands behind the sign. */
static bool
parse_default(binding *b, param *par, const char *spec, const char **p)
{
    apium_error err;
    const char *start = *p, *end;

    if (*start == '\'') {
        end = strchr(start + 1, '\'');
        if (!end)
            return bad_spec(b, spec, start, "the quote is not closed");
        apm_buf buf;
        bool ok = true;
        apm_buf_init(&buf, 64 << 10);
        apm_json_add_string(&buf, (apm_str){ start + 1, (size_t)(end - start - 1) });
        par->fallback =
            (apm_json){ APM_JSON_STRING, apm_arena_str(b->task->arena, apm_buf_str(&buf), &ok) };
        ok = ok && !buf.failed;
        apm_buf_clear(&buf);
        if (!ok)
            return bad_spec(b, spec, start, "the default is not UTF-8");
        end++;
    } else {
        end = default_end(start);
        if (apm_json_parse((apm_str){ start, (size_t)(end - start) }, &par->fallback, &err) !=
            APIUM_OK)
            return bad_spec(b, spec, start, err.text);
    }
    if (par->fallback.type == APM_JSON_NULL && par->type != TYPE_JSON) {
        if (par->type < TYPE_STR)
            return bad_spec(b, spec, start, "a variable of this type has no null");
        par->none_ok = true;
    }
    par->optional = true;
    *p = end;
    return true;
}

/* One parameter at *p; stars are the caller's business. */
static bool
parse_param(binding *b, const char *spec, const char **p)
{
    const char *at = *p;
    if (b->n == MAX_PARAMS)
        return bad_spec(b, spec, at, "too many parameters");
    param *par = &b->params[b->n++];
    size_t len = strcspn(at, ":?= ,\t\n");
    *par = (param){ .name = { at, len }, .type = TYPE_JSON };
    if (len == 0)
        return bad_spec(b, spec, at, "a name is expected");
    at += len;
    if (*at == ':') {
        size_t type_len = strcspn(++at, "?= ,\t\n"), i = 0;
        while (i < N_TYPES && !apm_str_eqz((apm_str){ at, type_len }, types[i].name))
            i++;
        if (i == N_TYPES)
            return bad_spec(b, spec, at, "no such type");
        par->type = (enum type)i;
        at += type_len;
    }
    if (*at == '?') {
        par->keeps = par->optional = true;
        at++;
    } else if (*at == '=') {
        at++;
        if (!parse_default(b, par, spec, &at))
            return false;
    }
    if (*at && !is_space(*at))
        return bad_spec(b, spec, at, "a space is expected");
    *p = at;
    return true;
}

static bool
parse_spec(binding *b, const char *spec)
{
    bool by_name_only = false;
    for (const char *p = spec;;) {
        while (is_space(*p))
            p++;
        if (!*p)
            return true;
        if (*p == '*' && b->has_kwrest)
            return bad_spec(b, spec, p, "nothing follows **");
        if (*p == '*') {
            bool kw = p[1] == '*';
            const char *name = p + (kw ? 2 : 1);
            size_t len = strcspn(name, " ,\t\n");
            if (kw) {
                b->has_kwrest = true;
                b->kwrest_at = b->n;
            } else if (by_name_only) {
                return bad_spec(b, spec, p, "there is a * already");
            } else {
                by_name_only = true;
                b->has_rest = len > 0;
                b->rest_at = b->n;
            }
            p = name + len;
            continue;
        }
        if (b->has_kwrest)
            return bad_spec(b, spec, p, "nothing follows **");
        if (!parse_param(b, spec, &p))
            return false;
        if (!by_name_only)
            b->n_positional = b->n;
    }
}

/* --- binding --- */

static bool
no_memory(binding *b)
{
    return FAIL(b, "MemoryError", "%.*s() has no memory for its arguments", APM_STR_ARG(b->func));
}

static bool
bind_positional(binding *b)
{
    apium_error err = { .text = "" };
    apm_json_iter it;
    apm_json val;
    apm_str key, args = apm_str_is(b->task->req->args) ? b->task->req->args : APM_STR("[]");
    int more = -1;

    if (apm_json_open(&it, args, &err) != APIUM_OK || it.object)
        return FAIL(b, "TypeError", "%.*s() argument after * must be an iterable",
                    APM_STR_ARG(b->func));
    while ((more = apm_json_next(&it, &key, &val, &err)) > 0) {
        size_t i = b->n_given++;
        if (i < b->n_positional) {
            b->params[i].given = val;
            b->params[i].by_position = true;
        } else if (b->has_rest) {
            apm_buf_addz(&b->rest, b->rest.len ? ", " : "[");
            apm_buf_adds(&b->rest, val.text);
        }
    }
    return more == 0 || FAIL(b, "ValueError", "the arguments cannot be read: %s", err.text);
}

static param *
find_param(binding *b, apm_str name)
{
    for (size_t i = 0; i < b->n; i++)
        if (apm_str_eq(b->params[i].name, name))
            return &b->params[i];
    return NULL;
}

static bool
bind_named(binding *b)
{
    apium_error err = { .text = "" };
    apm_json_iter it;
    apm_json val;
    apm_str key, kwargs = apm_str_is(b->task->req->kwargs) ? b->task->req->kwargs : APM_STR("{}");
    int more = -1;

    if (apm_json_open(&it, kwargs, &err) != APIUM_OK || !it.object)
        return FAIL(b, "TypeError", "%.*s() argument after ** must be a mapping",
                    APM_STR_ARG(b->func));
    while ((more = apm_json_next(&it, &key, &val, &err)) > 0) {
        apm_str name;
        if (apm_json_string((apm_json){ APM_JSON_STRING, key }, "name", b->task->arena, &name,
                            &err) != APIUM_OK)
            return no_memory(b);
        param *par = find_param(b, name);
        if (par && par->by_position)
            return FAIL(b, "TypeError", "%.*s() got multiple values for argument '%.*s'",
                        APM_STR_ARG(b->func), APM_STR_ARG(name));
        if (par) {
            par->given = val;
        } else if (b->has_kwrest) {
            apm_buf_addz(&b->kwrest, b->kwrest.len ? ", " : "{");
            apm_buf_adds(&b->kwrest, key);
            apm_buf_addz(&b->kwrest, ": ");
            apm_buf_adds(&b->kwrest, val.text);
        } else {
            return FAIL(b, "TypeError", "%.*s() got an unexpected keyword argument '%.*s'",
                        APM_STR_ARG(b->func), APM_STR_ARG(name));
        }
    }
    return more == 0 || FAIL(b, "ValueError", "the keyword arguments cannot be read: %s", err.text);
}

static bool
too_many(binding *b)
{
    size_t required = 0, by_name = 0;
    for (size_t i = 0; i < b->n; i++) {
        required += i < b->n_positional && !b->params[i].optional;
        by_name += i >= b->n_positional && b->params[i].given.type != APM_JSON_NONE;
    }
    char takes[128], also[128] = "";
    if (required < b->n_positional)
        snprintf(takes, sizeof(takes), "from %zu to %zu positional arguments", required,
                 b->n_positional);
    else
        snprintf(takes, sizeof(takes), "%zu positional argument%s", required,
                 required == 1 ? "" : "s");
    if (by_name)
        snprintf(also, sizeof(also), " positional argument%s (and %zu keyword-only argument%s)",
                 b->n_given == 1 ? "" : "s", by_name, by_name == 1 ? "" : "s");
    return FAIL(b, "TypeError", "%.*s() takes %s but %zu%s %s given", APM_STR_ARG(b->func), takes,
                b->n_given, also, b->n_given == 1 && !by_name ? "was" : "were");
}

/* Python names all that are missing: 'x' | 'x' and 'y' | 'x', 'y', and 'z'. */
static bool
check_missing(binding *b, size_t from, size_t to, const char *kind)
{
    size_t missing[MAX_PARAMS], n = 0;
    for (size_t i = from; i < to; i++)
        if (b->params[i].given.type == APM_JSON_NONE && !b->params[i].optional)
            missing[n++] = i;
    if (n == 0)
        return true;
    apm_buf names;
    apm_buf_init(&names, 64 << 10);
    for (size_t i = 0; i < n; i++)
        apm_buf_addf(&names, "%s'%.*s'",
                     i == 0      ? ""
                     : i + 1 < n ? ", "
                     : n == 2    ? " and "
                                 : ", and ",
                     APM_STR_ARG(b->params[missing[i]].name));
    (void)FAIL(b, "TypeError", "%.*s() missing %zu required %s argument%s: %.*s",
               APM_STR_ARG(b->func), n, kind, n == 1 ? "" : "s", APM_STR_ARG(apm_buf_str(&names)));
    apm_buf_clear(&names);
    return false;
}

/* --- converting --- */

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
wrong_type(binding *b, const param *par, apm_json val)
{
    return FAIL(b, "TypeError", "%.*s() argument '%.*s' must be %s, not %s", APM_STR_ARG(b->func),
                APM_STR_ARG(par->name), types[par->type].python, python_type(val));
}

static bool
to_int(binding *b, const param *par, apm_json val, int64_t *out)
{
    if (val.type != APM_JSON_INT)
        return wrong_type(b, par, val);
    if (apm_json_int64(val, "argument", out, NULL) == APIUM_OK)
        return true;
    return FAIL(b, "OverflowError", "%.*s() argument '%.*s' does not fit in 64 bits: %.40s%s",
                APM_STR_ARG(b->func), APM_STR_ARG(par->name),
                apm_arena_str(b->task->arena, val.text, NULL).p, val.text.len > 40 ? "..." : "");
}

static bool
to_double(binding *b, const param *par, apm_json val, double *out)
{
    if (val.type != APM_JSON_INT && val.type != APM_JSON_FLOAT)
        return wrong_type(b, par, val);
    if (apm_json_double(val, "argument", out, NULL) == APIUM_OK)
        return true;
    return FAIL(b, "OverflowError",
                "%.*s() argument '%.*s' is an int too large to convert to float",
                APM_STR_ARG(b->func), APM_STR_ARG(par->name));
}

/* What kombu 5.6 makes of bytes: {"__type__": "bytes" or "base64", "__value__": text}. */
static bool
bytes_object(binding *b, const param *par, apm_json val, apium_text *out)
{
    apm_json type = apm_json_get(val, "__type__"), inner = apm_json_get(val, "__value__");
    apm_str name, text;
    if (apm_json_count(val) != 2 || inner.type != APM_JSON_STRING ||
        apm_json_string(type, "__type__", b->task->arena, &name, NULL) != APIUM_OK)
        return wrong_type(b, par, val);
    bool base64 = apm_str_eqz(name, "base64");
    if (!base64 && !apm_str_eqz(name, "bytes"))
        return wrong_type(b, par, val);
    if (apm_json_string(inner, "__value__", b->task->arena, &text, NULL) != APIUM_OK)
        return no_memory(b);
    if (!base64) {
        *out = (apium_text){ text.p, text.len };
        return true;
    }
    apium_error err;
    size_t len;
    char *bytes = apm_arena_bytes(b->task->arena, text.len / 4 * 3 + 4);
    if (!bytes)
        return no_memory(b);
    if (apm_b64_decode(text, bytes, &len, &err) != APIUM_OK)
        return FAIL(b, "ValueError", "%.*s() argument '%.*s': %s", APM_STR_ARG(b->func),
                    APM_STR_ARG(par->name), err.text);
    bytes[len] = '\0';
    *out = (apium_text){ bytes, len };
    return true;
}

static bool
to_str(binding *b, const param *par, apm_json val, const char **out)
{
    apm_str text;
    bool ok = true;
    if (val.type != APM_JSON_STRING)
        return wrong_type(b, par, val);
    if (apm_json_string(val, "argument", b->task->arena, &text, NULL) != APIUM_OK)
        return no_memory(b);
    if (memchr(text.p, '\0', text.len))
        return FAIL(b, "ValueError", "%.*s() argument '%.*s' has a NUL character",
                    APM_STR_ARG(b->func), APM_STR_ARG(par->name));
    *out = apm_arena_str(b->task->arena, text, &ok).p;
    return ok || no_memory(b);
}

static bool
to_bytes(binding *b, const param *par, apm_json val, apium_text *out)
{
    apm_str text;
    bool ok = true;
    if (val.type == APM_JSON_OBJECT)
        return bytes_object(b, par, val, out);
    if (val.type != APM_JSON_STRING)
        return wrong_type(b, par, val);
    if (apm_json_string(val, "argument", b->task->arena, &text, NULL) != APIUM_OK)
        return no_memory(b);
    text = apm_arena_str(b->task->arena, text, &ok);
    *out = (apium_text){ text.p, text.len };
    return ok || no_memory(b);
}

/* JSON text, terminated; type NONE takes any. */
static bool
to_json(binding *b, const param *par, apm_json val, apm_json_type type, const char **out)
{
    bool ok = true;
    if (type != APM_JSON_NONE && val.type != type)
        return wrong_type(b, par, val);
    *out = apm_arena_str(b->task->arena, val.text, &ok).p;
    return ok || no_memory(b);
}

/* Convert what a parameter was given, or its default. */
static bool
convert(binding *b, param *par)
{
    apm_json val = par->given.type != APM_JSON_NONE ? par->given : par->fallback;
    if (val.type == APM_JSON_NULL && par->none_ok)
        return true; /* NULL already */
    switch (par->type) {
    case TYPE_INT:
        return to_int(b, par, val, &par->value.i);
    case TYPE_FLOAT:
        return to_double(b, par, val, &par->value.d);
    case TYPE_NUMBER:
        par->value.number.is_float = val.type == APM_JSON_FLOAT;
        if (val.type == APM_JSON_INT && !to_int(b, par, val, &par->value.number.i))
            return false;
        return to_double(b, par, val, &par->value.number.d);
    case TYPE_BOOL:
        if (val.type != APM_JSON_BOOL)
            return wrong_type(b, par, val);
        return apm_json_bool(val, "argument", &par->value.b, NULL) == APIUM_OK;
    case TYPE_STR:
        return to_str(b, par, val, &par->value.text);
    case TYPE_BYTES:
        return to_bytes(b, par, val, &par->value.bytes);
    case TYPE_JSON:
        return to_json(b, par, val, APM_JSON_NONE, &par->value.text);
    case TYPE_ARRAY:
        return to_json(b, par, val, APM_JSON_ARRAY, &par->value.text);
    case TYPE_OBJECT:
        return to_json(b, par, val, APM_JSON_OBJECT, &par->value.text);
    }
    return false;
}

/* Does the variable stay as it is? */
static bool
left_alone(const param *par)
{
    return par->keeps && (par->given.type == APM_JSON_NONE || par->given.type == APM_JSON_NULL);
}

/* --- writing --- */

static void
write_value(const param *par, void *out)
{
    if (left_alone(par))
        return;
    switch (par->type) {
    case TYPE_INT:
        *(int64_t *)out = par->value.i;
        break;
    case TYPE_FLOAT:
        *(double *)out = par->value.d;
        break;
    case TYPE_NUMBER:
        *(apium_number *)out = par->value.number;
        break;
    case TYPE_BOOL:
        *(bool *)out = par->value.b;
        break;
    case TYPE_BYTES:
        *(apium_text *)out = par->value.bytes;
        break;
    case TYPE_STR:
    case TYPE_JSON:
    case TYPE_ARRAY:
    case TYPE_OBJECT:
        *(const char **)out = par->value.text;
        break;
    }
}

/* The text of *rest or **rest; NULL without memory. */
static const char *
finish_rest(binding *b, apm_buf *buf, const char *empty, char end)
{
    bool ok = true;
    if (!buf->len && !buf->failed)
        return empty;
    apm_buf_addc(buf, end);
    return buf->failed ? NULL : apm_arena_str(b->task->arena, apm_buf_str(buf), &ok).p;
}

/* Everything is right: write all, in the order of the specification. */
static bool
write_all(binding *b, va_list ap)
{
    const char *rest = b->has_rest ? finish_rest(b, &b->rest, "[]", ']') : "";
    const char *kwrest = b->has_kwrest ? finish_rest(b, &b->kwrest, "{}", '}') : "";
    if (!rest || !kwrest)
        return no_memory(b);
    for (size_t i = 0; i <= b->n; i++) {
        if (b->has_rest && b->rest_at == i)
            *va_arg(ap, const char **) = rest;
        if (b->has_kwrest && b->kwrest_at == i)
            *va_arg(ap, const char **) = kwrest;
        if (i < b->n)
            write_value(&b->params[i], va_arg(ap, void *));
    }
    return true;
}

bool
apium_args_at(apium_task *task, const char *file, int line, const char *func, const char *spec, ...)
{
    const apm_site site = { file, func, line };
    binding b = { .task = task, .site = &site };
    const char *dot = strrchr(task->def->name, '.');

    b.func = apm_strz(dot ? dot + 1 : task->def->name);
    apm_buf_init(&b.rest, APM_BUF_MAX);
    apm_buf_init(&b.kwrest, APM_BUF_MAX);
    bool ok = parse_spec(&b, spec) && bind_positional(&b) && bind_named(&b) &&
              (b.has_rest || b.n_given <= b.n_positional || too_many(&b)) &&
              check_missing(&b, 0, b.n_positional, "positional") &&
              check_missing(&b, b.n_positional, b.n, "keyword-only");
    for (size_t i = 0; ok && i < b.n; i++)
        ok = left_alone(&b.params[i]) || convert(&b, &b.params[i]);
    if (ok) {
        va_list ap;
        va_start(ap, spec);
        ok = write_all(&b, ap);
        va_end(ap);
    }
    apm_buf_clear(&b.rest);
    apm_buf_clear(&b.kwrest);
    return ok;
}
