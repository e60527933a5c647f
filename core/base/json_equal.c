/*
 * json_equal.c - are two JSON values the same? See json.h.
 *
 * Each is scanned once into a list of nodes, in the order of the text; a node knows where its successor
 * begins, so that children can be listed without scanning again. Pairs that are still to be compared wait in a list.
 */
#include <math.h>
#include <stdlib.h>

#include "core/base/json_scan.h"

typedef struct node {
    apm_json val; /* of a container, the text up to its end is not needed */
    apm_str key;  /* raw */
    size_t next;  /* the node behind this one and all within it */
} node;

typedef struct list {
    node *nodes;
    size_t n, cap;
} list;

typedef struct pair {
    size_t a, b;
} pair;

typedef struct pairs {
    pair *items;
    size_t n, cap;
} pairs;

/* Room for one more; NULL without memory. */
static void *
more(void *items, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return items;
    size_t wanted = *cap ? *cap * 2 : 64;
    void *p = reallocarray(items, wanted, size);
    if (p)
        *cap = wanted;
    return p;
}

static bool
add_pair(pairs *todo, size_t a, size_t b)
{
    pair *items = more(todo->items, todo->n, &todo->cap, sizeof(pair));

    if (!items)
        return false;
    todo->items = items;
    items[todo->n++] = (pair){ a, b };
    return true;
}

static bool
index_nodes(list *ls, apm_json val)
{
    size_t open[APM_JSON_DEPTH];
    const char *at = val.text.p, *end = at + val.text.len;
    int depth = 0;

    for (;;) {
        at = apm_json_space(at, end);
        if (at == end)
            return false;
        if (*at == ',') {
            at++;
            continue;
        }
        if (*at == ']' || *at == '}') {
            if (depth == 0)
                return false;
            ls->nodes[open[--depth]].next = ls->n;
            at++;
        } else {
            node *nodes = more(ls->nodes, ls->n, &ls->cap, sizeof(node));
            if (!nodes)
                return false;
            ls->nodes = nodes;
            node *nd = &nodes[ls->n];
            *nd = (node){ .next = ls->n + 1 };
            if (depth > 0 && nodes[open[depth - 1]].val.type == APM_JSON_OBJECT) {
                const char *colon = apm_json_pass(at, end);
                nd->key = (apm_str){ at, (size_t)(colon - at) };
                at = apm_json_space(colon, end);
                if (at == end)
                    return false;
                at = apm_json_space(at + 1, end);
            }
            nd->val.type = apm_json_type_at(at, end);
            if (nd->val.type == APM_JSON_NONE)
                return false;
            if (nd->val.type == APM_JSON_ARRAY || nd->val.type == APM_JSON_OBJECT) {
                if (depth == APM_JSON_DEPTH)
                    return false;
                open[depth++] = ls->n;
                at++;
            } else {
                const char *behind = apm_json_pass(at, end);
                nd->val.text = (apm_str){ at, (size_t)(behind - at) };
                at = behind;
            }
            ls->n++;
        }
        if (depth == 0)
            return true;
    }
}

/* The order of two raw strings by what they mean. */
static int
compare_strings(apm_str a, apm_str b)
{
    const char *pa = a.p + 1, *ea = a.p + a.len - 1, *pb = b.p + 1, *eb = b.p + b.len - 1;

    while (pa < ea && pb < eb) {
        char ca[4], cb[4];
        int na = apm_json_char(&pa, ea, ca), nb = apm_json_char(&pb, eb, cb);
        int order = memcmp(ca, cb, (size_t)(na < nb ? na : nb));
        if (order != 0)
            return order; /* a character's first byte tells its length, so this is an order */
    }
    return (pa < ea) - (pb < eb);
}

static bool
scalars_equal(apm_json a, apm_json b)
{
    double x, y;

    switch (a.type) {
    case APM_JSON_STRING:
        return apm_str_eq(a.text, b.text) || compare_strings(a.text, b.text) == 0;
    case APM_JSON_INT:
        return apm_str_eq(apm_str_eqz(a.text, "-0") ? APM_STR("0") : a.text,
                          apm_str_eqz(b.text, "-0") ? APM_STR("0") : b.text);
    case APM_JSON_FLOAT:
        if (!apm_json_number(a.text, &x) || !apm_json_number(b.text, &y))
            return false;
        return isnan(x) ? isnan(y) : x == y && signbit(x) == signbit(y);
    default:
        return apm_str_eq(a.text, b.text);
    }
}

static int
compare_members(const void *a, const void *b)
{
    const node *na = *(const node *const *)a, *nb = *(const node *const *)b;
    int order = compare_strings(na->key, nb->key);

    return order != 0 ? order : (na > nb) - (na < nb);
}

/* The members of an object by key, the last of each name only; *n is their number. For free(). */
static const node **
members(const list *ls, size_t object, size_t *n)
{
    size_t count = 0, kept = 0;

    for (size_t i = object + 1; i < ls->nodes[object].next; i = ls->nodes[i].next)
        count++;
    const node **found = calloc(count + 1, sizeof(*found));
    if (!found)
        return NULL;
    count = 0;
    for (size_t i = object + 1; i < ls->nodes[object].next; i = ls->nodes[i].next)
        found[count++] = &ls->nodes[i];
    qsort(found, count, sizeof(*found), compare_members);
    for (size_t i = 0; i < count; i++)
        if (i + 1 == count || compare_strings(found[i]->key, found[i + 1]->key) != 0)
            found[kept++] = found[i];
    *n = kept;
    return found;
}

static bool
add_members(pairs *todo, const list *a, size_t ia, const list *b, size_t ib)
{
    size_t na = 0, nb = 0;
    const node **ma = members(a, ia, &na), **mb = members(b, ib, &nb);
    bool same = ma && mb && na == nb;

    for (size_t i = 0; same && i < na; i++)
        same = compare_strings(ma[i]->key, mb[i]->key) == 0 &&
               add_pair(todo, (size_t)(ma[i] - a->nodes), (size_t)(mb[i] - b->nodes));
    free(ma);
    free(mb);
    return same;
}

static bool
add_items(pairs *todo, const list *a, size_t ia, const list *b, size_t ib)
{
    size_t end_a = a->nodes[ia].next, end_b = b->nodes[ib].next;

    for (ia++, ib++; ia < end_a && ib < end_b; ia = a->nodes[ia].next, ib = b->nodes[ib].next)
        if (!add_pair(todo, ia, ib))
            return false;
    return ia == end_a && ib == end_b;
}

bool
apm_json_equal(apm_json a, apm_json b)
{
    list la = { 0 }, lb = { 0 };
    pairs todo = { 0 };
    bool same;

    if (a.type != b.type || a.type == APM_JSON_NONE)
        return a.type == b.type;
    same = index_nodes(&la, a) && index_nodes(&lb, b) && add_pair(&todo, 0, 0);
    while (same && todo.n > 0) {
        pair p = todo.items[--todo.n];
        apm_json va = la.nodes[p.a].val, vb = lb.nodes[p.b].val;
        if (va.type != vb.type)
            same = false;
        else if (va.type == APM_JSON_ARRAY)
            same = add_items(&todo, &la, p.a, &lb, p.b);
        else if (va.type == APM_JSON_OBJECT)
            same = add_members(&todo, &la, p.a, &lb, p.b);
        else
            same = scalars_equal(va, vb);
    }
    free(la.nodes);
    free(lb.nodes);
    free(todo.items);
    return same;
}
