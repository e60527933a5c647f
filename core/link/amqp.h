/*
 * amqp.h - a link to RabbitMQ (AMQP 0-9-1), for the broker and the rpc:// backend that share it.
 *
 *                      ┌─ publish side ── publishes, confirms, returns     (a producer opens only this one)
 *   units, intakes ──▶ link
 *                      └─ consume side ── consumers, deliveries, acks
 *
 * Two connections, because RabbitMQ stops reading one that it has blocked for want of memory or disk, acks included. Each
 * is opened when it is first needed, reconnects by itself, and goes through the `;` list of URLs.
 *
 * A unit here is: its publishes, in order; when all are confirmed, its settlements. A publish that the server returns (no queue
 * takes it), refuses or cannot take fails its unit, and then none of its deliveries is settled. After a loss of connection what was
 * not confirmed is published again (at least once), and settlements of deliveries that the loss has voided are dropped:
 * the server delivers them again.
 */
#ifndef APM_LINK_AMQP_H
#define APM_LINK_AMQP_H

#include "core/base/log.h"
#include "core/link/amqp_conn.h"
#include "core/link/link.h"
#include "core/model/message.h"
#include "core/model/route.h"

extern const apm_link_ops apm_amqp_kind;

/* ---- publishing ---- */

typedef struct apm_amqp_publish {
    apm_str exchange, routing_key;
    bool mandatory;
    bool delayed;           /* by the ladder of amqp_delay.c, which is declared before too */
    const apm_queue *needs; /* declared before; NULL: nothing. Copied */
    const apm_message *msg; /* copied */
} apm_amqp_publish;

/* Append to a unit. E_INVALID, E_ENCODE, E_TOOBIG: it can never be sent. */
apium_status
apm_amqp_publish_add(apm_unit *unit, const apm_amqp_publish *publish, apium_error *err);
/* Have this queue declared before anything else is published, now and after every reconnect (reply queues). */
apium_status apm_amqp_require(apm_link *link, const apm_queue *queue, apium_error *err);
void apm_amqp_unrequire(apm_link *link, const char *queue);
/* Are so many publishes waiting (the server has blocked us, or is away) that nothing more should be begun? */
bool apm_amqp_congested(const apm_link *link);

/* ---- consuming ---- */

typedef struct apm_amqp_intake apm_amqp_intake;
typedef struct apm_amqp_consumer apm_amqp_consumer;
typedef struct apm_amqp_tag apm_amqp_tag;

typedef enum apm_amqp_verdict { APM_AMQP_ACK, APM_AMQP_REJECT, APM_AMQP_REQUEUE } apm_amqp_verdict;

/* What the server wants settled, embedded in an adapter's delivery. */
struct apm_amqp_tag {
    apm_amqp_intake *intake; /* NULL: nothing to settle (any more) */
    const struct apm_amqp_intake_ops *ops;
    apm_amqp_consumer *consumer;
    unsigned serial; /* of the consumer's subscription that brought it */
    uint64_t tag;
    apm_amqp_verdict verdict;
    bool in_unit;              /* a unit will settle it, */
    bool due;                  /* and it has: with the next flush, */
    bool patient;              /* or a little later, so that one ack says it for many */
    bool orphan;               /* its owner has let go of it */
    apm_amqp_tag *prev, *next; /* the intake's, in the order of tags */
    apm_amqp_tag *next_in_unit;
};

typedef struct apm_amqp_intake_ops {
    /* A message; `tag` has to be kept by apm_amqp_tag_hold unless the intake is no_ack. Slices live during the call. */
    void (*on_message)(apm_amqp_intake *intake, apm_amqp_consumer *consumer,
                       const amqp_basic_deliver_t *deliver, const apm_amqp_content *content);
    /* All that one read brought has been passed; or the link has taken a turn. May be NULL. */
    void (*on_batch_end)(apm_amqp_intake *intake);
    /* A held tag is void: its channel is gone. NULL for no_ack. */
    void (*on_lost)(apm_amqp_tag *tag);
    /* The unit that would have settled this tag failed: it is held again (or void: tag->intake is NULL). NULL for no_ack. */
    void (*on_unsettled)(apm_amqp_tag *tag);
    /* A released tag's memory may go now; the intake may be gone by then. NULL for no_ack. */
    void (*on_free)(apm_amqp_tag *tag);
    /* May be NULL. */
    void (*on_notice)(apm_amqp_intake *intake, apm_log_level level, const char *text);
    /* A consumer is on. May be NULL. */
    void (*on_consuming)(apm_amqp_intake *intake, apm_amqp_consumer *consumer);
} apm_amqp_intake_ops;

struct apm_amqp_consumer {
    apm_amqp_consumer *next;
    apm_amqp_intake *intake;
    apm_queue *queue; /* a copy of our own */
    enum {
        APM_AMQP_CONSUMER_OFF,
        APM_AMQP_CONSUMER_DECLARING,
        APM_AMQP_CONSUMER_STARTING,
        APM_AMQP_CONSUMER_ON,
        APM_AMQP_CONSUMER_STOPPING,
    } state;
    bool wanted;
    int index;
    unsigned serial;     /* counts its subscriptions */
    char tag[48];        /* of the present one */
    bool own_window;     /* the present subscription has one: */
    unsigned prefetch;   /* this, 0 unlimited */
    unsigned unsettled;  /* of what it brought */
    int64_t retry_at_ms; /* 0: none is due */
    unsigned failures;   /* in a row */
};

