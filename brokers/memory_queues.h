/*
 * memory_queues.h - the queues of a store in memory: what a store keeps of brokers, and the
 * operations on it as units carry them. Private to brokers/memory*.c.
 *
 * A letter (a message in the store) is in one place: in its queue's ready list of its rank, held
 * by a broker under a tag, parked, or dead. All of it is guarded by the store's mutex.
 */
#ifndef APM_BROKERS_MEMORY_QUEUES_H
#define APM_BROKERS_MEMORY_QUEUES_H

#include <uthash.h>

#include "brokers/broker.h"
#include "core/link/memory.h"

#define RANKS 10 /* 9 - priority */

typedef struct letter {
    struct letter *prev, *next; /* in its place */
    struct mqueue *queue;
    int64_t pos; /* orders a ready list */
    int rank;
    bool redelivered;
    int64_t tag;  /* while held: a number never used again */
    void *holder; /* the broker that holds it */
    int64_t due_us;
    const char *reason; /* when dead */
    int64_t died_us;
    apm_arena arena;
    apm_message msg;
    UT_hash_handle hh; /* of the held ones */
} letter;

typedef struct letters {
    letter *first, *last;
    int64_t n;
} letters;

typedef struct mqueue {
    char *name;
    letters ready[RANKS];
    int64_t held, parked, dead;
    struct mqueue *next;
} mqueue;

typedef struct binding {
    char *exchange, *key;
    apm_exchange_type type;
    mqueue *queue;
    struct binding *next;
} binding;

typedef struct queues {
    mqueue *first;
    binding *bindings;
    letter *held;   /* by tag */
    letters parked; /* by due time */
    letters dead;   /* oldest first */
    int64_t last_pos, last_tag;
} queues;

/* Each makes an operation, copying what it is given; NULL without memory. */
apm_memory_op *apm_memory_publish_op(const apm_route *route, const apm_message *msg);
apm_memory_op *apm_memory_settle_op(int64_t tag, apm_disposition how, const char *reason);
apm_memory_op *apm_memory_park_op(int64_t tag, int64_t due_us);

/* ---- Under the mutex ---- */

mqueue *apm_memory_find_queue(queues *all, const char *name);
/* Find or declare, with its binding; NULL without memory. */
mqueue *apm_memory_ensure_queue(queues *all, const apm_queue *spec);
/* Out of its queue, the most urgent first; NULL when that is empty. */
letter *apm_memory_take_first(mqueue *queue);
/* Into its queue, where its position says, and wake the consumers. */
void apm_memory_make_ready(apm_memory_store *store, letter *l);
/* Give it to a broker, under a fresh tag. False without memory: it is nowhere then. */
bool apm_memory_hold(queues *all, letter *l, void *holder);
/* Take it from its holder; it is nowhere then. */
void apm_memory_let_go(queues *all, letter *l);
/* Everything that a broker holds goes back, marked redelivered. */
void apm_memory_give_back(apm_memory_store *store, void *holder);
/* Keep it as a dead letter; the oldest beyond a bound go. */
void apm_memory_bury(queues *all, letter *l, const char *reason);
/* Make ready what is due. */
void apm_memory_wake_due(apm_memory_store *store, queues *all);
void apm_memory_take_out(letters *list, letter *l);
void apm_memory_letter_free(letter *l);

/* Copies into an arena; *ok becomes false without memory. */
const char *apm_memory_copy_z(apm_arena *arena, const char *z, bool *ok);
bool apm_memory_copy_message(apm_arena *arena, const apm_message *from, apm_message *to);

/* ---- memory_admin.c: looking after queues ---- */

/* What was asked and is not answered yet; all of it belongs to one loop. */
typedef struct desk {
    apm_link *link;
    struct question *first;
} desk;

void apm_memory_ask_declare(desk *d, const apm_queue *queue, apm_done_cb *done, void *arg);
void
apm_memory_ask_inspect(desk *d, const char *const *names, size_t n, apm_infos_cb *done, void *arg);
void apm_memory_ask_purge(desk *d, const char *queue, apm_count_cb *done, void *arg);
void apm_memory_ask_bindings(desk *d, apm_bindings_cb *done, void *arg);
void apm_memory_ask_dead(desk *d, size_t limit, apm_dead_cb *done, void *arg);
/* Answer until *closed becomes true, which a callback may cause; the desk is gone then. */
void apm_memory_answer(desk *d, const bool *closed);
void apm_memory_desk_clear(desk *d);

#endif
