/* daemon.c - background processes, privileges, pidfiles; see daemon.h. */
#include "cli/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int ready_fd = -1; /* the parent waits at the other end */

/* Wait for the word of the grandchild; without one, it died and has said why. */
static _Noreturn void
wait_for_start(int fd)
{
    unsigned char code;
    ssize_t n;
    do
        n = read(fd, &code, 1);
    while (n < 0 && errno == EINTR);
    _exit(n == 1 ? code : EXIT_FAILURE);
}

apium_status
apm_daemon_detach(apium_error *err)
{
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0)
        return apm_fail_sys(err, errno, "cannot detach");
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        apium_status st = apm_fail_sys(err, errno, "cannot detach");
        close(pair[0]);
        close(pair[1]);
        return st;
    }
    if (pid > 0) {
        close(pair[1]);
        wait_for_start(pair[0]);
    }
    close(pair[0]);
    ready_fd = pair[1];
    setsid();
    pid = fork(); /* no session leader: it can never get a terminal again */
    if (pid > 0)
        _exit(EXIT_SUCCESS);
    return pid < 0 ? apm_fail_sys(err, errno, "cannot detach") : APIUM_OK;
}

/* Tell the parent, who then leaves with this code. */
static void
tell(int code)
{
    unsigned char byte = (unsigned char)code;
    ssize_t n = write(ready_fd, &byte, 1);
    (void)n; /* the parent is gone: nobody to tell */
    close(ready_fd);
    ready_fd = -1;
}

void
apm_daemon_ready(void)
{
    if (ready_fd < 0)
        return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        fflush(NULL);
        for (int fd = 0; fd <= 2; fd++)
            dup2(null, fd);
        if (null > 2)
            close(null);
    }
    tell(EXIT_SUCCESS);
}

void
apm_daemon_failed(int code)
{
    if (ready_fd >= 0)
        tell(code);
}

/* A number, or the id that a name has; -1 when it has none. */
static long
id_of(const char *text, bool group)
{
    char *end;
    long number = strtol(text, &end, 10);
    if (*text && !*end)
        return number >= 0 ? number : -1;
    if (group) {
        const struct group *entry = getgrnam(text);
        return entry ? (long)entry->gr_gid : -1;
    }
    const struct passwd *entry = getpwnam(text);
    return entry ? (long)entry->pw_uid : -1;
}

apium_status
apm_daemon_privileges(const char *user, const char *group, const char *mask, apium_error *err)
{
    if (mask) {
        char *end;
        long bits = strtol(mask, &end, 8);
        if (!*mask || *end || bits < 0 || bits > 0777)
            return apm_fail(err, APIUM_E_INVALID,
                            "Invalid value for '--umask': \"%s\" is no octal number up to 777",
                            mask);
        umask((mode_t)bits);
    }
    long uid = user ? id_of(user, false) : -1, gid = group ? id_of(group, true) : -1;
    if (user && uid < 0)
        return apm_fail(err, APIUM_E_INVALID, "Invalid value for '--uid': no user \"%s\"", user);
    if (group && gid < 0)
        return apm_fail(err, APIUM_E_INVALID, "Invalid value for '--gid': no group \"%s\"", group);
    const struct passwd *entry = user ? getpwuid((uid_t)uid) : NULL;
    if (user && gid < 0 && entry)
        gid = (long)entry->pw_gid;
    if (gid >= 0 && setgid((gid_t)gid) < 0)
        return apm_fail_sys(err, errno, "cannot become group %ld", gid);
    if (user && entry && geteuid() == 0 &&
        initgroups(entry->pw_name, (gid_t)(gid >= 0 ? gid : getgid())) < 0)
        return apm_fail_sys(err, errno, "cannot take the groups of %s", entry->pw_name);
    if (user && setuid((uid_t)uid) < 0)
        return apm_fail_sys(err, errno, "cannot become user %ld", uid);
    if (user && uid != 0 && setuid(0) == 0)
        return apm_fail(err, APIUM_E_REFUSED, "cannot drop the privileges of root for good");
    return APIUM_OK;
}

/* The pid in the file; 0 when it holds none, -1 when there is no file. */
static pid_t
read_pid(const char *path)
{
    char text[32], *end;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -1 : 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return 0;
    text[n] = 0;
    long pid = strtol(text, &end, 10);
    return pid > 0 && pid <= INT32_MAX && (*end == '\n' || !*end) ? (pid_t)pid : 0;
}

apium_status
apm_pidfile_write(const char *path, apium_error *err)
{
    for (int attempt = 0;; attempt++) {
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd >= 0) {
            int n = dprintf(fd, "%ld\n", (long)getpid());
            if (fsync(fd) < 0 || n < 0 || close(fd) < 0) {
                apium_status st = apm_fail_sys(err, errno, "cannot write the pidfile \"%s\"", path);
                unlink(path);
                return st;
            }
            return APIUM_OK;
        }
        if (errno != EEXIST || attempt == 3)
            return apm_fail_sys(err, errno, "cannot create the pidfile \"%s\"", path);
        pid_t pid = read_pid(path);
        if (pid == getpid())
            return APIUM_OK; /* ours, from before an exec */
        if (pid == 0)
            return apm_fail(err, APIUM_E_BUSY, "Pidfile (%s) already exists, and holds no pid.",
                            path);
        if (pid > 0 && (kill(pid, 0) == 0 || errno == EPERM))
            return apm_fail(err, APIUM_E_BUSY,
                            "Pidfile (%s) already exists.\nSeems we're already running? (pid: %ld)",
                            path, (long)pid);
        unlink(path); /* of a process that is no more */
    }
}

void
apm_pidfile_remove(const char *path)
{
    if (read_pid(path) == getpid())
        unlink(path);
}
