/*
 * pieces.c - chains in pieces (workflows/pieces.h): before an outcome is settled whose chain goes on in the result store, the piece is
 * asked for and takes its mark's place. A success needs the next one, and only when the mark is all that is left; a failure needs
 * all there are, for each step that will not run gets it as its result. The task apium.chain is a mark that was sent: its piece follows it.
 */
#include "core/base/error.h"
#include "worker/builtin.h"
#include "worker/settle_inner.h"
#include "workflows/builtin.h"
#include "workflows/pieces.h"

/* A settlement that waits for the store. */
struct waiting {
    apm_work *work;
    apm_outcome outcome;
    apm_emitting given;
    apm_follow more;
    bool has_more, all;
    apm_str *lists; /* the work's own, then what came for its mark, and so on */
    size_t n, cap;
};

static void ask(struct waiting *wait, apm_str id);

static bool
add_list(struct waiting *wait, apm_str list)
{
    if (wait->n == wait->cap) {
        size_t cap = wait->cap ? 2 * wait->cap : 4;
        apm_str *lists = apm_arena_alloc(&wait->work->delivery->arena, cap * sizeof(*lists));
        if (!lists)
            return false;
        if (wait->n)
            memcpy(lists, wait->lists, wait->n * sizeof(*lists));
        wait->lists = lists;
        wait->cap = cap;
    }
    wait->lists[wait->n++] = list;
    return true;
}

/* Nothing was told yet: another attempt, here or elsewhere, begins at the store's answer again. */
static void
give_back(struct waiting *wait)
{
    apm_emit_drop(&wait->given);
    apm_settle_delivery(wait->work, APM_RESTORE, NULL);
}

static void
go_on(struct waiting *wait)
{
    apm_work *work = wait->work;
    apm_str chain = apm_pieces_join(&work->delivery->arena, wait->lists, wait->n);
    if (!apm_str_is(chain)) {
        give_back(wait);
        return;
    }
    work->req.chain = chain;
    work->chain_here = true;
    apm_settle_with(work, &wait->outcome, &wait->given, wait->has_more ? &wait->more : NULL);
}

static void
say_missing(const apm_work *work, apm_str id, const char *why)
{
    apm_log(APM_LOG_ERROR, "chain.missing",
            "The chain of task %.*s[%.*s] goes on in piece %.*s, which cannot be had from the "
            "result store: %s",
            APM_STR_ARG(work->req.task), APM_STR_ARG(work->req.id), APM_STR_ARG(id), why);
}

static const char absent[] = "it is not there (a piece is kept as long as results are)";

static void
on_piece(void *arg, apm_str doc, const apium_error *err)
{
    struct waiting *wait = arg;
    apm_work *work = wait->work;
    apm_arena *arena = &work->delivery->arena;
    apm_str list, id;
    apium_error why;
    bool alone;
    work->units--;
    apium_status st = err                ? err->status
                      : !apm_str_is(doc) ? APIUM_E_NOTFOUND
                                         : apm_pieces_read(doc, arena, &list, &why);
    if (st == APIUM_E_CLOSED || st == APIUM_E_NOMEM || (st == APIUM_OK && !add_list(wait, list))) {
        give_back(wait);
        return;
    }
    if (st != APIUM_OK) {
        /* The mark stays: as a task it looks once more, and fails where somebody sees it. */
        id = apm_pieces_mark(arena, wait->lists[wait->n - 1], &alone);
        say_missing(work, id, err ? err->text : st == APIUM_E_NOTFOUND ? absent : why.text);
    } else if (wait->all && apm_str_is(id = apm_pieces_mark(arena, list, &alone))) {
        ask(wait, id);
        return;
    }
    go_on(wait);
}

static void
ask(struct waiting *wait, apm_str id)
{
    apm_backend *backend = wait->work->worker->backend;
    wait->work->units++;
    backend->ops->fetch_group(backend, id.p, on_piece, wait);
}

bool
apm_pieces_wanted(apm_work *work, const apm_outcome *outcome, const apm_emitting *given,
                  const apm_follow *more)
{
    if (work->chain_here || !apm_str_is(work->req.chain) ||
        !work->worker->backend->ops->fetch_group || outcome->kind == APM_DONE_RETRY ||
        outcome->kind == APM_DONE_IGNORE || outcome->kind == APM_DONE_REPLACED)
        return false;
    apm_arena *arena = &work->delivery->arena;
    bool alone, all = outcome->kind != APM_DONE_SUCCESS;
    apm_str id = apm_pieces_mark(arena, work->req.chain, &alone);
    if (!apm_str_is(id) || !(alone || all))
        return false;
    struct waiting *wait = apm_arena_alloc(arena, sizeof(*wait));
    if (!wait)
        return false; /* the mark goes on as a task */
    *wait = (struct waiting){ .work = work, .all = all, .has_more = more != NULL };
    if (given)
        wait->given = *given;
    else
        wait->given.work = work;
    if (more)
        wait->more = *more;
    if (!apm_outcome_keep(outcome, arena, &wait->outcome) || !add_list(wait, work->req.chain))
        return false;
    ask(wait, id);
    return true;
}

/* ---- a mark that was sent ---- */

static void
on_own_piece(void *arg, apm_str doc, const apium_error *err)
{
    apm_work *work = arg;
    apm_arena *arena = &work->delivery->arena;
    apm_str list = APM_STR_NONE;
    apium_error why;
    work->units--;
    apium_status st = err ? err->status : APIUM_OK;
    if (!err && apm_str_is(doc))
        st = apm_pieces_read(doc, arena, &list, &why);
    if (st == APIUM_E_CLOSED || st == APIUM_E_NOMEM) {
        apm_settle_delivery(work, APM_RESTORE, NULL);
        return;
    }
    apm_json passed = apm_builtin_arg(&work->req, 0, "result");
    apm_outcome outcome = { .kind = APM_DONE_SUCCESS,
                            .result =
                                passed.type == APM_JSON_NONE ? APM_STR("null") : passed.text };
    work->chain_here = true;
    if (apm_str_is(list)) {
        work->req.chain = list;
    } else {
        apm_json last = apm_builtin_arg(&work->req, 1, "last");
        work->req.chain = last.type == APM_JSON_OBJECT
                              ? apm_strz(apm_arena_printf(arena, "[%.*s]", APM_STR_ARG(last.text)))
                              : APM_STR_NONE;
        apm_builtin_raise(arena, &outcome, "RuntimeError",
                          "cannot go on with the chain: piece %.*s cannot be had from the result "
                          "store: %s",
                          APM_STR_ARG(work->req.id),
                          err              ? err->text
                          : st != APIUM_OK ? why.text
                                           : absent);
    }
    apm_settle_step(work, &outcome, NULL, NULL);
}

void
apm_chain_start(apm_work *work)
{
    apm_backend *backend = work->worker->backend;
    const char *id = apm_arena_str(&work->delivery->arena, work->req.id, NULL).p;
    if (!id) {
        apm_settle_delivery(work, APM_RESTORE, NULL);
    } else if (!backend->ops->fetch_group) {
        apm_outcome outcome;
        apm_builtin_raise(&work->delivery->arena, &outcome, "NotImplementedError",
                          "the result backend %s of this worker keeps no pieces of chains",
                          backend->ops->name);
        apm_settle_step(work, &outcome, NULL, NULL);
    } else {
        work->units++;
        backend->ops->fetch_group(backend, id, on_own_piece, work);
    }
}
