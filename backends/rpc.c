/*
 * rpc.c - results as messages (rpc://): each state of a task is sent to the reply queue of whoever asked for it, and only
 * that process reads it. Celery's queues and messages (docs/protocol.md "rpc").
 *
 * A worker's side is `record`: one transient publish in the same unit as the acknowledgement. A client's side has a queue of its
 * own, named by a uuid, declared before its first message and consumed when it first looks; the newest states are
 * kept here, for fetch, because reading a message takes it from the server.
 */
#include <stdlib.h>
#include <uthash.h>

#include "backends/backend.h"
#include "core/base/error.h"
#include "core/base/ids.h"
#include "core/link/amqp.h"

#define KEPT_MAX       10000
#define KEPT_BYTES_MAX ((size_t)256 << 20)
#define LOOKS_MAX      1000 /* at the queue, before a fetch answers with what there is */

/* The newest state that came for a task. */
struct kept {
    UT_hash_handle hh; /* in the order of arrival */
    apm_str doc;
    size_t size;
    char id[];
};

struct watch {
    UT_hash_handle hh;
    apm_change_cb *on_change;
    void *arg;
    bool fresh; /* what was here before has not been told yet */
    char id[];
};

struct asked {
    struct asked *next;
    struct rpc_backend *backend;
    apm_fetch_cb *fetch;
    apm_backend_done *done;
    void *arg;
    unsigned looks;
    bool empty; /* seen once: what was on its way then has come by the next look */
    char id[];
};

struct rpc_backend {
    apm_backend base;
    char oid[APM_UUID_LEN + 1];
    apm_queue queue;
    bool declared; /* with every connection that publishes */
    apm_amqp_intake intake;
    apm_amqp_consumer *consumer;
    struct kept *kept;
    size_t kept_bytes;
    struct watch *watches;
    struct asked *asked;
    apm_buf scratch;
};

static struct rpc_backend *
self_of(apm_backend *backend)
{
    return (struct rpc_backend *)backend;
}

/* ---- what has come ---- */

static void
drop_kept(struct rpc_backend *self, struct kept *kept)
{
    HASH_DEL(self->kept, kept);
    self->kept_bytes -= kept->size;
    free(kept);
}

static struct kept *
find_kept(struct rpc_backend *self, apm_str id)
{
    struct kept *kept;

    HASH_FIND(hh, self->kept, id.p, (unsigned)id.len, kept);
    return kept;
}

static void
keep(struct rpc_backend *self, apm_str id, apm_str doc)
{
    struct kept *old = find_kept(self, id);
    struct kept *kept = malloc(sizeof(*kept) + id.len + 1 + doc.len);

    if (!kept)
        return; /* its watcher is told all the same */
    if (old)
        drop_kept(self, old);
    memcpy(kept->id, id.p, id.len);
    kept->id[id.len] = '\0';
    kept->doc = (apm_str){ memcpy(kept->id + id.len + 1, doc.p, doc.len), doc.len };
    kept->size = sizeof(*kept) + id.len + doc.len;
    HASH_ADD(hh, self->kept, id, (unsigned)id.len, kept);
    self->kept_bytes += kept->size;
    while (self->kept != kept &&
           (HASH_COUNT(self->kept) > KEPT_MAX || self->kept_bytes > KEPT_BYTES_MAX))
        drop_kept(self, self->kept);
}

/* Whose result is it? Python's clients go by the body, so do we; the correlation id is the fallback. */
static apm_str
task_id_of(apm_str body, const apm_message *msg, apm_arena *arena)
{
    apm_json doc;
    apm_str id;

    if (apm_json_parse(body, &doc, NULL) == APIUM_OK &&
        apm_json_string(apm_json_get(doc, "task_id"), "task_id", arena, &id, NULL) == APIUM_OK)
        return id;
    return msg->correlation_id;
}

static void
on_message(apm_amqp_intake *intake, apm_amqp_consumer *consumer,
           const amqp_basic_deliver_t *deliver, const apm_amqp_content *content)
{
    struct rpc_backend *self = intake->arg;
    apm_arena arena = { 0 };
    apm_message msg;
    struct watch *watch;

    (void)consumer;
    (void)deliver;
    if (apm_amqp_header_read(content->header, &arena, &self->scratch, &msg, NULL) == APIUM_OK) {
        apm_str id = task_id_of(content->body, &msg, &arena);
        if (apm_str_is(id)) {
            keep(self, id, content->body);
            HASH_FIND(hh, self->watches, id.p, (unsigned)id.len, watch);
            if (watch && !watch->fresh)
                watch->on_change(watch->arg, id, content->body);
        }
    }
    apm_arena_clear(&arena);
}

static const apm_amqp_intake_ops intake_ops = { .on_message = on_message };

/* ---- the reply queue ---- */

