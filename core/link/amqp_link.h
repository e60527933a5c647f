/*
 * amqp_link.h - the inside of a link to RabbitMQ, shared by its files and nobody else:
 *   amqp.c          the link: two sides that reconnect, the turn of the loop in which everything is sent and answered
 *   amqp_unit.c     units: made, committed, finished
 *   amqp_publish.c  their messages: sent, confirmed, returned
 *   amqp_intake.c   consumers
 *   amqp_window.c   how much they may bring
 *   amqp_tag.c      the tags of deliveries and their settlement
 *   amqp_declare.c  queues with their exchanges and bindings
 *   amqp_delay.c    Celery's native delayed delivery
 */
#ifndef APM_LINK_AMQP_LINK_H
#define APM_LINK_AMQP_LINK_H

#include "core/link/amqp.h"

#define APM_AMQP_CONFIRM_WINDOW 2048 /* published and not yet confirmed; a power of two */

typedef struct apm_amqp_link apm_amqp_link;
typedef struct apm_amqp_unit apm_amqp_unit;
typedef struct apm_amqp_pub apm_amqp_pub;

/* One of the two connections. */
typedef struct apm_amqp_side {
    apm_amqp_link *link;
    const char *name; /* "publish" */
    char shown_name[48];
    apm_amqp_conn conn;
    apm_amqp_channel admin; /* for declarations and questions: an error closes nothing else */
    bool wanted, was_open;
    unsigned url_at;     /* of the link's URLs: the one in use or tried next */
    unsigned tried;      /* URLs tried since the last time it was up */
    int64_t retry_at_ms; /* of the next attempt, when down */
    double heartbeat_s;
} apm_amqp_side;

/* A queue (or the ladder of delays) whose declaration publishes wait for. */
typedef struct apm_amqp_decl {
    struct apm_amqp_decl *next;
    apm_amqp_link *link;
    apm_queue *queue;
    enum { APM_AMQP_DECL_NEW, APM_AMQP_DECL_ASKED, APM_AMQP_DECL_OK } state;
    bool required; /* before anything is published */
    bool ladder;   /* it is amqp_delay.c's; queue has only a name */
    unsigned left; /* of its parts, unanswered */
    apium_error failure;
} apm_amqp_decl;

/* One message to publish. Its text follows it in memory. */
struct apm_amqp_pub {
    apm_amqp_pub *next;
    apm_amqp_unit *unit; /* NULL: given up, only its confirm is awaited */
    apm_str exchange, routing_key, header, body;
    size_t size;
    bool mandatory, returned;
    unsigned refused; /* times the server said nack */
    int64_t retry_at_ms;
};

struct apm_amqp_unit {
    apm_unit head;
    apm_amqp_unit *next,
        *prev; /* of all that are committed and unfinished; then `next` of the finished */
    apm_amqp_pub *pubs, **pubs_tail; /* not yet handed to the publisher */
    unsigned n_open;                 /* publishes whose fate is unknown */
    apm_amqp_decl **needs;           /* declared before its publishes are sent */
    unsigned n_needs, cap_needs;
    apm_amqp_tag *tags, **tags_tail;
    int64_t committed_ms;
    bool failed;
    apium_error err;
};

typedef struct apm_amqp_pubs {
    apm_amqp_pub *first, **last;
} apm_amqp_pubs;

struct apm_amqp_link {
    apm_link base;
    apm_amqp_side publish, consume;
    unsigned url_at;  /* of base.urls: where the last success was */
    unsigned handles; /* of libuv's, still open */
    bool closing;
    bool working, woken; /* in its turn; something is to be done in the next */
    char why[400];       /* it is down or blocked; "" */

    uv_prepare_t prepare;
    uv_idle_t
        idle; /* running while something waits for the next turn: keeps the loop from sleeping */
    uv_timer_t tick;
    uv_timer_t gather; /* acks wait no longer than this */

    /* publishing */
    apm_amqp_channel publisher;
    bool confirming; /* confirm.select has been answered on the present channel */
    apm_amqp_decl *decls;
    apm_amqp_unit *units, *units_last; /* committed, unfinished */
    apm_amqp_unit *unit_next;          /* the first of them that still has its publishes */
    apm_amqp_pubs outbox;              /* handed to the publisher, to be sent */
    apm_amqp_pubs refused;             /* to be sent again at their time */
    apm_amqp_pub *sent[APM_AMQP_CONFIRM_WINDOW]; /* by sequence number; NULL once confirmed */
    uint64_t sent_first, sent_next; /* sequence numbers: the oldest unconfirmed, the next to give */
    unsigned
        suspects; /* sent one at a time until these are through: one of them made the server close the channel */
    size_t queued_bytes, queued; /* of publishes whose fate is unknown */
    apm_amqp_unit *finished, **finished_tail;

    apm_amqp_intake *intakes;
    bool ladder_asked; /* over the present consuming connection */
    struct apm_amqp_later *later, **later_tail;
    apm_buf scratch;
};

