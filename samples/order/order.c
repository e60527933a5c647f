/*
 * order.c - an order: goods are reserved, the card is charged, the parcel is sent. When a step
 * fails, what was done before is undone, by an errback:
 *
 *     reserve ──▶ charge ──▶ ship
 *        └───────────┴─────────┴──(failed)──▶ undo
 *
 *     order [-m]               four orders, of which one goes through; what becomes of the stock
 *     order worker [OPTIONS]   a worker of these tasks, with the shop's books in $SHOP; so with
 *                              apium's other commands
 *
 * The errback is a function, which the worker that sees the failure calls; with -m it is a message,
 * which survives that worker. The bank and the carrier are functions here; the books (shop.c) are a
 * real database, kept by several processes.
 */
#include "../local.h"
#include "shop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- the shop's books, opened once in each pool process --- */

static apium_status
open_books(apium_app *app, apium_error *err)
{
    const char *path = getenv("SHOP");
    shop *books = calloc(1, sizeof(*books));
    if (!path || !books || !shop_open(books, path)) {
        apium_status st = apium_fail(err, APIUM_E_CONFIG, "cannot open the books $SHOP: %s",
                                     books && books->why ? books->why : "it is not set");
        if (books)
            shop_close(books);
        free(books);
        return st;
    }
    apium_app_set_data(app, books);
    return APIUM_OK;
}

static void
close_books(apium_app *app)
{
    shop *books = apium_app_data(app);
    if (books)
        shop_close(books);
    free(books);
}

static shop *
books_of(const apium_task *task)
{
    return apium_app_data(apium_task_app(task));
}

/* The end of a step: the order's number goes on to the next one. */
static apium_verdict
answer_with(apium_task *task, shop_answer answer, const char *order, const char *exception,
            const char *problem)
{
    if (answer == SHOP_OK)
        return apium_return(task, apium_string(order));
    if (answer == SHOP_NONE)
        return apium_raise(task, exception, "%s: %s", order, problem);
    apium_raise(task, "ConnectionError", "the books: %s", books_of(task)->why);
    return apium_retry(task, APIUM_BACKOFF, NULL);
}

/* --- the steps --- */

static apium_verdict
reserve(apium_task *task)
{
    const char *order;
    if (!apium_args(task, "order:str", &order))
        return APIUM_FAILURE;
    return answer_with(task, shop_reserve(books_of(task), order), order, "LookupError",
                       "not enough in stock");
}

/* The bank takes a key, by which it knows a payment that is asked for twice: the order's number. */
static bool
bank_charges(const char *key, const char *card)
{
    (void)key;
    return strncmp(card, "4000", 4) == 0;
}

static apium_verdict
charge(apium_task *task)
{
    const char *order;
    char card[32] = "";
    if (!apium_args(task, "order:str", &order))
        return APIUM_FAILURE;
    shop_look(books_of(task), order, "card", card, sizeof(card));
    if (!bank_charges(order, card))
        return apium_raise_in(task, "shop.errors", "CardDeclined",
                              apium_jsonf("[%s, %s]", order, card));
    return answer_with(task, shop_move(books_of(task), order, "reserved", "charged"), order,
                       "LookupError", "nothing is reserved");
}

static apium_verdict
ship(apium_task *task)
{
    const char *order;
    char address[128] = "";
    if (!apium_args(task, "order:str", &order))
        return APIUM_FAILURE;
    shop_look(books_of(task), order, "address", address, sizeof(address));
    if (!address[0]) {
        /* Perhaps the customer is just writing it: look again, twice. The exception is what
         * remains then. */
        apium_raise(task, "ValueError", "%s: no address", order);
        return apium_retry(task, 0.2, NULL);
    }
    return answer_with(task, shop_move(books_of(task), order, "charged", "shipped"), order,
                       "LookupError", "it is not paid");
}

/* --- and back --- */

/* Whichever step failed: the books know what was done. */
static apium_verdict
undo_order(apium_task *task, const char *order)
{
    bool charged;
    if (shop_undo(books_of(task), order, &charged) == SHOP_ERROR)
        return apium_raise(task, "ConnectionError", "cannot undo %s: %s", order,
                           books_of(task)->why);
    if (charged)
        fprintf(stderr, "  the bank pays back what %s cost\n", order);
    return APIUM_SUCCESS;
}

/* An errback that is a function: called at once, in the worker that saw the failure. */
static apium_verdict
undo(apium_task *task)
{
    const char *request, *exc, *traceback, *order;
    if (!apium_args(task, "request:object exc:object traceback:json order:str", &request, &exc,
                    &traceback, &order))
        return APIUM_FAILURE;
    return undo_order(task, order);
}

/* An errback that is a task: a message, stored together with the failure. */
static apium_verdict
undo_task(apium_task *task)
{
    const char *failed_id, *order;
    if (!apium_args(task, "failed_id:str order:str", &failed_id, &order))
        return APIUM_FAILURE;
    return undo_order(task, order);
}

/* A declined card is no surprise: no traceback in the log. */
static const char *const expected[] = { "LookupError", "ValueError", "shop.errors.CardDeclined",
                                        NULL };
