/*
 * canvas.h - a workflow as data: reading a signature of any kind into a tree, changing it, writing it, giving its tasks their ids
 * (freezing), and what has to be sent for it now (applying). Pure: what is to be sent goes to a callback.
 *
 *   JSON ──read──▶ tree ──freeze──▶ tree with ids ──apply──▶ messages, sizes of chord headers
 *                   │                    └──▶ handles: the results there will be, with their parents and members
 *                   └──write──▶ JSON
 *
 * A tree, its handles and all text made on the way live in the arena they were made in. Freezing and applying change the tree: apply
 * one only once. Depth is bounded by APM_CANVAS_DEPTH, so functions here recurse.
 */
#ifndef APM_WORKFLOWS_CANVAS_H
#define APM_WORKFLOWS_CANVAS_H

#include "core/model/signature.h"

#define APM_CANVAS_DEPTH 160

/* The members of a signature's options that mean something here. */
typedef enum apm_opt {
    APM_OPT_OTHER,
    APM_OPT_TASK_ID,
    APM_OPT_REPLY_TO,
    APM_OPT_ROOT_ID,
    APM_OPT_PARENT_ID,
    APM_OPT_GROUP_ID,
    APM_OPT_GROUP_INDEX,
    APM_OPT_CHORD,
    APM_OPT_CHAIN,
    APM_OPT_LINK,
    APM_OPT_LINK_ERROR,
    APM_OPT_ADD_TO_PARENT,
    APM_OPT_STAMPED_HEADERS,
} apm_opt;

typedef struct apm_canvas apm_canvas;

typedef struct apm_option {
    apm_opt which;
    apm_str key;     /* with its quotes */
    apm_str raw;     /* JSON; absent when `sig` is set */
    apm_canvas *sig; /* APM_OPT_CHORD: the body; written when it is needed, it may still change */
} apm_option;

typedef struct apm_options {
    apm_option *items;
    size_t n, cap;
} apm_options;

struct apm_canvas {
    apm_sig_kind kind;
    bool immutable;
    apm_str task; /* unescaped */
    apm_str args,
        kwargs; /* raw JSON; absent: [] and {}. Of a chord: the `kwargs` inside its kwargs */
    apm_options options;
    apm_str subtask_type; /* raw, of a task; absent is null */
    apm_str other;        /* members that are unknown here: `"k": v, ...` */
    apm_canvas **tasks;   /* a chain's steps in order, a group's members, a chord's header */
    size_t n_tasks;
    apm_canvas *body; /* of a chord */
    apm_str json;     /* written; forgotten when it changes */
};

/* The result there will be: of a task, or of a group when `members` is set. As Celery's tuples: [[id, parent], null | [member...]]. */
typedef struct apm_handle {
    apm_str id;
    struct apm_handle *parent;
    struct apm_handle **members;
    size_t n_members;
    bool is_group;
} apm_handle;

/* ---- trees ---- */

/* `text` is validated JSON. E_DECODE names what is wrong: no object, no task, a chord without a body, a header that is no list ...;
 * E_TOOBIG: nested too deep. */
apium_status apm_canvas_read(apm_json text, apm_arena *arena, apm_canvas **out, apium_error *err);
/* Append the signature in Celery's form. */
void apm_canvas_write(apm_buf *buf, const apm_canvas *sig);

