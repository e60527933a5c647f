/* amqp_admin.c - RabbitMQ's queues looked after: declared, counted, emptied, and the refused messages read. Everything is asked on a
 * channel of its own, where an error hurts no delivery. */
#include <stdlib.h>

#include "brokers/amqp.h"
#include "core/base/error.h"

#define RECOUNTS_MAX 200   /* times we look whether what was given back is there again */
#define DEAD_MAX     10000 /* refused messages looked at to find the newest */

/* One question to the server (or a few, one after the other), until it is answered. */
struct amqp_question {
    struct amqp_question *prev, *next;
    struct amqp_broker *broker;
    union {
        apm_done_cb *done;
        apm_count_cb *count;
        apm_infos_cb *infos;
        apm_dead_cb *dead;
        void (*later)(void *arg);
    } tell;
    void *arg;
    char *name; /* of the queue */
    /* inspect, look */
    bool brief; /* nothing but what a passive declare tells */
    char **names;
    apm_queue_info *infos;
    size_t n, at;
    /* dead */
    struct dead_item {
        apm_arena arena;
        apm_dead dead;
    } * items; /* a ring: the newest `n` */
    size_t seen, to_see;
    unsigned recounts;
    uint64_t last_tag;
};

static struct amqp_broker *
self_of(apm_broker *broker)
{
    return (struct amqp_broker *)broker;
}

static struct amqp_question *
question_new(struct amqp_broker *self, void *arg, const char *name)
{
    struct amqp_question *q = calloc(1, sizeof(*q));

    if (!q || !(q->name = strdup(name))) {
        free(q);
        return NULL;
    }
    q->broker = self;
    q->arg = arg;
    q->next = self->questions;
    if (q->next)
        q->next->prev = q;
    self->questions = q;
    return q;
}

static void
question_free(struct amqp_question *q)
{
    if (q->prev)
        q->prev->next = q->next;
    else
        q->broker->questions = q->next;
    if (q->next)
        q->next->prev = q->prev;
    for (size_t i = 0; q->names && i < q->n; i++)
        free(q->names[i]);
    for (size_t i = 0; q->items && i < q->n; i++)
        apm_arena_clear(&q->items[i].arena);
    free(q->items);
    free(q->names);
    free(q->infos);
    free(q->name);
    free(q);
}

void
amqp_admin_close(struct amqp_broker *self)
{
    while (self->questions) {
        apm_amqp_disown(self->base.link, self->questions);
        if (self->intake.link)
            apm_amqp_channel_disown(&self->intake.channel, self->questions);
        question_free(self->questions);
    }
}

/* ---- soon ---- */

static void
on_later(void *arg)
{
    struct amqp_question *q = arg;
    void (*fn)(void *) = q->tell.later;
    void *fn_arg = q->arg;

    question_free(q);
    fn(fn_arg);
}

void
amqp_admin_later(struct amqp_broker *self, void (*fn)(void *arg), void *arg)
{
    struct amqp_question *q = question_new(self, arg, "");

    if (!q)
        return;
    q->tell.later = fn;
    if (apm_amqp_later(self->base.link, on_later, q) != APIUM_OK)
        question_free(q);
}

/* ---- declare ---- */

static void
on_declared(void *arg, apium_status status, const amqp_method_t *reply,
            const apm_amqp_content *content, const apium_error *err)
{
    struct amqp_question *q = arg;
    apium_error said;

    (void)reply;
    (void)content;
    if (status != APIUM_OK) {
        apm_fail(&said, status, "cannot declare the queue \"%s\": %s", q->name, err->text);
        said.retriable = err->retriable;
    }
    if (q->tell.done)
        q->tell.done(q->arg, status, status == APIUM_OK ? NULL : &said);
    question_free(q);
}

void
amqp_admin_declare(apm_broker *broker, const apm_queue *queue, apm_done_cb *done, void *arg)
{
    struct amqp_question *q = question_new(self_of(broker), arg, queue->name);

    if (!q)
        return;
    q->tell.done = done;
    apm_amqp_ask_declare(broker->link, queue, on_declared, q);
}

/* ---- inspect ---- */

static void inspect_next(struct amqp_question *q);
static void look_at_dead(struct amqp_question *q);

