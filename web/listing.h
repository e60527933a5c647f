/* listing.h - the tasks that the store has results of, one after the other. */
#ifndef APM_WEB_LISTING_H
#define APM_WEB_LISTING_H

#include "web/inner.h"

#define APM_LISTING_MAX 10000 /* tasks looked at */

typedef struct apm_listing {
    /* A document; the text lives during the call. */
    void (*on_task)(void *arg, apm_str id, apm_str doc);
    /* All were told, or err says why not. more: the store has others too. */
    void (*on_end)(void *arg, bool more, const apium_error *err);
    void *arg;
} apm_listing;

/* The newest ones where the store knows which they are. E_UNSUPPORTED: it cannot list. */
void apm_listing_run(apm_web *web, const apm_listing *how);

#endif
