/* http.c - the kind of link that speaks HTTP: opening, asking the server what it can do, closing; see http.h */
#include <stdio.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/json.h"
#include "core/link/http_dialect.h"

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

void
apm_http_escape_path(apm_buf *buf, apm_str text)
{
    while (text.len > 0) {
        const char *slash = memchr(text.p, '/', text.len);
        const size_t len = slash ? (size_t)(slash - text.p) : text.len;
        apm_http_escape(buf, (apm_str){ text.p, len });
        if (slash)
            apm_buf_addc(buf, '/');
        text.p += len + (slash != NULL);
        text.len -= len + (slash != NULL);
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
on_known(http_link *link, unsigned abilities)
{
    char text[400];
    link->known = true;
    link->abilities = abilities;
    for (apm_http_listener *l = link->listeners, *next; l; l = next) {
        next = l->next;
        if (l->on_known)
            l->on_known(l->arg, link->abilities);
    }
    snprintf(text, sizeof(text), "Connected to %s", link->base.shown);
    apm_link_changed(&link->base, true, text);
    apm_http_units_send(link);
}

#define REFUSED_MS 5000

/* Patience is over, or the answer is no use: it is asked again later, for whoever waits then, and by the next unit. */
static void
on_unknown(http_link *link, const apium_error *err)
{
    if (err->status != APIUM_E_CLOSED) /* that it is away was said */
        apm_link_changed(&link->base, false, err->text);
    link->discover_ms = apm_clock_ms() + REFUSED_MS;
    apm_http_units_fail(link, err->status != APIUM_E_CLOSED, err);
    apm_http_units_send(link);
}

static void
on_discovered(void *arg, int status, apm_str body, const apium_error *err)
{
    http_link *link = arg;
    link->discovering = false;
    if (link->closing)
        return;
    if (status)
        on_known(link, status == 200 ? read_abilities(body) : 0);
    else
        on_unknown(link, err);
}

/* What is wrong with the settings or the server a worker says again and again, until it has been seen to. */
static void
on_prepared(void *arg, apm_str doc, const apium_error *err)
{
    http_link *link = arg;
    (void)doc;
    link->discovering = false;
    if (link->closing)
        return;
    if (!err) {
        on_known(link, 0);
    } else if (apm_links_patience_ms(link->base.set) >= 0 || err->status == APIUM_E_CLOSED) {
        on_unknown(link, err);
    } else {
        apm_http_away(link, err->text, REFUSED_MS);
        apm_http_discover(link);
    }
}

/* A plain server may well keep its folders to itself, and let us at what is in them. */
static bool
is_plain(int status, apm_str body)
{
    (void)body;
    return status == 403;
}

void
apm_http_discover(http_link *link)
{
    if (link->known || link->discovering)
        return;
    link->discovering = true;
    if (link->dialect->asks_abilities)
        apm_http_ask(&link->base, &(apm_http_asked){ .method = "GET",
                                                     .path = "",
                                                     .is_fate = is_plain,
                                                     .owner = link,
                                                     .done = on_discovered,
                                                     .arg = link });
    else
        apm_http_do(&link->base, &(apm_http_task){ .verb = APM_HTTP_PREPARE,
                                                   .key = APM_STR("celery-task-meta-apium"),
                                                   .owner = link,
                                                   .done = on_prepared,
                                                   .arg = link });
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

apium_status
apm_http_root(http_link *link, bool tls, const char *host, int port, const char *path,
              apium_error *err)
{
    const bool six = strchr(host, ':') != NULL;
    apm_buf root;
    apm_buf_init(&root, 65536);
    apm_buf_addf(&root, "http%s://%s%s%s", tls ? "s" : "", six ? "[" : "", host, six ? "]" : "");
    if (port)
        apm_buf_addf(&root, ":%d", port);
    apm_buf_addc(&root, '/');
    apm_http_escape_path(&root, apm_strz(path));
    if (*path && path[strlen(path) - 1] != '/')
        apm_buf_addc(&root, '/');
    link->root = apm_buf_take(&root, NULL);
    return link->root ? APIUM_OK
                      : apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory",
                                 link->base.shown);
}

static const http_dialect *
dialect_of(const char *scheme)
{
    static const http_dialect *const all[] = { &apm_http_couchdb, &apm_http_consul,
                                               &apm_http_elasticsearch, &apm_http_s3 };
    const size_t len = strcspn(scheme, "+");
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (strlen(all[i]->scheme) == len && strncmp(all[i]->scheme, scheme, len) == 0)
            return all[i];
    return &apm_http_plain;
}

/* Why the URL cannot be used; NULL it can. */
static const char *
wrong_with(const http_link *link, const apm_url *url)
{
    const bool preset = link->dialect != &apm_http_plain;
    if (link->base.urls.n > 1)
        return "one server, not a list";
    if (!*url->host && !preset)
        return "there is no host in it";
    /* Celery's one: connections are kept here anyway. */
    if (url->query && *url->query &&
        !(link->dialect == &apm_http_consul && strncmp(url->query, "one_client=", 11) == 0 &&
          !strchr(url->query, '&')))
        return "settings stand in result_backend_transport_options";
    return NULL;
}

static void
free_texts(http_link *link)
{
    free(link->root);
    free(link->signs);
    free(link->header);
}

static apium_status
link_open(apm_link *base, apium_error *err)
{
    http_link *link = (http_link *)base;
    const apm_settings *settings = apm_links_settings(base->set);
    apm_url url = base->urls.items[0];
    link->dialect = dialect_of(url.scheme);
    const char *wrong = wrong_with(link, &url);
    if (wrong)
        return apm_fail(err, APIUM_E_CONFIG, "cannot use \"%s\": %s", base->shown, wrong);
    if (!*url.host && link->dialect != &apm_http_s3)
        url.host = "localhost";
    if (!url.port)
        url.port = link->dialect->port;
    link->user = url.user;
    link->password = url.password;
    link->place = url.path && *url.path ? url.path : link->dialect->place;
    link->prefix = link->dialect == &apm_http_plain || !settings->result_keyprefix
                       ? ""
                       : settings->result_keyprefix;
    apium_status st = link->dialect->open(link, &url, err);
    if (st == APIUM_OK)
        st = apm_http_open_multi(link, err);
    if (st != APIUM_OK) {
        free_texts(link);
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
    free_texts(link);
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

static const char *const schemes[] = { "http", "https", APM_HTTP_PRESETS, NULL };

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
