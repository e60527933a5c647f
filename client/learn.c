/*
 * learn.c - the settings that a module brings, for a process that must not run the module's code: a
 * forked one loads it, writes them down a pipe, and is gone.
 */
#include "client/app.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/error.h"

#define MAX_BYTES (1u << 20)

const char *
apm_app_load_failure(const char *path)
{
    const char *why = dlerror();
    size_t len = strlen(path);
    if (!why)
        return "unknown error";
    return strncmp(why, path, len) == 0 && strncmp(why + len, ": ", 2) == 0 ? why + len + 2 : why;
}

static void
write_all(int fd, const char *p, size_t len)
{
    for (ssize_t n; len > 0; p += n, len -= (size_t)n)
        if ((n = write(fd, p, len)) <= 0)
            _exit(1);
}

/* "=" and a setting, or "!" and an error, each ended by NUL; a lone "." says that all went well. */
static void
say(int fd, char what, const char *text)
{
    write_all(fd, &what, 1);
    write_all(fd, text, strlen(text) + 1);
}

static _Noreturn void
tell(int fd, const char *path)
{
    const apium_module *module = NULL;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle)
        module = dlsym(handle, "apium_exported_module");
    if (!module) {
        say(fd, '!', handle ? "it has no APIUM_MODULE()" : apm_app_load_failure(path));
        _exit(0);
    }
    /* Another version's is refused when it is loaded in earnest. */
    if (module->abi == APIUM_ABI)
        for (const char *const *line = module->settings; line && *line; line++)
            say(fd, '=', *line);
    say(fd, '.', "");
    _exit(0);
}

/* Everything that the other process says. */
static apium_status
listen_to(int fd, pid_t pid, apm_buf *buf, const char *path, apium_error *err)
{
    int status;
    for (;;) {
        char *room = apm_buf_reserve(buf, 4096);
        ssize_t n = room ? read(fd, room, 4096) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        buf->len += (size_t)n;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!buf->len || buf->failed || buf->p[buf->len - 1] != '\0')
        return apm_fail(err, APIUM_E_CONFIG,
                        "cannot load the module \"%s\": it ended the process that loaded it", path);
    return APIUM_OK;
}

static apium_status
apply(apium_app *app, const apm_buf *buf, const char *path, apium_error *err)
{
    apium_error why;
    apium_status st = APIUM_OK;
    bool whole = false;
    for (const char *p = buf->p; p < buf->p + buf->len && st == APIUM_OK; p += strlen(p) + 1) {
        if (*p == '!')
            st = apm_fail(&why, APIUM_E_CONFIG, "%s", p + 1);
        else if (*p == '=')
            st = apm_app_apply_setting(app, p + 1, &why);
        whole = *p == '.';
    }
    if (st == APIUM_OK && !whole)
        st = apm_fail(&why, APIUM_E_CONFIG, "it ended the process that loaded it");
    return st == APIUM_OK ? st
                          : apm_fail(err, st, "cannot load the module \"%s\": %s", path, why.text);
}

apium_status
apm_app_learn(apium_app *app, const char *path, apium_error *err)
{
    int ends[2];
    apm_buf buf;
    char local[4096];

    if (!strchr(path, '/')) { /* a file, not something to search for */
        snprintf(local, sizeof(local), "./%s", path);
        path = local;
    }
    if (pipe2(ends, O_CLOEXEC) < 0)
        return apm_fail_sys(err, errno, "cannot load the module \"%s\"", path);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        tell(ends[1], path);
    close(ends[1]);
    if (pid < 0) {
        int sys = errno;
        close(ends[0]);
        return apm_fail_sys(err, sys, "cannot load the module \"%s\"", path);
    }
    apm_buf_init(&buf, MAX_BYTES);
    apium_status st = listen_to(ends[0], pid, &buf, path, err);
    close(ends[0]);
    if (st == APIUM_OK)
        st = apply(app, &buf, path, err);
    apm_buf_clear(&buf);
    return st;
}
