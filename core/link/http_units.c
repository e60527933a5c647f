/*
 * http_units.c - units over HTTP. To a server with that ability many of them go in one request, one request at a time, so that the
 * states of a task stay in order whatever is sent again. Any other server, "plain" here, gets each document by itself; units that
 * touch the same document wait for each other.
 */
#include "core/link/http_dialect.h"

#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/ids.h"
#include "core/base/json.h"

#define BATCH_UNITS 500
#define BATCH_BYTES ((size_t)1 << 20)
#define PLAIN_MAX   16
/* What may wait for a server that is away. */
#define WAIT_UNITS  100000
#define WAIT_BYTES  ((size_t)512 << 20)

typedef struct op {
    struct op *next;
    char *key; /* NULL: not for a plain server */
    bool unless_success;
    size_t doc_at, doc_len; /* in text */
    size_t len;
    char text[];
} op;

struct http_unit {
    apm_unit base;
    op *first, *last;
    op *at; /* under way at a plain server */
    size_t bytes;
    double expires_s;
    bool once;
    char token[APM_UUID_LEN + 1];
    int64_t since_ms;
    http_unit *next, *prev;
};

typedef struct http_batch {
    http_link *link;
    http_unit *first;
    size_t n;
} http_batch;

static http_link *
link_of(const http_unit *u)
{
    return (http_link *)u->base.link;
}

apm_unit *
apm_http_unit_new(apm_link *link)
{
    http_unit *u = calloc(1, sizeof(*u));
    (void)link;
    if (!u)
        return NULL;
    u->expires_s = -1;
    return &u->base;
}

void
apm_http_unit_drop(apm_unit *base)
{
    http_unit *u = (http_unit *)base;
    for (op *o = u->first, *next; o; o = next) {
        next = o->next;
        free(o->key);
        free(o);
    }
    free(u);
}

apium_status
apm_http_add(apm_unit *base, const apm_http_op *from, double expires_s, apium_error *err)
{
    http_unit *u = (http_unit *)base;
    op *o = malloc(sizeof(*o) + from->head.len + from->doc.len + 1);
    char *key = from->key ? strdup(from->key) : NULL;
    if (!o || (from->key && !key)) {
        free(o);
        free(key);
        return apm_fail(err, APIUM_E_NOMEM, "cannot store a result: out of memory");
    }
    *o = (op){ .key = key,
               .unless_success = from->unless_success,
               .doc_at = from->head.len,
               .doc_len = from->doc.len,
               .len = from->head.len + from->doc.len + 1 };
    memcpy(o->text, from->head.p, from->head.len);
    if (from->doc.len)
        memcpy(o->text + from->head.len, from->doc.p, from->doc.len);
    o->text[o->len - 1] = ']';
    if (u->last)
        u->last->next = o;
    else
        u->first = o;
    u->last = o;
    u->bytes += o->len;
    u->expires_s = expires_s;
    if (from->once && !u->once) {
        u->once = true;
        apm_uuid4(u->token);
    }
    return APIUM_OK;
}

static void
tell(http_unit *u, apium_status status, const apium_error *err)
{
    if (u->base.done)
        u->base.done(u->base.arg, status, err);
    apm_http_unit_drop(&u->base);
}

/* Its fate is told on the loop, never from inside the commit. */
void
apm_http_unit_commit(apm_unit *base)
{
    http_unit *u = (http_unit *)base;
    http_link *link = link_of(u);
    u->since_ms = apm_clock_ms();
    u->next = NULL;
    u->prev = link->last;
    if (link->last)
        link->last->next = u;
    else
        link->first = u;
    link->last = u;
    link->n_units++;
    link->bytes += u->bytes;
}

static http_unit *
take_first(http_link *link)
{
    http_unit *u = link->first;
    link->first = u->next;
    if (link->first)
        link->first->prev = NULL;
    else
        link->last = NULL;
    u->next = u->prev = NULL;
    link->n_units--;
    link->bytes -= u->bytes;
    return u;
}

/* The newest ones go when too much waits. */
static void
bound(http_link *link)
{
    while (link->last && link->first != link->last &&
           (link->n_units > WAIT_UNITS || link->bytes > WAIT_BYTES)) {
        http_unit *u = link->last;
        apium_error err;
        link->last = u->prev;
        link->last->next = NULL;
        link->n_units--;
        link->bytes -= u->bytes;
        tell(u,
             apm_fail(&err, APIUM_E_BUSY, "cannot store a result: too many wait for %s",
                      link->base.shown),
             &err);
    }
}

/* ---- many in one request ---- */