/* A channel with consumers on it. Embedded in an adapter. */
struct apm_amqp_intake {
    apm_amqp_intake *next;
    apm_link *link;
    const apm_amqp_intake_ops *ops;
    void *arg;
    bool no_ack;
    bool heartbeat; /* the connection is to notice a dead peer by itself */
    apm_amqp_channel channel;
    apm_amqp_consumer *consumers;
    int n_consumers;
    unsigned window;   /* unsettled at once; 0: unlimited */
    bool loose;        /* a guess: see apm_amqp_intake_window */
    bool paused;       /* nothing is consumed: the window has not been set */
    bool per_consumer; /* the window is: see amqp_window.c */
    bool wide;         /* loose, and not small */
    int64_t narrow_ms; /* when it was that no more; 0: never */
    unsigned channels,
        each; /* what the server was told last: for the channel, for who subscribes */
    apm_amqp_tag *tags, *tags_last; /* held or being settled */
    size_t n_tags;
    apm_amqp_tag **due; /* those to be settled with the next flush */
    size_t n_due, cap_due;
    int64_t gathering_since_ms; /* patient ones wait behind others; 0: none do */
    void (*when_quiet)(void *arg);
    void *quiet_arg;
};

apium_status
apm_amqp_intake_open(apm_amqp_intake *intake, apm_link *link, const apm_amqp_intake_ops *ops,
                     void *arg, bool no_ack, bool heartbeat, apium_error *err);
/* Close its channel: what is unsettled goes back to its queues. A zeroed one is fine. */
void apm_amqp_intake_close(apm_amqp_intake *intake);
/* Consume from a queue (declared first). An existing consumer of that queue is taken up again. */
apium_status apm_amqp_intake_add(apm_amqp_intake *intake, const apm_queue *queue,
                                 apm_amqp_consumer **out, apium_error *err);
/* Stop consuming. What was delivered before the server says so still comes. */
void apm_amqp_intake_remove(apm_amqp_intake *intake, apm_amqp_consumer *consumer);
/* Told once no consumer is on or on its way off. */
void apm_amqp_intake_when_quiet(apm_amqp_intake *intake, void (*done)(void *arg), void *arg);
/* The number of messages that may be unsettled at once, 0 unlimited. `loose`: half of it is enough, and twice as many do no harm for
 * a moment. */
void apm_amqp_intake_window(apm_amqp_intake *intake, unsigned window, bool loose);
/* Read nothing for so long of what the server sends over the consuming connection. */
void apm_amqp_intake_rest(apm_amqp_intake *intake, unsigned ms);

/* From on_message: the tag is held. */
void apm_amqp_tag_hold(apm_amqp_tag *tag, apm_amqp_intake *intake, apm_amqp_consumer *consumer,
                       uint64_t number);
/* Settle in a unit; a void tag is fine. */
void apm_amqp_tag_settle(apm_unit *unit, apm_amqp_tag *tag, apm_amqp_verdict verdict);
/* Its owner is done with it: one that nothing has settled is given back. True: its memory may go. False: a settlement still
 * needs it, and on_free is called when none does. */
bool apm_amqp_tag_release(apm_amqp_tag *tag);

/* ---- the rest ---- */

/* Ask on a channel where errors hurt nobody, over whichever connection is in use. */
void apm_amqp_ask(apm_link *link, apm_amqp_call *call);
/* Declare the queue with its exchange and binding there. done may be NULL. */
void
apm_amqp_ask_declare(apm_link *link, const apm_queue *queue, apm_amqp_call_done *done, void *arg);
/* Nobody is told any more about what was asked with this arg: here, or by apm_amqp_later. */
void apm_amqp_disown(apm_link *link, const void *arg);
/* Give back what basic.get brought there, up to this tag. */
void apm_amqp_give_back(apm_link *link, uint64_t tag);
/* Call fn on the loop, soon, not from inside this call. E_NOMEM. */
apium_status apm_amqp_later(apm_link *link, void (*fn)(void *arg), void *arg);
/* Does a message for this queue with a time in the future wait on the server (Celery's native delayed delivery)? Quorum queues
 * behind a topic exchange. */
bool apm_amqp_delays(const apm_queue *queue);
#define APM_AMQP_DELAY_LEVELS   28
#define APM_AMQP_DELAY_MAX_S    ((INT64_C(1) << APM_AMQP_DELAY_LEVELS) - 1)
#define APM_AMQP_DELAY_EXCHANGE "celery_delayed_27"
/* Append the routing key to that exchange for a delay; E_INVALID outside 1..APM_AMQP_DELAY_MAX_S. */
apium_status apm_amqp_delay_key(apm_buf *buf, int64_t seconds, const char *routing_key);
/* Does the queue's declaration make it a quorum queue? */
bool apm_amqp_is_quorum(const apm_queue *queue);
/* Read a content header into msg: strings and the headers' JSON go to the arena. Exchange, routing key and
 * redelivered are the caller's; scratch is room to work in. E_DECODE says what is wrong. */
apium_status apm_amqp_header_read(apm_str header, apm_arena *arena, apm_buf *scratch,
                                  apm_message *msg, apium_error *err);
/* Append the properties of msg as a content header. */
apium_status apm_amqp_header_write(apm_buf *buf, const apm_message *msg, apium_error *err);

#endif
