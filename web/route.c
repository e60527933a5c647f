/* route.c - which function answers which request, and whether it may. */
#include "web/inner.h"

#include <stdlib.h>
#include <strings.h>

#define R APM_ROLE_READER
#define W APM_ROLE_OPERATOR

static const apm_route_row rows[] = {
    { "GET", "/", R, apm_key_discover },
    /* docs/http-result-protocol.md */
    { "GET", "/celery-task-meta-:", R, apm_task_key_get },
    { "PUT", "/celery-task-meta-:", W, apm_task_key_put },
    { "DELETE", "/celery-task-meta-:", W, apm_task_key_delete },
    { "GET", "/celery-taskset-meta-:", R, apm_group_key_get },
    { "PUT", "/celery-taskset-meta-:", W, apm_group_key_put },
    { "DELETE", "/celery-taskset-meta-:", W, apm_group_key_delete },
    { "PUT", "/celery-taskset-meta-:/size", W, apm_chord_size_put },
    { "GET", "/celery-taskset-meta-:/parts", R, apm_chord_parts_get },
    { "DELETE", "/celery-taskset-meta-:/parts", W, apm_chord_parts_delete },
    { "PUT", "/celery-taskset-meta-:/parts/:", W, apm_chord_part_put },
    { "PUT", "/celery-taskset-meta-:/claim", W, apm_chord_claim_put },
    { "POST", "/keys", R, apm_keys_post },
    { "POST", "/units", W, apm_units_post },
    { "POST", "/watches/:", R, apm_watch_post },
    /* docs/rest.md */
    { "POST", "/tasks", W, apm_tasks_post },
    { "POST", "/tasks/states", R, apm_tasks_post_states },
    { "GET", "/tasks/:", R, apm_task_get },
    { "DELETE", "/tasks/:", W, apm_task_delete },
    { "GET", "/tasks/:/tree", R, apm_task_tree_get },
    { "POST", "/tasks/:/revoke", W, apm_task_revoke },
    { "GET", "/groups/:", R, apm_group_get },
    { "GET", "/events", R, apm_events_get },
    { "GET", "/queues", R, apm_queues_get },
    { "GET", "/health", R, apm_health_get },
    { "GET", "/openapi.json", R, apm_openapi_get },
    /* Flower's */
    { "GET", "/metrics", R, apm_metrics_get },
    { "GET", "/healthcheck", R, apm_flower_healthcheck },
    { "GET", "/api/task/info/:", R, apm_flower_info },
    { "GET", "/api/task/result/:", R, apm_flower_result },
    { "POST", "/api/task/apply/:", W, apm_flower_apply },
    { "POST", "/api/task/async-apply/:", W, apm_flower_async_apply },
    { "POST", "/api/task/send-task/:", W, apm_flower_send_task },
    { "POST", "/api/task/abort/:", W, apm_flower_abort },
    { "POST", "/api/task/revoke/:", W, apm_flower_revoke },
    { "GET", "/api/tasks", R, apm_flower_tasks },
    { "GET", "/api/task/types", R, apm_flower_types },
    { "GET", "/api/queues/length", R, apm_flower_queue_lengths },
    /* Flower's, with remote control */
    { "GET", "/api/workers", R, apm_flower_later },
    { "POST", "/api/worker/shutdown/:", W, apm_flower_later },
    { "POST", "/api/worker/pool/restart/:", W, apm_flower_later },
    { "POST", "/api/worker/pool/grow/:", W, apm_flower_later },
    { "POST", "/api/worker/pool/shrink/:", W, apm_flower_later },
    { "POST", "/api/worker/pool/autoscale/:", W, apm_flower_later },
    { "POST", "/api/worker/queue/add-consumer/:", W, apm_flower_later },
    { "POST", "/api/worker/queue/cancel-consumer/:", W, apm_flower_later },
    { "POST", "/api/task/timeout/:", W, apm_flower_later },
    { "POST", "/api/task/rate-limit/:", W, apm_flower_later },
};

/* The next segment of a path that begins with '/'. */
static apm_str
next_segment(const char **at, const char *end)
{
    const char *start = ++*at;
    while (*at < end && **at != '/')
        ++*at;
    return (apm_str){ start, (size_t)(*at - start) };
}

/* Does the path have the form of the row? Its arguments are kept without escapes; *bad: it has, but they make no sense. */
static bool
matches(apm_web_call *call, const char *form, apm_str path, bool *bad)
{
    const char *f = form, *f_end = form + strlen(form), *p = path.p, *p_end = path.p + path.len;
    size_t n = 0;
    *bad = false;
    while (f < f_end && p < p_end) {
        apm_str want = next_segment(&f, f_end), got = next_segment(&p, p_end);
        bool argument = want.len && want.p[want.len - 1] == ':';
        size_t prefix = argument ? want.len - 1 : want.len;
        if (got.len < prefix || (!argument && got.len != prefix) ||
            memcmp(want.p, got.p, prefix) != 0)
            return false;
        if (!argument)
            continue;
        got = (apm_str){ got.p + prefix, got.len - prefix };
        if (!apm_web_unescape(got, &call->arena, &call->args[n]) || !apm_web_id_ok(call->args[n]))
            *bad = true;
        n++;
    }
    return f == f_end && p == p_end;
}

