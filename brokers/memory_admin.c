/* memory_admin.c - declaring, counting, emptying and listing the queues of a store in memory. */
#include <stdlib.h>

#include "brokers/memory_queues.h"
#include "core/base/error.h"

/* A question waits for the loop to be idle, so that its answer does not come from inside the call.
 */
typedef struct question {
    enum { DECLARE, INSPECT, PURGE, BINDINGS, DEAD } what;
    apm_arena arena;
    apm_queue declare;
    const char **names;
    size_t n, limit;
    bool all;
    union {
        apm_done_cb *done;
        apm_count_cb *count;
        apm_infos_cb *infos;
        apm_bindings_cb *bindings;
        apm_dead_cb *dead;
    } answer;
    void *arg;
    struct question *next;
} question;

static const apium_error *
no_memory(apium_error *err)
{
    apm_fail(err, APIUM_E_NOMEM, "cannot look after queues: out of memory");
    return err;
}

static int64_t
waits_since(const letter *l)
{
    apm_arena arena = { 0 };
    apm_json headers;
    apm_str eta = APM_STR_NONE;

    if (apm_json_parse(l->msg.headers, &headers, NULL) == APIUM_OK)
        (void)apm_json_string(apm_json_get(headers, "eta"), "eta", &arena, &eta, NULL);
    int64_t since_us = apm_message_waits_since(l->msg.sent_us, eta);
    apm_arena_clear(&arena);
    return since_us;
}

static void
count_queue(const mqueue *queue, apm_queue_info *info)
{
    info->consumers = -1;
    if (!queue)
        return;
    for (int rank = 0; rank < RANKS; rank++) {
        const letter *first = queue->ready[rank].first;
        int64_t since_us = first ? waits_since(first) : 0;
        info->ready += queue->ready[rank].n;
        if (first && (!info->oldest_us || since_us < info->oldest_us))
            info->oldest_us = since_us;
    }
    info->unacked = queue->held;
    info->parked = queue->parked;
    info->dead = queue->dead;
}

static void
answer_inspect(queues *all, pthread_mutex_t *mutex, question *q)
{
    apium_error err;
    size_t n = 0;
    bool ok = true;

    for (mqueue *queue = all->first; q->all && queue; queue = queue->next)
        q->n++;
    apm_queue_info *infos = apm_arena_alloc(&q->arena, (q->n + 1) * sizeof(*infos));
    for (mqueue *queue = all->first; infos && q->all && queue; queue = queue->next) {
        infos[n].name = apm_memory_copy_z(&q->arena, queue->name, &ok);
        count_queue(queue, &infos[n++]);
    }
    for (; infos && !q->all && n < q->n; n++) {
        infos[n].name = q->names[n];
        count_queue(apm_memory_find_queue(all, q->names[n]), &infos[n]);
    }
    pthread_mutex_unlock(mutex);
    if (infos && ok)
        q->answer.infos(q->arg, infos, n, NULL);
    else
        q->answer.infos(q->arg, NULL, 0, no_memory(&err));
}

static void
answer_purge(queues *all, pthread_mutex_t *mutex, question *q)
{
    mqueue *queue = apm_memory_find_queue(all, q->names[0]);
    int64_t count = 0;

    for (letter *l; queue && (l = apm_memory_take_first(queue)); count++)
        apm_memory_letter_free(l);
    for (letter *l = all->parked.first, *next; l; l = next) {
        next = l->next;
        if (l->queue != queue)
            continue;
        apm_memory_take_out(&all->parked, l);
        queue->parked--;
        apm_memory_letter_free(l);
        count++;
    }
    pthread_mutex_unlock(mutex);
    q->answer.count(q->arg, APIUM_OK, count, NULL);
}

static void
answer_bindings(queues *all, pthread_mutex_t *mutex, question *q)
{
    size_t n = 0;
    bool ok = true;
    apium_error err;

    for (binding *b = all->bindings; b; b = b->next)
        n++;
    apm_binding *out = apm_arena_alloc(&q->arena, (n + 1) * sizeof(*out));
    n = 0;
    for (binding *b = all->bindings; out && b; b = b->next)
        out[n++] = (apm_binding){
            .queue = apm_memory_copy_z(&q->arena, b->queue->name, &ok),
            .exchange = apm_memory_copy_z(&q->arena, b->exchange, &ok),
            .routing_key = apm_memory_copy_z(&q->arena, b->key, &ok),
        };
    pthread_mutex_unlock(mutex);
    if (out && ok)
        q->answer.bindings(q->arg, out, n, NULL);
    else
        q->answer.bindings(q->arg, NULL, 0, no_memory(&err));
}

