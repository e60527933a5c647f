/*
 * args.c - apium_args(): the arguments of a request bound to a handler's variables as Python binds
 * them to a function's parameters, with Python's messages. The specification is described in
 * apium/task.h.
 *
 *   parse the specification ─▶ bind positional, then named ones ─▶ convert all ─▶ write all
 */
#include "client/args.h"

#include <stdarg.h>
#include <stdio.h>

#define MAX_PARAMS 32

typedef struct param {
    apm_str name;
    apm_arg_type type;
    bool optional;     /* has a default, or keeps the variable's value */
    bool keeps;        /* "?": absent and None leave the variable alone */
    bool none_ok;      /* "=null": None is allowed, and is NULL */
    apm_json fallback; /* the default; NONE with "?" */
    apm_json given;    /* what the caller gave; NONE when nothing */
    bool by_position;
    apm_arg_value value;
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
    if (par->fallback.type == APM_JSON_NULL && par->type != APM_ARG_JSON) {
        if (!apm_arg_types[par->type].nullable)
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
    *par = (param){ .name = { at, len }, .type = APM_ARG_JSON };
    if (len == 0)
        return bad_spec(b, spec, at, "a name is expected");
    at += len;
    if (*at == ':') {
        size_t type_len = strcspn(++at, "?= ,\t\n"), i = 0;
        while (i < APM_ARG_TYPES && !apm_str_eqz((apm_str){ at, type_len }, apm_arg_types[i].name))
            i++;
        if (i == APM_ARG_TYPES)
            return bad_spec(b, spec, at, "no such type");
        par->type = (apm_arg_type)i;
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

/* --- converting and writing --- */

/* Convert what a parameter was given, or its default. */
static bool
convert(binding *b, param *par)
{
    apm_json val = par->given.type != APM_JSON_NONE ? par->given : par->fallback;
    const apm_arg arg = { b->task, b->site, b->func, par->name, par->type };
    if (val.type == APM_JSON_NULL && par->none_ok)
        return true; /* NULL already */
    return apm_arg_convert(&arg, val, &par->value);
}

/* Does the variable stay as it is? */
static bool
left_alone(const param *par)
{
    return par->keeps && (par->given.type == APM_JSON_NONE || par->given.type == APM_JSON_NULL);
}

static void
write_value(const param *par, void *variable)
{
    if (!left_alone(par))
        apm_arg_store(par->type, &par->value, variable);
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
