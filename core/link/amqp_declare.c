/* amqp_declare.c - queues with their exchanges and bindings, with exactly the flags that Celery declares them with (docs/protocol.md
 * "RabbitMQ"): another flag or argument on either side and the server refuses the second who comes. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/link/amqp_link.h"
#include "core/link/amqp_table.h"

static const char *const exchange_types[] = {
    [APM_DIRECT] = "direct",
    [APM_TOPIC] = "topic",
    [APM_FANOUT] = "fanout",
    [APM_HEADERS] = "headers",
};

/* ---- copies ---- */

static char *
place(char **at, const char *text)
{
    if (!text)
        return NULL;
    size_t size = strlen(text) + 1;
    char *p = memcpy(*at, text, size);
    *at += size;
    return p;
}

static size_t
size_of(const char *text)
{
    return text ? strlen(text) + 1 : 0;
}

apm_queue *
apm_amqp_queue_copy(const apm_queue *queue)
{
    size_t text = size_of(queue->name) + size_of(queue->exchange) + size_of(queue->routing_key) +
                  size_of(queue->queue_type) + size_of(queue->arguments);
    apm_queue *copy = malloc(sizeof(*copy) + text);

    if (!copy)
        return NULL;
    char *at = (char *)(copy + 1);
    *copy = *queue;
    copy->name = place(&at, queue->name);
    copy->exchange = place(&at, queue->exchange);
    copy->routing_key = place(&at, queue->routing_key);
    copy->queue_type = place(&at, queue->queue_type);
    copy->arguments = place(&at, queue->arguments);
    return copy;
}

bool
apm_amqp_is_quorum(const apm_queue *queue)
{
    if (queue->queue_type)
        return strcmp(queue->queue_type, "quorum") == 0;
    apm_json args;
    if (!queue->arguments || apm_json_parse(apm_strz(queue->arguments), &args, NULL) != APIUM_OK)
        return false;
    return apm_str_eqz(apm_json_get(args, "x-queue-type").text, "\"quorum\"");
}

/* ---- asking ---- */

/* The arguments of queue.declare, as JSON. */
static void
write_arguments(apm_buf *json, const apm_queue *queue)
{
    apm_json given = { 0 }, val;
    apm_json_iter it;
    apm_str key;

    apm_buf_addc(json, '{');
    if (queue->max_priority > 0 && queue->max_priority <= 255) {
        apm_json_add_key(json, "x-max-priority");
        apm_json_add_int(json, queue->max_priority);
    }
    if (queue->queue_type && strcmp(queue->queue_type, "classic") != 0) {
        apm_json_add_key(json, "x-queue-type");
        apm_json_add_stringz(json, queue->queue_type);
    }
    if (queue->expires_ms > 0) {
        apm_json_add_key(json, "x-expires");
        apm_json_add_int(json, queue->expires_ms);
    }
    if (queue->arguments && apm_json_parse(apm_strz(queue->arguments), &given, NULL) == APIUM_OK &&
        apm_json_open(&it, given.text, NULL) == APIUM_OK)
        while (apm_json_next(&it, &key, &val, NULL) > 0) {
            if (json->len > 1)
                apm_buf_add(json, ", ", 2);
            apm_buf_adds(json, key);
            apm_buf_add(json, ": ", 2);
            apm_buf_adds(json, val.text);
        }
    apm_buf_addc(json, '}');
}

static void
add_queue_declare(apm_amqp_call *call, const apm_queue *queue, const amqp_table_t *arguments)
{
    apm_amqp_call_add(call, AMQP_QUEUE_DECLARE_METHOD,
                      &(amqp_queue_declare_t){
                          .queue = apm_amqp_bytesz(queue->name),
                          .durable = queue->durable,
                          .exclusive = queue->exclusive,
                          .auto_delete = queue->auto_delete,
                          .arguments = *arguments,
                      });
}