/* A browser's page of another origin may not do anything but read, and that only where it is let. */
static bool
origin_fits(const apm_web_call *call)
{
    const char *origin = apm_http_header_of(call->req, "Origin"), *cors = call->web->opts->cors;
    const char *host = apm_http_header_of(call->req, "Host");
    const char *own = origin ? strstr(origin, "://") : NULL;
    if (!origin)
        return true;
    return (cors && (strcmp(cors, "*") == 0 || strcmp(cors, origin) == 0)) ||
           (own && host && strcmp(own + 3, host) == 0);
}

/* Without passwords only this machine may ask, and not by a name that somebody else's DNS made to mean this machine. */
static bool
host_fits(const apm_web_call *call)
{
    static const char *const names[] = { "localhost", "[::1]" };
    const char *host = apm_http_header_of(call->req, "Host");
    if (call->web->access || !host)
        return true;
    size_t len = strncmp(host, "127.", 4) == 0 ? strspn(host, "0123456789.") : 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strncasecmp(host, names[i], strlen(names[i])) == 0)
            len = strlen(names[i]);
    return len && (host[len] == '\0' || host[len] == ':');
}

static void
preflight(apm_web_call *call)
{
    static const apm_http_header headers[] = {
        { "Access-Control-Allow-Methods", "GET, PUT, POST, DELETE" },
        { "Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match" },
    };
    apm_web_reply(call, &(apm_http_reply){ .status = 204,
                                           .body = APM_STR(""),
                                           .headers = headers,
                                           .n_headers = call->web->opts->cors ? 2 : 0 });
}

static void
dispatch(apm_web_call *call, const char *method, apm_str path)
{
    char allow[64] = "";
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        bool bad;
        if (!matches(call, rows[i].path, path, &bad))
            continue;
        if (bad) {
            apm_web_error(call, 400, "an id has 1 to %d bytes of UTF-8 without NUL",
                          APM_WEB_ID_MAX);
            return;
        }
        bool head = strcmp(method, "HEAD") == 0 && strcmp(rows[i].method, "GET") == 0;
        if (!head && strcmp(rows[i].method, method) != 0) {
            if (*allow)
                strncat(allow, ", ", sizeof(allow) - strlen(allow) - 1);
            strncat(allow, rows[i].method, sizeof(allow) - strlen(allow) - 1);
            continue;
        }
        apm_role role =
            apm_access_role(call->web->access, apm_http_header_of(call->req, "Authorization"));
        if (role == APM_ROLE_NOBODY)
            apm_web_error(call, 401, "a token or a password is needed");
        else if (role < rows[i].role)
            apm_web_error(call, 403, "that is for operators");
        else if (!host_fits(call))
            apm_web_error(call, 403,
                          "without --access this server answers to names of this machine only, "
                          "and Host is another");
        else if (rows[i].role > APM_ROLE_READER && !origin_fits(call))
            apm_web_error(call, 403, "pages of other origins may not ask that");
        else
            rows[i].run(call);
        return;
    }
    if (*allow && strcmp(method, "OPTIONS") == 0) {
        preflight(call);
    } else if (*allow) {
        const apm_http_header header = { "Allow", allow };
        static const char text[] =
            "{\"error\": {\"status\": 405, \"message\": \"no such method here\"}}";
        apm_web_reply(call, &(apm_http_reply){ .status = 405,
                                               .body = { text, sizeof(text) - 1 },
                                               .headers = &header,
                                               .n_headers = 1 });
    } else {
        apm_web_error(call, 404, "there is nothing at this path");
    }
}

void
apm_web_on_request(void *arg, apm_http_req *req)
{
    static const char full[] = "{\"error\": {\"status\": 503, \"message\": \"out of memory\"}}";
    apm_web_call *call = calloc(1, sizeof(*call));
    if (!call) {
        apm_http_answer(req,
                        &(apm_http_reply){ .status = 503, .body = { full, sizeof(full) - 1 } });
        return;
    }
    const char *target = apm_http_target(req), *mark = strchr(target, '?');
    *call = (apm_web_call){ .web = arg, .req = req };
    call->web->calls++;
    if (mark)
        call->query = apm_strz(mark + 1);
    const apm_str path = { target, mark ? (size_t)(mark - target) : strlen(target) };
    if (call->web->stopping)
        apm_web_error(call, 503, "the server is stopping");
    else if (path.len == 0 || *path.p != '/')
        apm_web_error(call, 400, "a path begins with /");
    else
        dispatch(call, apm_http_method(req), path);
}
