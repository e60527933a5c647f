/* openapi.c - the description of what can be asked, made from one table; a test holds it against the routes. */
#include "web/inner.h"

#define ID                                                                                         \
    "{\"name\": \"id\", \"in\": \"path\", \"required\": true, \"schema\": {\"type\": \"string\"}}"
#define NAME                                                                                       \
    "{\"name\": \"name\", \"in\": \"path\", \"required\": true, \"schema\": {\"type\": "           \
    "\"string\"}}"
#define WAIT                                                                                       \
    "{\"name\": \"wait\", \"in\": \"query\", \"schema\": {\"type\": \"number\", \"maximum\": 60}}"
#define TMOUT                                                                                      \
    "{\"name\": \"timeout\", \"in\": \"query\", \"schema\": {\"type\": \"number\", \"maximum\": "  \
    "60}}"
#define TERM "{\"name\": \"terminate\", \"in\": \"query\", \"schema\": {\"type\": \"string\"}}"
#define IDS                                                                                        \
    "{\"name\": \"ids\", \"in\": \"query\", \"required\": true, \"schema\": {\"type\": "           \
    "\"string\"}}"
#define NAMES   "{\"name\": \"names\", \"in\": \"query\", \"schema\": {\"type\": \"string\"}}"
#define Q(name) "{\"name\": \"" name "\", \"in\": \"query\", \"schema\": {\"type\": \"string\"}}"
#define TASK                                                                                       \
    "{\"name\": \"task\", \"in\": \"path\", \"required\": true, \"schema\": {\"type\": "           \
    "\"string\"}}"

