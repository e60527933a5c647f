/* words.c - see words.h. */
#include "words.h"

#include <stdlib.h>
#include <string.h>

static word *
find_row(const words *table, const char *text, size_t len)
{
    size_t hash = 5381;
    for (size_t i = 0; i < len; i++)
        hash = hash * 33 ^ (unsigned char)text[i];
    for (;; hash++) {
        word *row = &table->rows[hash & (table->size - 1)];
        if (!row->text || (strncmp(row->text, text, len) == 0 && row->text[len] == '\0'))
            return row;
    }
}

static bool
grow(words *table)
{
    words bigger = { .size = table->size ? table->size * 2 : 1024, .used = table->used };
    bigger.rows = calloc(bigger.size, sizeof(*bigger.rows));
    if (!bigger.rows)
        return false;
    for (size_t i = 0; i < table->size; i++)
        if (table->rows[i].text)
            *find_row(&bigger, table->rows[i].text, strlen(table->rows[i].text)) = table->rows[i];
    free(table->rows);
    *table = bigger;
    return true;
}

bool
words_add(words *table, const char *text, size_t len, long count)
{
    if (table->used * 2 >= table->size && !grow(table))
        return false;
    word *row = find_row(table, text, len);
    if (!row->text) {
        row->text = strndup(text, len);
        if (!row->text)
            return false;
        table->used++;
    }
    row->count += count;
    return true;
}

void
words_write(const words *table, FILE *out)
{
    const char *comma = "";
    putc('{', out);
    for (size_t i = 0; i < table->size; i++)
        if (table->rows[i].text) {
            fprintf(out, "%s\"%s\": %ld", comma, table->rows[i].text, table->rows[i].count);
            comma = ", ";
        }
    putc('}', out);
}

static int
by_text(const void *a, const void *b)
{
    const word *x = a, *y = b;
    if (!x->text || !y->text)
        return !x->text - !y->text;
    return strcmp(x->text, y->text);
}

static int
by_count(const void *a, const void *b)
{
    const word *x = a, *y = b;
    return x->count != y->count ? (x->count < y->count) - (x->count > y->count) : by_text(a, b);
}

void
words_sort(words *table, bool by_alphabet)
{
    if (table->size > 0)
        qsort(table->rows, table->size, sizeof(word), by_alphabet ? by_text : by_count);
}

void
words_clear(words *table)
{
    for (size_t i = 0; i < table->size; i++)
        free(table->rows[i].text);
    free(table->rows);
    *table = (words){ 0 };
}
