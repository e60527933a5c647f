/*
 * forkserver.h - what the main process and the fork server say to each other, over a SOCK_SEQPACKET
 * pair: one message a packet, descriptors beside it.
 *
 *     fork server                               main process
 *     HELLO {bytes of the table} + memfd  ───▶   (once; or FAILED {text} and the end)
 *                                         ◀───  FORK {seat, limits, node name}
 *     FORKED {seat, pid} + socket, pidfd  ───▶   (or FORKED {seat, error number})
 *     EXITED {pid, status}                ───▶
 *                                         ◀───  PING
 *     PONG                                ───▶
 *
 * The pool process waits for one byte on its socket before it touches anything: until then its fork
 * server may die without the main process ever hearing of it, and then the socket ends.
 */
#ifndef APM_WORKER_FORKSERVER_H
#define APM_WORKER_FORKSERVER_H

#include "worker/pool.h"

#define APM_FS_ENV "APIUM_FORK_SERVER"

/* The descriptors a fork server is started with. */
enum { APM_FS_CONTROL = 3, APM_FS_SLOTS, APM_FS_WAKE, APM_FS_LIFE, APM_FS_END };

typedef enum apm_fs_kind {
    APM_FS_HELLO = 1,
    APM_FS_FAILED,
    APM_FS_FORK,
    APM_FS_FORKED,
    APM_FS_EXITED,
    APM_FS_PING,
    APM_FS_PONG
} apm_fs_kind;

typedef struct apm_fs_msg {
    apm_fs_kind kind;
    unsigned seat;
    int pid, value; /* value: waitpid's status, an error number, an apium_status */
    int64_t max_tasks, max_memory_kib, bytes;
    char text[256];
} apm_fs_msg;

#define APM_FS_FDS 2

/* Send a message with n descriptors. False: the other side is gone. */
bool apm_fs_send(int sock, const apm_fs_msg *msg, const int *fds, unsigned n);
/* Receive one, without waiting when `nowait`: 1, 0 nothing there yet, -1 the end. fds not sent are
 * -1; the caller owns the others. */
int apm_fs_recv(int sock, bool nowait, apm_fs_msg *msg, int fds[APM_FS_FDS]);

/* The task table as bytes, and back: an array of n infos followed by their text, one allocation for
 * free(). */
void apm_fs_table_write(const apium_app *app, apm_buf *buf);
apium_status apm_fs_table_read(apm_str bytes, apm_task_info **infos, size_t *n, apium_error *err);

#endif
