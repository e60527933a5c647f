/* server.c - see server.h */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "port.h"

#define START_MS 15000

static int
missing(const char *what)
{
    const char *strict = getenv("APIUM_TEST_STRICT");
    bool fail = strict && strcmp(strict, "1") == 0;

    fprintf(stderr, "%s is not installed\n", what);
    return fail ? 1 : SERVER_SKIP;
}

bool
server_find(const char *name, char *out, size_t size)
{
    const char *path = getenv("PATH");
    char all[4096];

    snprintf(all, sizeof(all), "%s:/usr/bin:/usr/sbin:/usr/local/bin", path ? path : "");
    for (char *save, *dir = strtok_r(all, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
        snprintf(out, size, "%s/%s", dir, name);
        if (access(out, X_OK) == 0)
            return true;
    }
    return false;
}

int
server_free_port(void)
{
    return port_free();
}

static long
now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Does it answer PING, and not with -LOADING? A server of TLS only shows that it listens. */
static bool
answers(const server *srv)
{
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons((unsigned short)srv->port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char reply[64] = "";
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;

    if (ok && !srv->tls && !srv->listens) {
        struct pollfd pfd = { .fd = fd, .events = POLLIN };
        ok = write(fd, "PING\r\n", 6) == 6 && poll(&pfd, 1, 500) == 1 &&
             read(fd, reply, sizeof(reply) - 1) > 0 &&
             (strncmp(reply, "+PONG", 5) == 0 || strncmp(reply, "-NOAUTH", 7) == 0);
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

int
server_restart(server *srv)
{
    long end = now_ms() + START_MS;

    pid_t pid = fork();
    if (pid < 0) {
        perror("cannot fork");
        return 1;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that dies leaves no server behind */
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        execv(srv->argv[0], srv->argv);
        _exit(127);
    }
    srv->pid = pid;
    while (!answers(srv)) {
        if (waitpid(pid, NULL, WNOHANG) == pid || now_ms() > end) {
            fprintf(stderr, "%s does not start on port %d (its folder is %s)\n", srv->argv[0],
                    srv->port, srv->dir);
            return 1;
        }
        usleep(10000); /* until the condition above holds */
    }
    return 0;
}

static void
add_arg(server *srv, const char *arg)
{
    size_t n = 0;
    while (srv->argv[n])
        n++;
    if (n + 1 < sizeof(srv->argv) / sizeof(*srv->argv))
        srv->argv[n] = strdup(arg);
}

static int
prepare(server *srv, const char *program)
{
    char exe[4096];

    memset(srv, 0, sizeof(*srv));
    if (strchr(program, '/'))
        snprintf(exe, sizeof(exe), "%s", program);
    else if (!server_find(program, exe, sizeof(exe)))
        return missing(program);
    strcpy(srv->dir, "/tmp/apium-server-XXXXXX");
    srv->port = server_free_port();
    if (!mkdtemp(srv->dir) || !srv->port) {
        perror("cannot prepare a server");
        return 1;
    }
    add_arg(srv, exe);
    return 0;
}

int
server_start_redis(server *srv, const char *const *more)
{
    char port[16];
    int rc = prepare(srv, "redis-server");
    if (rc)
        return rc;
    for (const char *const *arg = more; arg && *arg; arg++)
        if (strcmp(*arg, "--tls-port") == 0)
            srv->tls = true;
    snprintf(port, sizeof(port), "%d", srv->port);
    const char *const args[] = { "--port",
                                 srv->tls ? "0" : port,
                                 "--bind",
                                 "127.0.0.1",
                                 "--dir",
                                 srv->dir,
                                 "--appendonly",
                                 "yes",
                                 "--appendfsync",
                                 "always",
                                 "--save",
                                 "",
                                 "--loglevel",
                                 "warning",
                                 NULL };
    for (const char *const *arg = args; *arg; arg++)
        add_arg(srv, *arg);
    for (const char *const *arg = more; arg && *arg; arg++) {
        add_arg(srv, *arg);
        if (strcmp(*arg, "--tls-port") == 0 && arg[1] && strcmp(arg[1], "0") == 0) {
            add_arg(srv, port); /* "0" asks for the free port */
            arg++;
        }
    }
    return server_restart(srv);
}

int
server_start_sentinel(server *srv, const char *name, int port)
{
    char path[128];
    int rc = prepare(srv, "redis-server");
    if (rc)
        return rc;
    snprintf(path, sizeof(path), "%s/sentinel.conf", srv->dir);
    FILE *conf = fopen(path, "w");
    if (!conf) {
        perror(path);
        return 1;
    }
    fprintf(conf,
            "port %d\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 1\n"
            "sentinel down-after-milliseconds %s 500\nsentinel failover-timeout %s 2000\n",
            srv->port, srv->dir, name, port, name, name);
    fclose(conf);
    add_arg(srv, path);
    add_arg(srv, "--sentinel");
    return server_restart(srv);
}

int
server_start_web(server *srv, const char *apium)
{
    char port[16], store[128];
    int rc = prepare(srv, apium);
    if (rc)
        return rc;
    srv->listens = true;
    snprintf(port, sizeof(port), "%d", srv->port);
    snprintf(store, sizeof(store), "sqlite:///%s/results.db", srv->dir);
    const char *const args[] = { "--result-backend", store, "-q", "web", "--port", port, NULL };
    for (const char *const *arg = args; *arg; arg++)
        add_arg(srv, *arg);
    return server_restart(srv);
}

int
server_start_recorder(server *srv, const char *scheme)
{
    char port[16];
    int rc = prepare(srv, "python3");
    if (rc)
        return rc;
    srv->listens = true;
    snprintf(port, sizeof(port), "%d", srv->port);
    const char *const args[] = { "-m", "recorder", scheme, port, NULL };
    for (const char *const *arg = args; *arg; arg++)
        add_arg(srv, *arg);
    return server_restart(srv);
}

void
server_kill(server *srv)
{
    if (srv->pid <= 0)
        return;
    kill(srv->pid, SIGKILL);
    while (waitpid(srv->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    srv->pid = 0;
}

void
server_freeze(server *srv)
{
    kill(srv->pid, SIGSTOP);
}

void
server_thaw(server *srv)
{
    kill(srv->pid, SIGCONT);
}

void
server_stop(server *srv)
{
    char command[128];

    server_kill(srv);
    for (size_t i = 0; srv->argv[i]; i++) {
        free(srv->argv[i]);
        srv->argv[i] = NULL;
    }
    if (!srv->dir[0])
        return;
    snprintf(command, sizeof(command), "rm -rf %s", srv->dir);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", srv->dir);
    srv->dir[0] = '\0';
}
