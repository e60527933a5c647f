/*
 * compose.c - builds workflows with the public functions, from a description, and sends them.
 *
 * Standard input is a JSON object {name: {"signature": ..., "args": [...], "options": {...}}} with Celery's signatures, which only say what
 * is to be built: apium_sig_new(), apium_chain_of() ... make it anew. Printed is {name: result tuple}. Broker and backend are
 * those of the environment.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include <apium/apium.h>

static _Noreturn void
give_up(const char *what, const char *why)
{
    fprintf(stderr, "compose: %s: %s\n", what, why);
    exit(1);
}

/* JSON as a template: without conversions. */
static char *
template_of(const cJSON *json)
{
    char *text = json ? cJSON_PrintUnformatted(json) : NULL,
         *out = text ? malloc(2 * strlen(text) + 1) : NULL, *to = out;
    if (!out)
        give_up("a template", "out of memory");
    for (const char *at = text; *at; at++) {
        if (*at == '%')
            *to++ = '%';
        *to++ = *at;
    }
    *to = '\0';
    free(text);
    return out;
}

static apium_sig *build(const cJSON *json);

static apium_sig **
build_all(const cJSON *list, size_t *n)
{
    *n = (size_t)cJSON_GetArraySize(list);
    apium_sig **parts = calloc(*n + 1, sizeof(*parts));
    size_t i = 0;
    const cJSON *item;
    if (!parts)
        give_up("a workflow", "out of memory");
    cJSON_ArrayForEach(item, list) parts[i++] = build(item);
    return parts;
}

static apium_sig *
build_group(const cJSON *tasks)
{
    size_t n;
    apium_sig **parts = build_all(tasks, &n), *sig = apium_group_of(n, parts);
    free(parts);
    return sig;
}

#pragma GCC diagnostic ignored "-Wformat-security"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"

static apium_sig *
build_task(const char *name, const cJSON *json)
{
    const cJSON *kwargs = cJSON_GetObjectItem(json, "kwargs");
    const cJSON *it = cJSON_GetObjectItem(kwargs, "it"),
                *task = cJSON_GetObjectItem(kwargs, "task");
    if (it && task) {
        char *items = cJSON_PrintUnformatted(it);
        apium_value value = apium_json(items);
        apium_sig *sig = strcmp(name, "celery.map") == 0 ? apium_map(build(task), value)
                         : strcmp(name, "celery.starmap") == 0
                             ? apium_starmap(build(task), value)
                             : apium_chunks(build(task), value,
                                            (size_t)cJSON_GetObjectItem(kwargs, "n")->valueint);
        free(items);
        return sig;
    }
    char *args = template_of(cJSON_GetObjectItem(json, "args"));
    apium_sig *sig = apium_sig_new(name, args);
    free(args);
    if (cJSON_GetArraySize(kwargs)) {
        char *named = template_of(kwargs);
        sig = apium_sig_kwargs(sig, named);
        free(named);
    }
    return cJSON_IsTrue(cJSON_GetObjectItem(json, "immutable")) ? apium_sig_immutable(sig) : sig;
}

