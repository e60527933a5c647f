/*
 * slots.h - the memory that the main process and its pool processes share, and the rules for
 * touching it.
 *
 *   head ▼                        tail ▼    the queue: slots in the order of submission,
 *   [ 4#17 │ 2#18 │ 9#19 │ 1#20 │ 3#21 │ ]  each with the number it was submitted under
 *              │
 *              ▼
 *   slot 2 { word: RUNNING by 1 #18, began, stop, lengths }  + its request and its outcome
 *
 * A slot's life is one atomic word of three fields, state, owner and sequence number:
 *
 *       FREE ──push──▶ READY ──take──▶ RUNNING ──done──▶ DONE ──release──▶ FREE
 *         ▲   main       │    process            process        main        │
 *         └──take back───┘ main                    └── process died: main ──┘
 *
 * A process takes by compare-and-swap on the slot FIRST and advances `head` afterwards; whoever
 * finds that the slot at the head is no longer ready under that number (taken, or taken back)
 * advances it too. So a process that is killed between any two instructions leaves no slot that
 * nobody points to, and a number is run at most once. Only the main process pushes, so the queue
 * needs no other care.
 *
 * Sleeping: a process sleeps on the futex in its seat, the main process in its loop's poll. Each
 * says so first and looks once more before it sleeps; the other side publishes first and looks at
 * the flag then. Sequentially consistent, so one of the two always sees the other: no wake-up is
 * lost, and none is sent to who is awake.
 *
 * The main process believes nothing it reads here: sequence numbers, queue order and free slots are
 * its own private copies; a word that no rule allows makes `broken` true. User code can scribble on
 * all of this.
 */
#ifndef APM_WORKER_SLOTS_H
#define APM_WORKER_SLOTS_H

#include <stdatomic.h>

#include <apium/status.h>

#include "core/base/buf.h"

#define APM_SLOT_INLINE 8192        /* bytes of request, and of outcome, that need no system call */
#define APM_SLOT_BIG    APM_BUF_MAX /* bytes of request, and of outcome, at most */
#define APM_SLOTS_MAX   8192
#define APM_SEATS_MAX   1024

typedef enum apm_slot_state {
    APM_SLOT_FREE,
    APM_SLOT_READY,
    APM_SLOT_RUNNING,
    APM_SLOT_DONE
} apm_slot_state;

typedef struct apm_slot {
    _Alignas(64) _Atomic uint64_t word;
    _Atomic int64_t began_ns; /* monotonic; 0 until the process has looked at its clock */
    _Atomic int stop;         /* APM_STOP_*: what apium_should_stop() reads */
    _Atomic uint32_t entered; /* number of the last job whose task was called */
    uint32_t request_len, outcome_len;
} apm_slot;

/* What main wants of the process in a seat. */
enum { APM_SEAT_STAY, APM_SEAT_LEAVE, APM_SEAT_HOLD };
/* The futex word of a seat. */
enum { APM_SEAT_AWAKE, APM_SEAT_IDLE, APM_SEAT_HELD };

/* The place of one pool process or thread. */
typedef struct apm_seat {
    _Alignas(64) _Atomic uint32_t asleep;
    _Atomic uint32_t command;
    _Atomic uint32_t
        held; /* number of the job that is to be killed: take nothing else while it is set */
    _Atomic uint32_t asked,
        answered; /* a sign of life: the process copies the number between jobs */
} apm_seat;

/* How deep the main process sleeps. */
enum {
    APM_MAIN_AWAKE,
    APM_MAIN_DOZES,  /* a timer of its own will look soon: outcomes may gather */
    APM_MAIN_SLEEPS, /* no timer: wake it for every outcome */
};

typedef struct apm_shared apm_shared; /* slots.c */

/* One process's view. The second group is the main process's alone. */
typedef struct apm_slots {
    int fd;
    apm_shared *shared;
    size_t mapped_bytes;
    apm_slot *slot;
    apm_seat *seat;
    unsigned n, seats; /* checked copies of what the shared page says */

    uint64_t *order;     /* the queue's content as we wrote it */
    uint64_t tail, seen; /* positions: next to write; first not yet looked at */
    uint32_t *live; /* by slot: the number it was pushed under; 0 when it is free or taken back */
    uint32_t *spilled; /* by slot: bytes of its request when they did not fit inline */
    /* By slot, for its request and its outcome: bytes of memory that wait for the next big one; and all of them. */
    uint32_t (*kept)[2];
    size_t kept_bytes;
    unsigned *free, n_free;
    uint64_t delivered;
    unsigned seated; /* seats from here on were never used */
    bool broken;
} apm_slots;

