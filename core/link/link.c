/* link.c - the set of links, units, watchers; see link.h. What a kind does is in its own file. */
#include "core/link/link.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/ids.h"

struct apm_links {
    uv_loop_t *loop;
    apm_settings *settings;
    int64_t patience_ms;
    apm_link *links;
    bool closing;
};

apm_links *
apm_links_new(uv_loop_t *loop, apm_settings *settings, int64_t patience_ms)
{
    apm_links *set = calloc(1, sizeof(*set));

    if (set)
        *set = (apm_links){ .loop = loop, .settings = settings, .patience_ms = patience_ms };
    return set;
}

void
apm_links_free(apm_links *set)
{
    if (!set)
        return;
    set->closing = true;
    if (!set->links) {
        free(set);
        return;
    }
    /* A kind may close at once, which unlinks it: walk by a saved next. The set goes with its last link. */
    for (apm_link *link = set->links, *next; link; link = next) {
        next = link->next;
        link->ops->close(link);
    }
}

uv_loop_t *
apm_links_loop(const apm_links *set)
{
    return set->loop;
}

apm_settings *
apm_links_settings(const apm_links *set)
{
    return set->settings;
}

int64_t
apm_links_patience_ms(const apm_links *set)
{
    return set->patience_ms;
}

void
apm_links_flush(apm_links *set)
{
    for (apm_link *link = set->links; link; link = link->next)
        if (link->ops->flush)
            link->ops->flush(link);
}

static const apm_link_ops *
find_kind(const char *scheme)
{
    for (const apm_link_ops *const *kind = apm_link_kinds; *kind; kind++)
        for (const char *const *s = (*kind)->schemes; *s; s++)
            if (strcmp(*s, scheme) == 0)
                return *kind;
    return NULL;
}

apium_status
apm_link_get(apm_links *set, const char *url, apm_link **out, apium_error *err)
{
    apm_urls urls;
    apium_status st = apm_urls_parse(&urls, url, err);
    if (st != APIUM_OK)
        return st;

    char shown[sizeof(((apm_link *)0)->shown)];
    apm_url_mask(url, shown, sizeof(shown));
    const apm_link_ops *kind = find_kind(urls.items[0].scheme);
    if (!kind) {
        st = apm_fail(err, APIUM_E_UNSUPPORTED,
                      "cannot use \"%s\": no adapter for the scheme \"%s\" in this build", shown,
                      urls.items[0].scheme);
        goto out;
    }
    for (apm_link *link = set->links; link; link = link->next) {
        if (link->ops == kind && kind->same(link, &urls)) {
            link->refs++;
            *out = link;
            goto out;
        }
    }
    apm_link *link = calloc(1, kind->size);
    if (!link) {
        st = apm_fail(err, APIUM_E_NOMEM, "cannot open \"%s\": out of memory", shown);
        goto out;
    }
    *link = (apm_link){ .ops = kind, .set = set, .urls = urls, .refs = 1, .next = set->links };
    urls = (apm_urls){ 0 };
    memcpy(link->shown, shown, sizeof(shown));
    set->links = link;
    st = kind->open(link, err);
    if (st != APIUM_OK) {
        set->links = link->next;
        apm_urls_clear(&link->urls);
        free(link);
        goto out;
    }
    *out = link;
out:
    apm_urls_clear(&urls);
    return st;
}

void
apm_link_release(apm_link *link)
{
    /* A link without users stays open until the set goes: the next open of the same server is likely. */
    if (link && link->refs)
        link->refs--;
}

void
apm_link_watch_add(apm_link *link, apm_link_watch *watch)
{
    watch->next = link->watches;
    link->watches = watch;
}

void
apm_link_watch_remove(apm_link *link, apm_link_watch *watch)
{
    for (apm_link_watch **at = &link->watches; *at; at = &(*at)->next) {
        if (*at == watch) {
            *at = watch->next;
            return;
        }
    }
}

void
apm_link_changed(apm_link *link, bool up, const char *why)
{
    link->up = up;
    for (apm_link_watch *watch = link->watches, *next; watch; watch = next) {
        next = watch->next;
        watch->on_event(watch->arg, link, up, why);
    }
}

void
apm_link_closed(apm_link *link)
{
    apm_links *set = link->set;
    for (apm_link **at = &set->links; *at; at = &(*at)->next) {
        if (*at == link) {
            *at = link->next;
            break;
        }
    }
    apm_urls_clear(&link->urls);
    free(link);
    if (set->closing && !set->links)
        free(set);
}

apm_unit *
apm_unit_new(apm_link *link)
{
    apm_unit *unit = link->ops->unit_new(link);
    if (unit)
        unit->link = link;
    return unit;
}

void
apm_unit_drop(apm_unit *unit)
{
    if (unit)
        unit->link->ops->unit_drop(unit);
}

void
apm_unit_commit(apm_unit *unit, apm_unit_done *done, void *arg)
{
    unit->done = done;
    unit->arg = arg;
    unit->link->ops->commit(unit);
}

int64_t
apm_link_backoff_ms(unsigned attempt)
{
    int64_t base = attempt == 0 ? 0 : 2000 * (int64_t)(attempt < 15 ? attempt : 15);
    return base + (int64_t)((double)base * 0.2 * (2.0 * apm_random_unit() - 1.0));
}
