/* canvas.c - signatures as trees: reading, changing, writing; see canvas.h */
#include "workflows/canvas_inner.h"

#include "core/base/error.h"

/* A body is repeated in every member of its header, as Celery writes it; beyond so many levels, where that would grow without
 * bound, only `body` itself is written: readers rebuild the rest from it. */
#define MAX_COPIES 2

/* ---- options ---- */

static const struct {
    const char *name;
    apm_opt which;
} known[] = {
    { "task_id", APM_OPT_TASK_ID },
    { "reply_to", APM_OPT_REPLY_TO },
    { "root_id", APM_OPT_ROOT_ID },
    { "parent_id", APM_OPT_PARENT_ID },
    { "group_id", APM_OPT_GROUP_ID },
    { "group_index", APM_OPT_GROUP_INDEX },
    { "chord", APM_OPT_CHORD },
    { "chain", APM_OPT_CHAIN },
    { "link", APM_OPT_LINK },
    { "link_error", APM_OPT_LINK_ERROR },
    { "add_to_parent", APM_OPT_ADD_TO_PARENT },
    { "stamped_headers", APM_OPT_STAMPED_HEADERS },
};
#define KNOWN (sizeof(known) / sizeof(known[0]))

static apm_opt
which_option(apm_str key)
{
    for (size_t i = 0; i < KNOWN; i++)
        if (apm_json_key_is(key, known[i].name))
            return known[i].which;
    return APM_OPT_OTHER;
}

static apm_str
key_of(apm_opt which)
{
    static const char *const keys[] = {
        [APM_OPT_TASK_ID] = "\"task_id\"",
        [APM_OPT_REPLY_TO] = "\"reply_to\"",
        [APM_OPT_ROOT_ID] = "\"root_id\"",
        [APM_OPT_PARENT_ID] = "\"parent_id\"",
        [APM_OPT_GROUP_ID] = "\"group_id\"",
        [APM_OPT_GROUP_INDEX] = "\"group_index\"",
        [APM_OPT_CHORD] = "\"chord\"",
        [APM_OPT_CHAIN] = "\"chain\"",
        [APM_OPT_LINK] = "\"link\"",
        [APM_OPT_LINK_ERROR] = "\"link_error\"",
        [APM_OPT_ADD_TO_PARENT] = "\"add_to_parent\"",
        [APM_OPT_STAMPED_HEADERS] = "\"stamped_headers\"",
    };
    return apm_strz(keys[which]);
}

static apm_option *
find_option(const apm_options *options, apm_opt which, apm_str key)
{
    for (size_t i = 0; i < options->n; i++) {
        apm_option *o = &options->items[i];
        if (o->which == which && (which != APM_OPT_OTHER || apm_str_eq(o->key, key)))
            return o;
    }
    return NULL;
}

bool
apm_canvas_put(apm_arena *arena, apm_options *options, const apm_option *option)
{
    apm_option *o = find_option(options, option->which, option->key);
    if (!o) {
        if (options->n == options->cap) {
            size_t cap = options->cap ? 2 * options->cap : 8;
            apm_option *items = apm_arena_alloc(arena, cap * sizeof(*items));
            if (!items)
                return false;
            if (options->n)
                memcpy(items, options->items, options->n * sizeof(*items));
            options->items = items;
            options->cap = cap;
        }
        o = &options->items[options->n++];
    }
    *o = *option;
    return true;
}

const apm_option *
apm_canvas_opt(const apm_options *options, apm_opt which)
{
    const apm_option *o = find_option(options, which, APM_STR_NONE);
    return o && (o->sig || !apm_str_eqz(o->raw, "null")) ? o : NULL;
}

bool
apm_canvas_set(apm_arena *arena, apm_options *options, apm_opt which, apm_str raw)
{
    const apm_option option = { .which = which, .key = key_of(which), .raw = raw };
    return apm_str_is(raw) && apm_canvas_put(arena, options, &option);
}