static void
on_inspected(void *arg, apium_status status, const amqp_method_t *reply,
             const apm_amqp_content *content, const apium_error *err)
{
    struct amqp_question *q = arg;
    apm_queue_info *info = &q->infos[q->at];

    (void)content;
    if (status == APIUM_OK) {
        const amqp_queue_declare_ok_t *ok = reply->decoded;
        info->ready = ok->message_count;
        info->consumers = ok->consumer_count;
    } else if (status != APIUM_E_NOTFOUND) { /* what does not exist holds nothing */
        q->tell.infos(q->arg, NULL, 0, err);
        question_free(q);
        return;
    }
    q->at++;
    inspect_next(q);
}

static apm_amqp_call *
passive_call(apm_amqp_call_done *done, struct amqp_question *q, const char *name)
{
    apm_amqp_call *call = apm_amqp_call_new(done, q);

    if (call)
        apm_amqp_call_add(call, AMQP_QUEUE_DECLARE_METHOD,
                          &(amqp_queue_declare_t){ .queue = apm_amqp_bytesz(name), .passive = 1 });
    return call;
}

static void
inspect_next(struct amqp_question *q)
{
    apm_amqp_call *call;

    if (q->at < q->n && (call = passive_call(on_inspected, q, q->infos[q->at].name))) {
        apm_amqp_ask(q->broker->base.link, call);
        return;
    }
    if (q->at < q->n || q->brief) { /* no memory: what is known is told */
        q->tell.infos(q->arg, q->infos, q->at, NULL);
        question_free(q);
        return;
    }
    look_at_dead(q); /* which of them came from these queues */
}

static void
on_barrier(void *arg, apium_status status, const amqp_method_t *reply,
           const apm_amqp_content *content, const apium_error *err)
{
    (void)status; /* lost: then everything held went back, and is counted so */
    (void)reply;
    (void)content;
    (void)err;
    inspect_next(arg);
}

/* Settlements are not answered. What we have sent of them is through once the server has answered something that was asked
 * behind them on the same channel. */
static void
inspect_later(void *arg)
{
    struct amqp_question *q = arg;
    apm_amqp_intake *intake = &q->broker->intake;
    bool open = intake->link && intake->channel.state == APM_AMQP_CHANNEL_OPEN;
    apm_amqp_call *call = open ? apm_amqp_call_new(on_barrier, q) : NULL;

    if (!call) {
        inspect_next(q);
        return;
    }
    apm_amqp_call_add(call, AMQP_CHANNEL_FLOW_METHOD, &(amqp_channel_flow_t){ .active = 1 });
    apm_amqp_channel_ask(&intake->channel, call);
}

static void
look_later(void *arg)
{
    inspect_next(arg);
}

/* All that this process knows of: what is configured and what is consumed; the protocol has no list. */
static size_t
known_queues(struct amqp_broker *self, const char **names, size_t max)
{
    const apm_settings *settings = self->base.opts.settings;
    size_t n = 0;

    for (size_t i = 0; i < settings->n_task_queues && n < max; i++)
        names[n++] = settings->task_queues[i].name;
    for (const apm_amqp_consumer *c = self->intake.consumers; c && n < max; c = c->next) {
        size_t i = 0;
        while (i < n && strcmp(names[i], c->queue->name) != 0)
            i++;
        if (i == n)
            names[n++] = c->queue->name;
    }
    if (n == 0 && settings->task_default_queue)
        names[n++] = settings->task_default_queue;
    return n;
}

static void
ask_queues(apm_broker *broker, const char *const *queues, size_t n, bool brief, apm_infos_cb *done,
           void *arg)
{
    struct amqp_broker *self = self_of(broker);
    const char *known[1024];
    struct amqp_question *q = question_new(self, arg, "");

    if (!q)
        return;
    if (!queues) {
        n = known_queues(self, known, sizeof(known) / sizeof(known[0]));
        queues = known;
    }
    q->tell.infos = done;
    q->brief = brief;
    q->names = calloc(n ? n : 1, sizeof(*q->names));
    q->infos = calloc(n ? n : 1, sizeof(*q->infos));
    for (; q->names && q->infos && q->n < n; q->n++) {
        if (!(q->names[q->n] = strdup(queues[q->n])))
            break;
        /* Nor does the protocol tell a message's age but to who takes it. */
        q->infos[q->n] = (apm_queue_info){
            .name = q->names[q->n], .unacked = -1, .parked = -1, .dead = brief ? -1 : 0
        };
    }
    if (apm_amqp_later(broker->link, brief ? look_later : inspect_later, q) != APIUM_OK)
        question_free(q);
}