static void
batch_end(http_batch *b)
{
    b->link->batch = NULL;
    free(b);
}

/* The units go back, to be sent one by one. */
static void
split(http_batch *b)
{
    http_link *link = b->link;
    http_unit *last = b->first;
    size_t bytes = last->bytes;
    for (; last->next; last = last->next)
        bytes += last->next->bytes;
    last->next = link->first;
    if (link->first)
        link->first->prev = last;
    else
        link->last = last;
    for (http_unit *u = b->first, *prev = NULL; u != last->next; prev = u, u = u->next)
        u->prev = prev;
    link->first = b->first;
    link->n_units += b->n;
    link->bytes += bytes;
    link->one_by_one = true;
    batch_end(b);
}

static void
tell_all(http_batch *b, apium_status status, const apium_error *err)
{
    http_unit *u = b->first;
    batch_end(b);
    for (http_unit *next; u; u = next) {
        next = u->next;
        tell(u, status, err);
    }
}

/* One item of the answer. */
static apium_status
read_fate(const http_link *link, http_unit *u, apm_json item, apium_error *err)
{
    apm_json completed = apm_json_get(item, "completed"), error = apm_json_get(item, "error");
    int64_t bits = 0, status = 0;
    if (completed.type == APM_JSON_INT &&
        apm_json_int64(completed, "completed", &bits, NULL) == APIUM_OK) {
        if (u->base.completed)
            *u->base.completed |= (uint32_t)bits;
        return APIUM_OK;
    }
    apm_arena arena = { 0 };
    apm_str text = APM_STR("the server gave an answer that makes no sense");
    if (error.type == APM_JSON_OBJECT) {
        (void)apm_json_int64(apm_json_get(error, "status"), "status", &status, NULL);
        (void)apm_json_string(apm_json_get(error, "message"), "message", &arena, &text, NULL);
    }
    apium_status st = apm_fail(err, status == 409 ? APIUM_E_NOTFOUND : APIUM_E_REFUSED, "%.*s (%s)",
                               (int)(text.len < 160 ? text.len : 160), text.p, link->base.shown);
    apm_arena_clear(&arena);
    return st;
}

static void
on_batch(void *arg, int status, apm_str body, const apium_error *err)
{
    http_batch *b = arg;
    http_link *link = b->link;
    apm_json doc = { 0 }, item;
    apm_json_iter it;
    apm_str key;
    apium_error own;
    if (!status) {
        tell_all(b, err->status, err);
        return;
    }
    if (status != 200 && b->n > 1) {
        split(b);
        apm_http_units_send(link);
        return;
    }
    if (status != 200) {
        char why[160];
        apm_http_why(body, why, sizeof(why));
        tell_all(b,
                 apm_fail(&own, status == 413 ? APIUM_E_TOOBIG : APIUM_E_REFUSED,
                          "cannot store a result: %s answers %d%s%s", link->base.shown, status,
                          *why ? ": " : "", why),
                 &own);
        apm_http_units_send(link);
        return;
    }
    if (apm_json_parse(body, &doc, NULL) != APIUM_OK || doc.type != APM_JSON_ARRAY ||
        apm_json_count(doc) != b->n) {
        tell_all(b,
                 apm_fail(&own, APIUM_E_REFUSED,
                          "cannot store a result: %s gave an answer that makes no sense",
                          link->base.shown),
                 &own);
        apm_http_units_send(link);
        return;
    }
    /* The items borrow the body, which lives as long as this call; a unit's owner may do anything. */
    http_unit *u = b->first;
    batch_end(b);
    (void)apm_json_open(&it, doc.text, NULL);
    while (u && apm_json_next(&it, &key, &item, NULL) > 0) {
        http_unit *next = u->next;
        apium_status st = read_fate(link, u, item, &own);
        tell(u, st, st == APIUM_OK ? NULL : &own);
        u = next;
    }
    if (!link->first)
        link->one_by_one = false;
    apm_http_units_send(link);
}

static void
write_unit(apm_buf *buf, const http_unit *u)
{
    apm_buf_addc(buf, '{');
    if (u->once)
        apm_buf_addf(buf, "\"id\": \"%s\", ", u->token);
    if (u->expires_s >= 0)
        apm_buf_addf(buf, "\"expires\": %.17g, ", u->expires_s);
    apm_buf_addz(buf, "\"ops\": [");
    for (const op *o = u->first; o; o = o->next) {
        apm_buf_add(buf, o->text, o->len);
        if (o->next)
            apm_buf_addc(buf, ',');
    }
    apm_buf_addz(buf, "]}");
}

