/*
 * pieces.h - long chains in pieces. On the wire each step of a chain carries all that are left, so n steps are n * n / 2 signatures.
 * With task_chain_piece_size the steps that are far away wait in the result store, a piece at a time, each under the id of a
 * mark: a signature of the task apium.chain, which stands in a chain for the piece and all behind it, and knows the last step:
 *
 *   message of step 1:  [mark A, step 101, ... step 2]
 *   in the store:       A: [mark B, step 201, ... step 102]    B: [step 301, ... step 202]
 *
 * The lists have the last step first, as chains travel. Whoever ends the step before a mark puts the piece in its place; a worker that
 * knows nothing of it sends the mark on as the task it is, which does the same.
 */
#ifndef APM_WORKFLOWS_PIECES_H
#define APM_WORKFLOWS_PIECES_H

#include "workflows/canvas.h"

#define APM_CHAIN_MARK "apium.chain"

/* Cut the rest of a chain (JSON array, the last step first) when it is longer than two pieces of how->piece: what was cut off is
 * emitted as APM_CANVAS_KEEP. */
apium_status apm_pieces_cut(apm_sending *how, apm_str *rest, apium_error *err);

/* The id of the mark that the rest of a chain ends in, absent when it ends in an ordinary step; *alone: nothing goes before it. */
apm_str apm_pieces_mark(apm_arena *arena, apm_str rest, bool *alone);

/* The last step of the chain that a mark stands for, a signature: whoever waits for the chain waits for that. Absent: sig is no mark. */
apm_str apm_pieces_last(apm_json sig);

/* A stored piece: its list. E_DECODE: it is none. */
apium_status apm_pieces_read(apm_str doc, apm_arena *arena, apm_str *list, apium_error *err);

/* The lists as one: each but the last ends in a mark, for which the next one comes. Absent without memory. */
apm_str apm_pieces_join(apm_arena *arena, const apm_str *lists, size_t n);

#endif