apium_status
apm_amqp_call_declare(apm_amqp_call *call, const apm_queue *queue, apium_error *err)
{
    bool bound = queue->exchange && *queue->exchange;
    amqp_table_t arguments = { 0 };
    amqp_pool_t pool;
    apm_buf json, bytes;
    size_t offset = 0;

    apm_buf_init(&json, 65536);
    apm_buf_init(&bytes, 65536);
    init_amqp_pool(&pool, 1024);
    write_arguments(&json, queue);
    apium_status st = json.failed ? apm_fail(err, APIUM_E_NOMEM, "out of memory")
                                  : apm_amqp_table_write(&bytes, apm_buf_str(&json), err);
    if (st == APIUM_OK &&
        amqp_decode_table(apm_amqp_bytes(apm_buf_str(&bytes)), &pool, &arguments, &offset) != 0)
        st = apm_fail(err, APIUM_E_CONFIG,
                      "the arguments of the queue \"%s\" are nothing that AMQP knows", queue->name);
    if (st == APIUM_OK) {
        if (bound)
            apm_amqp_call_add(call, AMQP_EXCHANGE_DECLARE_METHOD,
                              &(amqp_exchange_declare_t){
                                  .exchange = apm_amqp_bytesz(queue->exchange),
                                  .type = apm_amqp_bytesz(exchange_types[queue->exchange_type]),
                                  .durable = 1,
                              });
        add_queue_declare(call, queue, &arguments);
        if (bound)
            apm_amqp_call_add(call, AMQP_QUEUE_BIND_METHOD,
                              &(amqp_queue_bind_t){
                                  .queue = apm_amqp_bytesz(queue->name),
                                  .exchange = apm_amqp_bytesz(queue->exchange),
                                  .routing_key = apm_amqp_bytesz(queue->routing_key),
                              });
        if (apm_amqp_delays(queue))
            apm_amqp_call_bind_delays(call, queue);
    }
    empty_amqp_pool(&pool);
    apm_buf_clear(&bytes);
    apm_buf_clear(&json);
    return st;
}

/* ---- what publishes wait for ---- */

apium_status
apm_amqp_decl_get(apm_amqp_link *link, const apm_queue *queue, apm_amqp_decl **out,
                  apium_error *err)
{
    for (apm_amqp_decl *decl = link->decls; decl; decl = decl->next) {
        if (strcmp(decl->queue->name, queue->name) == 0) {
            *out = decl;
            return APIUM_OK;
        }
    }
    if (strlen(queue->name) > 255 || strlen(queue->exchange ? queue->exchange : "") > 255 ||
        strlen(queue->routing_key ? queue->routing_key : "") > 255)
        return apm_fail(err, APIUM_E_INVALID,
                        "cannot use the queue \"%.40s...\": AMQP has names of 255 bytes at most",
                        queue->name);
    apm_amqp_decl *decl = calloc(1, sizeof(*decl));
    if (decl)
        decl->queue = apm_amqp_queue_copy(queue);
    if (!decl || !decl->queue) {
        free(decl);
        return apm_fail(err, APIUM_E_NOMEM, "cannot declare the queue \"%s\": out of memory",
                        queue->name);
    }
    decl->link = link;
    decl->next = link->decls;
    link->decls = decl;
    *out = decl;
    return APIUM_OK;
}

apium_status
apm_amqp_decl_ladder(apm_amqp_link *link, apm_amqp_decl **out, apium_error *err)
{
    static const apm_queue queue = { .name = APM_AMQP_DELAY_EXCHANGE };
    apium_status st = apm_amqp_decl_get(link, &queue, out, err);

    if (st == APIUM_OK)
        (*out)->ladder = true;
    return st;
}

/* One part is answered; the last of them decides. */
static void
on_declared(void *arg, apium_status status, const amqp_method_t *reply,
            const apm_amqp_content *content, const apium_error *err)
{
    apm_amqp_decl *decl = arg;
    apium_error said;

    (void)reply;
    (void)content;
    if (status != APIUM_OK)
        decl->failure = *err;
    if (--decl->left > 0)
        return;
    if (decl->failure.status == APIUM_OK) {
        decl->state = APM_AMQP_DECL_OK;
    } else {
        decl->state = APM_AMQP_DECL_NEW;
        apm_fail(&said, decl->failure.status, "cannot declare the queue \"%s\": %s",
                 decl->queue->name, decl->failure.text);
        said.retriable = decl->failure.retriable;
        apm_amqp_units_refuse(decl->link, decl, &said);
    }
    apm_amqp_wake(decl->link);
}

