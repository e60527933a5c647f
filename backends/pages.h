/*
 * pages.h - the parts of a complete header as stores in this process give them: a page at a time. The next one is asked for before a
 * page is given, since whoever takes it may close the backend.
 */
#ifndef APM_BACKENDS_PAGES_H
#define APM_BACKENDS_PAGES_H

#include "backends/backend.h"

typedef struct apm_page apm_page;

/* Where pages are asked for, and who hears them. */
typedef struct apm_pages_of {
    apm_link *link;
    apm_page **under_way; /* a list that the backend keeps */
    apm_parts_cb *done;
    void *arg;
} apm_pages_of;

struct apm_page {
    apm_pages_of of; /* under_way NULL: nobody hears it */
    apm_page *prev, *next;
    apm_arena arena; /* of its text */
    apm_str members[APM_PARTS_MAX];
    size_t n;
    apm_str tree;
    bool more;
};

/* What an adapter does to ask for the page behind `last`, which is of its own type; NULL: for the first one. false: no memory. */
typedef bool apm_page_ask(const apm_pages_of *of, const char *group_id, const void *last);

/* Begin; without memory `done` comes from inside the call. */
void apm_pages_start(const apm_pages_of *of, const char *group_id, apm_page_ask *ask);
/* An adapter's page is under way. */
void apm_page_enter(apm_page *page, const apm_pages_of *of);
/* It is filled, or err says why not; `self` is what holds it. */
void apm_page_give(apm_page *page, const char *group_id, apm_page_ask *ask, const void *self,
                   apium_status status, const apium_error *err);
/* After this none of those under way calls back. */
void apm_pages_leave(apm_page **under_way);

apium_status apm_page_no_memory(const char *group_id, apium_error *err);
apium_status apm_page_gone(const char *group_id, apium_error *err);

#endif
