/*
 * publish.c - messages that the worker itself sends; see publish.h.
 *
 * A task's next attempt keeps its id and everything else; the eta and the count are new. It goes where the first one went. For a message that came through the default exchange, or by way of the delayed
 * delivery exchanges (whose long routing keys must not be used again), that is the queue it was consumed from.
 */
#include "worker/publish.h"

static apium_status
route_back(apm_work *work, const char *queue, apm_route *route, apium_error *err)
{
    apm_worker *w = work->worker;
    apm_arena *arena = &work->delivery->arena;
    apm_str exchange = work->req.exchange;
    *route = (apm_route){ .mandatory = true };

    if (!queue && exchange.len && strncmp(exchange.p, "celery_delayed", 14) != 0) {
        route->exchange = apm_arena_str(arena, exchange, NULL).p;
        route->routing_key = apm_arena_str(arena, work->req.routing_key, NULL).p;
        for (size_t i = 0; i < w->n_queues; i++) {
            if (apm_str_eqz(exchange, w->queues[i]->exchange)) {
                route->queue = w->queues[i];
                route->exchange_type = w->queues[i]->exchange_type;
            }
        }
        if (!route->exchange || !route->routing_key)
            return apm_fail(err, APIUM_E_NOMEM, "cannot route a retry: out of memory");
        return APIUM_OK;
    }
    apium_status st =
        apm_settings_queue(w->settings, queue ? queue : work->delivery->queue, &route->queue, err);
    if (st != APIUM_OK)
        return st;
    route->exchange = "";
    route->routing_key = route->queue->name;
    return APIUM_OK;
}

/* What apium_retry was told to change: members of a JSON object. */
static apium_status
apply_changes(apm_work *work, apm_str changes, apm_request *next, const char **queue,
              apm_str *headers, apium_error *err)
{
    apm_arena *arena = &work->delivery->arena;
    apm_json object;
    apium_status st = apm_json_parse(changes, &object, err);
    if (st != APIUM_OK)
        return st;
    apm_json val;
    if ((val = apm_json_get(object, "args")).type == APM_JSON_ARRAY) {
        next->args = apm_arena_str(arena, val.text, NULL);
        next->argsrepr = APM_STR_NONE;
    }
    if ((val = apm_json_get(object, "kwargs")).type == APM_JSON_OBJECT) {
        next->kwargs = apm_arena_str(arena, val.text, NULL);
        next->kwargsrepr = APM_STR_NONE;
    }
    if ((val = apm_json_get(object, "queue")).type != APM_JSON_NONE &&
        (st = apm_json_cstr(val, "queue", arena, queue, err)) != APIUM_OK)
        return st;
    int64_t n;
    if ((val = apm_json_get(object, "priority")).type != APM_JSON_NONE) {
        if ((st = apm_json_int64(val, "priority", &n, err)) != APIUM_OK)
            return st;
        next->priority = (int)n;
    }
    if ((val = apm_json_get(object, "expires_us")).type == APM_JSON_INT &&
        (st = apm_json_int64(val, "expires_us", &next->expires_us, err)) != APIUM_OK)
        return st;
    if ((val = apm_json_get(object, "time_limit")).type != APM_JSON_NONE &&
        (st = apm_json_double(val, "time_limit", &next->time_limit_s, err)) != APIUM_OK)
        return st;
    if ((val = apm_json_get(object, "soft_time_limit")).type != APM_JSON_NONE &&
        (st = apm_json_double(val, "soft_time_limit", &next->soft_time_limit_s, err)) != APIUM_OK)
        return st;
    if ((val = apm_json_get(object, "headers")).type == APM_JSON_OBJECT)
        *headers = apm_arena_str(arena, val.text, NULL);
    return APIUM_OK;
}

apium_status
apm_retry_publish(apm_work *work, apm_unit *unit, const apm_outcome *outcome, apium_error *err)
{
    apm_worker *w = work->worker;
    apm_request next = work->req;
    next.retries = outcome->retries;
    next.eta_us = outcome->retry_eta_us;
    next.redelivered = false;
    /* As in Celery a retry is sent by the task itself: that is its parent when nobody else was. */
    if (!apm_str_is(next.root_id))
        next.root_id = next.id;
    if (!apm_str_is(next.parent_id))
        next.parent_id = next.id;

    const char *queue = NULL;
    apm_str headers = APM_STR_NONE;
    apium_status st;
    if (apm_str_is(outcome->retry_request) &&
        (st = apply_changes(work, outcome->retry_request, &next, &queue, &headers, err)) !=
            APIUM_OK)
        return st;

    char serializer[16], compression[64];
    snprintf(serializer, sizeof(serializer), "%.*s", APM_STR_ARG(next.serializer));
    snprintf(compression, sizeof(compression), "%.*s", APM_STR_ARG(next.compression));
    const apm_encode_opts opts = {
        .serializer = *serializer ? serializer : NULL,
        .compression = *compression ? compression : NULL,
        .protocol = (int)w->settings->task_protocol,
        .extra_headers = headers,
    };
    apm_message msg;
    apm_route route;
    if ((st = apm_request_write(&next, &opts, &work->delivery->arena, &msg, err)) != APIUM_OK ||
        (st = route_back(work, queue, &route, err)) != APIUM_OK)
        return st;
    msg.exchange = apm_strz(route.exchange);
    msg.routing_key = apm_strz(route.routing_key);
    return apm_broker_publish(w->broker, unit, &route, &msg, err);
}

apium_status
apm_follow_publish(apm_work *work, apm_unit *unit, const apm_sig_send *send, apium_error *err)
{
    apm_worker *w = work->worker;
    apm_arena *arena = &work->delivery->arena;
    apm_request req = send->req;
    apm_route route;
    apm_message msg;
    int priority = req.priority;
    apm_str task = apm_arena_str(arena, req.task, NULL);
    if (!apm_str_is(task))
        return apm_fail(err, APIUM_E_NOMEM, "cannot send a follow-up: out of memory");
    apium_status st =
        apm_settings_route(w->settings, task.p, &send->choice, &route, &priority, err);
    if (st != APIUM_OK)
        return st;
    route.mandatory = true;
    req.priority = priority;
    const apm_encode_opts opts = {
        .serializer = send->serializer ? send->serializer : w->settings->task_serializer,
        .compression = send->compression ? send->compression : w->settings->task_compression,
        .protocol = (int)w->settings->task_protocol,
        .extra_headers = send->headers,
    };
    if ((st = apm_request_write(&req, &opts, arena, &msg, err)) != APIUM_OK)
        return st;
    msg.exchange = apm_strz(route.exchange);
    msg.routing_key = apm_strz(route.routing_key);
    return apm_broker_publish(w->broker, unit, &route, &msg, err);
}