void
amqp_admin_inspect(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                   void *arg)
{
    ask_queues(broker, queues, n, false, done, arg);
}

void
amqp_admin_look(apm_broker *broker, const char *const *queues, size_t n, apm_infos_cb *done,
                void *arg)
{
    ask_queues(broker, queues, n, true, done, arg);
}

/* ---- purge ---- */

static void
on_purged(void *arg, apium_status status, const amqp_method_t *reply,
          const apm_amqp_content *content, const apium_error *err)
{
    struct amqp_question *q = arg;
    apium_error said;
    int64_t count = 0;

    (void)content;
    if (status == APIUM_OK)
        count = ((const amqp_queue_purge_ok_t *)reply->decoded)->message_count;
    else if (status == APIUM_E_NOTFOUND)
        status = APIUM_OK; /* there is nothing in a queue that does not exist */
    else
        apm_fail(&said, status, "cannot purge the queue \"%s\": %s", q->name, err->text);
    q->tell.count(q->arg, status, count, status == APIUM_OK ? NULL : &said);
    question_free(q);
}

void
amqp_admin_purge(apm_broker *broker, const char *queue, apm_count_cb *done, void *arg)
{
    struct amqp_question *q = question_new(self_of(broker), arg, queue);
    apm_amqp_call *call = q ? apm_amqp_call_new(on_purged, q) : NULL;

    if (!call) {
        if (q)
            question_free(q);
        return;
    }
    q->tell.count = done;
    apm_amqp_call_add(call, AMQP_QUEUE_PURGE_METHOD,
                      &(amqp_queue_purge_t){ .queue = apm_amqp_bytesz(queue) });
    apm_amqp_ask(broker->link, call);
}

/* ---- refused messages ---- */

static void dead_next(struct amqp_question *q);

/* A header of ours, as text or number. */
static const char *
dead_text(apm_json headers, const char *name, apm_arena *arena)
{
    const char *text;
    apm_json val = apm_json_get(headers, name);

    return val.type == APM_JSON_STRING && apm_json_cstr(val, name, arena, &text, NULL) == APIUM_OK
               ? text
               : "";
}

/* For inspect: another one from this queue. */
static void
count_dead(struct amqp_question *q, const apm_amqp_content *content)
{
    apm_arena arena = { 0 };
    apm_message msg;
    apm_json headers = { 0 };

    if (apm_amqp_header_read(content->header, &arena, &q->broker->scratch, &msg, NULL) ==
        APIUM_OK) {
        apm_json_parse(msg.headers, &headers, NULL);
        const char *queue = dead_text(headers, "x-apium-queue", &arena);
        for (size_t i = 0; i < q->n; i++)
            q->infos[i].dead += strcmp(q->infos[i].name, queue) == 0;
    }
    apm_arena_clear(&arena);
}

static void
read_dead(struct amqp_question *q, const apm_amqp_content *content)
{
    const amqp_basic_get_ok_t *ok = content->decoded;

    q->last_tag = ok->delivery_tag;
    if (q->infos) {
        q->seen++;
        count_dead(q, content);
        return;
    }
    struct dead_item *item = &q->items[q->seen % q->n];
    apm_message msg;
    apm_json headers = { 0 };
    apm_buf text;

    q->seen++;
    apm_arena_clear(&item->arena);
    *item = (struct dead_item){ .dead = { .queue = "", .reason = "" } };
    if (apm_amqp_header_read(content->header, &item->arena, &q->broker->scratch, &msg, NULL) !=
        APIUM_OK)
        return;
    msg.body = content->body;
    msg.exchange = apm_amqp_str(ok->exchange);
    msg.routing_key = apm_amqp_str(ok->routing_key);
    apm_json_parse(msg.headers, &headers, NULL);
    item->dead.queue = dead_text(headers, "x-apium-queue", &item->arena);
    item->dead.reason = dead_text(headers, "x-apium-reason", &item->arena);
    (void)apm_json_int64(apm_json_get(headers, "x-apium-at"), "x-apium-at", &item->dead.at_us,
                         NULL);
    apm_buf_init(&text, APM_BUF_MAX);
    apm_envelope_write(&text, &msg, "");
    if (!text.failed)
        item->dead.message = apm_arena_str(&item->arena, apm_buf_str(&text), NULL);
    apm_buf_clear(&text);
}

