/* test_backends.c - what every result backend promises (backends/backend.h), over the adapter that
 * the first argument names. A backend of replies (rpc://) is another thing: only the caller can
 * read it; it has tests of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "core/base/clock.h"
#include "core/base/ids.h"
#include "side.h"

typedef struct answer {
    bool known;
    bool there;
    char doc[4096];
    size_t len;
    apium_status status;
} answer;

static void
on_fetched(void *arg, apm_str doc, const apium_error *err)
{
    answer *a = arg;

    ck_assert_msg(!err, "cannot fetch: %s", err ? err->text : "");
    ck_assert(!a->known);
    a->known = true;
    a->there = apm_str_is(doc);
    a->len = doc.len;
    if (a->there && doc.len < sizeof(a->doc))
        memcpy(a->doc, doc.p, doc.len);
}

static void
on_done(void *arg, apium_status status, const apium_error *err)
{
    answer *a = arg;

    (void)err;
    ck_assert(!a->known);
    a->known = true;
    a->status = status;
}

static const char *
fresh_id(void)
{
    char *id = side_keep(malloc(APM_UUID_LEN + 1));

    apm_uuid4(id);
    return id;
}

/* A document that all of them take, Celery's checks of the stored one included. */
static const char *
doc_of(const char *state, const char *value, const char *id)
{
    char *doc = NULL;

    ck_assert_int_gt(asprintf(&doc,
                              "{\"status\": \"%s\", \"result\": %s, \"traceback\": null, "
                              "\"children\": [], \"date_done\": null, "
                              "\"task_id\": \"%s\"}",
                              state, value, id),
                     0);
    return side_keep(doc);
}

static const char *
store(side *s, const char *id, const char *state, const char *value)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(s->backend->link);
    const char *doc = doc_of(state, value, id);
    apm_record record = { .task_id = apm_strz(id), .state = apm_strz(state), .doc = apm_strz(doc) };

    ck_ok(s->backend->ops->record(s->backend, unit, &record, err));
    ck_ok(side_commit(unit, err));
    return doc;
}

static answer
fetch(side *s, const char *id)
{
    answer a = { 0 };

    s->backend->ops->fetch(s->backend, id, on_fetched, &a);
    ck_assert_msg(!a.known, "answered from inside the call");
    run_until(a.known);
    return a;
}

/* ---- Storing and fetching ---- */

START_TEST(what_was_stored_is_fetched_byte_for_byte)
{
    side *s = side_with(false, true);
    const char *id = fresh_id();
    const char *doc =
        store(s, id, "SUCCESS",
              "[1, 1.0, \"\\u00e9\\ud83d\\ude00\\u0000\", NaN, 12345678901234567890123]");
    answer a = fetch(s, id);

    ck_assert(a.there);
    ck_assert_str_eq(a.doc, doc);
    side_free(s);
}
END_TEST

START_TEST(what_was_never_stored_is_not_there)
{
    side *s = side_with(false, true);

    ck_assert(!fetch(s, fresh_id()).there);
    side_free(s);
}
END_TEST

START_TEST(a_later_state_replaces_an_earlier_one)
{
    side *s = side_with(false, true);
    const char *id = fresh_id();
    static const char *const states[] = { "STARTED", "PROGRESS", "RETRY",
                                          "FAILURE", "RETRY",    "SUCCESS" };

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        const char *doc = store(s, id, states[i], "null");
        ck_assert_str_eq(fetch(s, id).doc, doc);
    }
    side_free(s);
}
END_TEST

START_TEST(nothing_replaces_a_success)
{
    side *s = side_with(false, true);
    const char *id = fresh_id();
    const char *doc = store(s, id, "SUCCESS", "42");
    static const char *const states[] = { "STARTED", "FAILURE", "REVOKED", "SUCCESS" };

    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        store(s, id, states[i], "\"later\"");
        ck_assert_str_eq(fetch(s, id).doc, doc);
    }
    side_free(s);
}
END_TEST

START_TEST(a_success_holds_within_one_unit_too)
{
    apium_error error, *err = &error;
    side *s = side_with(false, true);
    const char *id = fresh_id();
    apm_unit *unit = apm_unit_new(s->backend->link);
    const char *docs[] = { doc_of("STARTED", "1", id), doc_of("SUCCESS", "2", id),
                           doc_of("FAILURE", "3", id) };

    for (int i = 0; i < 3; i++) {
        apm_record record = { .task_id = apm_strz(id),
                              .state =
                                  apm_strz((const char *[]){ "STARTED", "SUCCESS", "FAILURE" }[i]),
                              .doc = apm_strz(docs[i]) };
        ck_ok(s->backend->ops->record(s->backend, unit, &record, err));
    }
    ck_ok(side_commit(unit, err));
    ck_assert_str_eq(fetch(s, id).doc, docs[1]);
    side_free(s);
}
END_TEST

