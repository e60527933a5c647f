/* task.c - what a handler may do with its task, and ask of it; see apium/task.h. Arguments are in
 * args.c, retries in retry.c. */
#include "client/task.h"

#include <stdarg.h>

#include "client/app.h"
#include "client/except.h"
#include "core/base/clock.h"

/* --- deciding --- */

/* Text formatted into the task's arena; absent without memory. */
static apm_str
format(apium_task *task, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));

static apm_str
format(apium_task *task, const char *fmt, va_list ap)
{
    apm_buf buf;
    bool ok = true;
    apm_buf_init(&buf, 64 << 10);
    apm_buf_addv(&buf, fmt, ap);
    apm_str text = buf.failed ? APM_STR_NONE : apm_arena_str(task->arena, apm_buf_str(&buf), &ok);
    apm_buf_clear(&buf);
    return text;
}

/* ["text"]; bytes that are no UTF-8 become question marks rather than losing the message. */
static apm_str
message_args(apium_task *task, apm_str text)
{
    apm_buf buf;
    bool ok = true;

    apm_buf_init(&buf, 512 << 10);
    apm_buf_addc(&buf, '[');
    if (apm_utf8_valid(text, true)) {
        apm_json_add_string(&buf, text);
    } else {
        apm_buf clean;
        apm_buf_init(&clean, text.len + 1);
        for (size_t i = 0; i < text.len; i++)
            apm_buf_addc(&clean, (unsigned char)text.p[i] < 0x80 ? text.p[i] : '?');
        apm_json_add_string(&buf, apm_buf_str(&clean));
        apm_buf_clear(&clean);
    }
    apm_buf_addc(&buf, ']');
    apm_str args = buf.failed ? APM_STR("[]") : apm_arena_str(task->arena, apm_buf_str(&buf), &ok);
    apm_buf_clear(&buf);
    return apm_str_is(args) ? args : APM_STR("[]");
}

/* Traceback text as Python prints it, with the one frame that C knows of. */
static apm_str
traceback(apium_task *task, const apm_site *site)
{
    apm_buf buf;
    bool ok = true;

    apm_buf_init(&buf, 1 << 20);
    apm_buf_addz(&buf, "Traceback (most recent call last):\n");
    if (site)
        apm_buf_addf(&buf, "  File \"%s\", line %d, in %s\n", site->file, site->line, site->func);
    apm_exception_line(&buf, &task->out->exc);
    apm_buf_addc(&buf, '\n');
    apm_str text = buf.failed || !apm_utf8_valid(apm_buf_str(&buf), true)
                       ? APM_STR_NONE
                       : apm_arena_str(task->arena, apm_buf_str(&buf), &ok);
    apm_buf_clear(&buf);
    return text;
}

apium_verdict
apm_task_raise(apium_task *task, const apm_site *site, apm_str module, apm_str type, apm_str args)
{
    if (task->finished) /* a hook cannot change what was decided */
        return APIUM_FAILURE;
    task->out->kind = APM_DONE_FAILURE;
    task->out->exc = (apm_exception){ .type = type, .module = module, .args = args };
    task->out->traceback = site ? traceback(task, site) : APM_STR_NONE;
    return APIUM_FAILURE;
}

/* "module.Type" of a C string in two; a name without a dot is a builtin. */
static void
split_type(apium_task *task, const char *name, apm_str *module, apm_str *type)
{
    const char *dot = strrchr(name, '.');
    *module = dot ? (apm_str){ name, (size_t)(dot - name) } : APM_STR("builtins");
    *type = apm_strz(dot ? dot + 1 : name);
    *module = apm_arena_str(task->arena, *module, NULL);
    *type = apm_arena_str(task->arena, *type, NULL);
}

static apium_verdict
raise_text(apium_task *task, const apm_site *site, const char *type, apm_str text)
{
    apm_str module, class;
    split_type(task, type && *type ? type : "RuntimeError", &module, &class);
    return apm_task_raise(task, site, module, class,
                          apm_str_is(text) ? message_args(task, text) : APM_STR("[]"));
}

apium_verdict
apm_task_raisef(apium_task *task, const apm_site *site, const char *type, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    apm_str text = format(task, fmt, ap);
    va_end(ap);
    return raise_text(task, site, type, text);
}

apium_verdict
apium_raise_at(apium_task *task, const char *file, int line, const char *func, const char *type,
               const char *fmt, ...)
{
    const apm_site site = { file, func, line };
    va_list ap;
    va_start(ap, fmt);
    apm_str text = fmt ? format(task, fmt, ap) : APM_STR_NONE;
    va_end(ap);
    return raise_text(task, &site, type, text);
}