static apm_str
quoted(apm_arena *arena, apm_str text)
{
    apm_buf buf;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_json_add_string(&buf, text);
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

bool
apm_canvas_set_text(apm_arena *arena, apm_options *options, apm_opt which, apm_str text)
{
    return apm_canvas_set(arena, options, which, quoted(arena, text));
}

bool
apm_canvas_set_named(apm_arena *arena, apm_options *options, const char *name, apm_str raw)
{
    apm_str key = quoted(arena, apm_strz(name));
    const apm_option option = { .which = which_option(key), .key = key, .raw = raw };
    return apm_str_is(key) && apm_str_is(raw) && apm_canvas_put(arena, options, &option);
}

void
apm_canvas_unset(apm_options *options, const char *name)
{
    size_t kept = 0;
    for (size_t i = 0; i < options->n; i++)
        if (!apm_json_key_is(options->items[i].key, name))
            options->items[kept++] = options->items[i];
    options->n = kept;
}

apm_str
apm_canvas_opt_text(apm_arena *arena, const apm_options *options, apm_opt which)
{
    const apm_option *o = apm_canvas_opt(options, which);
    apm_str text;
    if (!o || o->sig || !o->raw.len || o->raw.p[0] != '"' ||
        apm_json_string((apm_json){ APM_JSON_STRING, o->raw }, "an option", arena, &text, NULL) !=
            APIUM_OK)
        return APM_STR_NONE;
    return text;
}

const apm_option *
apm_canvas_rest(const apm_options *options)
{
    const apm_option *o = apm_canvas_opt(options, APM_OPT_CHAIN);
    return o && !o->sig && apm_json_count((apm_json){ APM_JSON_ARRAY, o->raw }) ? o : NULL;
}

bool
apm_canvas_copy_options(apm_arena *arena, apm_options *to, const apm_options *from)
{
    *to = (apm_options){ 0 };
    if (!from->n)
        return true;
    to->items = apm_arena_alloc(arena, (from->n + 4) * sizeof(*to->items));
    if (!to->items)
        return false;
    memcpy(to->items, from->items, from->n * sizeof(*to->items));
    to->n = from->n;
    to->cap = from->n + 4;
    return true;
}

void
apm_canvas_drop_option(apm_options *options, apm_opt which)
{
    apm_option *o = find_option(options, which, APM_STR_NONE);
    if (!o)
        return;
    size_t at = (size_t)(o - options->items);
    memmove(o, o + 1, (options->n - at - 1) * sizeof(*o));
    options->n--;
}

/* ---- reading ---- */

static apium_status
read_sig(apm_json text, apm_arena *arena, int depth, apm_canvas **out, apium_error *err);

static bool
given(apm_json val)
{
    return val.type != APM_JSON_NONE && val.type != APM_JSON_NULL;
}

static int
shown_len(apm_str text)
{
    return (int)(text.len < 40 ? text.len : 40);
}

static apium_status
read_list(apm_json list, const char *of, const char *what, apm_arena *arena, int depth,
          apm_canvas *sig, apium_error *err)
{
    if (list.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a %s: its %s are no list", of, what);
    size_t n = apm_json_count(list);
    sig->tasks = apm_arena_alloc(arena, (n + 1) * sizeof(apm_canvas *));
    if (!sig->tasks)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read a %s: out of memory", of);
    apm_json_iter it;
    apm_str key;
    apm_json val;
    int more;
    apium_status st = apm_json_open(&it, list.text, err);
    while (st == APIUM_OK && (more = apm_json_next(&it, &key, &val, err)) != 0)
        st = more < 0 ? APIUM_E_DECODE
                      : read_sig(val, arena, depth + 1, &sig->tasks[sig->n_tasks++], err);
    return st;
}

/* The header of a chord: a list, or a group (or chain) whose members are it, or one signature. The ids are in the members and the
 * chord, so nothing else of a group is needed. */
static apium_status
read_header(apm_json header, apm_arena *arena, int depth, apm_canvas *sig, apium_error *err)
{
    if (header.type == APM_JSON_ARRAY)
        return read_list(header, "chord", "header's tasks", arena, depth, sig, err);
    if (header.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a chord: its header is no list");
    apm_canvas *group;
    apium_status st = read_sig(header, arena, depth + 1, &group, err);
    if (st != APIUM_OK)
        return st;
    if (group->kind == APM_SIG_GROUP || group->kind == APM_SIG_CHAIN) {
        sig->tasks = group->tasks;
        sig->n_tasks = group->n_tasks;
        return APIUM_OK;
    }
    sig->tasks = apm_arena_alloc(arena, sizeof(apm_canvas *));
    if (!sig->tasks)
        return apm_fail(err, APIUM_E_NOMEM, "cannot read a chord: out of memory");
    sig->tasks[sig->n_tasks++] = group;
    return APIUM_OK;
}

static apium_status
read_options(apm_json options, apm_arena *arena, apm_canvas *sig, apium_error *err)
{
    apm_json_iter it;
    apm_json val;
    apm_option option = { 0 };
    int more;
    apium_status st = apm_json_open(&it, options.text, err);
    if (st != APIUM_OK)
        return st;
    while ((more = apm_json_next(&it, &option.key, &val, err)) > 0) {
        option.raw = val.text;
        option.which = which_option(option.key);
        if (!apm_canvas_put(arena, &sig->options, &option))
            return apm_fail(err, APIUM_E_NOMEM, "cannot read a signature: out of memory");
    }
    return more < 0 ? APIUM_E_DECODE : APIUM_OK;
}

static apium_status
read_composite(apm_json kwargs, apm_arena *arena, int depth, apm_canvas *sig, apium_error *err)
{
    static const char *const names[] = { "task", "chain", "group", "chord" };
    if (kwargs.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a %s: it has no tasks", names[sig->kind]);
    if (sig->kind != APM_SIG_CHORD)
        return read_list(apm_json_get(kwargs, "tasks"), names[sig->kind], "tasks", arena, depth,
                         sig, err);
    apm_json body = apm_json_get(kwargs, "body"), inner = apm_json_get(kwargs, "kwargs");
    if (!given(body))
        return apm_fail(err, APIUM_E_DECODE, "cannot read a chord: it has no body");
    if (inner.type == APM_JSON_OBJECT)
        sig->kwargs = inner.text;
    apium_status st = read_sig(body, arena, depth + 1, &sig->body, err);
    return st == APIUM_OK ? read_header(apm_json_get(kwargs, "header"), arena, depth, sig, err)
                          : st;
}

static bool
is_word(apm_json val, const char *word)
{
    return val.type == APM_JSON_STRING && apm_json_key_is(val.text, word);
}

static apium_status
read_sig(apm_json text, apm_arena *arena, int depth, apm_canvas **out, apium_error *err)
{
    if (text.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a signature: not an object but %.*s",
                        shown_len(text.text), text.text.p ? text.text.p : "nothing");
    if (depth > APM_CANVAS_DEPTH)
        return apm_fail(err, APIUM_E_TOOBIG, "cannot read a signature: nested deeper than %d",
                        APM_CANVAS_DEPTH);
    apm_canvas *sig = apm_arena_alloc(arena, sizeof(*sig));
    apm_json_iter it;
    apm_json val, task = { 0 }, args = { 0 }, kwargs = { 0 }, options = { 0 }, type = { 0 };
    apm_str key;
    apm_buf other;
    int more;
    apium_status st = sig ? apm_json_open(&it, text.text, err)
                          : apm_fail(err, APIUM_E_NOMEM, "cannot read a signature: out of memory");
    if (st != APIUM_OK)
        return st;
    apm_buf_init(&other, APM_BUF_MAX);
    while ((more = apm_json_next(&it, &key, &val, err)) > 0) {
        if (apm_json_key_is(key, "task"))
            task = val;
        else if (apm_json_key_is(key, "args"))
            args = val;
        else if (apm_json_key_is(key, "kwargs"))
            kwargs = val;
        else if (apm_json_key_is(key, "options"))
            options = val;
        else if (apm_json_key_is(key, "subtask_type"))
            type = val;
        else if (apm_json_key_is(key, "immutable"))
            sig->immutable = apm_str_eqz(val.text, "true");
        else {
            if (other.len)
                apm_buf_addz(&other, ", ");
            apm_buf_adds(&other, key);
            apm_buf_addz(&other, ": ");
            apm_buf_adds(&other, val.text);
        }
    }
    if (other.len)
        sig->other = apm_arena_str(arena, apm_buf_str(&other), NULL);
    apm_buf_clear(&other);
    if (more < 0)
        return APIUM_E_DECODE;
    if (task.type != APM_JSON_STRING)
        return apm_fail(err, APIUM_E_DECODE, "cannot read a signature: it has no \"task\"");
    if ((st = apm_json_string(task, "task", arena, &sig->task, err)) != APIUM_OK)
        return st;
    if (given(args) && args.type != APM_JSON_ARRAY)
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot read the signature of %.*s: its args are no array",
                        APM_STR_ARG(sig->task));
    if (given(kwargs) && kwargs.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot read the signature of %.*s: its kwargs are no object",
                        APM_STR_ARG(sig->task));
    if (given(options) && options.type != APM_JSON_OBJECT)
        return apm_fail(err, APIUM_E_DECODE,
                        "cannot read the signature of %.*s: its options are no object",
                        APM_STR_ARG(sig->task));
    if (given(args))
        sig->args = args.text;
    if (given(options) && (st = read_options(options, arena, sig, err)) != APIUM_OK)
        return st;
    sig->kind = is_word(type, "chain")   ? APM_SIG_CHAIN
                : is_word(type, "group") ? APM_SIG_GROUP
                : is_word(type, "chord") ? APM_SIG_CHORD
                                         : APM_SIG_TASK;
    if (sig->kind != APM_SIG_TASK) {
        if ((st = read_composite(kwargs, arena, depth, sig, err)) != APIUM_OK)
            return st;
    } else {
        sig->kwargs = given(kwargs) ? kwargs.text : APM_STR_NONE;
        sig->subtask_type = given(type) ? type.text : APM_STR_NONE;
    }
    *out = sig;
    return APIUM_OK;
}

apium_status
apm_canvas_read(apm_json text, apm_arena *arena, apm_canvas **out, apium_error *err)
{
    return read_sig(text, arena, 0, out, err);
}

apm_canvas *
apm_canvas_new(apm_arena *arena, apm_sig_kind kind, const char *task)
{
    apm_canvas *sig = apm_arena_alloc(arena, sizeof(*sig));
    if (sig)
        *sig = (apm_canvas){ .kind = kind, .task = apm_strz(task) };
    return sig;
}

/* ---- writing ---- */

/* `bare`: without the chord it is a part of, which whoever reads it puts back. */
static void write_sig(apm_buf *buf, const apm_canvas *sig, int copies, bool bare);

static void
comma(apm_buf *buf, bool *first)
{
    if (!*first)
        apm_buf_addz(buf, ", ");
    *first = false;
}

static void
write_options(apm_buf *buf, const apm_options *options, int copies, bool bare)
{
    bool first = true;
    apm_buf_addc(buf, '{');
    for (size_t i = 0; i < options->n; i++) {
        const apm_option *o = &options->items[i];
        if (bare && o->which == APM_OPT_CHORD)
            continue;
        comma(buf, &first);
        apm_buf_adds(buf, o->key);
        apm_buf_addz(buf, ": ");
        if (o->sig)
            write_sig(buf, o->sig, copies, false);
        else
            apm_buf_adds(buf, o->raw);
    }
    apm_buf_addc(buf, '}');
}

static void
write_tasks(apm_buf *buf, const apm_canvas *sig, int copies, bool bare)
{
    apm_buf_addc(buf, '[');
    for (size_t i = 0; i < sig->n_tasks; i++) {
        if (i)
            apm_buf_addz(buf, ", ");
        write_sig(buf, sig->tasks[i], copies, bare);
    }
    apm_buf_addc(buf, ']');
}

static void
write_chord(apm_buf *buf, const apm_canvas *sig, int copies)
{
    const apm_option *id = apm_canvas_opt(&sig->options, APM_OPT_TASK_ID);
    bool bare = copies <= 0;
    apm_buf_addz(buf, "{\"kwargs\": ");
    apm_buf_adds(buf, apm_str_is(sig->kwargs) ? sig->kwargs : APM_STR("{}"));
    if (id) {
        apm_buf_addz(
            buf,
            ", \"header\": {\"task\": \"celery.group\", \"args\": [], \"kwargs\": {\"tasks\": ");
        write_tasks(buf, sig, copies - 1, bare);
        apm_buf_addz(buf, "}, \"options\": {\"task_id\": ");
        apm_buf_adds(buf, id->raw);
        if (!bare) {
            apm_buf_addz(buf, ", \"chord\": ");
            write_sig(buf, sig->body, copies - 1, false);
        }
        apm_buf_addz(buf, ", \"root_id\": null, \"parent_id\": null}, \"subtask_type\": \"group\", "
                          "\"immutable\": false}, \"body\": ");
    } else {
        apm_buf_addz(buf, ", \"header\": ");
        write_tasks(buf, sig, copies - 1, bare);
        apm_buf_addz(buf, ", \"body\": ");
    }
    write_sig(buf, sig->body, copies - 1, false);
    apm_buf_addc(buf, '}');
}

static void
write_sig(apm_buf *buf, const apm_canvas *sig, int copies, bool bare)
{
    static const char *const types[] = { "null", "\"chain\"", "\"group\"", "\"chord\"" };
    if (apm_str_is(sig->json)) {
        apm_buf_adds(buf, sig->json);
        return;
    }
    apm_buf_addz(buf, "{\"task\": ");
    apm_json_add_string(buf, sig->task);
    apm_buf_addz(buf, ", \"args\": ");
    apm_buf_adds(buf, apm_str_is(sig->args) ? sig->args : APM_STR("[]"));
    apm_buf_addz(buf, ", \"kwargs\": ");
    if (sig->kind == APM_SIG_TASK) {
        apm_buf_adds(buf, apm_str_is(sig->kwargs) ? sig->kwargs : APM_STR("{}"));
    } else if (sig->kind == APM_SIG_CHORD) {
        write_chord(buf, sig, copies);
    } else {
        apm_buf_addz(buf, "{\"tasks\": ");
        write_tasks(buf, sig, copies, false);
        apm_buf_addc(buf, '}');
    }
    apm_buf_addz(buf, ", \"options\": ");
    write_options(buf, &sig->options, copies, bare);
    apm_buf_addz(buf, ", \"subtask_type\": ");
    if (sig->kind == APM_SIG_TASK && apm_str_is(sig->subtask_type))
        apm_buf_adds(buf, sig->subtask_type);
    else
        apm_buf_addz(buf, types[sig->kind]);
    apm_buf_addz(buf, sig->immutable ? ", \"immutable\": true" : ", \"immutable\": false");
    if (apm_str_is(sig->other)) {
        apm_buf_addz(buf, ", ");
        apm_buf_adds(buf, sig->other);
    }
    apm_buf_addc(buf, '}');
}

void
apm_canvas_write(apm_buf *buf, const apm_canvas *sig)
{
    write_sig(buf, sig, MAX_COPIES, false);
}

/* ---- changing ---- */

/* One array out of two, as text: nothing of either is printed again. Space inside does not matter. */
apm_str
apm_canvas_concat(apm_arena *arena, apm_str a, apm_str b)
{
    if (!apm_str_is(a) || apm_json_at((apm_json){ APM_JSON_ARRAY, a }, 0).type == APM_JSON_NONE)
        return apm_str_is(b) ? b : APM_STR("[]");
    if (!apm_str_is(b) || apm_json_at((apm_json){ APM_JSON_ARRAY, b }, 0).type == APM_JSON_NONE)
        return a;
    char *p = apm_arena_bytes(arena, a.len + b.len + 1);
    if (!p)
        return APM_STR_NONE;
    memcpy(p, a.p, a.len - 1);
    p[a.len - 1] = ',';
    p[a.len] = ' ';
    memcpy(p + a.len + 1, b.p + 1, b.len - 1);
    return (apm_str){ p, a.len + b.len };
}

bool
apm_canvas_prepend(apm_arena *arena, apm_canvas *sig, apm_str array)
{
    if (sig->immutable || !apm_str_is(array))
        return true;
    apm_str args = apm_canvas_concat(arena, array, sig->args);
    if (!apm_str_is(args))
        return false;
    sig->args = args;
    sig->json = APM_STR_NONE;
    return true;
}

/* Celery's append_to_list_option: once, and one signature without a list becomes a list. */
static bool
append_to_list(apm_arena *arena, apm_canvas *to, apm_opt which, apm_str sig)
{
    const apm_option *o = apm_canvas_opt(&to->options, which);
    apm_str list = APM_STR("[]");
    if (o && o->raw.p[0] == '[') {
        list = o->raw;
        apm_json_iter it;
        apm_str key;
        apm_json val;
        if (apm_json_open(&it, list, NULL) == APIUM_OK)
            while (apm_json_next(&it, &key, &val, NULL) > 0)
                if (val.text.len == sig.len && apm_str_eq(val.text, sig))
                    return true;
    } else if (o) {
        list = apm_strz(apm_arena_printf(arena, "[%.*s]", APM_STR_ARG(o->raw)));
    }
    apm_str one = apm_strz(apm_arena_printf(arena, "[%.*s]", APM_STR_ARG(sig)));
    to->json = APM_STR_NONE;
    return apm_str_is(list) && apm_str_is(one) &&
           apm_canvas_set(arena, &to->options, which, apm_canvas_concat(arena, list, one));
}

/* Celery's sig.clone().set(immutable=True). */
static apm_str
made_immutable(apm_arena *arena, apm_str sig)
{
    apm_canvas *tree;
    apm_buf buf;
    if (apm_canvas_read((apm_json){ APM_JSON_OBJECT, sig }, arena, &tree, NULL) != APIUM_OK)
        return sig;
    tree->immutable = true;
    apm_buf_init(&buf, APM_BUF_MAX);
    apm_canvas_write(&buf, tree);
    apm_str out = buf.failed ? APM_STR_NONE : apm_arena_str(arena, apm_buf_str(&buf), NULL);
    apm_buf_clear(&buf);
    return out;
}

bool
apm_canvas_link(apm_arena *arena, apm_canvas *to, apm_str sig)
{
    to->json = APM_STR_NONE;
    if (to->kind == APM_SIG_CHORD)
        return apm_canvas_link(arena, to->body, sig);
    if (to->kind == APM_SIG_GROUP) {
        apm_str once = made_immutable(arena, sig);
        return !to->n_tasks || (apm_str_is(once) && apm_canvas_link(arena, to->tasks[0], once));
    }
    return append_to_list(arena, to, APM_OPT_LINK, sig);
}

bool
apm_canvas_link_error(apm_arena *arena, apm_canvas *to, apm_str sig)
{
    to->json = APM_STR_NONE;
    if (to->kind == APM_SIG_CHORD) {
        for (size_t i = 0; i < to->n_tasks; i++)
            if (to->tasks[i]->kind == APM_SIG_CHORD &&
                !apm_canvas_link_error(arena, to->tasks[i], sig))
                return false;
        return apm_canvas_link_error(arena, to->body, sig);
    }
    if (to->kind == APM_SIG_GROUP) {
        for (size_t i = 0; i < to->n_tasks; i++)
            if (!apm_canvas_link_error(arena, to->tasks[i], sig))
                return false;
        return true;
    }
    return append_to_list(arena, to, APM_OPT_LINK_ERROR, sig);
}