static const struct {
    const char *path, *method, *summary, *parameters, *body,
        *answer; /* body, answer: names of schemas; NULL none */
    const char *status;
} rows[] = {
    { "/", "get", "What this server can do", "", NULL, "Any", "200" },
    { "/celery-task-meta-{id}", "get", "The result document of a task", ID ", " WAIT, NULL, "Any",
      "200" },
    { "/celery-task-meta-{id}", "put", "Store a result document", ID, "Any", NULL, "204" },
    { "/celery-task-meta-{id}", "delete", "Forget a result", ID, NULL, NULL, "204" },
    { "/celery-taskset-meta-{id}", "get", "The saved tree of a group", ID, NULL, "Any", "200" },
    { "/celery-taskset-meta-{id}", "put", "Save the tree of a group", ID, "Any", NULL, "204" },
    { "/celery-taskset-meta-{id}", "delete", "Forget a group", ID, NULL, NULL, "204" },
    { "/celery-taskset-meta-{id}/size", "put", "How many parts a chord has", ID, "Any", NULL,
      "204" },
    { "/celery-taskset-meta-{id}/parts", "get", "The parts that have returned", ID, NULL, "Any",
      "200" },
    { "/celery-taskset-meta-{id}/parts", "delete", "The body is published, forget the parts", ID,
      NULL, NULL, "204" },
    { "/celery-taskset-meta-{id}/parts/{task}", "put", "A part has returned", ID ", " TASK, "Any",
      "Any", "200" },
    { "/celery-taskset-meta-{id}/claim", "put", "Claim a complete header", ID, "Any", NULL, "204" },
    { "/keys", "post", "Many result documents", "", "Ids", "Any", "200" },
    { "/units", "post", "Operations that are applied together", "", "Any", "Any", "200" },
    { "/watches/{name}", "post", "What has changed", NAME ", " WAIT, "Any", "Any", "200" },
    { "/tasks", "post", "Send a signature, or a list of them", "", "Any", "Sent", "201" },
    { "/tasks/states", "post", "Many tasks", "", "Ids", "Tasks", "200" },
    { "/tasks/{id}", "get", "A task", ID ", " WAIT, NULL, "Task", "200" },
    { "/tasks/{id}", "delete", "Forget its result", ID, NULL, NULL, "204" },
    { "/tasks/{id}/tree", "get", "The workflow that a task belongs to", ID, NULL, "Tasks", "200" },
    { "/tasks/{id}/revoke", "post", "Ask the workers to leave it alone", ID ", " TERM, NULL, NULL,
      "202" },
    { "/groups/{id}", "get", "A saved group and its tasks", ID, NULL, "Tasks", "200" },
    { "/events", "get", "Changes of states, as server-sent events", IDS, NULL, "Text", "200" },
    { "/queues", "get", "Queues and what waits in them", NAMES, NULL, "Any", "200" },
    { "/health", "get", "Whether the store can be reached", "", NULL, "Any", "200" },
    { "/openapi.json", "get", "This document", "", NULL, "Any", "200" },
    { "/metrics", "get", "Metrics for Prometheus", "", NULL, "Text", "200" },
    { "/healthcheck", "get", "OK", "", NULL, "Text", "200" },
    { "/api/task/info/{id}", "get", "Flower: a task", ID, NULL, "Any", "200" },
    { "/api/task/result/{id}", "get", "Flower: its result", ID ", " TMOUT, NULL, "Any", "200" },
    { "/api/task/apply/{name}", "post", "Flower: call and wait", NAME, "Any", "Any", "200" },
    { "/api/task/async-apply/{name}", "post", "Flower: call", NAME, "Any", "Any", "200" },
    { "/api/task/send-task/{name}", "post", "Flower: call any task", NAME, "Any", "Any", "200" },
    { "/api/task/abort/{id}", "post", "Flower: abort an abortable task", ID, NULL, "Any", "200" },
    { "/api/task/revoke/{id}", "post", "Flower: revoke a task", ID, NULL, "Any", "200" },
    { "/api/tasks", "get", "Flower: tasks that have results",
      Q("limit") ", " Q("offset") ", " Q("sort_by") ", " Q("workername") ", " Q("taskname") ", " Q(
          "state") ", " Q("received_start") ", " Q("received_end"),
      NULL, "Any", "200" },
    { "/api/task/types", "get", "Flower: names of tasks", "", NULL, "Any", "200" },
    { "/api/queues/length", "get", "Flower: lengths of queues", NAMES, NULL, "Any", "200" },
    { "/api/workers", "get", "Flower: workers (not yet)", "", NULL, NULL, "501" },
    { "/api/worker/shutdown/{name}", "post", "Flower: shut a worker down (not yet)", NAME, NULL,
      NULL, "501" },
    { "/api/worker/pool/restart/{name}", "post", "Flower: restart its pool (not yet)", NAME, NULL,
      NULL, "501" },
    { "/api/worker/pool/grow/{name}", "post", "Flower: grow its pool (not yet)", NAME, NULL, NULL,
      "501" },
    { "/api/worker/pool/shrink/{name}", "post", "Flower: shrink its pool (not yet)", NAME, NULL,
      NULL, "501" },
    { "/api/worker/pool/autoscale/{name}", "post", "Flower: autoscale its pool (not yet)", NAME,
      NULL, NULL, "501" },
    { "/api/worker/queue/add-consumer/{name}", "post", "Flower: consume a queue (not yet)", NAME,
      NULL, NULL, "501" },
    { "/api/worker/queue/cancel-consumer/{name}", "post",
      "Flower: stop consuming a queue (not yet)", NAME, NULL, NULL, "501" },
    { "/api/task/timeout/{name}", "post", "Flower: change time limits (not yet)", NAME, NULL, NULL,
      "501" },
    { "/api/task/rate-limit/{name}", "post", "Flower: change a rate limit (not yet)", NAME, NULL,
      NULL, "501" },
};

