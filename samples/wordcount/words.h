/* words.h - a table of words and how often each came. */
#ifndef WORDCOUNT_WORDS_H
#define WORDCOUNT_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct word {
    char *text;
    long count;
} word;

/* Open addressing; always at least half empty. Begin with { 0 }. */
typedef struct words {
    word *rows; /* those without a text are empty */
    size_t size, used;
} words;

/* Count a word; false without memory. */
bool words_add(words *table, const char *text, size_t len, long count);
/* {"the": 12, ...}; words are letters, so there is nothing to escape. */
void words_write(const words *table, FILE *out);
/* The rows in order, the empty ones last: the most frequent first, or by the alphabet. It is a
 * list then, no longer a table. */
void words_sort(words *table, bool by_alphabet);
void words_clear(words *table);

#endif