static apium_status
consume(struct rpc_backend *self, apium_error *err)
{
    apium_status st;

    if (self->consumer)
        return APIUM_OK;
    if (!self->intake.link &&
        (st = apm_amqp_intake_open(&self->intake, self->base.link, &intake_ops, self, true, false,
                                   err)) != APIUM_OK)
        return st;
    return apm_amqp_intake_add(&self->intake, &self->queue, &self->consumer, err);
}

static const char *
reply_to(apm_backend *backend)
{
    struct rpc_backend *self = self_of(backend);

    /* Without memory it is tried again with the next message. */
    if (!self->declared)
        self->declared = apm_amqp_require(backend->link, &self->queue, NULL) == APIUM_OK;
    return self->oid;
}

/* ---- operations ---- */

static apium_status
open_backend(apm_backend *backend, apium_error *err)
{
    struct rpc_backend *self = self_of(backend);
    double expires = backend->settings->result_expires;

    if (strcmp(backend->link->ops->kind, "amqp") != 0)
        return apm_fail(err, APIUM_E_CONFIG, "rpc:// needs RabbitMQ as the broker, not %s",
                        backend->link->shown);
    apm_uuid4(self->oid);
    apm_buf_init(&self->scratch, APM_BUF_MAX);
    self->queue = (apm_queue){
        .name = self->oid,
        .exchange = "",
        .routing_key = self->oid,
        .durable = true,
        .auto_delete = true,
        .expires_ms = expires > 0 ? (int64_t)(expires * 1000) : 0,
    };
    return APIUM_OK;
}

static void
drop_asked(struct asked *asked)
{
    struct asked **at = &asked->backend->asked;

    while (*at != asked)
        at = &(*at)->next;
    *at = asked->next;
    free(asked);
}

static void
close_backend(apm_backend *backend)
{
    struct rpc_backend *self = self_of(backend);
    struct watch *watch, *next_watch;

    while (self->asked) {
        apm_amqp_disown(backend->link, self->asked);
        drop_asked(self->asked);
    }
    apm_amqp_disown(backend->link, self);
    apm_amqp_intake_close(&self->intake);
    if (self->declared)
        apm_amqp_unrequire(backend->link, self->oid);
    HASH_ITER(hh, self->watches, watch, next_watch)
    {
        HASH_DEL(self->watches, watch);
        free(watch);
    }
    while (self->kept)
        drop_kept(self, self->kept);
    apm_buf_clear(&self->scratch);
}

static apium_status
record(apm_backend *backend, apm_unit *unit, const apm_record *record_, apium_error *err)
{
    bool persistent = backend->settings->result_persistent == APM_YES;

    if (record_->reply_to.len == 0)
        return APIUM_OK; /* nobody waits */
    apm_message msg = {
        .content_type = APM_STR("application/json"),
        .content_encoding = APM_STR("utf-8"),
        .headers = APM_STR("{}"),
        .body = record_->doc,
        .correlation_id =
            record_->correlation_id.len > 0 ? record_->correlation_id : record_->task_id,
        .priority = 0,
        .delivery_mode = persistent ? 2 : 1,
    };
    return apm_amqp_publish_add(unit,
                                &(apm_amqp_publish){ .exchange = APM_STR(""),
                                                     .routing_key = record_->reply_to,
                                                     .msg = &msg },
                                err);
}

static struct asked *
ask(struct rpc_backend *self, const char *id, void *arg)
{
    struct asked *asked = calloc(1, sizeof(*asked) + strlen(id) + 1);

    if (!asked)
        return NULL;
    memcpy(asked->id, id, strlen(id) + 1);
    asked->backend = self;
    asked->arg = arg;
    asked->next = self->asked;
    self->asked = asked;
    return asked;
}

static void
answer_fetch(struct asked *asked, const apium_error *err)
{
    struct kept *kept = find_kept(asked->backend, apm_strz(asked->id));
    apium_error said;

    if (err) {
        apm_fail(&said, err->status, "cannot read the result of %s: %s", asked->id, err->text);
        said.retriable = err->retriable;
    }
    asked->fetch(asked->arg, kept ? kept->doc : APM_STR_NONE, kept || !err ? NULL : &said);
    drop_asked(asked);
}

static void look(struct asked *asked);

/* Nothing waits in the queue, twice in a row, and we are its consumer: whatever was sent before the question has come. */
static void
on_looked(void *arg, apium_status status, const amqp_method_t *reply,
          const apm_amqp_content *content, const apium_error *err)
{
    struct asked *asked = arg;
    struct rpc_backend *self = asked->backend;

    (void)content;
    if (status == APIUM_E_NOTFOUND) {
        answer_fetch(asked, NULL); /* nothing was ever sent that could be answered to it */
        return;
    }
    if (status != APIUM_OK) {
        answer_fetch(asked, err);
        return;
    }
    bool empty = ((const amqp_queue_declare_ok_t *)reply->decoded)->message_count == 0 &&
                 self->consumer && self->consumer->state == APM_AMQP_CONSUMER_ON;
    if ((empty && asked->empty) || ++asked->looks > LOOKS_MAX) {
        answer_fetch(asked, NULL);
        return;
    }
    asked->empty = empty;
    look(asked);
}

