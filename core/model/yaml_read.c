/*
 * yaml_read.c - YAML to JSON, with the meaning that PyYAML's safe_load gives it: yes is true, 017
 * is fifteen and 1:30 is ninety. Dates become the objects that kombu 5.6 writes in JSON.
 */
#include "core/model/formats.h"

#include <uthash.h>
#include <yaml.h>

#include "core/base/b64.h"
#include "core/base/error.h"
#include "core/model/yaml_scalar.h"

/* Text that was given a name, as the JSON that it became. */
struct anchor {
    const char *name;
    size_t start, len; /* in the output; len 0: not complete yet */
    UT_hash_handle hh;
};

/*
 * Reading: the parser's events become JSON as they come. An alias is a copy of the JSON of its
 * anchor, so that a bomb of aliases is held by the bound on the output, and an anchor that contains
 * itself has no text yet.
 */
struct reader {
    yaml_parser_t parser;
    apm_buf out;
    apm_arena *arena;
    apium_error *err;
    struct anchor *anchors; /* a table by name; the items are in the arena */
    int depth;
    struct {
        bool map, empty, key_next;
        struct anchor *anchor;
    } open[APM_JSON_DEPTH + 1];
};

static apium_status
malformed(struct reader *r, const yaml_event_t *event, const char *why)
{
    return apm_fail(r->err, APIUM_E_DECODE, "cannot decode YAML: %s (line %zu)", why,
                    event->start_mark.line + 1);
}

static bool
is_key(const struct reader *r)
{
    return r->depth > 0 && r->open[r->depth].map && r->open[r->depth].key_next;
}

static void
begin_item(struct reader *r)
{
    if (r->depth == 0)
        return;
    if (r->open[r->depth].map && !r->open[r->depth].key_next)
        apm_buf_addz(&r->out, ": ");
    else if (!r->open[r->depth].empty)
        apm_buf_addz(&r->out, ", ");
    r->open[r->depth].empty = false;
}

static void
end_item(struct reader *r)
{
    if (r->depth > 0)
        r->open[r->depth].key_next = !r->open[r->depth].key_next;
}

/* Give the item that begins now a name, if it has one; *out is NULL otherwise. Of equal names the last
 * counts. */