apium_verdict
apium_raise_in_at(apium_task *task, const char *file, int line, const char *func,
                  const char *module, const char *type, apium_value args)
{
    const apm_site site = { file, func, line };
    apium_error err;
    apm_json json;

    if (apm_value_take(args, task->arena, &json, &err) != APIUM_OK)
        return apm_task_raisef(task, &site, "kombu.exceptions.EncodeError",
                               "the arguments of %s: %s", type, err.text);
    if (json.type == APM_JSON_NONE || json.type == APM_JSON_NULL)
        json.text = APM_STR("[]");
    else if (json.type != APM_JSON_ARRAY) /* one value is meant as the only argument */
        json.text = apm_strz(apm_arena_printf(task->arena, "[%.*s]", APM_STR_ARG(json.text)));
    return apm_task_raise(
        task, &site,
        apm_arena_str(task->arena, apm_strz(module && *module ? module : "builtins"), NULL),
        apm_arena_str(task->arena, apm_strz(type), NULL), json.text);
}

apium_verdict
apium_return(apium_task *task, apium_value value)
{
    apium_error err;
    apm_json json;

    if (apm_value_take(value, task->arena, &json, &err) != APIUM_OK)
        return apm_task_raisef(task, NULL, "kombu.exceptions.EncodeError", "%s", err.text);
    if (task->finished)
        return APIUM_SUCCESS;
    task->out->kind = APM_DONE_SUCCESS;
    task->out->result = json.type == APM_JSON_NONE ? APM_STR("null") : json.text;
    return APIUM_SUCCESS;
}

apium_verdict
apium_reject(apium_task *task, bool requeue, const char *fmt, ...)
{
    apm_str reason = APM_STR("null");
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        reason = message_args(task, format(task, fmt, ap));
        va_end(ap);
        reason = (apm_str){ reason.p + 1, reason.len - 2 }; /* without its brackets */
    }
    /* Celery's Reject(reason, requeue). */
    const char *args = apm_arena_printf(task->arena, "[%.*s, %s]", APM_STR_ARG(reason),
                                        requeue ? "true" : "false");
    apm_task_raise(task, NULL, APM_STR("celery.exceptions"), APM_STR("Reject"),
                   args ? apm_strz(args) : APM_STR("[]"));
    if (!task->finished) {
        task->out->kind = APM_DONE_REJECT;
        task->out->requeue = requeue;
    }
    return APIUM_REJECT;
}

apium_verdict
apium_ignore(apium_task *task)
{
    if (!task->finished)
        task->out->kind = APM_DONE_IGNORE;
    return APIUM_IGNORE;
}

/* --- states --- */

apium_status
apium_update_state(apium_task *task, const char *state, apium_value meta, apium_error *err)
{
    apium_error why;
    apm_arena arena = { 0 };
    apm_json json;

    apium_status st = apm_value_take(meta, &arena, &json, &why);
    if (st != APIUM_OK)
        st = apm_fail(err, st == APIUM_E_ENCODE ? APIUM_E_INVALID : st,
                      "cannot set the state %s: %s", state ? state : "(none)", why.text);
    else if (!state || !*state || !apm_utf8_valid(apm_strz(state), false))
        st = apm_fail(err, APIUM_E_INVALID, "cannot set a state without a name");
    else if (task->env->report) {
        st = task->env->report(task->env->arg, apm_strz(state),
                               json.type == APM_JSON_NONE ? APM_STR("null") : json.text, err);
        task->out->states += st == APIUM_OK;
    }
    apm_arena_clear(&arena);
    return st;
}

apium_status
apium_progress(apium_task *task, int64_t current, int64_t total, apium_error *err)
{
    return apium_update_state(
        task, "PROGRESS",
        apium_jsonf("{\"current\": %lld, \"total\": %lld}", (long long)current, (long long)total),
        err);
}

apium_stop
apium_should_stop(const apium_task *task)
{
    return task->env->stop ? (apium_stop)atomic_load_explicit(task->env->stop, memory_order_relaxed)
                           : APIUM_STOP_NO;
}

int64_t
apium_time_left_ms(const apium_task *task)
{
    double limit_s = task->soft_s > 0 ? task->soft_s : task->hard_s;
    if (limit_s <= 0)
        return INT64_MAX;
    double left = limit_s * 1000 - (double)(apm_clock_ms() - task->began_ms);
    return left <= 0 ? 0 : left >= 9e18 ? INT64_MAX : (int64_t)left;
}

/* --- children --- */

void
apm_task_add_child(apium_task *task, apm_str id)
{
    apm_buf_addz(&task->children, task->children.len ? ", " : "[");
    apm_buf_addz(&task->children, "[[");
    apm_json_add_string(&task->children, id);
    apm_buf_addz(&task->children, ", null], null]");
}

void
apm_task_add_children(apium_task *task, apm_str tuples)
{
    if (!tuples.len)
        return;
    apm_buf_addz(&task->children, task->children.len ? ", " : "[");
    apm_buf_adds(&task->children, tuples);
}

/* --- asking --- */