static inline apm_amqp_link *
apm_amqp_link_of(apm_link *link)
{
    return (apm_amqp_link *)link;
}

/* amqp.c */
void apm_amqp_wake(apm_amqp_link *link); /* something waits for the next turn */
void apm_amqp_want(apm_amqp_side *side); /* have it connected */
void apm_amqp_show_url(const apm_amqp_link *link, unsigned i, char *out, size_t size);

/* amqp_declare.c */
apm_queue *apm_amqp_queue_copy(const apm_queue *queue); /* one block of memory; NULL without */
/* Append the methods that declare a queue. E_CONFIG for arguments that are no JSON object. */
apium_status apm_amqp_call_declare(apm_amqp_call *call, const apm_queue *queue, apium_error *err);
apium_status apm_amqp_decl_get(apm_amqp_link *link, const apm_queue *queue, apm_amqp_decl **out,
                               apium_error *err);
void apm_amqp_decl_ask(apm_amqp_decl *decl);
void apm_amqp_decls_forget(apm_amqp_link *link); /* the connection is new: ask again */
void apm_amqp_decls_free(apm_amqp_link *link);

apium_status apm_amqp_decl_ladder(apm_amqp_link *link, apm_amqp_decl **out, apium_error *err);

/* amqp_delay.c */
/* Ask for every part of the ladder; done is called for each. The number of parts asked for: err is set when it is not all of them. */
unsigned apm_amqp_delays_ask(apm_amqp_channel *channel, apm_amqp_call_done *done, void *arg,
                             apium_error *err);
void apm_amqp_call_bind_delays(apm_amqp_call *call, const apm_queue *queue);

/* amqp_unit.c */
apm_unit *apm_amqp_unit_new(apm_link *link);
void apm_amqp_unit_drop(apm_unit *unit);
void apm_amqp_unit_commit(apm_unit *unit);
void apm_amqp_unit_free(apm_amqp_unit *unit);
/* Give up units that have waited since before before_ms (INT64_MAX: all). */
void
apm_amqp_units_expire(apm_amqp_link *link, int64_t before_ms, apium_status status, const char *why);
/* A declaration failed: so do the units that need it. */
void apm_amqp_units_refuse(apm_amqp_link *link, const apm_amqp_decl *decl, const apium_error *err);
/* The fate of a message is known, a bad one with err; it is freed. */
void apm_amqp_pub_resolved(apm_amqp_link *link, apm_amqp_pub *pub, const apium_error *err);
/* Its fate will not be known: its unit is given up. */
void apm_amqp_pub_forgotten(apm_amqp_link *link, const apm_amqp_pub *pub);

/* amqp_publish.c */
extern const apm_amqp_channel_ops apm_amqp_publisher_ops;
/* Send what can be sent. */
void apm_amqp_publisher_pump(apm_amqp_link *link);
void apm_amqp_publisher_lost(apm_amqp_link *link);
void apm_amqp_publisher_clear(apm_amqp_link *link);
/* Send again what was refused, when it is time. True: some is left. */
bool apm_amqp_publisher_tick(apm_amqp_link *link, int64_t now_ms);
void apm_amqp_publisher_drop(apm_amqp_link *link, apm_amqp_unit *unit);

/* amqp_intake.c */
void apm_amqp_intakes_opened(apm_amqp_link *link);
void apm_amqp_intakes_lost(apm_amqp_link *link);
void apm_amqp_intakes_tick(apm_amqp_link *link, int64_t now_ms);
void apm_amqp_intakes_batch_end(apm_amqp_link *link);
void apm_amqp_intakes_notice(apm_amqp_link *link, apm_log_level level, const char *text);
void apm_amqp_intakes_turn(apm_amqp_link *link);
void apm_amqp_intakes_settle(apm_amqp_link *link); /* send the acks that are due */

/* amqp_window.c */
void apm_amqp_window_open(apm_amqp_intake *intake); /* the channel is open: tell the server */
void apm_amqp_window_set(apm_amqp_intake *intake, unsigned window, bool loose);
void apm_amqp_window_look(apm_amqp_intake *intake); /* a consumer is wanted; time has passed */
/* A subscription begins: append what it needs to its call. */
void apm_amqp_window_begin(apm_amqp_consumer *consumer, apm_amqp_call *call);
/* Is the present subscription's window what it should be? If not, the consumer is subscribed anew. */
bool apm_amqp_window_fits(const apm_amqp_consumer *consumer);

/* amqp_tag.c */
void apm_amqp_tags_unit_done(apm_amqp_unit *unit); /* its publishes are through, or it failed */
/* The channel is gone: nothing of what it brought is ours any more. */
void apm_amqp_tags_lost(apm_amqp_intake *intake);
/* Send what is due, and let go of all. */
void apm_amqp_tags_close(apm_amqp_intake *intake);

#endif
