/*
 * claims.c - who completes a header. A claim names its claimant, keeps the parts, and is nobody else's for as long as results are kept:
 * it is a document that the store never overwrites, so the first one stays, whatever comes at the same time. The parts go when the body
 * is published ("take"); a claimant that dies before that comes again by its name. A chord that is sent once more under the same id says
 * its size before any of its parts may be the last one, and is nobody's then.
 *
 *   whose is it? ──nobody's──▶ is the header there? ──▶ record it ──▶ whose is it?
 */
#include "web/inner.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/base/error.h"

typedef struct claim {
    apm_web *web;
    char *mark; /* id of the document; NULL: whether the header is there is all that is asked */
    char *doc;
    double expires_s;
    bool recorded, answered;
    void (*done)(void *arg, apium_status status, const apium_error *err);
    void *arg;
} claim;

static void
claim_free(claim *c)
{
    free(c->mark);
    free(c->doc);
    free(c);
}

static void
answer(claim *c, apium_status status, const apium_error *err)
{
    c->answered = true;
    c->done(c->arg, status, err);
}

static void
end(claim *c, apium_status status, const apium_error *err)
{
    answer(c, status, err);
    claim_free(c);
}

static void ask_whose(claim *c);

static void
on_recorded(void *arg, apium_status status, const apium_error *err)
{
    claim *c = arg;
    if (status == APIUM_OK)
        ask_whose(c);
    else
        end(c, status, err);
}

static void
record(claim *c)
{
    apm_web *web = c->web;
    const double kept = web->store_settings.result_expires;
    apm_unit *unit = apm_unit_new(web->backend->link);
    apium_error err;
    /* Adapters read the setting when an operation is appended. Results may stay for ever, claims do not. */
    if (c->expires_s >= 0)
        web->store_settings.result_expires = c->expires_s;
    if (web->store_settings.result_expires == 0)
        web->store_settings.result_expires = 86400;
    apium_status st =
        unit ? web->backend->ops->record(web->backend, unit,
                                         &(apm_record){ .task_id = apm_strz(c->mark),
                                                        .state = APM_STR(APM_STATE_SUCCESS),
                                                        .doc = apm_strz(c->doc) },
                                         &err)
             : apm_fail(&err, APIUM_E_NOMEM, "out of memory");
    web->store_settings.result_expires = kept;
    c->recorded = true;
    if (st == APIUM_OK) {
        apm_unit_commit(unit, on_recorded, c);
    } else {
        apm_unit_drop(unit);
        end(c, st, &err);
    }
}

static void
on_parts(void *arg, const apm_parts *parts, const apium_error *err)
{
    claim *c = arg;
    const bool last = !parts || !parts->more;
    if (!c->answered && (!parts || !c->mark))
        answer(c, parts ? APIUM_OK : err->status, err);
    if (!last)
        return;
    if (c->answered)
        claim_free(c);
    else
        record(c);
}

static void
on_mark(void *arg, apm_str doc, const apium_error *err)
{
    claim *c = arg;
    apium_error own;
    apm_json theirs, ours;
    if (err) {
        end(c, err->status, err);
    } else if (!apm_str_is(doc) && !c->recorded) {
        const char *group = strchr(c->mark, '/') + 1;
        c->web->backend->ops->parts(c->web->backend, group, on_parts, c);
    } else if (apm_json_parse(doc, &theirs, NULL) == APIUM_OK &&
               apm_json_parse(apm_strz(c->doc), &ours, NULL) == APIUM_OK &&
               apm_json_equal(apm_json_get(theirs, "claimant"), apm_json_get(ours, "claimant"))) {
        end(c, APIUM_OK, NULL);
    } else {
        end(c, apm_fail(&own, APIUM_E_NOTFOUND, "the chord is completed by another"), &own);
    }
}

static void
ask_whose(claim *c)
{
    c->web->backend->ops->fetch(c->web->backend, c->mark, on_mark, c);
}

static claim *
claim_new(apm_web *web, void (*done)(void *arg, apium_status status, const apium_error *err),
          void *arg)
{
    claim *c = calloc(1, sizeof(*c));
    apium_error err;
    if (c)
        *c = (claim){ .web = web, .done = done, .arg = arg };
    else
        done(arg, apm_fail(&err, APIUM_E_NOMEM, "out of memory"), &err);
    return c;
}

void
apm_header_look(apm_web *web, const char *group,
                void (*done)(void *arg, apium_status status, const apium_error *err), void *arg)
{
    claim *c = claim_new(web, done, arg);
    if (c)
        web->backend->ops->parts(web->backend, group, on_parts, c);
}

static void
on_released(void *arg, apium_status status, const apium_error *err)
{
    (void)arg;
    (void)status;
    (void)err;
}

void
apm_header_release(apm_web *web, const char *group)
{
    char *mark = NULL;
    if (asprintf(&mark, "apium-claim/%s", group) >= 0)
        web->backend->ops->forget(web->backend, mark, on_released, NULL);
    free(mark);
}

void
apm_header_claim(apm_web *web, const char *group, apm_str claimant, double expires_s,
                 void (*done)(void *arg, apium_status status, const apium_error *err), void *arg)
{
    claim *c = claim_new(web, done, arg);
    apium_error err;
    apm_buf doc;
    if (!c)
        return;
    c->expires_s = expires_s;
    apm_buf_init(&doc, 65536);
    apm_buf_addz(&doc, "{\"status\": \"SUCCESS\", \"claimant\": ");
    apm_json_add_string(&doc, claimant);
    apm_buf_addc(&doc, '}');
    c->doc = apm_buf_take(&doc, NULL);
    if (asprintf(&c->mark, "apium-claim/%s", group) < 0)
        c->mark = NULL;
    if (c->doc && c->mark)
        ask_whose(c);
    else
        end(c, apm_fail(&err, APIUM_E_NOMEM, "out of memory"), &err);
}
