/*
 * settings_routes.c - task_routes: reading them, and where a task goes.
 *
 * As Celery: exact names come before patterns within one mapping; a glob's `*` is one character or
 * more, and a pattern has to match the beginning of a name only.
 */
#include "core/model/settings_table.h"

#include "core/base/error.h"

static void
free_rules(apm_route_rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (rules[i].regex)
            regfree(rules[i].regex);
}

void
apm_settings_drop_rules(apm_settings *settings)
{
    struct apm_settings_state *state = settings->state;

    free_rules(state->rules, state->n_rules);
    state->rules = NULL;
    state->n_rules = 0;
}

/* A route is a queue's name or an object of options. */
static apium_status
read_route(apm_settings *settings, apm_json val, apm_route_rule *rule, apium_error *err)
{
    static const char *const known[] = { "queue", "exchange", "routing_key", "priority",
                                         "exchange_type" };
    const char **fields[] = { &rule->queue, &rule->exchange, &rule->routing_key };
    apm_json_iter it;
    apm_str key;
    int64_t n;
    apium_status st;

    rule->priority = APM_PRIORITY_NONE;
    if (val.type == APM_JSON_STRING)
        return apm_settings_text(settings, val, &rule->queue, err);
    if (val.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_CONFIG,
                        "expected a queue's name or an object for each pattern");
    if ((st = apm_json_open(&it, val.text, err)) != APIUM_OK)
        return st;
    while (apm_json_next(&it, &key, &val, err) > 0) {
        size_t i = 0;
        while (i < 5 && !apm_json_key_is(key, known[i]))
            i++;
        if (i < 3)
            st = apm_settings_text(settings, val, fields[i], err);
        else if (i == 3 && (st = apm_settings_int(val, 0, 255, &n, err)) == APIUM_OK)
            rule->priority = (int)n;
        else if (i == 5)
            st = apm_settings_unknown(settings, key, known, 5, "a route", err);
        if (st != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

static apium_status
compile(apm_settings *settings, apm_route_rule *rule, apium_error *err)
{
    size_t len = strlen(rule->pattern);
    char why[128];

    rule->exact = !strchr(rule->pattern, '*');
    if (len < 3 || rule->pattern[0] != '/' || rule->pattern[len - 1] != '/')
        return APIUM_OK;
    char *text = apm_arena_printf(&settings->arena, "%.*s", (int)len - 2, rule->pattern + 1);
    regex_t *regex = apm_arena_alloc(&settings->arena, sizeof *regex);
    if (!text || !regex)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    int rc = regcomp(regex, text, REG_EXTENDED);
    if (rc) {
        regerror(rc, regex, why, sizeof why);
        return apm_fail(err, APIUM_E_CONFIG, "%.60s: %s", rule->pattern, why);
    }
    rule->exact = false;
    rule->regex = regex;
    return APIUM_OK;
}

/* Rules under construction. */
struct rules {
    apm_route_rule *items;
    size_t n, room;
};

static apium_status
add_rule(apm_settings *settings, struct rules *rules, apm_json pattern, apm_json route, int router,
         apium_error *err)
{
    apm_route_rule rule = { .router = router };
    apium_status st;

    if ((st = apm_settings_text(settings, pattern, &rule.pattern, err)) != APIUM_OK ||
        (st = read_route(settings, route, &rule, err)) != APIUM_OK)
        return st;
    if (rules->n == rules->room) {
        size_t room = rules->room ? rules->room * 2 : 16;
        apm_route_rule *more = apm_arena_alloc(&settings->arena, room * sizeof *more);
        if (!more)
            return apm_fail(err, APIUM_E_NOMEM, "out of memory");
        if (rules->n)
            memcpy(more, rules->items, rules->n * sizeof *more);
        rules->items = more;
        rules->room = room;
    }
    if ((st = compile(settings, &rule, err)) != APIUM_OK)
        return st;
    rules->items[rules->n++] = rule;
    return APIUM_OK;
}

/*
 * One router: an object, or a list of pairs. A pair that stands among the routers themselves,
 * ["feeds.*", "feeds"], is taken for what it looks like.
 */
static apium_status
add_router(apm_settings *settings, struct rules *rules, apm_json val, int router, apium_error *err)
{
    apm_json_iter it;
    apm_json item;
    apm_str key;
    apium_status st;

    if (val.type != APM_JSON_OBJECT && val.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_CONFIG, "expected an object of patterns and routes");
    if (val.type == APM_JSON_ARRAY && apm_json_count(val) == 2 &&
        apm_json_at(val, 0).type == APM_JSON_STRING)
        return add_rule(settings, rules, apm_json_at(val, 0), apm_json_at(val, 1), router, err);
    if ((st = apm_json_open(&it, val.text, err)) != APIUM_OK)
        return st;
    while (apm_json_next(&it, &key, &item, err) > 0) {
        apm_json pattern = { APM_JSON_STRING, key };
        if (!it.object) {
            if (item.type != APM_JSON_ARRAY || apm_json_count(item) != 2 ||
                apm_json_at(item, 0).type != APM_JSON_STRING)
                return apm_fail(err, APIUM_E_CONFIG, "expected pairs [pattern, route]");
            pattern = apm_json_at(item, 0);
            item = apm_json_at(item, 1);
        }
        if ((st = add_rule(settings, rules, pattern, item, router, err)) != APIUM_OK)
            return st;
    }
    return APIUM_OK;
}

apium_status
apm_set_routes(apm_settings *settings, const apm_given *given, apium_error *err)
{
    struct rules rules = { 0 };
    apm_json val = given->json, item;
    apm_json_iter it;
    apm_str key;
    int router = 0;
    apium_status st = APIUM_OK;

    if (val.type == APM_JSON_ARRAY) {
        if ((st = apm_json_open(&it, val.text, err)) != APIUM_OK)
            return st;
        while (st == APIUM_OK && apm_json_next(&it, &key, &item, err) > 0)
            st = add_router(settings, &rules, item, router++, err);
    } else if (val.type != APM_JSON_NULL) {
        st = add_router(settings, &rules, val, 0, err);
    }
    if (st != APIUM_OK) {
        free_rules(rules.items, rules.n);
        return st;
    }
    apm_settings_drop_rules(settings);
    settings->state->rules = rules.items;
    settings->state->n_rules = rules.n;
    settings->task_routes = val;
    return APIUM_OK;
}

/* Does the glob match the beginning of the name? Iterative: the last star is the only one worth
 * going back to. */
static bool
glob_matches(const char *glob, const char *name)
{
    const char *star = NULL, *retry = NULL;

    while (*glob) {
        if (*glob == '*') {
            if (!*name)
                return false;
            star = glob++;
            retry = ++name; /* one character at least */
        } else if (*name && *glob == *name) {
            glob++;
            name++;
        } else if (star && *retry) {
            glob = star + 1;
            name = ++retry;
        } else {
            return false;
        }
    }
    return true;
}

static bool
rule_matches(const apm_route_rule *rule, const char *task)
{
    regmatch_t at;

    if (rule->exact)
        return strcmp(rule->pattern, task) == 0;
    if (rule->regex)
        return regexec(rule->regex, task, 1, &at, 0) == 0 && at.rm_so == 0;
    return glob_matches(rule->pattern, task);
}

static const apm_route_rule *
find_rule(const struct apm_settings_state *state, const char *task)
{
    for (size_t from = 0, to; from < state->n_rules; from = to) {
        for (to = from;
             to < state->n_rules && state->rules[to].router == state->rules[from].router;)
            to++;
        for (int exact = 1; exact >= 0; exact--)
            for (size_t i = from; i < to; i++)
                if (state->rules[i].exact == (exact == 1) && rule_matches(&state->rules[i], task))
                    return &state->rules[i];
    }
    return NULL;
}

/* The queue configured for that exchange and routing key, if any. */
static apium_status
find_bound(apm_settings *settings, const char *exchange, const char *routing_key,
           const apm_queue **out, apium_error *err)
{
    const apm_queue *queue;
    apium_status st;

    *out = NULL;
    for (size_t i = 0; i < settings->n_task_queues; i++) {
        if ((st = apm_settings_queue(settings, settings->task_queues[i].name, &queue, err)) !=
            APIUM_OK)
            return st;
        if (strcmp(queue->exchange, exchange) == 0 &&
            strcmp(queue->routing_key, routing_key) == 0) {
            *out = queue;
            return APIUM_OK;
        }
    }
    return APIUM_OK;
}

static apm_exchange_type
type_of(apm_settings *settings, const char *exchange)
{
    for (size_t i = 0; i < settings->n_task_queues; i++) {
        const apm_queue *queue = &settings->task_queues[i];
        if (strcmp(queue->exchange ? queue->exchange : queue->name, exchange) == 0)
            return queue->exchange_type;
    }
    return APM_DIRECT;
}

apium_status
apm_settings_route(apm_settings *settings, const char *task, const apm_choice *choice,
                   apm_route *out, int *priority, apium_error *err)
{
    const apm_route_rule *rule = find_rule(settings->state, task);
    const char *name = choice->queue, *exchange = choice->exchange,
               *routing_key = choice->routing_key;
    const apm_queue *queue = NULL;
    int wanted = choice->priority;
    apium_status st;

    if (rule) {
        name = name ? name : rule->queue;
        exchange = exchange ? exchange : rule->exchange;
        routing_key = routing_key ? routing_key : rule->routing_key;
        wanted = wanted != APM_PRIORITY_NONE ? wanted : rule->priority;
    }
    bool verbatim = exchange && *exchange && routing_key && *routing_key;
    if (!name && !verbatim)
        name = settings->task_default_queue ? settings->task_default_queue : "celery";
    st = name ? apm_settings_queue(settings, name, &queue, err)
              : find_bound(settings, exchange, routing_key, &queue, err);
    if (st != APIUM_OK)
        return st;
    apm_route route = { .queue = queue, .mandatory = true };
    if (verbatim) {
        route.exchange = exchange;
        route.routing_key = routing_key;
        route.exchange_type = queue && strcmp(queue->exchange, exchange) == 0
                                  ? queue->exchange_type
                                  : type_of(settings, exchange);
    } else if (queue->exchange_type == APM_DIRECT) {
        route.exchange = "";
        route.routing_key = queue->name;
    } else {
        route.exchange = exchange && *exchange ? exchange : queue->exchange;
        route.routing_key = routing_key && *routing_key ? routing_key : queue->routing_key;
        route.exchange_type = queue->exchange_type;
    }
    /* A fanout has no one queue that a task could be missing from. */
    route.mandatory = route.exchange_type != APM_FANOUT;
    *out = route;
    *priority = wanted != APM_PRIORITY_NONE ? wanted : (int)settings->task_default_priority;
    return APIUM_OK;
}