/* Make the memory: `n` slots (rounded up to a power of two), `seats` seats. */
apium_status apm_slots_create(apm_slots *slots, unsigned n, unsigned seats, apium_error *err);
/* Map it in another process. The descriptor becomes ours on success. */
apium_status apm_slots_attach(apm_slots *slots, int fd, apium_error *err);
void apm_slots_close(apm_slots *slots);
/* Empty all of it again, `broken` too. No process may be left that has it mapped. */
void apm_slots_reset(apm_slots *slots);

/* ---- main process ---- */

/* How many can be pushed now. */
unsigned apm_slots_room(const apm_slots *slots);
/* Take a free slot, store the request and what is behind it, make it ready under `seq` (not 0, not in use). E_BUSY
 * without room, E_TOOBIG. */
apium_status apm_slots_push(apm_slots *slots, uint32_t seq, apm_str request, apm_str behind,
                            unsigned *slot, apium_error *err);
/* Wake as many sleepers as there is work for. */
void apm_slots_wake(apm_slots *slots);
/* True: it had not begun and will not. */
bool apm_slots_take_back(apm_slots *slots, unsigned slot);
/* The next slot, in the order of pushing, that was taken by a process since the last call; -1 when
 * there is none. */
int apm_slots_next_taken(apm_slots *slots);
/* The state of a slot that we pushed; RUNNING and DONE tell whose it is. */
apm_slot_state apm_slots_look(apm_slots *slots, unsigned slot, unsigned *seat);
/* Was the task of the job in this slot called? Taken is not yet called. */
bool apm_slots_entered(const apm_slots *slots, unsigned slot);
/* The outcome of a DONE slot, copied into buf (reset first): nobody can change it after it was
 * checked. */
apium_status apm_slots_outcome(apm_slots *slots, unsigned slot, apm_buf *buf, apium_error *err);
/* Free a slot that is DONE, or RUNNING by a process that is dead. */
void apm_slots_release(apm_slots *slots, unsigned slot);
/* Keep the seat's process from taking anything but the job it runs. False when it does not run it
 * any more (nothing is held then). A signal sent after true cannot hit another job. */
bool apm_slots_hold(apm_slots *slots, unsigned seat, unsigned slot);
void apm_slots_unhold(apm_slots *slots, unsigned seat);
void apm_slots_command(apm_slots *slots, unsigned seat, uint32_t command);
/* Ask the seat's process for a sign of life under a number, and: has it given that one? */
void apm_slots_ask(apm_slots *slots, unsigned seat, uint32_t number);
bool apm_slots_answered(const apm_slots *slots, unsigned seat, uint32_t number);
/* Make a seat new for another process. */
void apm_slots_reseat(apm_slots *slots, unsigned seat);
/* Has a process finished something that we have not released yet? */
bool apm_slots_any_done(const apm_slots *slots);
/* Say how deep we sleep (or that we woke); look once more afterwards. */
void apm_slots_main_state(apm_slots *slots, uint32_t how);

/* ---- pool process ---- */

/* Give a sign of life if one is asked for. STAY: take what is there. LEAVE. HOLD: neither; somebody is about to send us a signal. */
uint32_t apm_slots_orders(apm_slots *slots, unsigned seat);
/* The next ready slot, now RUNNING in our seat; -1 when the queue is empty. */
int apm_slots_take(apm_slots *slots, unsigned seat, uint32_t *seq);
/* The request: inside the slot, or read into buf. */
apium_status apm_slots_request(apm_slots *slots, unsigned slot, apm_buf *buf, apm_str *request,
                               apium_error *err);
/* The task is called now. */
void apm_slots_enter(apm_slots *slots, unsigned slot, uint32_t seq);
/* Store the outcome and what is behind it. */
apium_status apm_slots_answer(apm_slots *slots, unsigned slot, apm_str outcome, apm_str behind,
                              apium_error *err);
/* RUNNING -> DONE. True when the main process has to be woken. */
bool apm_slots_done(apm_slots *slots, unsigned seat, unsigned slot, uint32_t seq, int64_t now_ns);
/* Sleep until there may be work, a command, or the hold is gone. */
void apm_slots_sleep(apm_slots *slots, unsigned seat);

#endif
