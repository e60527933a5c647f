/* chords.c - see chords.h */
#include "chords.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters.h"
#include "core/base/ids.h"

bool unordered;

side *
open_side(bool broker)
{
    apium_error error, *err = &error;
    side *s = side_with(broker, false);
    s->settings.result_chord_ordered = !unordered;
    ck_ok(apm_backend_open(s->links, side_url, side_url, &s->backend, err));
    run_until(!apm_backend_can(s->backend, APM_BACKEND_UNKNOWN));
    ck_assert(apm_backend_can(s->backend, APM_BACKEND_BARRIER));
    return s;
}

const char *
fresh_id(void)
{
    char *id = side_keep(malloc(APM_UUID_LEN + 1));
    apm_uuid4(id);
    return id;
}

void
expect(side *s, const char *group, int64_t size)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(s->backend->link);
    ck_ok(s->backend->ops->expect(s->backend, unit, apm_strz(group), size, err));
    ck_ok(side_commit(unit, err));
}

void
extend(side *s, const char *group, int64_t by)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(s->backend->link);
    ck_ok(s->backend->ops->extend(s->backend, unit, apm_strz(group), by, err));
    ck_ok(side_commit(unit, err));
}

void
add_arrival(side *s, apm_unit *unit, const char *group, const char *id, int64_t index,
            const char *result)
{
    apium_error error, *err = &error;
    char member[512];
    int len = snprintf(member, sizeof(member), "[1, \"%s\", \"SUCCESS\", %s]", id, result);
    const apm_part part = { .group_id = apm_strz(group),
                            .task_id = apm_strz(id),
                            .index = index,
                            .member = { member, (size_t)len } };
    ck_ok(s->backend->ops->arrive(s->backend, unit, &part, err));
}

bool
arrive(side *s, const char *group, const char *id, int64_t index, const char *result)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(s->backend->link);
    uint32_t completed = 0;
    unit->completed = &completed;
    add_arrival(s, unit, group, id, index, result);
    ck_ok(side_commit(unit, err));
    ck_assert_uint_le(completed, 1);
    return completed == 1;
}

apium_status
claim(side *s, const char *group, apium_error *err)
{
    apm_unit *unit = apm_unit_new(s->backend->link);
    ck_ok(s->backend->ops->claim(s->backend, unit, apm_strz(group), err));
    return side_commit(unit, err);
}

void
on_parts(void *arg, const apm_parts *parts, const apium_error *err)
{
    gathered *g = arg;
    ck_assert_msg(!g->known, "called after the last time");
    if (!parts) {
        g->known = true;
        g->status = err->status;
        return;
    }
    ck_assert(!apm_str_is(parts->tree) || g->calls == 0);
    if (apm_str_is(parts->tree)) {
        g->has_tree = true;
        snprintf(g->tree, sizeof(g->tree), "%.*s", APM_STR_ARG(parts->tree));
    }
    g->calls++;
    g->n += parts->n;
    g->most = parts->n > g->most ? parts->n : g->most;
    size_t bytes = 1;
    for (size_t i = 0; i < parts->n; i++)
        bytes += parts->members[i].len + 1;
    if (g->len + bytes > g->cap) {
        g->cap = 2 * (g->len + bytes);
        g->text = realloc(g->text, g->cap);
        ck_assert_ptr_nonnull(g->text);
    }
    for (size_t i = 0; i < parts->n; i++) {
        memcpy(g->text + g->len, parts->members[i].p, parts->members[i].len);
        g->len += parts->members[i].len;
        memcpy(g->text + g->len++, "\n", 2);
    }
    g->known = !parts->more;
}

gathered
parts_of(side *s, const char *group)
{
    gathered g = { 0 };
    s->backend->ops->parts(s->backend, group, on_parts, &g);
    ck_assert_msg(!g.known, "answered from inside the call");
    run_until(g.known);
    return g;
}

size_t
count_parts(side *s, const char *group)
{
    gathered g = parts_of(s, group);
    free(g.text);
    return g.n;
}

apium_status
ask_parts(side *s, const char *group)
{
    gathered g = parts_of(s, group);
    free(g.text);
    return g.status;
}

void
check_results(side *s, const char *group, const char *const *results, size_t n)
{
    gathered g = parts_of(s, group);
    ck_assert_int_eq(g.status, APIUM_OK);
    ck_assert_uint_eq(g.n, n);
    char *line = g.text;
    for (size_t i = 0; i < n; i++) {
        char tail[128], *end = strchr(line, '\n');
        snprintf(tail, sizeof(tail), "\"SUCCESS\", %s]", results[i]);
        *end = '\0';
        ck_assert_msg(strlen(line) > strlen(tail) && strcmp(end - strlen(tail), tail) == 0,
                      "part %zu is %s, not %s", i, line, tail);
        line = end + 1;
    }
    free(g.text);
}

void
on_fetched(void *arg, apm_str doc, const apium_error *err)
{
    answer *a = arg;
    ck_assert(!err);
    a->known = true;
    a->there = apm_str_is(doc);
    snprintf(a->doc, sizeof(a->doc), "%.*s", APM_STR_ARG(doc));
}

answer
fetch_group(side *s, const char *group)
{
    answer a = { 0 };
    s->backend->ops->fetch_group(s->backend, group, on_fetched, &a);
    run_until(a.known);
    return a;
}

void
save_group(side *s, const char *group, const char *doc)
{
    apium_error error, *err = &error;
    apm_unit *unit = apm_unit_new(s->backend->link);
    ck_ok(s->backend->ops->save_group(s->backend, unit, apm_strz(group), apm_strz(doc), err));
    ck_ok(side_commit(unit, err));
}

void
on_done(void *arg, apium_status status, const apium_error *err)
{
    bool *known = arg;
    ck_assert_msg(status == APIUM_OK, "%s", err ? err->text : "");
    *known = true;
}

int
chords_run(int argc, char **argv, const chord_test *tests)
{
    const char *name = argc > 1 ? argv[1] : "sqlite";
    TTest const *chosen[64];
    size_t n = 0;

    unordered = strcmp(name, "redis-list") == 0;
    side_adapter = adapter_find(unordered ? "redis" : name);
    if (!side_adapter || !side_adapter->backend) {
        fprintf(stderr, "no backend adapter \"%s\" to test\n", name);
        return 1;
    }
    int rc = side_adapter->start(side_url, sizeof(side_url));
    if (rc == ADAPTER_SKIP && getenv("APIUM_TEST_STRICT"))
        rc = 1;
    if (rc != 0)
        return rc;
    for (; tests->test && n < sizeof(chosen) / sizeof(chosen[0]) - 1; tests++)
        if ((!tests->broker || side_adapter->broker) && (!tests->steals || side_adapter->steal))
            chosen[n++] = *tests->test;
    chosen[n] = NULL;
    rc = suite_run(name, chosen, 120);
    side_adapter->stop();
    return rc;
}
