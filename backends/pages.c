/* pages.c - see pages.h */
#include "backends/pages.h"

#include "core/base/error.h"

apium_status
apm_page_no_memory(const char *group_id, apium_error *err)
{
    return apm_fail(err, APIUM_E_NOMEM, "cannot gather the parts of chord %s: out of memory",
                    group_id);
}

apium_status
apm_page_gone(const char *group_id, apium_error *err)
{
    return apm_fail(err, APIUM_E_NOTFOUND, "the chord %s is completed already", group_id);
}

void
apm_pages_start(const apm_pages_of *of, const char *group_id, apm_page_ask *ask)
{
    apium_error err;
    if (ask(of, group_id, NULL))
        return;
    (void)apm_page_no_memory(group_id, &err);
    of->done(of->arg, NULL, &err);
}

void
apm_page_enter(apm_page *page, const apm_pages_of *of)
{
    page->of = *of;
    page->next = *of->under_way;
    if (page->next)
        page->next->prev = page;
    *of->under_way = page;
}

static void
leave(apm_page *page)
{
    *(page->prev ? &page->prev->next : page->of.under_way) = page->next;
    if (page->next)
        page->next->prev = page->prev;
    page->prev = page->next = NULL;
    page->of.under_way = NULL;
}

void
apm_page_give(apm_page *page, const char *group_id, apm_page_ask *ask, const void *self,
              apium_status status, const apium_error *err)
{
    apium_error own;
    const apm_pages_of of = page->of;
    if (!of.under_way)
        return;
    leave(page);
    if (status == APIUM_OK && page->more && !ask(&of, group_id, self)) {
        status = apm_page_no_memory(group_id, &own);
        err = &own;
    }
    const apm_parts parts = {
        .members = page->members, .n = page->n, .tree = page->tree, .more = page->more
    };
    of.done(of.arg, status == APIUM_OK ? &parts : NULL, err);
}

void
apm_pages_leave(apm_page **under_way)
{
    while (*under_way)
        leave(*under_way);
}
