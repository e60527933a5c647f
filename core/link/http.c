/* http.c - the kind of link that speaks HTTP: opening, asking the server what it can do, closing; see http.h */
#include "core/link/http_inside.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"
#include "core/base/json.h"

void
apm_http_escape(apm_buf *buf, apm_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            c == '-' || c == '_' || c == '.' || c == '~')
            apm_buf_addc(buf, (char)c);
        else
            apm_buf_addf(buf, "%%%02X", c);
    }
}

/* ---- what the server can do ---- */

static unsigned
read_abilities(apm_str body)
{
    static const struct {
        const char *name;
        unsigned bit;
    } all[] = { { "units", 1 }, { "watches", 2 }, { "chords", 4 } };
    apm_json doc, val;
    apm_json_iter it;
    apm_str key;
    unsigned bits = 0;
    if (apm_json_parse(body, &doc, NULL) != APIUM_OK ||
        apm_json_get(doc, "apium").type != APM_JSON_INT)
        return 0;
    doc = apm_json_get(doc, "abilities");
    if (doc.type != APM_JSON_ARRAY || apm_json_open(&it, doc.text, NULL) != APIUM_OK)
        return 0;
    while (apm_json_next(&it, &key, &val, NULL) > 0)
        for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
            if (val.type == APM_JSON_STRING && apm_json_key_is(val.text, all[i].name))
                bits |= all[i].bit;
    if ((bits & 3) != 3) /* the one is of no use without the other */
        return 0;
    return APM_HTTP_UNITS | (bits & 4 ? APM_HTTP_CHORDS : 0);
}

static void
on_discovered(void *arg, int status, apm_str body, const apium_error *err)
{
    http_link *link = arg;
    char text[400];
    link->discovering = false;
    if (link->closing)
        return;
    if (!status) { /* patience is over: the next unit asks anew */
        snprintf(text, sizeof(text), "%s", err->text);
        apm_link_changed(&link->base, false, text);
        apm_http_units_fail(link, err->status != APIUM_E_CLOSED, err);
        apm_http_units_send(link);
        return;
    }
    link->known = true;
    link->abilities = status == 200 ? read_abilities(body) : 0;
    for (apm_http_listener *l = link->listeners, *next; l; l = next) {
        next = l->next;
        if (l->on_known)
            l->on_known(l->arg, link->abilities);
    }
    snprintf(text, sizeof(text), "Connected to %s", link->base.shown);
    apm_link_changed(&link->base, true, text);
    apm_http_units_send(link);
}

void
apm_http_discover(http_link *link)
{
    link->discovering = true;
    apm_http_ask(
        &link->base,
        &(apm_http_asked){
            .method = "GET", .path = "", .owner = link, .done = on_discovered, .arg = link });
}

void
apm_http_listen(apm_link *base, apm_http_listener *listener)
{
    http_link *link = (http_link *)base;
    listener->next = link->listeners;
    link->listeners = listener;
    if (link->known && listener->on_known)
        listener->on_known(listener->arg, link->abilities);
}

void
apm_http_unlisten(apm_link *base, apm_http_listener *listener)
{
    http_link *link = (http_link *)base;
    for (apm_http_listener **at = &link->listeners; *at; at = &(*at)->next)
        if (*at == listener) {
            *at = listener->next;
            return;
        }
}

/* ---- the link ---- */

static bool
same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : !a && !b;
}

static bool
link_same(const apm_link *base, const apm_urls *urls)
{
    const apm_url *a = &base->urls.items[0], *b = &urls->items[0];
    return !((const http_link *)base)->closing && strcmp(a->scheme, b->scheme) == 0 &&
           strcmp(a->host, b->host) == 0 && a->port == b->port && same_text(a->user, b->user) &&
           same_text(a->password, b->password) && same_text(a->path, b->path);
}

static apium_status
link_open(apm_link *base, apium_error *err)
{
    http_link *link = (http_link *)base;
    const apm_url *url = &base->urls.items[0];
    const char *path = url->path ? url->path : "";
    const bool six = strchr(url->host, ':') != NULL;
    apm_buf root;
    if (!*url->host || base->urls.n > 1 || (url->query && *url->query))
        return apm_fail(err, APIUM_E_CONFIG, "cannot use \"%s\": %s", base->shown,
                        !*url->host        ? "there is no host in it"
                        : base->urls.n > 1 ? "one server, not a list"
                                           : "settings stand in result_backend_transport_options");
    apm_buf_init(&root, 65536);
    apm_buf_addf(&root, "%s://%s%s%s", url->scheme, six ? "[" : "", url->host, six ? "]" : "");
    if (url->port)
        apm_buf_addf(&root, ":%d", url->port);
    for (const char *p = path; *p;) { /* the slashes are the path's own */
        size_t len = strcspn(p, "/");
        apm_buf_addc(&root, '/');
        apm_http_escape(&root, (apm_str){ p, len });
        p += len + (p[len] == '/');
    }
    apm_buf_addc(&root, '/');
    link->root = apm_buf_take(&root, NULL);
    link->user = url->user;
    link->password = url->password;
    if (!link->root)
        return apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", base->shown);
    apium_status st = apm_http_open_multi(link, err);
    if (st != APIUM_OK) {
        free(link->root);
        return st;
    }
    apm_http_discover(link);
    return APIUM_OK;
}

void
apm_http_handle_closed(http_link *link)
{
    if (--link->handles || !link->closing)
        return;
    free(link->root);
    apm_link_closed(&link->base);
}

static void
link_close(apm_link *base)
{
    http_link *link = (http_link *)base;
    apium_error err;
    if (link->closing)
        return;
    link->closing = true;
    apm_http_close_multi(link);
    (void)apm_fail(&err, APIUM_E_CLOSED, "cannot use %s: it was closed", base->shown);
    apm_http_units_fail(link, true, &err);
}

static void
link_flush(apm_link *base)
{
    http_link *link = (http_link *)base;
    for (apm_http_listener *l = link->listeners, *next; l; l = next) {
        next = l->next;
        if (l->on_flush)
            l->on_flush(l->arg);
    }
    apm_http_units_send(link);
    apm_http_push(link);
}

static const char *const schemes[] = { "http", "https", NULL };

const apm_link_ops apm_http_kind = {
    .kind = "http",
    .schemes = schemes,
    .size = sizeof(http_link),
    .same = link_same,
    .open = link_open,
    .close = link_close,
    .unit_new = apm_http_unit_new,
    .unit_drop = apm_http_unit_drop,
    .commit = apm_http_unit_commit,
    .flush = link_flush,
};