static const char schemas[] =
    "\"Any\": {}, \"Ids\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"maxItems\": "
    "1000}, "
    "\"Text\": {\"type\": \"string\"}, "
    "\"Sent\": {\"type\": \"object\", \"required\": [\"id\"], \"properties\": {\"id\": {\"type\": "
    "\"string\"}}}, "
    "\"Task\": {\"type\": \"object\", \"required\": [\"id\", \"state\", \"ready\"], "
    "\"properties\": {"
    "\"id\": {\"type\": \"string\"}, \"state\": {\"type\": \"string\"}, \"ready\": {\"type\": "
    "\"boolean\"}, \"result\": {}, "
    "\"error\": {\"type\": \"object\", \"properties\": {\"type\": {\"type\": \"string\"}, "
    "\"module\": {\"type\": \"string\"}, "
    "\"args\": {\"type\": \"array\", \"items\": {}}, \"message\": {\"type\": \"string\"}}}, "
    "\"traceback\": {\"type\": \"string\"}, \"date_done\": {\"type\": \"string\", \"format\": "
    "\"date-time\"}, "
    "\"children\": {\"type\": \"array\", \"items\": {}}, \"parent_id\": {\"type\": \"string\"}, "
    "\"group_id\": {\"type\": \"string\"}, \"name\": {\"type\": \"string\"}, \"args\": {}, "
    "\"kwargs\": {}, "
    "\"worker\": {\"type\": \"string\"}, \"queue\": {\"type\": \"string\"}, \"retries\": "
    "{\"type\": \"integer\"}}}, "
    "\"Tasks\": {\"type\": \"object\", \"required\": [\"tasks\", \"complete\"], \"properties\": {"
    "\"root\": {\"type\": \"string\"}, \"tree\": {}, \"complete\": {\"type\": \"boolean\"}, "
    "\"tasks\": {\"type\": \"array\", \"items\": {\"$ref\": \"#/components/schemas/Task\"}}}}, "
    "\"Error\": {\"type\": \"object\", \"required\": [\"error\"], \"properties\": {\"error\": "
    "{\"type\": \"object\", "
    "\"required\": [\"status\", \"message\"], \"properties\": {\"status\": {\"type\": "
    "\"integer\"}, "
    "\"message\": {\"type\": \"string\"}}}}}";

static void
add_operation(apm_buf *body, size_t i)
{
    const char *type =
        rows[i].answer && strcmp(rows[i].answer, "Text") == 0 ? "text/plain" : "application/json";
    apm_buf_addf(body, "\"%s\": {\"summary\": \"%s\", \"parameters\": [%s], ", rows[i].method,
                 rows[i].summary, rows[i].parameters);
    if (rows[i].body)
        apm_buf_addf(
            body,
            "\"requestBody\": {\"content\": {\"application/json\": {\"schema\": {\"$ref\": "
            "\"#/components/schemas/%s\"}}}}, ",
            rows[i].body);
    apm_buf_addf(body, "\"responses\": {\"%s\": {\"description\": \"done\"", rows[i].status);
    if (rows[i].answer)
        apm_buf_addf(
            body, ", \"content\": {\"%s\": {\"schema\": {\"$ref\": \"#/components/schemas/%s\"}}}",
            type, rows[i].answer);
    apm_buf_addz(
        body, "}, \"default\": {\"description\": \"an error\", \"content\": {\"application/json\": "
              "{\"schema\": {\"$ref\": \"#/components/schemas/Error\"}}}}}}");
}

void
apm_openapi_get(apm_web_call *call)
{
    apm_buf body;
    apm_buf_init(&body, (size_t)1 << 20);
    apm_buf_addf(&body,
                 "{\"openapi\": \"3.0.3\", \"info\": {\"title\": \"apium web\", \"version\": "
                 "\"%s\"}, \"paths\": {",
                 apium_version());
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        bool same = i && strcmp(rows[i].path, rows[i - 1].path) == 0;
        if (same)
            apm_buf_addz(&body, ", ");
        else
            apm_buf_addf(&body, "%s\"%s\": {", i ? "}, " : "", rows[i].path);
        add_operation(&body, i);
    }
    apm_buf_addf(
        &body,
        "}}, \"components\": {\"schemas\": {%s}, \"securitySchemes\": {\"token\": {\"type\": "
        "\"http\", "
        "\"scheme\": \"bearer\"}, \"basic\": {\"type\": \"http\", \"scheme\": \"basic\"}}}, "
        "\"security\": [{}, {\"token\": []}, {\"basic\": []}]}",
        schemas);
    apm_web_answer(call, 200, &body);
}