static apium_sig *
set_option(apium_sig *sig, const cJSON *option, const cJSON *options)
{
    const char *name = option->string;
    if (cJSON_IsNull(option))
        return sig;
    if (strcmp(name, "link") == 0 || strcmp(name, "link_error") == 0) {
        const cJSON *one;
        if (!cJSON_IsArray(option))
            return strcmp(name, "link") == 0 ? apium_sig_link(sig, build(option))
                                             : apium_sig_link_error(sig, build(option));
        cJSON_ArrayForEach(one, option) sig = strcmp(name, "link") == 0
                                                  ? apium_sig_link(sig, build(one))
                                                  : apium_sig_link_error(sig, build(one));
        return sig;
    }
    if (strcmp(name, "stamped_headers") == 0) {
        const cJSON *header;
        cJSON_ArrayForEach(header, option)
        {
            char *value = cJSON_PrintUnformatted(cJSON_GetObjectItem(options, header->valuestring));
            sig = apium_sig_stamp(sig, header->valuestring, apium_json(value));
            free(value);
        }
        return sig;
    }
    const cJSON *stamp;
    cJSON_ArrayForEach(
        stamp, cJSON_GetObjectItem(options, "stamped_headers")) if (strcmp(stamp->valuestring,
                                                                           name) == 0) return sig;

    apium_send_opts opts = { 0 };
    if (strcmp(name, "queue") == 0)
        opts.queue = option->valuestring;
    else if (strcmp(name, "task_id") == 0)
        opts.task_id = option->valuestring;
    else if (strcmp(name, "ignore_result") == 0)
        opts.ignore_result = cJSON_IsTrue(option) ? APIUM_ON : APIUM_OFF;
    else if (strcmp(name, "countdown") == 0)
        opts.countdown = option->valuedouble;
    else if (strcmp(name, "priority") == 0)
        opts.priority = option->valueint, opts.has_priority = true;
    else
        give_up("an option that nothing here sets", name);
    return apium_sig_set(sig, &opts);
}

static apium_sig *
build(const cJSON *json)
{
    const cJSON *kwargs = cJSON_GetObjectItem(json, "kwargs"),
                *options = cJSON_GetObjectItem(json, "options"), *option;
    const cJSON *type = cJSON_GetObjectItem(json, "subtask_type");
    const char *kind = cJSON_IsString(type) ? type->valuestring : "task";
    apium_sig *sig;
    if (strcmp(kind, "chain") == 0) {
        size_t n;
        apium_sig **steps = build_all(cJSON_GetObjectItem(kwargs, "tasks"), &n);
        sig = apium_chain_of(n, steps);
        free(steps);
    } else if (strcmp(kind, "group") == 0) {
        sig = build_group(cJSON_GetObjectItem(kwargs, "tasks"));
    } else if (strcmp(kind, "chord") == 0) {
        const cJSON *header = cJSON_GetObjectItem(kwargs, "header");
        sig = apium_chord(cJSON_IsArray(header) ? build_group(header) : build(header),
                          build(cJSON_GetObjectItem(kwargs, "body")));
    } else {
        sig = build_task(cJSON_GetObjectItem(json, "task")->valuestring, json);
    }
    cJSON_ArrayForEach(option, options) sig = set_option(sig, option, options);
    return sig;
}

int
main(void)
{
    char *text = NULL;
    size_t len = 0;
    apium_app *app;
    apium_error err;
    const cJSON *call, *option;
    bool first = true;
    if (getdelim(&text, &len, EOF, stdin) < 0)
        give_up("standard input", "empty");
    cJSON *all = cJSON_Parse(text);
    if (!all || apium_app_new("compose", NULL, &app, &err) != APIUM_OK)
        give_up("the description", all ? err.text : "no JSON");
    putchar('{');
    cJSON_ArrayForEach(call, all)
    {
        apium_run *run;
        const cJSON *args = cJSON_GetObjectItem(call, "args"),
                    *options = cJSON_GetObjectItem(call, "options");
        apium_sig *sig = build(cJSON_GetObjectItem(call, "signature"));
        if (cJSON_GetArraySize(args)) {
            char *partial = template_of(args);
            apium_sig *with = apium_sig_clone(sig, partial);
            free(partial);
            apium_sig_free(sig);
            sig = with;
        }
        cJSON_ArrayForEach(option, options) sig = set_option(sig, option, options);
        if (apium_send(app, sig, NULL, &run, &err) != APIUM_OK)
            give_up(call->string, err.text);
        char *name =
            cJSON_PrintUnformatted(&(cJSON){ .type = cJSON_String, .valuestring = call->string });
        printf("%s%s: %s", first ? "" : ", ", name, apium_run_tuple(run));
        free(name);
        first = false;
        apium_run_free(run);
    }
    puts("}");
    apium_app_free(app);
    cJSON_Delete(all);
    free(text);
    return 0;
}