START_TEST(another_side_reads_it)
{
    side *writer = side_with(false, true), *reader = side_with(false, true);
    const char *id = fresh_id();
    const char *doc = store(writer, id, "SUCCESS", "5");

    ck_assert_str_eq(fetch(reader, id).doc, doc);
    side_free(writer);
    side_free(reader);
}
END_TEST

START_TEST(a_big_result_is_kept_whole)
{
    side *s = side_with(false, true);
    const char *id = fresh_id();
    size_t size = (size_t)5 << 20;
    char *value = malloc(size + 3);

    ck_assert_ptr_nonnull(value);
    memset(value, 'v', size + 2);
    value[0] = value[size + 1] = '"';
    value[size + 2] = '\0';
    const char *doc = store(s, id, "SUCCESS", value);
    ck_assert_uint_eq(fetch(s, id).len, strlen(doc));
    free(value);
    side_free(s);
}
END_TEST

START_TEST(a_dropped_unit_stores_nothing)
{
    apium_error error, *err = &error;
    side *s = side_with(false, true);
    const char *id = fresh_id();
    apm_unit *unit = apm_unit_new(s->backend->link);
    apm_record record = { .task_id = apm_strz(id),
                          .state = APM_STR("SUCCESS"),
                          .doc = apm_strz(doc_of("SUCCESS", "1", id)) };

    ck_ok(s->backend->ops->record(s->backend, unit, &record, err));
    apm_unit_drop(unit);
    ck_assert(!fetch(s, id).there);
    side_free(s);
}
END_TEST

START_TEST(a_forgotten_result_is_gone)
{
    side *s = side_with(false, true);
    const char *id = fresh_id(), *other = fresh_id();
    answer a = { 0 };

    store(s, id, "STARTED", "1");
    store(s, id, "SUCCESS", "1");
    store(s, other, "SUCCESS", "2");
    s->backend->ops->forget(s->backend, id, on_done, &a);
    run_until(a.known);
    ck_assert_int_eq(a.status, APIUM_OK);
    ck_assert(!fetch(s, id).there);
    ck_assert(fetch(s, other).there);
    const char *doc = store(s, id, "STARTED", "\"anew\"");
    ck_assert_str_eq(fetch(s, id).doc, doc);
    side_free(s);
}
END_TEST

START_TEST(a_result_expires)
{
    side *s = side_with(false, true);
    const char *id = fresh_id(), *kept = fresh_id();

    store(s, kept, "SUCCESS", "1");
    s->settings.result_expires = 1;
    store(s, id, "SUCCESS", "1");
    ck_assert(fetch(s, id).there);
    run_until(!fetch(s, id).there);
    ck_assert(fetch(s, kept).there);
    store(s, id, "FAILURE", "2"); /* an expired success protects nothing */
    ck_assert(fetch(s, id).there);
    side_free(s);
}
END_TEST

START_TEST(cleaning_up_keeps_what_has_not_expired)
{
    side *s = side_with(false, true);
    const char *id = fresh_id(), *kept = fresh_id();
    answer a = { 0 };

    if (s->backend->ops->cleanup) {
        store(s, kept, "SUCCESS", "1");
        s->settings.result_expires = 1;
        store(s, id, "SUCCESS", "1");
        run_until(!fetch(s, id).there);
        s->backend->ops->cleanup(s->backend, on_done, &a);
        run_until(a.known);
        ck_assert_int_eq(a.status, APIUM_OK);
        ck_assert(fetch(s, kept).there);
    }
    side_free(s);
}
END_TEST

/* ---- Watching ---- */

typedef struct seen {
    size_t n;
    char docs[64][512];
    char id[64];
} seen;

static void
on_change(void *arg, apm_str task_id, apm_str doc)
{
    seen *look = arg;

    ck_assert_uint_lt(look->n, 64);
    snprintf(look->id, sizeof(look->id), "%.*s", APM_STR_ARG(task_id));
    snprintf(look->docs[look->n++], sizeof(look->docs[0]), "%.*s", APM_STR_ARG(doc));
}