static void
ask_ladder(apm_amqp_decl *decl)
{
    apium_error err = { 0 };

    /* One more than its parts, so that no answer is the last before all have been asked for. */
    decl->left = APM_AMQP_DELAY_LEVELS + 2;
    unsigned asked = apm_amqp_delays_ask(&decl->link->publish.admin, on_declared, decl, &err);
    decl->left -= APM_AMQP_DELAY_LEVELS + 1 - asked;
    on_declared(decl, err.status, NULL, NULL, &err);
}

void
apm_amqp_decl_ask(apm_amqp_decl *decl)
{
    apium_error err;

    if (decl->state != APM_AMQP_DECL_NEW)
        return;
    decl->state = APM_AMQP_DECL_ASKED;
    decl->failure = (apium_error){ 0 };
    decl->left = 1;
    if (decl->ladder) {
        ask_ladder(decl);
        return;
    }
    apm_amqp_call *call = apm_amqp_call_new(on_declared, decl);
    apium_status st = call ? apm_amqp_call_declare(call, decl->queue, &err)
                           : apm_fail(&err, APIUM_E_NOMEM, "out of memory");
    if (st == APIUM_OK) {
        apm_amqp_channel_ask(&decl->link->publish.admin, call);
        return;
    }
    apm_amqp_call_free(call);
    on_declared(decl, st, NULL, NULL, &err);
}

void
apm_amqp_decls_forget(apm_amqp_link *link)
{
    /* One that is being asked is asked again by its channel. */
    for (apm_amqp_decl *decl = link->decls; decl; decl = decl->next)
        if (decl->state == APM_AMQP_DECL_OK)
            decl->state = APM_AMQP_DECL_NEW;
}

void
apm_amqp_decls_free(apm_amqp_link *link)
{
    for (apm_amqp_decl *decl = link->decls, *next; decl; decl = next) {
        next = decl->next;
        free(decl->queue);
        free(decl);
    }
    link->decls = NULL;
}

apium_status
apm_amqp_require(apm_link *base, const apm_queue *queue, apium_error *err)
{
    apm_amqp_link *link = apm_amqp_link_of(base);
    apm_amqp_decl *decl;
    apium_status st = apm_amqp_decl_get(link, queue, &decl, err);

    if (st == APIUM_OK)
        decl->required = true;
    return st;
}

void
apm_amqp_unrequire(apm_link *base, const char *queue)
{
    for (apm_amqp_decl *decl = apm_amqp_link_of(base)->decls; decl; decl = decl->next)
        if (strcmp(decl->queue->name, queue) == 0)
            decl->required = false;
}

void
apm_amqp_ask(apm_link *base, apm_amqp_call *call)
{
    apm_amqp_link *link = apm_amqp_link_of(base);
    apm_amqp_side *side = link->consume.wanted ? &link->consume : &link->publish;

    apm_amqp_want(side);
    apm_amqp_channel_ask(&side->admin, call);
    apm_amqp_wake(link);
}

void
apm_amqp_ask_declare(apm_link *link, const apm_queue *queue, apm_amqp_call_done *done, void *arg)
{
    apium_error err;
    apm_amqp_call *call = apm_amqp_call_new(done, arg);
    apium_status st = call ? apm_amqp_call_declare(call, queue, &err)
                           : apm_fail(&err, APIUM_E_NOMEM, "out of memory");

    if (st == APIUM_OK) {
        apm_amqp_ask(link, call);
        return;
    }
    apm_amqp_call_free(call);
    if (done)
        done(arg, st, NULL, NULL, &err);
}

void
apm_amqp_give_back(apm_link *base, uint64_t tag)
{
    apm_amqp_link *link = apm_amqp_link_of(base);
    apm_amqp_side *side = link->consume.wanted ? &link->consume : &link->publish;

    if (side->admin.state != APM_AMQP_CHANNEL_OPEN)
        return; /* it went back with its channel */
    apm_amqp_send_method(&side->admin, AMQP_BASIC_NACK_METHOD,
                         &(amqp_basic_nack_t){ .delivery_tag = tag, .multiple = 1, .requeue = 1 });
    apm_amqp_wake(link);
}
