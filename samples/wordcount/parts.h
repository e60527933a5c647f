/* parts.h - what is to be counted, cut into parts of about the same size, and the workflow that
 * counts them. */
#ifndef WORDCOUNT_PARTS_H
#define WORDCOUNT_PARTS_H

#include <apium/canvas.h>

typedef struct parts {
    apium_sig **sigs; /* calls of wordcount.count and wordcount.folder */
    size_t n, cap;
} parts; /* begin with { 0 } */

/* Add a file, in as many parts as it takes, or a folder, which is one until it is looked into.
 * False: why says why not. Where words begin and end is the business of whoever counts. */
bool parts_add(parts *all, const char *path, apium_error *why);
/* All of them counted at once, then merged and reported in so many rows. The parts are the
 * workflow's then. */
apium_sig *parts_flow(parts *all, int64_t rows);
void parts_clear(parts *all);

#endif