/* A field as a C string, copied the first time because requests are slices. */
static const char *
text_of(const apium_task *task, int field, apm_str text)
{
    if (!task->texts[field] && apm_str_is(text))
        task->texts[field] = apm_arena_str(task->arena, text, NULL).p;
    return task->texts[field];
}

apium_app *
apium_task_app(const apium_task *task)
{
    return task->env->app;
}

const char *
apium_task_id(const apium_task *task)
{
    return text_of(task, APM_TEXT_ID, task->req->id);
}

const char *
apium_task_name(const apium_task *task)
{
    return text_of(task, APM_TEXT_NAME, task->req->task);
}

const char *
apium_task_root_id(const apium_task *task)
{
    return text_of(task, APM_TEXT_ROOT, task->req->root_id);
}

const char *
apium_task_parent_id(const apium_task *task)
{
    return text_of(task, APM_TEXT_PARENT, task->req->parent_id);
}

const char *
apium_task_group(const apium_task *task)
{
    return text_of(task, APM_TEXT_GROUP, task->req->group);
}

int64_t
apium_task_retries(const apium_task *task)
{
    return task->req->retries;
}

int64_t
apium_task_eta_us(const apium_task *task)
{
    return task->req->eta_us == APM_TIME_NONE ? -1 : task->req->eta_us;
}

int64_t
apium_task_expires_us(const apium_task *task)
{
    return task->req->expires_us == APM_TIME_NONE ? -1 : task->req->expires_us;
}

const char *
apium_task_queue(const apium_task *task)
{
    /* The default exchange routes to the queue that is named by the routing key. */
    return task->req->exchange.len == 0 ? apium_task_routing_key(task) : NULL;
}

const char *
apium_task_exchange(const apium_task *task)
{
    return text_of(task, APM_TEXT_EXCHANGE, task->req->exchange);
}

const char *
apium_task_routing_key(const apium_task *task)
{
    return text_of(task, APM_TEXT_ROUTING_KEY, task->req->routing_key);
}

int
apium_task_priority(const apium_task *task)
{
    return task->req->priority < 0 ? -1 : task->req->priority;
}

bool
apium_task_redelivered(const apium_task *task)
{
    return task->req->redelivered;
}

bool
apium_task_eager(const apium_task *task)
{
    return task->env->eager;
}

const char *
apium_task_hostname(const apium_task *task)
{
    return task->env->hostname;
}

const char *
apium_task_origin(const apium_task *task)
{
    return text_of(task, APM_TEXT_ORIGIN, task->req->origin);
}

const char *
apium_task_reply_to(const apium_task *task)
{
    return text_of(task, APM_TEXT_REPLY_TO, task->req->reply_to);
}

const char *
apium_task_correlation_id(const apium_task *task)
{
    return text_of(task, APM_TEXT_CORRELATION_ID, task->req->correlation_id);
}

const char *
apium_task_args(const apium_task *task)
{
    return text_of(task, APM_TEXT_ARGS,
                   apm_str_is(task->req->args) ? task->req->args : APM_STR("[]"));
}

const char *
apium_task_kwargs(const apium_task *task)
{
    return text_of(task, APM_TEXT_KWARGS,
                   apm_str_is(task->req->kwargs) ? task->req->kwargs : APM_STR("{}"));
}

const char *
apium_task_headers(const apium_task *task)
{
    return text_of(task, APM_TEXT_HEADERS,
                   apm_str_is(task->req->headers) ? task->req->headers : APM_STR("{}"));
}

const char *
apium_task_header(const apium_task *task, const char *name)
{
    if (!apm_str_is(task->req->headers))
        return NULL;
    apm_json value = apm_json_get((apm_json){ APM_JSON_OBJECT, task->req->headers }, name);
    return value.type == APM_JSON_NONE ? NULL : apm_arena_str(task->arena, value.text, NULL).p;
}

const char *
apium_task_result(const apium_task *task)
{
    return task->finished && task->out->kind == APM_DONE_SUCCESS
               ? apm_arena_str(task->arena, task->out->result, NULL).p
               : NULL;
}

/* A part of the exception, if there is one to show. */
static const char *
exception_text(const apium_task *task, apm_str text)
{
    bool is = task->out->kind != APM_DONE_SUCCESS && apm_str_is(task->out->exc.type);
    return is ? apm_arena_str(task->arena, text, NULL).p : NULL;
}

const char *
apium_task_exception(const apium_task *task)
{
    return exception_text(task, task->out->exc.type);
}

const char *
apium_task_exception_module(const apium_task *task)
{
    return exception_text(task, task->out->exc.module);
}

const char *
apium_task_exception_args(const apium_task *task)
{
    return exception_text(task,
                          apm_str_is(task->out->exc.args) ? task->out->exc.args : APM_STR("[]"));
}

void *
apium_task_alloc(apium_task *task, size_t size)
{
    return apm_arena_alloc(task->arena, size);
}
