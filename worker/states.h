/*
 * states.h - custom states on their way from a pool process to the main process: frames on the
 * socket between the two. A process writes a frame before it marks the slot done, so whoever sees
 * DONE finds all frames in the socket.
 */
#ifndef APM_WORKER_STATES_H
#define APM_WORKER_STATES_H

#include <apium/status.h>

#include "core/base/buf.h"

typedef struct apm_state_frame {
    uint32_t slot, seq;
    apm_str state, meta;
} apm_state_frame;

/* Write one frame, waiting for the main process when the socket is full. E_TOOBIG, E_CLOSED. */
apium_status apm_states_send(int sock, const apm_state_frame *frame, apium_error *err);

/* What came so far. */
typedef struct apm_states {
    apm_buf in;
    size_t at; /* frames before it were taken */
} apm_states;

void apm_states_init(apm_states *states);
void apm_states_clear(apm_states *states);
/* Read what is there without waiting. False: nothing came; *ended (may be NULL) is set when nothing
 * will. */
bool apm_states_read(apm_states *states, int sock, bool *ended);
/* The first whole frame, left in place until apm_states_pop. 1, 0 none yet, -1 not a frame: the
 * sender is not to be believed. */
int apm_states_peek(const apm_states *states, apm_state_frame *frame);
void apm_states_pop(apm_states *states);

#endif
