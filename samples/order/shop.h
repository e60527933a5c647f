/*
 * shop.h - the shop's own books: what is in stock, and how far each order is; a SQLite file. Every
 * step is one transaction and may be repeated: what is done already is not done again.
 */
#ifndef ORDER_SHOP_H
#define ORDER_SHOP_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

/* What a step answers. */
typedef enum shop_answer {
    SHOP_OK,
    SHOP_NONE,  /* no such order, not enough in stock */
    SHOP_ERROR, /* the books cannot be read or written; why is text */
} shop_answer;

typedef struct shop {
    sqlite3 *db;
    const char *why; /* of SHOP_ERROR */
} shop;

bool shop_open(shop *books, const char *path);
void shop_close(shop *books);

bool shop_create(shop *books);
bool shop_fill(shop *books, const char *item, int pieces);
int shop_stock(shop *books, const char *item); /* -1: no such item */

/* new ─reserve▶ reserved ─charge▶ charged ─ship▶ shipped; and back: ─undo▶ undone. */
shop_answer shop_order(shop *books, const char *order, const char *item, int pieces,
                       const char *card, const char *address);
shop_answer shop_reserve(shop *books, const char *order);
/* `state` is what the order is afterwards. */
shop_answer shop_move(shop *books, const char *order, const char *from, const char *state);
/* What was reserved is back in stock. *charged: the money has to be paid back too. */
shop_answer shop_undo(shop *books, const char *order, bool *charged);

/* A column of an order: "state", "card", "address"; false when there is none, or no such order. */
bool shop_look(shop *books, const char *order, const char *column, char *out, size_t size);

#endif
