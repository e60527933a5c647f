/* shop.c - see shop.h. */
#include "shop.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool
shop_open(shop *books, const char *path)
{
    *books = (shop){ 0 };
    if (sqlite3_open_v2(path, &books->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
        SQLITE_OK) {
        books->why = books->db ? sqlite3_errmsg(books->db) : "no memory";
        return false;
    }
    sqlite3_busy_timeout(books->db, 10000); /* several processes keep the same books */
    return true;
}

void
shop_close(shop *books)
{
    sqlite3_close(books->db);
    books->db = NULL;
}

/* Run one statement with text parameters, ended by NULL; the answer is how many rows it changed,
 * or -1. */
static int
change(shop *books, const char *sql, ...)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v2(books->db, sql, -1, &stmt, NULL) != SQLITE_OK) {
        books->why = sqlite3_errmsg(books->db);
        return -1;
    }
    va_list ap;
    va_start(ap, sql);
    int n = 1;
    for (const char *text; (text = va_arg(ap, const char *)); n++)
        sqlite3_bind_text(stmt, n, text, -1, SQLITE_TRANSIENT);
    va_end(ap);
    int rc = sqlite3_step(stmt), changed = sqlite3_changes(books->db);
    if (rc != SQLITE_DONE && rc != SQLITE_ROW)
        books->why = sqlite3_errmsg(books->db);
    sqlite3_finalize(stmt);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? changed : -1;
}

bool
shop_create(shop *books)
{
    return sqlite3_exec(books->db,
                        "PRAGMA journal_mode = WAL;"
                        "CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, pieces INTEGER "
                        "CHECK (pieces >= 0));"
                        "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, item TEXT, pieces "
                        "INTEGER, card TEXT,"
                        " address TEXT, state TEXT)",
                        NULL, NULL, NULL) == SQLITE_OK ||
           (books->why = sqlite3_errmsg(books->db), false);
}

bool
shop_fill(shop *books, const char *item, int pieces)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", pieces);
    return change(books, "INSERT OR REPLACE INTO stock VALUES (?, CAST(? AS INTEGER))", item,
                  number, NULL) >= 0;
}

shop_answer
shop_order(shop *books, const char *order, const char *item, int pieces, const char *card,
           const char *address)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", pieces);
    int n = change(books, "INSERT INTO orders VALUES (?, ?, CAST(? AS INTEGER), ?, ?, 'new')",
                   order, item, number, card, address, NULL);
    return n < 0 ? SHOP_ERROR : SHOP_OK;
}

/* The first column of the first row as text; false when there is none. */
static bool
ask(shop *books, const char *sql, const char *parameter, char *out, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    bool found = false;
    if (sqlite3_prepare_v2(books->db, sql, -1, &stmt, NULL) == SQLITE_OK) {
        sqlite3_bind_text(stmt, 1, parameter, -1, SQLITE_STATIC);
        found = sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_text(stmt, 0);
        if (found)
            snprintf(out, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
    }
    sqlite3_finalize(stmt);
    return found;
}

int
shop_stock(shop *books, const char *item)
{
    char text[16];
    int pieces;
    if (!ask(books, "SELECT pieces FROM stock WHERE item = ?", item, text, sizeof(text)) ||
        sscanf(text, "%d", &pieces) != 1)
        return -1;
    return pieces;
}

bool
shop_look(shop *books, const char *order, const char *column, char *out, size_t size)
{
    char sql[96];
    sqlite3_snprintf(sizeof(sql), sql, "SELECT \"%w\" FROM orders WHERE id = ?", column);
    return ask(books, sql, order, out, size);
}

static shop_answer
begin(shop *books)
{
    return change(books, "BEGIN IMMEDIATE", NULL) < 0 ? SHOP_ERROR : SHOP_OK;
}

/* Keep what was done, or take all of it back. */
static shop_answer
end(shop *books, shop_answer answer)
{
    if (answer == SHOP_OK && change(books, "COMMIT", NULL) >= 0)
        return SHOP_OK;
    const char *why = books->why;
    (void)change(books, "ROLLBACK", NULL);
    books->why = why;
    return answer == SHOP_OK ? SHOP_ERROR : answer;
}

shop_answer
shop_move(shop *books, const char *order, const char *from, const char *state)
{
    char now[16] = "";
    int n = change(books, "UPDATE orders SET state = ? WHERE id = ? AND state = ?", state, order,
                   from, NULL);
    if (n < 0)
        return SHOP_ERROR;
    if (n == 0 && (!shop_look(books, order, "state", now, sizeof(now)) || strcmp(now, state) != 0))
        return SHOP_NONE;
    return SHOP_OK; /* now, or already */
}

static shop_answer
reserve(shop *books, const char *order)
{
    char now[16] = "";
    if (!shop_look(books, order, "state", now, sizeof(now)))
        return SHOP_NONE;
    if (strcmp(now, "new") != 0)
        return SHOP_OK;
    int n = change(books,
                   "UPDATE stock SET pieces = pieces - (SELECT pieces FROM orders WHERE id = ?1)"
                   " WHERE item = (SELECT item FROM orders WHERE id = ?1)"
                   " AND pieces >= (SELECT pieces FROM orders WHERE id = ?1)",
                   order, NULL);
    if (n <= 0)
        return n < 0 ? SHOP_ERROR : SHOP_NONE;
    return shop_move(books, order, "new", "reserved");
}

shop_answer
shop_reserve(shop *books, const char *order)
{
    shop_answer answer = begin(books);
    return answer == SHOP_OK ? end(books, reserve(books, order)) : answer;
}

static shop_answer
undo(shop *books, const char *order, bool *charged)
{
    char now[16] = "";
    *charged = false;
    if (!shop_look(books, order, "state", now, sizeof(now)))
        return SHOP_NONE;
    *charged = strcmp(now, "charged") == 0;
    if ((*charged || strcmp(now, "reserved") == 0) &&
        change(books,
               "UPDATE stock SET pieces = pieces + (SELECT pieces FROM orders WHERE id = ?1)"
               " WHERE item = (SELECT item FROM orders WHERE id = ?1)",
               order, NULL) < 0)
        return SHOP_ERROR;
    return change(books, "UPDATE orders SET state = 'undone' WHERE id = ?", order, NULL) < 0
               ? SHOP_ERROR
               : SHOP_OK;
}

shop_answer
shop_undo(shop *books, const char *order, bool *charged)
{
    shop_answer answer = begin(books);
    return answer == SHOP_OK ? end(books, undo(books, order, charged)) : answer;
}