static const apium_task_def tasks[] = {
    { .name = "order.reserve", .run = reserve, .acks_late = APIUM_ON, .throws = expected },
    { .name = "order.charge", .run = charge, .acks_late = APIUM_ON, .throws = expected },
    { .name = "order.ship",
      .run = ship,
      .acks_late = APIUM_ON,
      .throws = expected,
      .max_retries = 2 },
    { .name = "order.undo", .run = undo, .errback = true },
    { .name = "order.undo_task", .run = undo_task, .acks_late = APIUM_ON },
    { 0 },
};
static const apium_hooks hooks = { .process_start = open_books, .process_stop = close_books };
static const apium_module module = {
    APIUM_ABI, sizeof(apium_task_def), "order", tasks, &hooks, NULL
};

/* --- the workflow --- */

static apium_sig *
flow_of_order(const char *order, bool by_message)
{
    apium_sig *steps =
        apium_chain(apium_sig_new("order.reserve", "[%s]", order),
                    apium_sig_new("order.charge", NULL), apium_sig_new("order.ship", NULL), NULL);
    /* On a chain: of every step. The errback's own arguments come behind those it is given. */
    const char *name = by_message ? "order.undo_task" : "order.undo";
    return apium_sig_link_error(steps, apium_sig_new(name, "[%s]", order));
}

/* An errback has no result: the books say when it is through. */
static bool
wait_until_undone(local *here, shop *books, const char *order)
{
    char state[16] = "";
    for (int tries = 0; tries < 1000 && local_goes_on(here); tries++) {
        if (shop_look(books, order, "state", state, sizeof(state)) && strcmp(state, "undone") == 0)
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    }
    fprintf(stderr, "order: %s is still %s\n", order, state);
    return false;
}

static bool
follow(local *here, shop *books, const char *order, apium_run *run)
{
    apium_result *res;
    apium_error err;
    char state[16] = "";
    apium_status st;
    while ((st = apium_wait(run, 500, &res, &err)) == APIUM_E_TIMEOUT)
        if (!local_goes_on(here))
            return false;
    if (st != APIUM_OK) {
        fprintf(stderr, "order: %s\n", err.text);
        return false;
    }
    bool ok = apium_result_ok(res) || wait_until_undone(here, books, order);
    shop_look(books, order, "state", state, sizeof(state));
    printf("%-10s %-9s %s\n", order, state, apium_result_ok(res) ? "" : apium_result_message(res));
    apium_result_free(res);
    return ok;
}

static const struct sale {
    const char *order, *item;
    int pieces;
    const char *card, *address;
} sales[] = {
    { "order-1", "kettle", 2, "4000 0001", "1 Main Street" },
    { "order-2", "kettle", 1, "5999 0002", "2 Main Street" }, /* the card is declined */
    { "order-3", "kettle", 3, "4000 0003", "" },              /* paid, and nowhere to go */
    { "order-4", "teapot", 9, "4000 0004", "4 Main Street" }, /* there are not so many */
};
#define N_SALES (sizeof(sales) / sizeof(*sales))

static bool
sell(local *here, shop *books, bool by_message)
{
    apium_run *runs[N_SALES] = { 0 };
    apium_error err;
    bool ok = true;
    for (size_t i = 0; i < N_SALES && ok; i++) {
        const struct sale *s = &sales[i];
        ok = shop_order(books, s->order, s->item, s->pieces, s->card, s->address) == SHOP_OK;
        if (!ok)
            fprintf(stderr, "order: cannot note %s: %s\n", s->order, books->why);
        else if (!(ok = apium_send(here->app, flow_of_order(s->order, by_message), NULL, &runs[i],
                                   &err) == APIUM_OK))
            fprintf(stderr, "order: %s\n", err.text);
    }
    for (size_t i = 0; i < N_SALES && ok; i++)
        ok = follow(here, books, sales[i].order, runs[i]);
    for (size_t i = 0; i < N_SALES; i++)
        apium_run_free(runs[i]);
    return ok;
}

static bool
open_shop(shop *books, const char *path)
{
    if (shop_open(books, path) && shop_create(books) && shop_fill(books, "kettle", 10) &&
        shop_fill(books, "teapot", 3))
        return true;
    fprintf(stderr, "order: cannot open the books %s: %s\n", path, books->why);
    return false;
}

int
main(int argc, char **argv)
{
    if (local_is_command(argc, argv))
        return apium_main_module(argc, argv, &module);
    local here = { .name = "order", .workers = LOCAL_WORKERS };
    bool by_message = false;
    for (int c; (c = getopt(argc, argv, "b:r:mh")) != -1;)
        if (c == 'm')
            by_message = true;
        else if (c == 'b')
            here.broker = optarg;
        else if (c == 'r')
            here.backend = optarg;
        else {
            fprintf(c == 'h' ? stdout : stderr,
                    "usage: order [-m] [-b BROKER] [-r BACKEND]\n"
                    "       SHOP=FILE order worker ... (apium's commands)\n");
            return c == 'h' ? 0 : 2;
        }
    char folder[LOCAL_PATH_MAX], path[LOCAL_PATH_MAX + 16];
    shop books = { 0 };
    if (!local_folder_make("shop", folder))
        return 1;
    snprintf(path, sizeof(path), "%s/shop.db", folder);
    setenv("SHOP", path, 1); /* the workers inherit it */
    bool ok =
        open_shop(&books, path) && local_open(&here, tasks) && sell(&here, &books, by_message);
    if (ok)
        printf("in stock   %d kettles of 10, %d teapots of 3\n", shop_stock(&books, "kettle"),
               shop_stock(&books, "teapot"));
    local_close(&here);
    shop_close(&books);
    local_folder_remove(folder);
    return ok ? 0 : 1;
}
