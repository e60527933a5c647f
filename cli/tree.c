/* tree.c - see tree.h. */
#include "cli/tree.h"

#include <stdlib.h>
#include <uthash.h>

#include <apium/run.h>

#include "client/sig.h"
#include "core/base/error.h"

#define NODES_MAX 10000 /* more lines than anybody reads */
#define NOTE_MAX  60    /* characters of a value */

/* --- nodes --- */

/* Text without quotes, what is not printable escaped, and not too long. */
static const char *
shown(apm_arena *arena, apm_str text, size_t max)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (max && i >= max && (c & 0xC0) != 0x80) { /* not within a character */
            apm_buf_addz(&buf, "...");
            break;
        }
        if (c < 0x20 || c == 0x7F)
            apm_buf_addf(&buf, "\\x%02x", c);
        else
            apm_buf_addc(&buf, (char)c);
    }
    const char *out = apm_arena_str(arena, apm_buf_str(&buf), NULL).p;
    apm_buf_clear(&buf);
    return out ? out : "";
}

/* Below `up`, NULL: the top. NULL when there is no memory, or there are too many. */
static apm_node *
node_add(apm_tree *tree, apm_node *up, const char *label)
{
    if (tree->n >= NODES_MAX) {
        tree->left_out++;
        return NULL;
    }
    apm_node *node = apm_arena_alloc(&tree->arena, sizeof(*node));
    if (!node)
        return NULL;
    node->label = label;
    tree->n++;
    if (!up)
        tree->top = node;
    else if (up->last)
        up->last = up->last->next = node;
    else
        up->first = up->last = node;
    return node;
}

void
apm_tree_clear(apm_tree *tree)
{
    apm_arena_clear(&tree->arena);
    *tree = (apm_tree){ 0 };
}

/* --- a signature --- */

static void add_sig(apm_tree *tree, apm_node *up, const char *role, const apm_canvas *sig);

/* link and link_error: raw signatures. */
static void
add_links(apm_tree *tree, apm_node *up, const apm_canvas *sig, apm_opt which, const char *role)
{
    const apm_option *links = apm_canvas_opt(&sig->options, which);
    apm_json_iter it;
    apm_str key;
    apm_json val;
    apm_canvas *link;
    if (!links || !links->raw.len)
        return;
    if (links->raw.p[0] != '[') {
        if (apm_canvas_read((apm_json){ APM_JSON_OBJECT, links->raw }, &tree->arena, &link, NULL) ==
            APIUM_OK)
            add_sig(tree, up, role, link);
        return;
    }
    if (apm_json_open(&it, links->raw, NULL) != APIUM_OK)
        return;
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        if (apm_canvas_read(val, &tree->arena, &link, NULL) == APIUM_OK)
            add_sig(tree, up, role, link);
}

/* JSON on one line: people lay theirs out. */
static apm_str
one_line(apm_arena *arena, apm_str json)
{
    char *out = apm_arena_bytes(arena, 2 * json.len + 1), *to = out;
    bool string = false;
    if (!out)
        return json;
    for (const char *at = json.p, *end = json.p + json.len; at < end; at++) {
        if (!string && strchr(" \t\r\n", *at))
            continue;
        *to++ = *at;
        if (string && *at == '\\')
            *to++ = *++at; /* validated: something follows */
        else if (*at == '"')
            string = !string;
        else if (!string && (*at == ',' || *at == ':'))
            *to++ = ' ';
    }
    return (apm_str){ out, (size_t)(to - out) };
}

/* "tasks.add [2] {"k": 1}" */
static const char *
task_label(apm_tree *tree, const char *role, const apm_canvas *sig)
{
    apm_json args = { APM_JSON_ARRAY, sig->args }, kwargs = { APM_JSON_OBJECT, sig->kwargs };
    bool some_args = apm_str_is(sig->args) && apm_json_count(args),
         some_kwargs = apm_str_is(sig->kwargs) && apm_json_count(kwargs);
    apm_arena *arena = &tree->arena;
    return apm_arena_printf(
        arena, "%s%s%s%s%s%s", role, shown(arena, sig->task, 200), some_args ? " " : "",
        some_args ? shown(arena, one_line(arena, sig->args), NOTE_MAX) : "", some_kwargs ? " " : "",
        some_kwargs ? shown(arena, one_line(arena, sig->kwargs), NOTE_MAX) : "");
}

static void
add_sig(apm_tree *tree, apm_node *up, const char *role, const apm_canvas *sig)
{
    static const char *const names[] = { "", "chain", "group", "chord" };
    const char *label = sig->kind == APM_SIG_TASK
                            ? task_label(tree, role, sig)
                            : apm_arena_printf(&tree->arena, "%s%s", role, names[sig->kind]);
    apm_node *node = label ? node_add(tree, up, label) : NULL;
    if (!node)
        return;
    apm_str id = apm_canvas_opt_text(&tree->arena, &sig->options, APM_OPT_TASK_ID);
    if (apm_str_is(id))
        node->note = shown(&tree->arena, id, 200);
    for (size_t i = 0; i < sig->n_tasks; i++)
        add_sig(tree, node, "", sig->tasks[i]);
    if (sig->kind == APM_SIG_CHORD)
        add_sig(tree, node, "then ", sig->body);
    add_links(tree, node, sig, APM_OPT_LINK, "link ");
    add_links(tree, node, sig, APM_OPT_LINK_ERROR, "link_error ");
}

