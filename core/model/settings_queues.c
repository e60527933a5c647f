/* settings_queues.c - task_queues: reading them, and the queue of a name. */
#include "core/model/settings_table.h"

#include "core/base/error.h"

static bool
exchange_type(const char *name, apm_exchange_type *out)
{
    static const char *const names[] = { "direct", "topic", "fanout", "headers" };

    for (int i = 0; name && i < 4; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (apm_exchange_type)i;
            return true;
        }
    return false;
}

/* What a queue has that is not said of it. */
static void
complete(const apm_settings *settings, apm_queue *queue)
{
    if (!queue->exchange || !*queue->exchange)
        queue->exchange = queue->name;
    if (!queue->routing_key || !*queue->routing_key)
        queue->routing_key = queue->name;
    if (queue->max_priority == 0)
        queue->max_priority = (int)settings->task_queue_max_priority;
    if (queue->queue_type && strcmp(queue->queue_type, "classic") == 0)
        queue->queue_type = NULL;
}

/* queue_arguments: those with a field of their own go there, the rest stay JSON. */
static apium_status
read_arguments(apm_settings *settings, apm_json args, apm_queue *queue, apium_error *err)
{
    apm_buf rest;
    apm_json_iter it;
    apm_json val;
    apm_str key;
    int64_t n;
    apium_status st;

    if (args.type == APM_JSON_NULL)
        return APIUM_OK;
    if (args.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_CONFIG, "queue_arguments: expected an object");
    apm_buf_init(&rest, APM_BUF_MAX);
    apm_buf_addc(&rest, '{');
    if ((st = apm_json_open(&it, args.text, err)) != APIUM_OK)
        goto out;
    while (apm_json_next(&it, &key, &val, err) > 0) {
        if (apm_json_key_is(key, "x-max-priority")) {
            if ((st = apm_settings_int(val, 0, 255, &n, err)) != APIUM_OK)
                goto out;
            queue->max_priority = (int)n;
        } else if (apm_json_key_is(key, "x-expires")) {
            if ((st = apm_settings_int(val, 1, 1e15, &queue->expires_ms, err)) != APIUM_OK)
                goto out;
        } else if (apm_json_key_is(key, "x-queue-type")) {
            if ((st = apm_settings_text(settings, val, &queue->queue_type, err)) != APIUM_OK)
                goto out;
        } else {
            apm_buf_addz(&rest, rest.len > 1 ? ", " : "");
            apm_buf_adds(&rest, key);
            apm_buf_addz(&rest, ": ");
            apm_buf_adds(&rest, val.text);
        }
    }
    apm_buf_addc(&rest, '}');
    if (rest.len > 2 || rest.failed)
        st = rest.failed ? apm_fail(err, APIUM_E_NOMEM, "out of memory")
                         : apm_settings_keep(settings, apm_buf_str(&rest), &queue->arguments, err);
out:
    apm_buf_clear(&rest);
    return st;
}

/* An exchange is a name or {"name": ..., "type": ...}. */
static apium_status
read_exchange(apm_settings *settings, apm_json val, apm_queue *queue, const char **type,
              apium_error *err)
{
    apm_json name, kind;
    apium_status st;

    if (val.type != APM_JSON_OBJECT)
        return apm_settings_text(settings, val, &queue->exchange, err);
    name = apm_json_get(val, "name");
    kind = apm_json_get(val, "type");
    if (name.type != APM_JSON_NONE &&
        (st = apm_settings_text(settings, name, &queue->exchange, err)) != APIUM_OK)
        return st;
    return kind.type == APM_JSON_NONE ? APIUM_OK : apm_settings_text(settings, kind, type, err);
}

