/*
 * daemon.h - what a long-running command does around its work: leave the terminal, drop privileges, keep a pidfile.
 */
#ifndef APM_CLI_DAEMON_H
#define APM_CLI_DAEMON_H

#include <sys/types.h>

#include "core/base/error.h"

/*
 * Become a background process: the caller returns in the grandchild only. The parent waits for apm_daemon_ready (or the
 * child's end) and leaves with the code that it was given, so that what goes wrong at the start is seen on the terminal.
 */
apium_status apm_daemon_detach(apium_error *err);
/* In the background process: it is on its way. Lets go of the terminal. Does nothing when apm_daemon_detach was not called. */
void apm_daemon_ready(void);
/* In the background process: it ends with this code before it was ready. */
void apm_daemon_failed(int code);

/* Any of them may be NULL. umask is octal ("022"), user and group are names or numbers. */
apium_status
apm_daemon_privileges(const char *user, const char *group, const char *mask, apium_error *err);

/*
 * Write our pid. E_BUSY when a living process holds the file, with Celery's text; a stale file is replaced. After an
 * exec of this same process its own file is fine.
 */
apium_status apm_pidfile_write(const char *path, apium_error *err);
/* Remove it, if it is ours. */
void apm_pidfile_remove(const char *path);

#endif