static void
tell_dead(struct amqp_question *q, const apium_error *err)
{
    if (q->infos) {
        q->tell.infos(q->arg, err ? NULL : q->infos, err ? 0 : q->n, err);
        question_free(q);
        return;
    }
    size_t n = q->seen < q->n ? q->seen : q->n;
    apm_dead *told = calloc(n ? n : 1, sizeof(*told));

    for (size_t i = 0; told && i < n; i++)
        told[i] = q->items[(q->seen - 1 - i) % q->n].dead;
    q->tell.dead(q->arg, told, err || !told ? 0 : n, err);
    free(told);
    question_free(q);
}

static void await_dead(struct amqp_question *q);

static void
on_recounted(void *arg, apium_status status, const amqp_method_t *reply,
             const apm_amqp_content *content, const apium_error *err)
{
    struct amqp_question *q = arg;

    (void)content;
    (void)err;
    if (status == APIUM_OK && q->recounts++ < RECOUNTS_MAX &&
        ((const amqp_queue_declare_ok_t *)reply->decoded)->message_count < q->seen)
        await_dead(q);
    else
        tell_dead(q, NULL);
}

/* Whoever looks again right after us is to see them all. */
static void
await_dead(struct amqp_question *q)
{
    apm_amqp_call *call = passive_call(on_recounted, q, AMQP_DEAD_QUEUE);

    if (call)
        apm_amqp_ask(q->broker->base.link, call);
    else
        tell_dead(q, NULL);
}

/* Everything that was looked at goes back, and the newest are told, newest first. */
static void
dead_end(struct amqp_question *q, const apium_error *err)
{
    if (q->last_tag == 0) {
        tell_dead(q, err);
        return;
    }
    apm_amqp_give_back(q->broker->base.link, q->last_tag);
    await_dead(q);
}

static void
on_got(void *arg, apium_status status, const amqp_method_t *reply, const apm_amqp_content *content,
       const apium_error *err)
{
    struct amqp_question *q = arg;

    (void)reply;
    if (status != APIUM_OK) {
        q->last_tag = 0; /* with its channel */
        dead_end(q, err);
    } else if (content) {
        read_dead(q, content);
        dead_next(q);
    } else {
        dead_end(q, NULL);
    }
}

static void
dead_next(struct amqp_question *q)
{
    apm_amqp_call *call = q->seen < q->to_see ? apm_amqp_call_new(on_got, q) : NULL;

    if (!call) {
        dead_end(q, NULL);
        return;
    }
    apm_amqp_call_add(call, AMQP_BASIC_GET_METHOD,
                      &(amqp_basic_get_t){ .queue = apm_amqp_bytesz(AMQP_DEAD_QUEUE) });
    apm_amqp_ask(q->broker->base.link, call);
}

static void
on_dead_counted(void *arg, apium_status status, const amqp_method_t *reply,
                const apm_amqp_content *content, const apium_error *err)
{
    struct amqp_question *q = arg;

    (void)content;
    if (status != APIUM_OK) {
        dead_end(q, status == APIUM_E_NOTFOUND ? NULL : err);
        return;
    }
    uint32_t count = ((const amqp_queue_declare_ok_t *)reply->decoded)->message_count;
    q->to_see = count < DEAD_MAX ? count : DEAD_MAX;
    dead_next(q);
}

static void
look_at_dead(struct amqp_question *q)
{
    apm_amqp_call *call = passive_call(on_dead_counted, q, AMQP_DEAD_QUEUE);

    if (call)
        apm_amqp_ask(q->broker->base.link, call);
    else
        dead_end(q, NULL);
}

void
amqp_admin_dead(apm_broker *broker, size_t limit, apm_dead_cb *done, void *arg)
{
    struct amqp_question *q = question_new(self_of(broker), arg, AMQP_DEAD_QUEUE);

    if (!q)
        return;
    q->tell.dead = done;
    q->n = limit < 1 ? 1 : limit > DEAD_MAX ? DEAD_MAX : limit;
    q->items = calloc(q->n, sizeof(*q->items));
    if (q->items)
        look_at_dead(q);
    else
        question_free(q);
}