static apium_status
read_queue(apm_settings *settings, const char *name, apm_json val, apm_queue *out, apium_error *err)
{
    static const char *const known[] = { "name",         "exchange",    "exchange_type",
                                         "routing_key",  "binding_key", "queue_arguments",
                                         "max_priority", "queue_type",  "durable",
                                         "auto_delete",  "exclusive",   "expires" };
    enum {
        NAME,
        EXCHANGE,
        EXCHANGE_TYPE,
        ROUTING_KEY,
        BINDING_KEY,
        ARGUMENTS,
        MAX_PRIORITY,
        TYPE,
        DURABLE,
        AUTO_DELETE,
        EXCLUSIVE,
        EXPIRES,
        KNOWN
    };
    apm_queue queue = { .name = name, .durable = true };
    const char *type = NULL;
    apm_json_iter it;
    apm_str key;
    int64_t n;
    double seconds;
    apium_status st = APIUM_OK;

    if (val.type == APM_JSON_STRING && !name)
        st = apm_settings_text(settings, val, &queue.name, err);
    else if (val.type == APM_JSON_OBJECT)
        st = apm_json_open(&it, val.text, err);
    else if (val.type != APM_JSON_NULL || !name)
        return apm_fail(err, APIUM_E_CONFIG, "expected a queue's name or an object");
    while (st == APIUM_OK && val.type == APM_JSON_OBJECT &&
           apm_json_next(&it, &key, &val, err) > 0) {
        int i = 0;
        while (i < KNOWN && !apm_json_key_is(key, known[i]))
            i++;
        switch (i) {
        case NAME:
            st = apm_settings_text(settings, val, &queue.name, err);
            break;
        case EXCHANGE:
            st = read_exchange(settings, val, &queue, &type, err);
            break;
        case EXCHANGE_TYPE:
            st = apm_settings_text(settings, val, &type, err);
            break;
        case ROUTING_KEY:
        case BINDING_KEY:
            st = apm_settings_text(settings, val, &queue.routing_key, err);
            break;
        case ARGUMENTS:
            st = read_arguments(settings, val, &queue, err);
            break;
        case MAX_PRIORITY:
            if ((st = apm_settings_int(val, 0, 255, &n, err)) == APIUM_OK)
                queue.max_priority = (int)n;
            break;
        case TYPE:
            st = apm_settings_text(settings, val, &queue.queue_type, err);
            break;
        case DURABLE:
            st = apm_settings_bool(val, &queue.durable, err);
            break;
        case AUTO_DELETE:
            st = apm_settings_bool(val, &queue.auto_delete, err);
            break;
        case EXCLUSIVE:
            st = apm_settings_bool(val, &queue.exclusive, err);
            break;
        case EXPIRES:
            if ((st = apm_settings_seconds(val, 0, 1e12, &seconds, err)) == APIUM_OK)
                queue.expires_ms = (int64_t)(seconds * 1000);
            break;
        default:
            st = apm_settings_unknown(settings, key, known, KNOWN, "a queue", err);
        }
        val.type = APM_JSON_OBJECT; /* of the loop's condition */
    }
    if (st != APIUM_OK)
        return st;
    if (!queue.name || !*queue.name)
        return apm_fail(err, APIUM_E_CONFIG, "a queue has no name");
    if (type && !exchange_type(type, &queue.exchange_type))
        return apm_fail(err, APIUM_E_CONFIG, "queue %.60s: unknown exchange type %.40s", queue.name,
                        type);
    *out = queue;
    return APIUM_OK;
}

apium_status
apm_set_queues(apm_settings *settings, const apm_given *given, apium_error *err)
{
    apm_json val = given->json, item;
    apm_json_iter it;
    apm_str key;
    apium_status st;

    settings->task_queues = NULL;
    settings->n_task_queues = 0;
    if (val.type == APM_JSON_NULL)
        return APIUM_OK;
    if (val.type != APM_JSON_ARRAY && val.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_CONFIG, "expected a list of queues");
    apm_queue *queues =
        apm_arena_alloc(&settings->arena, (apm_json_count(val) + 1) * sizeof *queues);
    if (!queues)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    if ((st = apm_json_open(&it, val.text, err)) != APIUM_OK)
        return st;
    size_t n = 0;
    while (apm_json_next(&it, &key, &item, err) > 0) {
        const char *name = NULL;
        if (it.object && (st = apm_settings_text(settings, (apm_json){ APM_JSON_STRING, key },
                                                 &name, err)) != APIUM_OK)
            return st;
        if ((st = read_queue(settings, name, item, &queues[n++], err)) != APIUM_OK)
            return st;
    }
    settings->task_queues = queues;
    settings->n_task_queues = n;
    return APIUM_OK;
}

apium_status
apm_settings_queue(apm_settings *settings, const char *name, const apm_queue **out,
                   apium_error *err)
{
    struct apm_made_queue *made;
    bool is_default =
        settings->task_default_queue && strcmp(name, settings->task_default_queue) == 0;
    apium_status st;

    for (made = settings->state->made; made; made = made->next)
        if (strcmp(made->queue.name, name) == 0) {
            *out = &made->queue;
            return APIUM_OK;
        }
    made = apm_arena_alloc(&settings->arena, sizeof *made);
    if (!made)
        return apm_fail(err, APIUM_E_NOMEM, "cannot make queue %s: out of memory", name);
    made->queue = (apm_queue){ .durable = true };
    size_t i = 0;
    while (i < settings->n_task_queues && strcmp(settings->task_queues[i].name, name) != 0)
        i++;
    if (i < settings->n_task_queues) {
        made->queue = settings->task_queues[i];
    } else if (is_default && settings->n_task_queues == 0) {
        made->queue.exchange = settings->task_default_exchange;
        made->queue.routing_key = settings->task_default_routing_key;
        made->queue.queue_type = settings->task_default_queue_type;
        (void)exchange_type(settings->task_default_exchange_type, &made->queue.exchange_type);
    } else if (settings->task_create_missing_queues) {
        made->queue.queue_type = settings->task_create_missing_queue_type;
    } else {
        return apm_fail(err, APIUM_E_NOTFOUND, "queue %s is missing from task_queues", name);
    }
    if ((st = apm_settings_keep(settings, apm_strz(name), &made->queue.name, err)) != APIUM_OK)
        return st;
    complete(settings, &made->queue);
    made->next = settings->state->made;
    settings->state->made = made;
    *out = &made->queue;
    return APIUM_OK;
}