static void
send_batch(http_link *link)
{
    http_batch *b = calloc(1, sizeof(*b));
    http_unit *last = NULL;
    apm_buf body;
    size_t limit = link->one_by_one ? 1 : BATCH_UNITS;
    if (!b)
        return; /* the next flush tries again */
    b->link = link;
    apm_buf_init(&body, 2 * APM_BUF_MAX);
    apm_buf_addc(&body, '[');
    while (link->first && b->n < limit &&
           (b->n == 0 || body.len + link->first->bytes < BATCH_BYTES)) {
        http_unit *u = take_first(link);
        if (b->n++)
            apm_buf_addc(&body, ',');
        write_unit(&body, u);
        if (last)
            last->next = u;
        else
            b->first = u;
        last = u;
    }
    apm_buf_addc(&body, ']');
    link->batch = b;
    apm_http_ask(&link->base, &(apm_http_asked){ .method = "POST",
                                                 .path = "units",
                                                 .body = &body,
                                                 .type = "application/json",
                                                 .owner = link,
                                                 .done = on_batch,
                                                 .arg = b });
    apm_buf_clear(&body);
}

/* ---- a plain server ---- */

static bool
collides(const http_unit *a, const http_unit *b)
{
    for (const op *x = a->first; x; x = x->next)
        for (const op *y = b->first; y; y = y->next)
            if (x->key && y->key && strcmp(x->key, y->key) == 0)
                return true;
    return false;
}

static bool
collides_with_any(const http_unit *u, const http_link *link)
{
    for (const http_unit *other = link->plain; other; other = other->next)
        if (collides(u, other))
            return true;
    return false;
}

static void
plain_end(http_unit *u, apium_status status, const apium_error *err)
{
    http_link *link = link_of(u);
    *(u->prev ? &u->prev->next : &link->plain) = u->next;
    if (u->next)
        u->next->prev = u->prev;
    link->n_plain--;
    tell(u, status, err);
    apm_http_units_send(link);
}

static void plain_go(http_unit *u);

static void
on_plain(void *arg, apm_str doc, const apium_error *err)
{
    http_unit *u = arg;
    (void)doc;
    if (err) {
        plain_end(u, err->status, err);
        return;
    }
    u->at = u->at->next;
    plain_go(u);
}

static void
plain_go(http_unit *u)
{
    apium_error err;
    if (!u->at) {
        plain_end(u, APIUM_OK, NULL);
    } else if (!u->at->key) {
        plain_end(u,
                  apm_fail(&err, APIUM_E_UNSUPPORTED, "%s cannot count the parts of chords",
                           link_of(u)->base.shown),
                  &err);
    } else {
        apm_http_do(u->base.link,
                    &(apm_http_task){ .verb = APM_HTTP_WRITE,
                                      .key = apm_strz(u->at->key),
                                      .doc = { u->at->text + u->at->doc_at, u->at->doc_len },
                                      .unless_success = u->at->unless_success,
                                      .expires_s = u->expires_s,
                                      .owner = link_of(u),
                                      .done = on_plain,
                                      .arg = u });
    }
}

static void
send_plain(http_link *link)
{
    if (link->sending_plain)
        return; /* the end of one that cannot be sent at all: the loop below goes on */
    link->sending_plain = true;
    while (link->first && link->n_plain < PLAIN_MAX && !collides_with_any(link->first, link)) {
        http_unit *u = take_first(link);
        u->next = link->plain;
        if (u->next)
            u->next->prev = u;
        link->plain = u;
        link->n_plain++;
        u->at = u->first;
        plain_go(u);
    }
    link->sending_plain = false;
}

/* ---- the link's side ---- */

void
apm_http_units_send(http_link *link)
{
    if (link->closing)
        return;
    bound(link);
    if (link->first)
        apm_http_discover(link);
    if (link->known && !(link->abilities & APM_HTTP_UNITS))
        send_plain(link);
    else if (link->known && link->first && !link->batch)
        send_batch(link);
    if (link->first && apm_links_patience_ms(link->base.set) >= 0)
        apm_http_arm(link);
}

int64_t
apm_http_units_until_ms(const http_link *link)
{
    int64_t patience_ms = apm_links_patience_ms(link->base.set);
    return link->first && patience_ms >= 0 ? link->first->since_ms + patience_ms : INT64_MAX;
}

void
apm_http_units_fail(http_link *link, bool all, const apium_error *err)
{
    int64_t now = apm_clock_ms();
    while (link->first && (all || apm_http_units_until_ms(link) <= now))
        tell(take_first(link), err->status, err);
}
