/*
 * memory_chords.c - chords in this process's memory: a table of the headers under way, each with a table of the parts that have
 * returned. A header expires as a whole, result_expires after it was last counted in.
 */
#include "backends/memory_chords.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "backends/groups.h"
#include "core/base/arena.h"
#include "core/base/clock.h"
#include "core/base/error.h"

typedef struct part {
    int64_t place;
    apm_str task_id, member;
    UT_hash_handle hh;
    char text[];
} part;

typedef struct chord {
    bool expected; /* its size is known */
    int64_t size;  /* with what it was extended by */
    int64_t extra;
    int64_t expires_us; /* 0 never */
    uint64_t
        serial; /* of all headers ever; a new one when a part comes after they were asked for */
    part *parts;
    part **sorted; /* NULL until they are asked for */
    size_t n_sorted;
    apm_str group_id;
    UT_hash_handle hh;
    char text[];
} chord;

/* The store's part of it. */
typedef struct chords {
    chord *table;
    uint64_t serial;
} chords;

static void
chord_free(chord *c)
{
    for (part *p = c->parts, *next; p; p = next) {
        next = p->hh.next;
        HASH_DEL(c->parts, p);
        free(p);
    }
    free(c->sorted);
    free(c);
}

static void
chord_remove(chords *all, chord *c)
{
    HASH_DEL(all->table, c);
    chord_free(c);
}

static bool
is_expired(const chord *c)
{
    return c->expires_us && c->expires_us <= apm_clock_wall_us();
}

static chord *
find(apm_memory_store *store, apm_str group_id)
{
    chords *all = store->chords;
    chord *c = NULL;
    if (!all)
        return NULL;
    HASH_FIND(hh, all->table, group_id.p, group_id.len, c);
    if (c && is_expired(c)) {
        chord_remove(all, c);
        c = NULL;
    }
    return c;
}

void
apm_memory_chords_clean(apm_memory_store *store)
{
    chords *all = store->chords;
    for (chord *c = all ? all->table : NULL, *next; c; c = next) {
        next = c->hh.next;
        if (is_expired(c))
            chord_remove(all, c);
    }
}

/* ---- operations ---- */

typedef struct chord_op {
    apm_memory_op op;
    enum { EXPECT, EXTEND, ARRIVE, CLAIM } what;
    int64_t n;
    int64_t expires_us;
    chord *fresh; /* taken over by apply, as is `part` */
    part *part;
    uint32_t *completed; /* the unit's, and this arrival's bit in it */
    uint32_t bit;
    size_t group_len;
    char group_id[];
} chord_op;

static apm_str
group_of(const chord_op *op)
{
    return (apm_str){ op->group_id, op->group_len };
}

/* The header, made when there is none. NULL without memory for the table: as if it had expired at once. */
static chord *
open_header(apm_memory_store *store, chord_op *op)
{
    chord *c = find(store, group_of(op));
    chords *all = store->chords;
    if (!c) {
        c = op->fresh;
        HASH_ADD_KEYPTR(hh, all->table, c->group_id.p, c->group_id.len, c);
        if (!c->hh.tbl)
            return NULL;
        c->serial = ++all->serial;
        op->fresh = NULL;
    }
    c->expires_us = op->expires_us;
    return c;
}

static apium_status
check_op(apm_memory_store *store, apm_memory_op *base, apium_error *err)
{
    const chord_op *op = (const chord_op *)base;
    const chord *c;
    if (!store->chords && !(store->chords = calloc(1, sizeof(chords))))
        return apm_fail(err, APIUM_E_NOMEM, "cannot count the parts of chord %s: out of memory",
                        op->group_id);
    if (op->what == CLAIM && (!(c = find(store, group_of(op))) || !c->expected))
        return apm_fail(err, APIUM_E_NOTFOUND, "the chord %s is completed already", op->group_id);
    return APIUM_OK;
}