START_TEST(a_watcher_sees_every_state_in_order)
{
    apium_error error, *err = &error;
    side *writer = side_with(false, true), *watcher = side_with(false, true);
    const char *id = fresh_id();
    seen look = { 0 };
    const char *docs[20];

    ck_ok(watcher->backend->ops->watch(watcher->backend, id, on_change, &look, err));
    (void)fetch(watcher, id); /* the watch is on its way before this question */
    run_for(100);
    for (int i = 0; i < 20; i++) {
        char value[8];
        snprintf(value, sizeof(value), "%d", i);
        docs[i] = store(writer, id, i < 19 ? "PROGRESS" : "SUCCESS", value);
    }
    run_until(look.n >= 20);
    run_for(100);
    ck_assert_uint_eq(look.n, 20);
    for (int i = 0; i < 20; i++)
        ck_assert_str_eq(look.docs[i], docs[i]);
    ck_assert_str_eq(look.id, id);
    side_free(writer);
    side_free(watcher);
}
END_TEST

START_TEST(states_that_are_stored_together_are_each_seen)
{
    apium_error error, *err = &error;
    side *s = side_with(false, true);
    const char *id = fresh_id();
    seen look = { 0 };

    ck_ok(s->backend->ops->watch(s->backend, id, on_change, &look, err));
    (void)fetch(s, id); /* the watch is on its way before this question */
    run_for(100);
    apm_unit *unit = apm_unit_new(s->backend->link);
    static const char *const docs[] = { "{\"status\": \"STARTED\", \"result\": 1}",
                                        "{\"status\": \"PROGRESS\", \"result\": 2}",
                                        "{\"status\": \"SUCCESS\", \"result\": 3}" };
    static const char *const states[] = { "STARTED", "PROGRESS", "SUCCESS" };
    for (int i = 0; i < 3; i++) {
        const apm_record record = { .task_id = apm_strz(id),
                                    .state = apm_strz(states[i]),
                                    .doc = apm_strz(docs[i]) };
        ck_ok(s->backend->ops->record(s->backend, unit, &record, err));
    }
    apm_unit_commit(unit, NULL, NULL);
    run_until(look.n >= 3);
    for (int i = 0; i < 3; i++)
        ck_assert_str_eq(look.docs[i], docs[i]);
    side_free(s);
}
END_TEST

START_TEST(a_watcher_is_told_the_present_state_first)
{
    apium_error error, *err = &error;
    side *s = side_with(false, true);
    const char *id = fresh_id();
    seen look = { 0 };

    store(s, id, "STARTED", "0");
    const char *present = store(s, id, "PROGRESS", "1");
    ck_ok(s->backend->ops->watch(s->backend, id, on_change, &look, err));
    ck_assert_msg(look.n == 0, "told from inside the call");
    run_until(look.n == 1);
    ck_assert_str_eq(look.docs[0], present);
    const char *last = store(s, id, "SUCCESS", "2");
    run_until(look.n == 2);
    ck_assert_str_eq(look.docs[1], last);
    run_for(100);
    ck_assert_uint_eq(look.n, 2);
    side_free(s);
}
END_TEST

START_TEST(a_watcher_hears_at_once)
{
    apium_error error, *err = &error;
    side *writer = side_with(false, true), *watcher = side_with(false, true);
    int64_t slowest = 0;

    for (int i = 0; i < 10; i++) {
        const char *id = fresh_id();
        seen look = { 0 };
        ck_ok(watcher->backend->ops->watch(watcher->backend, id, on_change, &look, err));
        run_for(50);
        store(writer, id, "SUCCESS", "1");
        int64_t start = apm_clock_ms();
        run_until(look.n == 1);
        int64_t took = apm_clock_ms() - start;
        slowest = took > slowest ? took : slowest;
        watcher->backend->ops->unwatch(watcher->backend, id);
    }
    ck_assert_int_lt(slowest, 500);
    side_free(writer);
    side_free(watcher);
}
END_TEST

START_TEST(after_unwatching_nothing_is_heard)
{
    apium_error error, *err = &error;
    side *s = side_with(false, true);
    const char *id = fresh_id(), *other = fresh_id();
    seen look = { 0 }, control = { 0 };

    ck_ok(s->backend->ops->watch(s->backend, id, on_change, &look, err));
    ck_ok(s->backend->ops->watch(s->backend, other, on_change, &control, err));
    ck_fails(s->backend->ops->watch(s->backend, id, on_change, &look, err), APIUM_E_INVALID);
    s->backend->ops->unwatch(s->backend, id);
    store(s, id, "SUCCESS", "1");
    store(s, other, "SUCCESS", "1");
    /* The look after the subscription and the notice may both bring it. */
    run_until(control.n >= 1);
    ck_assert_uint_eq(look.n, 0);
    s->backend->ops->unwatch(s->backend, "never-watched");
    side_free(s);
}
END_TEST

