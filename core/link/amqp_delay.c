/*
 * amqp_delay.c - Celery's native delayed delivery (since 5.5): a ladder of exchanges and queues in which a message waits 2^27, ...,
 * 4, 2, 1 seconds, for each binary digit of its delay that is 1.
 *
 *   celery_delayed_27 ──1.#──▶ queue, 2^27 s ──dead letter──▶ celery_delayed_26
 *          └─────────0.#──────────────────────────────────────────▲
 *   ... celery_delayed_0 ──▶ celery_delayed_delivery ──#.<routing key>──▶ the task's exchange
 */
#include <inttypes.h>

#include "core/link/amqp_link.h"

#define DELIVERY "celery_delayed_delivery"

apium_status
apm_amqp_delay_key(apm_buf *buf, int64_t seconds, const char *routing_key)
{
    if (seconds < 1 || seconds > APM_AMQP_DELAY_MAX_S)
        return APIUM_E_INVALID;
    for (int level = APM_AMQP_DELAY_LEVELS - 1; level >= 0; level--) {
        apm_buf_addc(buf, (seconds >> level & 1) ? '1' : '0');
        apm_buf_addc(buf, '.');
    }
    apm_buf_addz(buf, routing_key);
    return buf->failed ? APIUM_E_NOMEM : APIUM_OK;
}

bool
apm_amqp_delays(const apm_queue *queue)
{
    return queue->exchange_type == APM_TOPIC && queue->exchange && *queue->exchange &&
           apm_amqp_is_quorum(queue);
}

static void
add_exchange(apm_amqp_call *call, const char *name)
{
    apm_amqp_call_add(call, AMQP_EXCHANGE_DECLARE_METHOD,
                      &(amqp_exchange_declare_t){
                          .exchange = apm_amqp_bytesz(name),
                          .type = apm_amqp_bytesz("topic"),
                          .durable = 1,
                      });
}

/* The key that matches the digit of one level: those above it may be anything. */
static void
print_level_key(char *out, size_t size, int level, char digit)
{
    size_t at = 0;

    for (int above = APM_AMQP_DELAY_LEVELS - 1; above > level; above--)
        at += (size_t)snprintf(out + at, size - at, "*.");
    snprintf(out + at, size - at, "%c.#", digit);
}

static apium_status
declare_level(apm_amqp_channel *channel, int level, apm_amqp_call_done *done, void *arg,
              apium_error *err)
{
    char name[40], below[40], key[80], arguments[300];

    snprintf(name, sizeof(name), "celery_delayed_%d", level);
    if (level > 0)
        snprintf(below, sizeof(below), "celery_delayed_%d", level - 1);
    else
        snprintf(below, sizeof(below), DELIVERY);
    snprintf(arguments, sizeof(arguments),
             "{\"x-queue-type\": \"quorum\", \"x-overflow\": \"reject-publish\", "
             "\"x-message-ttl\": %" PRId64
             ", \"x-dead-letter-exchange\": \"%s\", \"x-dead-letter-strategy\": \"at-least-once\"}",
             (INT64_C(1) << level) * 1000, below);
    apm_amqp_call *call = apm_amqp_call_new(done, arg);
    if (!call)
        return apm_fail(err, APIUM_E_NOMEM, "out of memory");
    add_exchange(call, name);
    const apm_queue queue = {
        .name = name, .exchange = "", .durable = true, .arguments = arguments
    };
    apium_status st = apm_amqp_call_declare(call, &queue, err);
    if (st != APIUM_OK) {
        apm_amqp_call_free(call);
        return st;
    }
    print_level_key(key, sizeof(key), level, '1');
    apm_amqp_call_add(call, AMQP_QUEUE_BIND_METHOD,
                      &(amqp_queue_bind_t){
                          .queue = apm_amqp_bytesz(name),
                          .exchange = apm_amqp_bytesz(name),
                          .routing_key = apm_amqp_bytesz(key),
                      });
    print_level_key(key, sizeof(key), level, '0');
    apm_amqp_call_add(call, AMQP_EXCHANGE_BIND_METHOD,
                      &(amqp_exchange_bind_t){
                          .destination = apm_amqp_bytesz(below),
                          .source = apm_amqp_bytesz(name),
                          .routing_key = apm_amqp_bytesz(key),
                      });
    apm_amqp_channel_ask(channel, call);
    return APIUM_OK;
}

unsigned
apm_amqp_delays_ask(apm_amqp_channel *channel, apm_amqp_call_done *done, void *arg,
                    apium_error *err)
{
    apm_amqp_call *call = apm_amqp_call_new(done, arg);
    unsigned asked = 0;

    if (!call) {
        apm_fail(err, APIUM_E_NOMEM, "out of memory");
        return 0;
    }
    /* From the lowest: a binding needs what it leads to. */
    add_exchange(call, DELIVERY);
    apm_amqp_channel_ask(channel, call);
    asked++;
    for (int level = 0; level < APM_AMQP_DELAY_LEVELS; level++) {
        if (declare_level(channel, level, done, arg, err) != APIUM_OK)
            return asked;
        asked++;
    }
    return asked;
}

/* What a queue needs so that delayed messages reach it. */
void
apm_amqp_call_bind_delays(apm_amqp_call *call, const apm_queue *queue)
{
    const char *routing_key = queue->routing_key ? queue->routing_key : "";
    char key[300];

    snprintf(key, sizeof(key), "%s%s", routing_key[0] == '#' ? "" : "#.", routing_key);
    add_exchange(call, DELIVERY);
    apm_amqp_call_add(call, AMQP_EXCHANGE_BIND_METHOD,
                      &(amqp_exchange_bind_t){
                          .destination = apm_amqp_bytesz(queue->exchange),
                          .source = apm_amqp_bytesz(DELIVERY),
                          .routing_key = apm_amqp_bytesz(key),
                      });
    apm_amqp_call_add(call, AMQP_QUEUE_BIND_METHOD,
                      &(amqp_queue_bind_t){
                          .queue = apm_amqp_bytesz(queue->name),
                          .exchange = apm_amqp_bytesz(queue->exchange),
                          .routing_key = apm_amqp_bytesz(key),
                      });
}