static void
look(struct asked *asked)
{
    apm_amqp_call *call = apm_amqp_call_new(on_looked, asked);

    if (!call) {
        apium_error err;
        apm_fail(&err, APIUM_E_NOMEM, "out of memory");
        answer_fetch(asked, &err);
        return;
    }
    apm_amqp_call_add(
        call, AMQP_QUEUE_DECLARE_METHOD,
        &(amqp_queue_declare_t){ .queue = apm_amqp_bytesz(asked->backend->oid), .passive = 1 });
    apm_amqp_ask(asked->backend->base.link, call);
}

static void
fetch_later(void *arg)
{
    struct asked *asked = arg;
    apium_error err;

    if (find_kept(asked->backend, apm_strz(asked->id)))
        answer_fetch(asked, NULL);
    else if (consume(asked->backend, &err) != APIUM_OK)
        answer_fetch(asked, &err);
    else
        look(asked);
}

static void
fetch(apm_backend *backend, const char *task_id, apm_fetch_cb *done, void *arg)
{
    struct asked *asked = ask(self_of(backend), task_id, arg);

    if (!asked)
        return;
    asked->fetch = done;
    if (apm_amqp_later(backend->link, fetch_later, asked) != APIUM_OK)
        drop_asked(asked);
}

/* The present state of watches that are new. */
static void
tell_fresh(void *arg)
{
    struct rpc_backend *self = arg;
    struct watch *watch, *next;

    HASH_ITER(hh, self->watches, watch, next)
    {
        if (!watch->fresh)
            continue;
        watch->fresh = false;
        struct kept *kept = find_kept(self, apm_strz(watch->id));
        if (kept) {
            /* The callback may well end the watch, or forget. */
            watch->on_change(watch->arg, apm_strz(kept->id), kept->doc);
            if (apm_amqp_later(self->base.link, tell_fresh, self) == APIUM_OK)
                return;
        }
    }
}

static apium_status
watch_task(apm_backend *backend, const char *task_id, apm_change_cb *on_change, void *arg,
           apium_error *err)
{
    struct rpc_backend *self = self_of(backend);
    struct watch *watch;
    apium_status st = consume(self, err);

    if (st != APIUM_OK)
        return st;
    HASH_FIND_STR(self->watches, task_id, watch);
    if (watch) {
        HASH_DEL(self->watches, watch);
        free(watch);
    }
    watch = calloc(1, sizeof(*watch) + strlen(task_id) + 1);
    if (!watch || apm_amqp_later(backend->link, tell_fresh, self) != APIUM_OK) {
        free(watch);
        return apm_fail(err, APIUM_E_NOMEM, "cannot watch %s: out of memory", task_id);
    }
    memcpy(watch->id, task_id, strlen(task_id) + 1);
    watch->on_change = on_change;
    watch->arg = arg;
    watch->fresh = true;
    HASH_ADD_STR(self->watches, id, watch);
    return APIUM_OK;
}

static void
unwatch(apm_backend *backend, const char *task_id)
{
    struct rpc_backend *self = self_of(backend);
    struct watch *watch;

    HASH_FIND_STR(self->watches, task_id, watch);
    if (!watch)
        return;
    HASH_DEL(self->watches, watch);
    free(watch);
}

static void
forget_later(void *arg)
{
    struct asked *asked = arg;
    struct kept *kept = find_kept(asked->backend, apm_strz(asked->id));

    if (kept)
        drop_kept(asked->backend, kept);
    if (asked->done)
        asked->done(asked->arg, APIUM_OK, NULL);
    drop_asked(asked);
}

static void
forget(apm_backend *backend, const char *task_id, apm_backend_done *done, void *arg)
{
    struct asked *asked = ask(self_of(backend), task_id, arg);

    if (!asked)
        return;
    asked->done = done;
    if (apm_amqp_later(backend->link, forget_later, asked) != APIUM_OK)
        drop_asked(asked);
}

static const char *const schemes[] = { "rpc", NULL };

extern const apm_backend_ops apm_rpc_backend;

const apm_backend_ops apm_rpc_backend = {
    .name = "rpc",
    .schemes = schemes,
    .size = sizeof(struct rpc_backend),
    .features = APM_BACKEND_REPLY,
    .open = open_backend,
    .close = close_backend,
    .record = record,
    .fetch = fetch,
    .watch = watch_task,
    .unwatch = unwatch,
    .forget = forget,
    .reply_to = reply_to,
};
