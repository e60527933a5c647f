/* tree.h - workflows drawn: what is to be done, or what came of it. */
#ifndef APM_CLI_TREE_H
#define APM_CLI_TREE_H

#include <stdio.h>

#include <apium/canvas.h>

#include "core/base/arena.h"

/* One line of the drawing, with what hangs below it. All of it lives in one arena. */
typedef struct apm_node {
    const char *label; /* no control characters */
    const char *state; /* NULL none */
    const char *note;  /* a value, an exception; NULL none */
    struct apm_node *first, *last, *next;
} apm_node;

typedef struct apm_tree {
    apm_arena arena;
    apm_node *top;
    size_t n, left_out; /* nodes; those that were too many */
} apm_tree;

/* What a signature says is to be done. */
apium_status apm_tree_of_sig(apm_tree *tree, const apium_sig *sig, apium_error *err);
/* What came of a task or a saved group, from the first task that is known to have led there. */
apium_status apm_tree_of_id(apm_tree *tree, apium_app *app, const char *id, apium_error *err);
/* Lines for a terminal. */
void apm_tree_print(const apm_tree *tree, FILE *to);
/* A graph for Graphviz. */
void apm_tree_dot(const apm_tree *tree, FILE *to);
void apm_tree_clear(apm_tree *tree);

#endif