/* NULL without memory. */
apm_canvas *apm_canvas_new(apm_arena *arena, apm_sig_kind kind, const char *task);
/* NULL when it is not there or null. */
const apm_option *apm_canvas_opt(const apm_options *options, apm_opt which);
/* Set or replace; `raw` is JSON text. False without memory. */
bool apm_canvas_set(apm_arena *arena, apm_options *options, apm_opt which, apm_str raw);
bool apm_canvas_set_text(apm_arena *arena, apm_options *options, apm_opt which, apm_str text);
/* The same for an option by its name: "countdown". */
bool apm_canvas_set_named(apm_arena *arena, apm_options *options, const char *name, apm_str raw);
/* Take away an option by its name. */
void apm_canvas_unset(apm_options *options, const char *name);
/* The unescaped text of an option, absent when there is none or it is no string. */
apm_str apm_canvas_opt_text(apm_arena *arena, const apm_options *options, apm_opt which);
/* Celery's link() and link_error(): the last step, the body, every member, ... False without memory. `sig` is one signature, raw. */
bool apm_canvas_link(apm_arena *arena, apm_canvas *to, apm_str sig);
bool apm_canvas_link_error(apm_arena *arena, apm_canvas *to, apm_str sig);
/* Put the items of an array before the args. */
bool apm_canvas_prepend(apm_arena *arena, apm_canvas *sig, apm_str array);

/* ---- sending ---- */

typedef enum apm_canvas_op_kind {
    APM_CANVAS_SEND,
    /* Store the size of a chord's header, before anything that follows: the header's last part comes next. */
    APM_CANVAS_SIZE,
    /* So many more parts belong to the header than were sent with it. */
    APM_CANVAS_EXTEND,
    /* Keep `doc` under group_id as a group's tree is kept, before what is sent next: a piece of a chain (pieces.h). */
    APM_CANVAS_KEEP,
} apm_canvas_op_kind;

typedef struct apm_canvas_op {
    apm_canvas_op_kind kind;
    const apm_sig_send *send; /* lives during the call; its text lives in the arena */
    apm_str group_id;
    int64_t size;
    apm_str doc;
} apm_canvas_op;

/* How chords are completed on the result store in use. */
typedef enum apm_chords {
    APM_CHORDS_COUNTED, /* it counts parts */
    APM_CHORDS_POLLED,  /* celery.chord_unlock looks at the parts' states */
    APM_CHORDS_REFUSED, /* it keeps no results that others can read */
} apm_chords;

typedef struct apm_sending {
    apm_arena *arena;
    int64_t now_us; /* wall */
    apm_chords chords;
    const char *store;       /* named when chords are refused: "rpc" */
    apm_str reply_to;        /* of what has none; absent none */
    apm_str root_id;         /* of what has none; absent: its own id */
    apm_str parent_id;       /* of what has none; absent none */
    double retry_interval_s; /* result_chord_retry_interval */
    size_t piece; /* task_chain_piece_size; 0: chains travel whole, as where nothing can be kept */
    /* In the order in which it must happen. */
    apium_status (*emit)(void *arg, const apm_canvas_op *op, apium_error *err);
    void *arg;
    /* Is the task an errback that this process calls as a function, with the request and the exception? NULL: none is. */
    bool (*calls)(void *arg, apm_str task);
    apm_buf *children; /* tuples of what was sent are appended, with commas; NULL: nobody asks */
} apm_sending;

/*
 * Give every task its id, as Celery's freeze(): needs of `how` the arena, reply_to and what chords are. `id` names the last
 * task (or a group); absent: what the signature says, or a new one. NULL on failure.
 */
apm_handle *
apm_canvas_freeze(const apm_sending *how, apm_canvas *sig, apm_str id, apium_error *err);

/*
 * Send what can be sent now, as Celery's apply_async(args, **options): `args` (JSON array, absent none) are put before the arguments,
 * `options` (NULL none) laid over the signature's. The handle, when asked for, has parents. Refused before anything is emitted: a
 * chord where there can be none, one without a body.
 */
apium_status apm_canvas_apply(apm_sending *how, apm_canvas *sig, apm_str args,
                              const apm_options *options, apm_handle **out, apium_error *err);

/* How many parts a header member counts as. */
int64_t apm_canvas_size(const apm_canvas *sig);
/* Append a handle as Celery's result tuple. */
void apm_handle_write(apm_buf *buf, const apm_handle *handle);
/* chunks: the group of starmaps it stands for. `task` is the signature, raw; it a JSON array. */
apium_status apm_canvas_chunks(apm_arena *arena, apm_str task, apm_json it, int64_t n,
                               apm_canvas **out, apium_error *err);

#endif