static void
arrive(chords *all, chord *c, chord_op *op)
{
    part *known;
    HASH_FIND(hh, c->parts, op->part->task_id.p, op->part->task_id.len, known);
    if (!known) {
        part *p = op->part;
        HASH_ADD_KEYPTR(hh, c->parts, p->task_id.p, p->task_id.len, p);
        if (!p->hh.tbl)
            return;
        op->part = NULL;
        if (c->sorted) {
            free(c->sorted);
            c->sorted = NULL;
            c->n_sorted = 0;
            c->serial = ++all->serial;
        }
    }
    if (c->expected && (int64_t)HASH_COUNT(c->parts) >= c->size + c->extra && op->completed)
        *op->completed |= op->bit;
}

static void
apply_op(apm_memory_store *store, apm_memory_op *base)
{
    chord_op *op = (chord_op *)base;
    chord *c = op->what == CLAIM ? find(store, group_of(op)) : open_header(store, op);
    if (!c)
        return;
    switch (op->what) {
    case EXPECT:
        c->expected = true;
        c->size = op->n;
        break;
    case EXTEND:
        c->extra += op->n;
        break;
    case ARRIVE:
        arrive(store->chords, c, op);
        break;
    case CLAIM:
        chord_remove(store->chords, c);
    }
}

static void
release_op(apm_memory_op *base)
{
    chord_op *op = (chord_op *)base;
    free(op->fresh);
    free(op->part);
    free(op);
}

static part *
part_new(const apm_part *from)
{
    part *p = calloc(1, sizeof(*p) + from->task_id.len + from->member.len);
    if (!p)
        return NULL;
    memcpy(p->text, from->task_id.p, from->task_id.len);
    memcpy(p->text + from->task_id.len, from->member.p, from->member.len);
    p->task_id = (apm_str){ p->text, from->task_id.len };
    p->member = (apm_str){ p->text + from->task_id.len, from->member.len };
    p->place = from->index < 0 ? INT64_MAX : from->index;
    return p;
}

static chord *
chord_new(apm_str group_id)
{
    chord *c = calloc(1, sizeof(*c) + group_id.len);
    if (!c)
        return NULL;
    memcpy(c->text, group_id.p, group_id.len);
    c->group_id = (apm_str){ c->text, group_id.len };
    return c;
}

static apium_status
append(apm_backend *backend, apm_unit *unit, apm_str group_id, chord_op with, const apm_part *from,
       apium_error *err)
{
    double keep_s = backend->settings ? backend->settings->result_expires : 0;
    chord_op *op = calloc(1, sizeof(*op) + group_id.len + 1);
    if (op) {
        *op = with;
        op->op = (apm_memory_op){ .check = check_op, .apply = apply_op, .release = release_op };
        op->expires_us = keep_s > 0 ? apm_clock_wall_us() + (int64_t)(keep_s * 1e6) : 0;
        op->group_len = group_id.len;
        memcpy(op->group_id, group_id.p, group_id.len);
        op->group_id[group_id.len] = '\0';
        op->fresh = chord_new(group_id);
        op->part = from ? part_new(from) : NULL;
    }
    if (!op || !op->fresh || (from && !op->part)) {
        if (op)
            release_op(&op->op);
        return apm_fail(err, APIUM_E_NOMEM, "cannot count the parts of chord %.*s: out of memory",
                        APM_STR_ARG(group_id));
    }
    apm_memory_add(unit, &op->op);
    return APIUM_OK;
}

apium_status
apm_memory_expect(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t size,
                  apium_error *err)
{
    return append(backend, unit, group_id, (chord_op){ .what = EXPECT, .n = size }, NULL, err);
}

apium_status
apm_memory_extend(apm_backend *backend, apm_unit *unit, apm_str group_id, int64_t by,
                  apium_error *err)
{
    return append(backend, unit, group_id, (chord_op){ .what = EXTEND, .n = by }, NULL, err);
}

apium_status
apm_memory_arrive(apm_backend *backend, apm_unit *unit, const apm_part *from, apium_error *err)
{
    const chord_op with = { .what = ARRIVE,
                            .completed = unit->completed,
                            .bit = (uint32_t)1 << (unit->arrivals & 31) };
    apium_status st = append(backend, unit, from->group_id, with, from, err);
    if (st == APIUM_OK)
        unit->arrivals++;
    return st;
}

