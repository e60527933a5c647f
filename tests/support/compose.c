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
    if (!parts)
        give_up("a workflow", "out of memory");
    for (const cJSON *item = list ? list->child : NULL; item; item = item->next)
        parts[i++] = build(item);
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
    const cJSON *task = cJSON_GetObjectItem(kwargs, "task");
    bool map = strcmp(name, "celery.map") == 0;
    if (map || strcmp(name, "celery.starmap") == 0) {
        char *items = cJSON_PrintUnformatted(cJSON_GetObjectItem(kwargs, "it"));
        apium_sig *sig = map ? apium_map(build(task), apium_json(items))
                             : apium_starmap(build(task), apium_json(items));
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
link_all(apium_sig *sig, const cJSON *links, apium_sig *(*link)(apium_sig *, apium_sig *))
{
    if (!cJSON_IsArray(links))
        return link(sig, build(links));
    for (const cJSON *one = links->child; one; one = one->next)
        sig = link(sig, build(one));
    return sig;
}

static bool
holds(const cJSON *list, const char *text)
{
    for (const cJSON *one = list ? list->child : NULL; one; one = one->next)
        if (strcmp(one->valuestring, text) == 0)
            return true;
    return false;
}

static apium_sig *
set_stamp(apium_sig *sig, const cJSON *stamp)
{
    char *value = cJSON_PrintUnformatted(stamp);
    sig = apium_sig_stamp(sig, stamp->string, apium_json(value));
    free(value);
    return sig;
}

static apium_sig *
set_option(apium_sig *sig, const cJSON *option, const cJSON *options)
{
    const char *name = option->string;
    if (cJSON_IsNull(option) || strcmp(name, "stamped_headers") == 0)
        return sig;
    if (strcmp(name, "immutable") ==
        0) /* left in copies of errbacks by Celery; it means nothing there */
        return sig;
    if (strcmp(name, "link") == 0)
        return link_all(sig, option, apium_sig_link);
    if (strcmp(name, "link_error") == 0)
        return link_all(sig, option, apium_sig_link_error);
    if (holds(cJSON_GetObjectItem(options, "stamped_headers"), name))
        return set_stamp(sig, option);

    apium_send_opts opts = { 0 };
    char *headers = NULL;
    const struct {
        const char *name;
        const char **text;
        double *number;
    } plain[] = {
        { "queue", &opts.queue, NULL },           { "task_id", &opts.task_id, NULL },
        { "countdown", NULL, &opts.countdown },   { "expires", NULL, &opts.expires },
        { "time_limit", NULL, &opts.time_limit },
    };
    bool set = true;
    size_t i = 0;
    while (i < sizeof(plain) / sizeof(plain[0]) && strcmp(name, plain[i].name) != 0)
        i++;
    if (i < sizeof(plain) / sizeof(plain[0]) && plain[i].text)
        *plain[i].text = option->valuestring;
    else if (i < sizeof(plain) / sizeof(plain[0]))
        *plain[i].number = option->valuedouble;
    else if (strcmp(name, "ignore_result") == 0)
        opts.ignore_result = cJSON_IsTrue(option) ? APIUM_ON : APIUM_OFF;
    else if (strcmp(name, "priority") == 0)
        opts.priority = option->valueint, opts.has_priority = true;
    else if (strcmp(name, "headers") == 0)
        opts.headers = headers = cJSON_PrintUnformatted(option);
    else
        set = false;
    if (!set)
        give_up("an option that nothing here sets", name);
    sig = apium_sig_set(sig, &opts);
    free(headers);
    return sig;
}

static apium_sig *
set_options(apium_sig *sig, const cJSON *options)
{
    for (const cJSON *option = options ? options->child : NULL; option; option = option->next)
        sig = set_option(sig, option, options);
    return sig;
}

static apium_sig *
build(const cJSON *json)
{
    const cJSON *kwargs = cJSON_GetObjectItem(json, "kwargs"),
                *options = cJSON_GetObjectItem(json, "options");
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
    return set_options(sig, options);
}

static char *
text_of(const cJSON *object, const char *name)
{
    const cJSON *value = cJSON_GetObjectItem(object, name);
    return value ? cJSON_PrintUnformatted(value) : NULL;
}

int
main(void)
{
    char *text = NULL;
    size_t len = 0;
    apium_app *app;
    apium_error err;
    const cJSON *call;
    bool first = true;
    if (getdelim(&text, &len, EOF, stdin) < 0)
        give_up("standard input", "empty");
    cJSON *all = cJSON_Parse(text);
    if (!all || apium_app_new("compose", NULL, &app, &err) != APIUM_OK)
        give_up("the description", all ? err.text : "no JSON");
    putchar('{');
    for (call = all->child; call; call = call->next) {
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
        char *link = text_of(options, "link"), *link_error = text_of(options, "link_error");
        const cJSON *id = cJSON_GetObjectItem(options, "task_id");
        const apium_send_opts opts = { .task_id = id ? id->valuestring : NULL,
                                       .link = link,
                                       .link_error = link_error };
        if (apium_send(app, sig, &opts, &run, &err) != APIUM_OK)
            give_up(call->string, err.text);
        free(link);
        free(link_error);
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