apium_status
apm_tree_of_sig(apm_tree *tree, const apium_sig *sig, apium_error *err)
{
    add_sig(tree, NULL, "", sig->tree);
    return tree->top ? APIUM_OK : apm_fail(err, APIUM_E_NOMEM, "cannot draw it: out of memory");
}

/* --- results --- */

struct seen {
    char *id;
    UT_hash_handle hh;
};

struct looking {
    apm_tree *tree;
    struct seen *seen;
    const char *asked; /* the id that it is about */
};

/* Was it met before? A task that was tried again is its own child. */
static bool
met(struct looking *l, const char *id)
{
    struct seen *s;
    HASH_FIND_STR(l->seen, id, s);
    if (s)
        return true;
    s = calloc(1, sizeof(*s));
    if (s && (s->id = strdup(id)))
        HASH_ADD_KEYPTR(hh, l->seen, s->id, strlen(s->id), s);
    else
        free(s);
    return false;
}

static void
forget_seen(struct looking *l)
{
    struct seen *s, *next;
    HASH_ITER(hh, l->seen, s, next)
    {
        HASH_DEL(l->seen, s);
        free(s->id);
        free(s);
    }
}

static apium_status add_run(struct looking *l, apm_node *up, apium_run *run, apium_error *err);

static apium_status
add_children(struct looking *l, apm_node *node, apium_run *run, apium_error *err)
{
    size_t n;
    apium_status st = apium_run_children(run, &n, err);
    for (size_t i = 0; st == APIUM_OK && i < n; i++)
        st = add_run(l, node, apium_run_child(run, i), err);
    return st;
}

static apium_status
add_group(struct looking *l, apm_node *up, apium_run *run, apium_error *err)
{
    apm_arena *arena = &l->tree->arena;
    apium_counts counts;
    apm_node *node = node_add(
        l->tree, up,
        apm_arena_printf(arena, "group %s", shown(arena, apm_strz(apium_run_id(run)), 200)));
    if (!node)
        return APIUM_OK;
    apium_status st = apium_count(run, &counts, err);
    if (st != APIUM_OK)
        return st;
    node->state = counts.failed ? "FAILURE" : counts.waiting ? "PENDING" : "SUCCESS";
    node->note =
        apm_arena_printf(arena, "%zu of %zu", counts.successful + counts.failed, counts.all);
    return add_children(l, node, run, err);
}

static apium_status
add_run(struct looking *l, apm_node *up, apium_run *run, apium_error *err)
{
    apm_arena *arena = &l->tree->arena;
    apium_result *res;
    const char *id = apium_run_id(run);
    if (apium_run_is_group(run))
        return add_group(l, up, run, err);
    if (met(l, id))
        return APIUM_OK;
    apium_status st = apium_state(run, &res, err);
    if (st != APIUM_OK)
        return st;
    const char *name = apium_result_name(res), *value = apium_result_json(res),
               *message = apium_result_message(res);
    apm_node *node =
        node_add(l->tree, up,
                 apm_arena_printf(arena, "%s%s%s%s", name ? shown(arena, apm_strz(name), 200) : "",
                                  name ? " " : "", shown(arena, apm_strz(id), 200),
                                  up && strcmp(id, l->asked) == 0 ? " <" : ""));
    if (node) {
        node->state = shown(arena, apm_strz(apium_result_state(res)), 40);
        if (message || (value && strcmp(apium_result_state(res), "PENDING") != 0))
            node->note = shown(arena, apm_strz(message ? message : value), NOTE_MAX);
    }
    apium_result_free(res);
    return node ? add_children(l, node, run, err) : APIUM_OK;
}

/* Is the task among what came of another one? */
static bool
led_to(apium_run *run, const char *id)
{
    size_t n;
    if (strcmp(apium_run_id(run), id) == 0)
        return true;
    if (apium_run_is_group(run)) {
        for (size_t i = 0; apium_run_child(run, i); i++)
            if (led_to(apium_run_child(run, i), id))
                return true;
        return false;
    }
    if (apium_run_children(run, &n, NULL) != APIUM_OK)
        return false;
    for (size_t i = 0; i < n; i++) {
        apium_run *child = apium_run_child(run, i);
        bool found = strcmp(apium_run_id(child), id) == 0;
        for (size_t m = 0; !found && apium_run_is_group(child) && apium_run_child(child, m); m++)
            found = strcmp(apium_run_id(apium_run_child(child, m)), id) == 0;
        if (found)
            return true;
    }
    return false;
}