apium_status
apm_memory_claim(apm_backend *backend, apm_unit *unit, apm_str group_id, apium_error *err)
{
    return append(backend, unit, group_id, (chord_op){ .what = CLAIM }, NULL, err);
}

/* ---- the parts of a complete header ---- */

/* One page, a unit of its own. */
typedef struct parts_op {
    apm_memory_op op;
    apm_page page;
    uint64_t serial; /* 0 before the first page */
    size_t at;
    bool gone, oom;
    char group_id[];
} parts_op;

static int
compare_places(const void *a, const void *b)
{
    const part *x = *(const part *const *)a, *y = *(const part *const *)b;
    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    int order = memcmp(x->task_id.p, y->task_id.p,
                       x->task_id.len < y->task_id.len ? x->task_id.len : y->task_id.len);
    return order ? order : (x->task_id.len > y->task_id.len) - (x->task_id.len < y->task_id.len);
}

static bool
sort(chord *c)
{
    size_t n = 0;
    part **sorted = c->sorted ? NULL : calloc(HASH_COUNT(c->parts) + 1, sizeof(part *));
    if (!sorted)
        return c->sorted != NULL;
    for (part *p = c->parts; p; p = p->hh.next)
        sorted[n++] = p;
    qsort(sorted, n, sizeof(part *), compare_places);
    c->sorted = sorted;
    c->n_sorted = n;
    return true;
}

static void
apply_parts(apm_memory_store *store, apm_memory_op *base)
{
    parts_op *op = (parts_op *)base;
    chord *c = find(store, apm_strz(op->group_id));
    bool ok = true;
    size_t bytes = 0;
    op->gone = !c || !c->expected || (op->serial && c->serial != op->serial);
    if (op->gone)
        return;
    if (!op->serial) {
        char *id = apm_group_doc_id(apm_strz(op->group_id));
        ok = id && sort(c);
        if (ok)
            op->page.tree = apm_arena_str(&op->page.arena, apm_memory_doc(store, id), &ok);
        free(id);
    }
    op->serial = c->serial;
    while (ok && op->at < c->n_sorted && op->page.n < APM_PARTS_MAX && bytes < APM_PARTS_BYTES) {
        op->page.members[op->page.n] =
            apm_arena_str(&op->page.arena, c->sorted[op->at++]->member, &ok);
        bytes += op->page.members[op->page.n++].len;
    }
    op->page.more = op->at < c->n_sorted;
    op->oom = !ok;
}

static void
release_parts(apm_memory_op *base)
{
    parts_op *op = (parts_op *)base;
    apm_arena_clear(&op->page.arena);
    free(op);
}

static apm_page_ask ask_page;

static void
page_answered(void *arg, apium_status status, const apium_error *err)
{
    parts_op *op = arg;
    apium_error own;
    if (status == APIUM_OK && (op->gone || op->oom)) {
        status =
            op->gone ? apm_page_gone(op->group_id, &own) : apm_page_no_memory(op->group_id, &own);
        err = &own;
    }
    apm_page_give(&op->page, op->group_id, ask_page, op, status, err);
}

static bool
ask_page(const apm_pages_of *of, const char *group_id, const void *last_)
{
    const parts_op *last = last_;
    const size_t len = strlen(group_id);
    parts_op *op = calloc(1, sizeof(*op) + len + 1);
    apm_unit *unit = op ? apm_unit_new(of->link) : NULL;
    if (!unit) {
        free(op);
        return false;
    }
    op->op = (apm_memory_op){ .apply = apply_parts, .release = release_parts };
    op->serial = last ? last->serial : 0;
    op->at = last ? last->at : 0;
    memcpy(op->group_id, group_id, len + 1);
    apm_page_enter(&op->page, of);
    apm_memory_add(unit, &op->op);
    apm_unit_commit(unit, page_answered, op);
    return true;
}

void
apm_memory_parts(const apm_pages_of *of, const char *group_id)
{
    apm_pages_start(of, group_id, ask_page);
}