START_TEST(many_are_watched_at_once)
{
    apium_error error, *err = &error;
    side *writer = side_with(false, true), *watcher = side_with(false, true);
    enum { N = 200 };
    const char *ids[N];
    static seen looks[N];

    for (int i = 0; i < N; i++) {
        ids[i] = fresh_id();
        ck_ok(watcher->backend->ops->watch(watcher->backend, ids[i], on_change, &looks[i], err));
    }
    run_for(100);
    for (int i = 0; i < N; i++)
        store(writer, ids[i], "SUCCESS", "1");
    for (int i = 0; i < N; i++) {
        run_until(looks[i].n >= 1);
        ck_assert_uint_eq(looks[i].n, 1);
        ck_assert_str_eq(looks[i].id, ids[i]);
    }
    side_free(writer);
    side_free(watcher);
}
END_TEST

typedef struct leaver {
    side *s;
    const char *id;
    unsigned n;
} leaver;

static void
on_change_leave(void *arg, apm_str task_id, apm_str doc)
{
    leaver *l = arg;

    (void)task_id;
    (void)doc;
    l->n++;
    l->s->backend->ops->unwatch(l->s->backend, l->id);
}

START_TEST(a_watcher_may_leave_from_its_callback)
{
    apium_error error, *err = &error;
    side *s = side_with(false, true);
    leaver l = { .s = s, .id = fresh_id() };

    store(s, l.id, "STARTED", "1");
    ck_ok(s->backend->ops->watch(s->backend, l.id, on_change_leave, &l, err));
    run_until(l.n == 1);
    store(s, l.id, "SUCCESS", "1");
    run_for(100);
    ck_assert_uint_eq(l.n, 1);
    side_free(s);
}
END_TEST

/* ---- With a broker on the same server ---- */

START_TEST(a_result_and_an_ack_are_one_unit)
{
    apium_error error, *err = &error;
    side *s = side_with(true, true);
    const apm_queue *queue = side_queue("q");
    const char *id = fresh_id();

    ck_assert_ptr_eq(s->broker->link, s->backend->link);
    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "x", err));
    apm_delivery *delivery = side_receive(s);
    apm_unit *unit = apm_unit_new(s->broker->link);
    apm_record record = { .task_id = apm_strz(id),
                          .state = APM_STR("SUCCESS"),
                          .doc = apm_strz(doc_of("SUCCESS", "1", id)) };
    ck_ok(s->backend->ops->record(s->backend, unit, &record, err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_ok(side_commit(unit, err));
    apm_delivery_free(delivery);
    ck_assert(fetch(s, id).there);
    ck_assert_int_eq(side_inspect(s, queue).ready, 0);
    side_free(s);
}
END_TEST

START_TEST(a_result_is_not_stored_when_the_delivery_is_not_ours)
{
    apium_error error, *err = &error;
    side *s = side_with(true, true);
    const apm_queue *queue = side_queue("q");
    const char *id = fresh_id();

    side_consume(s, queue, 1);
    ck_ok(side_publish(s, queue, "x", err));
    apm_delivery *delivery = side_receive(s);
    side_adapter->steal(side_url);
    apm_unit *unit = apm_unit_new(s->broker->link);
    apm_record record = { .task_id = apm_strz(id),
                          .state = APM_STR("SUCCESS"),
                          .doc = apm_strz(doc_of("SUCCESS", "1", id)) };
    ck_ok(s->backend->ops->record(s->backend, unit, &record, err));
    ck_ok(apm_broker_settle(s->broker, unit, delivery, APM_ACK, NULL, err));
    ck_fails(side_commit(unit, err), APIUM_E_FENCED);
    apm_delivery_free(delivery);
    ck_assert(!fetch(s, id).there);
    side_free(s);
}
END_TEST

/* ---- Listing ---- */

typedef struct listed {
    bool known, more;
    char ids[8][64];
    size_t n, twice;
} listed;

static void
on_listed(void *arg, const apm_str *ids, size_t n, bool more, const apium_error *err)
{
    listed *l = arg;

    ck_assert_msg(!err, "cannot list: %s", err ? err->text : "");
    ck_assert(!l->known);
    l->known = true;
    l->more = more;
    for (size_t i = 0; i < n; i++) {
        size_t at = 0;
        while (at < l->n && !apm_str_eqz(ids[i], l->ids[at]))
            at++;
        if (at < l->n) {
            l->twice++;
            continue;
        }
        ck_assert_uint_lt(l->n, 8);
        snprintf(l->ids[l->n++], 64, "%.*s", APM_STR_ARG(ids[i]));
    }
}

static listed
list_of(side *s, size_t max)
{
    listed l = { 0 };

    s->backend->ops->list(s->backend, max, on_listed, &l);
    ck_assert_msg(!l.known, "answered from inside the call");
    run_until(l.known);
    return l;
}

static bool
is_listed(const listed *l, const char *id)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->ids[i], id) == 0)
            return true;
    return false;
}