/* The first task that is known to have led to the one in *run, which is given up for it. */
static apium_status
climb(apium_app *app, apium_run **run, apium_error *err)
{
    for (int i = 0; i < NODES_MAX; i++) {
        apium_result *res;
        apium_run *above = NULL;
        apium_status st = apium_state(*run, &res, err);
        if (st != APIUM_OK)
            return st;
        const char *parent = apium_result_parent_id(res);
        if (parent)
            st = apium_run_of(app, parent, &above, err);
        apium_result_free(res);
        if (st != APIUM_OK)
            return st;
        if (!above || !led_to(above, apium_run_id(*run))) {
            apium_run_free(above);
            return APIUM_OK;
        }
        apium_run_free(*run);
        *run = above;
    }
    return APIUM_OK;
}

/* A task, or when nothing is known of one with this id, the group that was saved under it. */
static apium_status
open_id(apium_app *app, const char *id, apium_run **out, apium_error *err)
{
    apium_result *res;
    apium_run *group;
    apium_error why;
    apium_status st = apium_run_of(app, id, out, err);
    if (st == APIUM_OK)
        st = apium_state(*out, &res, err);
    if (st != APIUM_OK)
        return st;
    bool known = apium_result_document(res) != NULL;
    apium_result_free(res);
    if (!known && apium_run_restore(app, id, &group, &why) == APIUM_OK) {
        apium_run_free(*out);
        *out = group;
    }
    return APIUM_OK;
}

apium_status
apm_tree_of_id(apm_tree *tree, apium_app *app, const char *id, apium_error *err)
{
    struct looking l = { .tree = tree, .asked = id };
    apium_run *run = NULL;
    apium_status st = open_id(app, id, &run, err);
    if (st == APIUM_OK && !apium_run_is_group(run))
        st = climb(app, &run, err);
    if (st == APIUM_OK)
        st = add_run(&l, NULL, run, err);
    if (st == APIUM_OK && !tree->top)
        st = apm_fail(err, APIUM_E_NOMEM, "cannot draw it: out of memory");
    forget_seen(&l);
    apium_run_free(run);
    return st;
}

/* --- drawing --- */

static bool
speaks_utf8(void)
{
    const char *names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const char *value = getenv(names[i]);
        if (value && *value)
            return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

struct drawing {
    FILE *to;
    bool lines; /* of a terminal that knows them */
    apm_buf margin;
};

static void
print_node(struct drawing *d, const apm_node *node)
{
    fputs(node->label, d->to);
    if (node->state)
        fprintf(d->to, "  %s", node->state);
    if (node->note)
        fprintf(d->to, "  %s", node->note);
    fputc('\n', d->to);
    size_t len = d->margin.len;
    for (const apm_node *child = node->first; child; child = child->next) {
        const char *branch = child->next ? (d->lines ? "├─ " : "|- ") : (d->lines ? "└─ " : "`- ");
        fprintf(d->to, "%.*s%s", APM_STR_ARG(apm_buf_str(&d->margin)), branch);
        apm_buf_addz(&d->margin, child->next ? (d->lines ? "│  " : "|  ") : "   ");
        print_node(d, child);
        d->margin.len = len;
    }
}

void
apm_tree_print(const apm_tree *tree, FILE *to)
{
    struct drawing d = { .to = to, .lines = speaks_utf8() };
    apm_buf_init(&d.margin, APM_BUF_MAX);
    print_node(&d, tree->top);
    if (tree->left_out)
        fprintf(to, "(and more than %d others)\n", NODES_MAX);
    apm_buf_clear(&d.margin);
}

/* Text in a quoted string of Graphviz. */
static void
print_dot_text(const char *text, FILE *to)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', to);
        fputc(*text, to);
    }
}

static void
print_dot_node(const apm_node *node, size_t up, size_t *n, FILE *to)
{
    size_t me = ++*n;
    const char *colour = !node->state                          ? NULL
                         : strcmp(node->state, "SUCCESS") == 0 ? "palegreen"
                         : strcmp(node->state, "FAILURE") == 0 ? "salmon"
                         : strcmp(node->state, "REVOKED") == 0 ? "salmon"
                                                               : "lightgrey";
    fprintf(to, "  n%zu [label=\"", me);
    print_dot_text(node->label, to);
    if (node->state) {
        fputs("\\n", to);
        print_dot_text(node->state, to);
    }
    if (node->note) {
        fputs("\\n", to);
        print_dot_text(node->note, to);
    }
    fputc('"', to);
    if (colour)
        fprintf(to, ", style=filled, fillcolor=%s", colour);
    fputs("];\n", to);
    if (up)
        fprintf(to, "  n%zu -> n%zu;\n", up, me);
    for (const apm_node *child = node->first; child; child = child->next)
        print_dot_node(child, me, n, to);
}

void
apm_tree_dot(const apm_tree *tree, FILE *to)
{
    size_t n = 0;
    fputs("digraph workflow {\n  node [shape=box];\n", to);
    print_dot_node(tree->top, 0, &n, to);
    fputs("}\n", to);
}