static apium_status
drop_anchor(struct reader *r, const yaml_char_t *name, struct anchor **out)
{
    struct anchor *anchor, *same;

    *out = NULL;
    if (!name)
        return APIUM_OK;
    anchor = apm_arena_alloc(r->arena, sizeof *anchor);
    if (anchor)
        anchor->name = apm_arena_str(r->arena, apm_strz((const char *)name), NULL).p;
    if (!anchor || !anchor->name)
        return apm_fail(r->err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    anchor->start = r->out.len;
    HASH_FIND_STR(r->anchors, anchor->name, same);
    if (same)
        HASH_DEL(r->anchors, same);
    HASH_ADD_KEYPTR(hh, r->anchors, anchor->name, strlen(anchor->name), anchor);
    *out = anchor;
    return APIUM_OK;
}

static void
weigh_anchor(struct reader *r, struct anchor *anchor)
{
    if (anchor)
        anchor->len = r->out.len - anchor->start;
}

static void
add_number(apm_buf *buf, const apm_yaml_plain *value)
{
    if (!apm_str_is(value->digits)) {
        apm_buf_addz(buf, value->text);
        return;
    }
    apm_buf_addz(buf, value->negative ? "-" : "");
    for (size_t i = 0; i < value->digits.len; i++)
        if (value->digits.p[i] != '_')
            apm_buf_addc(buf, value->digits.p[i]);
}

static apium_status
read_binary(struct reader *r, const yaml_event_t *event, apm_str text)
{
    size_t len;
    char *bytes = apm_arena_bytes(r->arena, text.len / 4 * 3 + 4);

    if (!bytes)
        return apm_fail(r->err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    if (apm_b64_decode(text, bytes, &len, NULL) != APIUM_OK)
        return malformed(r, event, "!!binary is not base64");
    apm_json_add_bytes(&r->out, (apm_str){ bytes, len });
    return APIUM_OK;
}

/* What a scalar means by its tag, or without one by its style and look. */
static apium_status
read_meaning(struct reader *r, const yaml_event_t *event, apm_str text, apm_yaml_plain *value)
{
    static const struct {
        const char *tag;
        apm_json_type type;
    } tags[] = {
        { APM_YAML_TAG("int"), APM_JSON_INT },          { APM_YAML_TAG("float"), APM_JSON_FLOAT },
        { APM_YAML_TAG("bool"), APM_JSON_BOOL },        { APM_YAML_TAG("null"), APM_JSON_NULL },
        { APM_YAML_TAG("timestamp"), APM_JSON_OBJECT },
    };
    const char *tag = (const char *)event->data.scalar.tag;

    *value = (apm_yaml_plain){ .type = APM_JSON_STRING };
    if (!tag) {
        if (event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
            *value = apm_yaml_resolve(text);
        return APIUM_OK;
    }
    if (strcmp(tag, "!") == 0 || strcmp(tag, APM_YAML_TAG("str")) == 0)
        return APIUM_OK;
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (strcmp(tag, tags[i].tag) == 0) {
            *value = apm_yaml_resolve(text);
            return value->type == tags[i].type
                       ? APIUM_OK
                       : malformed(r, event, "a value is not of the type that its tag says");
        }
    return malformed(r, event, "a tag that safe_load does not know");
}

static apium_status
read_scalar(struct reader *r, const yaml_event_t *event)
{
    apm_str text = { (const char *)event->data.scalar.value, event->data.scalar.length };
    const char *tag = (const char *)event->data.scalar.tag;
    bool key = is_key(r), binary = tag && strcmp(tag, APM_YAML_TAG("binary")) == 0;
    struct anchor *anchor;
    apm_yaml_plain value;
    apium_status st;

    if (key && apm_str_eqz(text, "<<") && event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        return malformed(r, event, "merge keys (<<) are not supported");
    if (key && binary)
        return malformed(r, event, "binary data is the key of a mapping");
    if (!binary && (st = read_meaning(r, event, text, &value)) != APIUM_OK)
        return st;
    begin_item(r);
    if ((st = drop_anchor(r, event->data.scalar.anchor, &anchor)) != APIUM_OK)
        return st;
    if (binary) {
        if ((st = read_binary(r, event, text)) != APIUM_OK)
            return st;
    } else if (value.type == APM_JSON_STRING || (value.type == APM_JSON_OBJECT && key)) {
        apm_json_add_string(&r->out, text);
    } else {
        /*
         * A key of an object has to be a string in JSON: it gets quotes, as Python's json gives it.
         */
        apm_buf_addz(&r->out, key ? "\"" : "");
        add_number(&r->out, &value);
        apm_buf_addz(&r->out, key ? "\"" : "");
    }
    weigh_anchor(r, anchor);
    end_item(r);
    return APIUM_OK;
}

static apium_status
read_alias(struct reader *r, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    struct anchor *anchor;

    HASH_FIND_STR(r->anchors, name, anchor);
    if (!anchor)
        return malformed(r, event, "an alias of something that was not named");
    if (anchor->len == 0)
        return malformed(r, event, "something contains itself");
    size_t start = anchor->start, len = anchor->len;
    if (r->out.failed)
        return APIUM_OK; /* reported by the loop */
    char first = r->out.p[start];
    bool quotes = is_key(r) && first != '"';
    if (is_key(r) && (first == '[' || first == '{'))
        return malformed(r, event, "a list or mapping is the key of a mapping");
    begin_item(r);
    apm_buf_addz(&r->out, quotes ? "\"" : "");
    char *room = apm_buf_reserve(&r->out, len);
    if (room) {
        memcpy(room, r->out.p + start, len); /* reserve may have moved the text */
        r->out.len += len;
    }
    apm_buf_addz(&r->out, quotes ? "\"" : "");
    end_item(r);
    return APIUM_OK;
}

static apium_status
read_open(struct reader *r, const yaml_event_t *event, bool map)
{
    const char *tag =
        (const char *)(map ? event->data.mapping_start.tag : event->data.sequence_start.tag);
    const yaml_char_t *name =
        map ? event->data.mapping_start.anchor : event->data.sequence_start.anchor;
    struct anchor *anchor;
    apium_status st;

    if (tag && strcmp(tag, "!") != 0 &&
        strcmp(tag, map ? APM_YAML_TAG("map") : APM_YAML_TAG("seq")) != 0)
        return malformed(r, event, "a tag that safe_load does not know");
    if (is_key(r))
        return malformed(r, event, "a list or mapping is the key of a mapping");
    if (r->depth == APM_JSON_DEPTH)
        return apm_fail(r->err, APIUM_E_TOOBIG, "cannot decode YAML: nested deeper than %d",
                        APM_JSON_DEPTH);
    begin_item(r);
    if ((st = drop_anchor(r, name, &anchor)) != APIUM_OK)
        return st;
    apm_buf_addc(&r->out, map ? '{' : '[');
    r->depth++;
    r->open[r->depth].map = r->open[r->depth].key_next = map;
    r->open[r->depth].empty = true;
    r->open[r->depth].anchor = anchor;
    return APIUM_OK;
}

static apium_status
read_event(struct reader *r, const yaml_event_t *event, int *documents)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return ++*documents > 1 ? malformed(r, event, "more than one document") : APIUM_OK;
    case YAML_SCALAR_EVENT:
        return read_scalar(r, event);
    case YAML_ALIAS_EVENT:
        return read_alias(r, event);
    case YAML_SEQUENCE_START_EVENT:
        return read_open(r, event, false);
    case YAML_MAPPING_START_EVENT:
        return read_open(r, event, true);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        apm_buf_addc(&r->out, r->open[r->depth].map ? '}' : ']');
        weigh_anchor(r, r->open[r->depth].anchor);
        r->depth--;
        end_item(r);
        return APIUM_OK;
    default:
        return APIUM_OK;
    }
}

static apium_status
parser_failed(const yaml_parser_t *parser, apium_error *err)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return apm_fail(err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    return apm_fail(err, APIUM_E_DECODE, "cannot decode YAML: %s (line %zu)",
                    parser->problem ? parser->problem : "malformed", parser->problem_mark.line + 1);
}

apium_status
apm_yaml_to_json(apm_str bytes, apm_arena *arena, apm_str *json, apium_error *err)
{
    struct reader r = { .arena = arena, .err = err };
    yaml_event_t event;
    apium_status st = APIUM_OK;
    int documents = 0;
    bool done = false;

    if (!yaml_parser_initialize(&r.parser))
        return apm_fail(err, APIUM_E_NOMEM, "cannot decode YAML: out of memory");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)bytes.p, bytes.len);
    apm_buf_init(&r.out, APM_BUF_MAX);
    while (st == APIUM_OK && !done) {
        if (!yaml_parser_parse(&r.parser, &event)) {
            st = parser_failed(&r.parser, err);
            break;
        }
        done = event.type == YAML_STREAM_END_EVENT;
        st = read_event(&r, &event, &documents);
        yaml_event_delete(&event);
        if (st == APIUM_OK && r.out.failed)
            st = apm_fail(err, APIUM_E_TOOBIG,
                          "cannot decode YAML: it unfolds to more than %zu bytes", r.out.max);
    }
    if (documents == 0)
        apm_buf_addz(&r.out, "null");
    yaml_parser_delete(&r.parser);
    HASH_CLEAR(hh, r.anchors);
    if (st != APIUM_OK) {
        apm_buf_clear(&r.out);
        return st;
    }
    return apm_format_keep(&r.out, arena, json, "YAML", err);
}