START_TEST(what_has_a_result_is_listed)
{
    side *s = side_with(false, true);
    const char *id[3] = { fresh_id(), fresh_id(), fresh_id() };

    if (!s->backend->ops->list) { /* this store has no list */
        side_free(s);
        return;
    }
    /* Other tests left results too: make room. */
    listed before = { 0 };
    do {
        before = list_of(s, 8);
        for (size_t i = 0; i < before.n; i++) {
            answer a = { 0 };
            s->backend->ops->forget(s->backend, before.ids[i], on_done, &a);
            run_until(a.known);
        }
    } while (before.n);
    for (int i = 0; i < 3; i++) {
        store(s, id[i], "STARTED", "null");
        store(s, id[i], "SUCCESS", "1");
    }
    listed all = list_of(s, 8);
    ck_assert_uint_eq(all.n, 3);
    ck_assert(!all.more);
    for (int i = 0; i < 3; i++)
        ck_assert(is_listed(&all, id[i]));
    listed some = list_of(s, 2);
    ck_assert_uint_eq(some.n + some.twice, 2);
    ck_assert(some.more);
    answer a = { 0 };
    s->backend->ops->forget(s->backend, id[1], on_done, &a);
    run_until(a.known);
    all = list_of(s, 8);
    ck_assert_uint_eq(all.n, 2);
    ck_assert(!is_listed(&all, id[1]));
    side_free(s);
}
END_TEST

/* ---- The list ---- */

static const struct {
    const TTest *const *test;
    bool broker, steals, expires, told, goes_back;
} list[] = {
    { &what_was_stored_is_fetched_byte_for_byte },
    { &what_was_never_stored_is_not_there },
    { &a_later_state_replaces_an_earlier_one, .goes_back = true },
    { &nothing_replaces_a_success },
    { &a_success_holds_within_one_unit_too },
    { &another_side_reads_it },
    { &a_big_result_is_kept_whole },
    { &a_dropped_unit_stores_nothing },
    { &a_forgotten_result_is_gone },
    { &a_result_expires, .expires = true },
    { &cleaning_up_keeps_what_has_not_expired },
    { &a_watcher_sees_every_state_in_order, .told = true },
    { &states_that_are_stored_together_are_each_seen, .told = true },
    { &a_watcher_is_told_the_present_state_first },
    { &a_watcher_hears_at_once, .told = true },
    { &after_unwatching_nothing_is_heard },
    { &many_are_watched_at_once },
    { &a_watcher_may_leave_from_its_callback },
    { &what_has_a_result_is_listed },
    { &a_result_and_an_ack_are_one_unit, .broker = true },
    { &a_result_is_not_stored_when_the_delivery_is_not_ours, .broker = true, .steals = true },
};

int
main(int argc, char **argv)
{
    TTest const *tests[sizeof(list) / sizeof(list[0]) + 1];
    size_t n = 0;

    side_adapter = adapter_find(argc > 1 ? argv[1] : "sqlite");
    if (!side_adapter || !side_adapter->backend) {
        fprintf(stderr, "no backend adapter \"%s\" to test\n", argc > 1 ? argv[1] : "sqlite");
        return 1;
    }
    int rc = side_adapter->start(side_url, sizeof(side_url));
    if (rc == ADAPTER_SKIP && getenv("APIUM_TEST_STRICT"))
        rc = 1;
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if ((!list[i].broker || side_adapter->broker) && (!list[i].steals || side_adapter->steal) &&
            (!list[i].goes_back || !side_adapter->ready_stays) &&
            (!list[i].expires || !side_adapter->keeps) &&
            (!list[i].told || !side_adapter->looked_at))
            tests[n++] = *list[i].test;
    tests[n] = NULL;
    rc = suite_run(side_adapter->name, tests, 120);
    side_adapter->stop();
    return rc;
}