static void
answer_dead(queues *all, pthread_mutex_t *mutex, question *q)
{
    size_t n = 0, max = q->limit < (size_t)all->dead.n ? q->limit : (size_t)all->dead.n;
    apm_dead *out = apm_arena_alloc(&q->arena, (max + 1) * sizeof(*out));
    bool ok = true;
    apium_error err;
    apm_buf buf;

    apm_buf_init(&buf, APM_BUF_MAX);
    for (letter *l = all->dead.last; out && l && n < max; l = l->prev, n++) {
        apm_buf_reset(&buf);
        apm_envelope_write(&buf, &l->msg, "dead");
        out[n] = (apm_dead){
            .queue = apm_memory_copy_z(&q->arena, l->queue->name, &ok),
            .reason = apm_memory_copy_z(&q->arena, l->reason ? l->reason : "", &ok),
            .at_us = l->died_us,
            /* What cannot be an envelope (headers that are no JSON text) is shown as it is. */
            .message = apm_arena_str(&q->arena, buf.failed ? l->msg.body : apm_buf_str(&buf), &ok),
        };
    }
    apm_buf_clear(&buf);
    pthread_mutex_unlock(mutex);
    if (out && ok)
        q->answer.dead(q->arg, out, n, NULL);
    else
        q->answer.dead(q->arg, NULL, 0, no_memory(&err));
}

static void
answer_declare(queues *all, pthread_mutex_t *mutex, question *q)
{
    apium_error err;
    bool ok = apm_memory_ensure_queue(all, &q->declare) != NULL;

    pthread_mutex_unlock(mutex);
    if (q->answer.done)
        q->answer.done(q->arg, ok ? APIUM_OK : APIUM_E_NOMEM, ok ? NULL : no_memory(&err));
}

static void
question_free(question *q)
{
    apm_arena_clear(&q->arena);
    free(q);
}

void
apm_memory_answer(desk *d, const bool *closed)
{
    static void (*const answers[])(queues *, pthread_mutex_t *, question *) = {
        [DECLARE] = answer_declare,   [INSPECT] = answer_inspect, [PURGE] = answer_purge,
        [BINDINGS] = answer_bindings, [DEAD] = answer_dead,
    };
    apm_memory_store *store = apm_memory_store_of(d->link);

    while (!*closed && d->first) {
        question *q = d->first;
        d->first = q->next;
        pthread_mutex_lock(&store->mutex);
        answers[q->what](store->queues, &store->mutex, q); /* unlocks before it calls back */
        question_free(q);
    }
}

void
apm_memory_desk_clear(desk *d)
{
    while (d->first) {
        question *q = d->first;
        d->first = q->next;
        question_free(q);
    }
}

/* The one answer from inside the call: there is nothing to keep the question in. */
static void
refuse(const question *q)
{
    apium_error err;

    (void)no_memory(&err);
    switch (q->what) {
    case DECLARE:
        if (q->answer.done)
            q->answer.done(q->arg, APIUM_E_NOMEM, &err);
        break;
    case INSPECT:
        q->answer.infos(q->arg, NULL, 0, &err);
        break;
    case PURGE:
        q->answer.count(q->arg, APIUM_E_NOMEM, 0, &err);
        break;
    case BINDINGS:
        q->answer.bindings(q->arg, NULL, 0, &err);
        break;
    case DEAD:
        q->answer.dead(q->arg, NULL, 0, &err);
        break;
    }
}

static void
ask(desk *d, question with, const char *const *names)
{
    question *q = calloc(1, sizeof(*q)), **at = &d->first;
    bool ok = q != NULL;

    if (ok) {
        *q = with;
        q->all = !names;
        if (names && (q->names = apm_arena_alloc(&q->arena, (q->n + 1) * sizeof(*q->names))))
            for (size_t i = 0; i < q->n; i++)
                q->names[i] = apm_memory_copy_z(&q->arena, names[i], &ok);
        ok = ok && (!names || q->names);
        q->declare.name = apm_memory_copy_z(&q->arena, with.declare.name, &ok);
        q->declare.exchange = apm_memory_copy_z(&q->arena, with.declare.exchange, &ok);
        q->declare.routing_key = apm_memory_copy_z(&q->arena, with.declare.routing_key, &ok);
    }
    if (!ok) {
        refuse(&with);
        if (q)
            question_free(q);
        return;
    }
    while (*at)
        at = &(*at)->next;
    *at = q;
    apm_memory_stir(d->link);
}

void
apm_memory_ask_declare(desk *d, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    ask(d, (question){ .what = DECLARE, .declare = *queue, .answer.done = done, .arg = arg }, NULL);
}

void
apm_memory_ask_inspect(desk *d, const char *const *names, size_t n, apm_infos_cb *done, void *arg)
{
    ask(d, (question){ .what = INSPECT, .n = names ? n : 0, .answer.infos = done, .arg = arg },
        names);
}

void
apm_memory_ask_purge(desk *d, const char *queue, apm_count_cb *done, void *arg)
{
    ask(d, (question){ .what = PURGE, .n = 1, .answer.count = done, .arg = arg }, &queue);
}

void
apm_memory_ask_bindings(desk *d, apm_bindings_cb *done, void *arg)
{
    ask(d, (question){ .what = BINDINGS, .answer.bindings = done, .arg = arg }, NULL);
}

void
apm_memory_ask_dead(desk *d, size_t limit, apm_dead_cb *done, void *arg)
{
    ask(d, (question){ .what = DEAD, .limit = limit, .answer.dead = done, .arg = arg }, NULL);
}
