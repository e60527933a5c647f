/* rabbitmq.c - a server of the test's own; see rabbitmq.h. */
#include "tests/support/rabbitmq.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "tests/support/port.h"

#define START_S 120

static _Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static _Noreturn void
die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

static _Noreturn void
lacking(const char *what)
{
    const char *strict = getenv("APIUM_TEST_STRICT");

    fprintf(stderr, "%s is not installed\n", what);
    exit(strict && strcmp(strict, "1") == 0 ? 1 : 77);
}

static int
free_port(void)
{
    int port = port_free();

    if (!port)
        die("no free port");
    return port;
}

static void
write_file(const rabbitmq *server, const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", server->folder, name);
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        die("cannot write %s: %s", path, strerror(errno));
}

/* ---- processes ---- */

/* When this program is gone its end of the pipe is, and the guard kills what it was told of. */
static void
start_guard(rabbitmq *server)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        die("no pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        int groups[16], n = 0, group;
        setsid();
        close(ends[1]);
        while (read(ends[0], &group, sizeof(group)) == (ssize_t)sizeof(group)) {
            if (group > 0 && n < 16)
                groups[n++] = group;
            for (int i = 0; group < 0 && i < n; i++)
                if (groups[i] == -group)
                    groups[i] = groups[--n];
        }
        for (int i = 0; i < n; i++)
            kill(-groups[i], SIGKILL);
        char path[128];
        snprintf(path, sizeof(path), "rm -rf %s", server->folder);
        _exit(system(path) != 0);
    }
    if (pid < 0)
        die("no guard: %s", strerror(errno));
    close(ends[0]);
    server->guard = ends[1];
}

static void
tell_guard(const rabbitmq *server, int group)
{
    if (write(server->guard, &group, sizeof(group)) != (ssize_t)sizeof(group))
        die("the guard is gone: %s", strerror(errno));
}

static void
set_environment(const rabbitmq *server)
{
    static const char *const names[] = { "RABBITMQ_MNESIA_BASE", "RABBITMQ_LOG_BASE", "HOME",
                                         NULL };
    char text[256];

    for (const char *const *name = names; *name; name++)
        setenv(*name, server->folder, 1);
    snprintf(text, sizeof(text), "%d", server->epmd_port);
    setenv("ERL_EPMD_PORT", text, 1);
    setenv("ERL_EPMD_ADDRESS", "127.0.0.1", 1);
    snprintf(text, sizeof(text), "%s/inetrc", server->folder);
    setenv("ERL_INETRC", text, 1);
    snprintf(text, sizeof(text), "apium%d@localhost", server->port);
    setenv("RABBITMQ_NODENAME", text, 1);
    snprintf(text, sizeof(text), "%d", server->dist_port);
    setenv("RABBITMQ_DIST_PORT", text, 1);
    snprintf(text, sizeof(text), "%s/pid", server->folder);
    setenv("RABBITMQ_PID_FILE", text, 1);
    snprintf(text, sizeof(text), "%s/rabbitmq", server->folder);
    setenv("RABBITMQ_CONFIG_FILE", text, 1);
    snprintf(text, sizeof(text), "%s/none", server->folder);
    setenv("RABBITMQ_CONF_ENV_FILE", text, 1);
    snprintf(text, sizeof(text), "%s/enabled_plugins", server->folder);
    setenv("RABBITMQ_ENABLED_PLUGINS_FILE", text, 1);
    setenv("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
           "-start_epmd false +S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}", 1);
    setenv("AMQP_URL", rabbitmq_url(server), 1);
}

/* In a session of its own, so that nothing that is sent to the test's group reaches it. */
static int
spawn(const rabbitmq *server, char *const argv[])
{
    char log[128];
    pid_t pid = fork();

    if (pid < 0)
        die("cannot fork: %s", strerror(errno));
    if (pid == 0) {
        setsid();
        set_environment(server);
        snprintf(log, sizeof(log), "%s/log", server->folder);
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600), in = open("/dev/null", O_RDONLY);
        dup2(in, 0);
        dup2(out, 1);
        dup2(out, 2);
        execvp(argv[0], argv);
        _exit(127);
    }
    tell_guard(server, pid);
    return pid;
}

static void
end_group(const rabbitmq *server, int *pid)
{
    if (*pid <= 0)
        return;
    kill(-*pid, SIGKILL);
    waitpid(*pid, NULL, 0);
    tell_guard(server, -*pid);
    *pid = 0;
}

/* ---- does it answer? ---- */

static bool
answers(int port)
{
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons((uint16_t)port) };
    struct timeval limit = { .tv_sec = 5 };
    char byte;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    bool ok = connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
              write(fd, "AMQP\0\0\x09\x01", 8) == 8 && read(fd, &byte, 1) == 1;
    close(fd);
    return ok;
}

static void
show_log(const rabbitmq *server)
{
    char command[128];

    snprintf(command, sizeof(command), "tail -30 %s/log >&2", server->folder);
    if (system(command) != 0)
        fprintf(stderr, "(no log)\n");
}

void
rabbitmq_up(rabbitmq *server)
{
    char *argv[] = { NULL, NULL };
    char debian[] = "/usr/lib/rabbitmq/bin/rabbitmq-server", other[] = "rabbitmq-server";
    struct timespec pause = { .tv_nsec = 50000000 };
    time_t end = time(NULL) + START_S;

    /* Debian's own command would run it as the user rabbitmq, who may not write here. */
    argv[0] = access(debian, X_OK) == 0 ? debian : other;
    server->server = spawn(server, argv);
    while (!answers(server->port)) {
        if (waitpid(server->server, NULL, WNOHANG) != 0 || time(NULL) > end) {
            show_log(server);
            die("RabbitMQ does not start");
        }
        nanosleep(&pause, NULL);
    }
}

void
rabbitmq_kill(rabbitmq *server)
{
    struct timespec pause = { .tv_nsec = 10000000 };

    end_group(server, &server->server);
    /* It may be the child of another process, which reaps it in its own time. */
    while (answers(server->port))
        nanosleep(&pause, NULL);
}

void
rabbitmq_start(rabbitmq *server, const char *conf)
{
    char text[2048], command[1200];

    *server = (rabbitmq){ .folder = "/tmp/apium-rabbitmq-XXXXXX" };
    if (system("command -v epmd >/dev/null && { test -x /usr/lib/rabbitmq/bin/rabbitmq-server || "
               "command -v "
               "rabbitmq-server >/dev/null; }") != 0)
        lacking("rabbitmq-server");
    if (!mkdtemp(server->folder))
        die("no folder: %s", strerror(errno));
    server->port = free_port();
    server->tls_port = free_port();
    server->epmd_port = free_port();
    server->dist_port = free_port();
    start_guard(server);
    /* The key of a certificate that expires tomorrow, for this machine's loopback address. */
    snprintf(
        command, sizeof(command),
        "cd %s && openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout key.pem -out cert.pem "
        "-subj /CN=localhost "
        "-addext subjectAltName=DNS:localhost,IP:127.0.0.1 >openssl.log 2>&1 && cp cert.pem ca.pem",
        server->folder);
    if (system(command) != 0)
        lacking("openssl");
    snprintf(text, sizeof(text),
             "listeners.tcp.default = 127.0.0.1:%d\n"
             "listeners.ssl.default = 127.0.0.1:%d\n"
             "ssl_options.cacertfile = %s/ca.pem\nssl_options.certfile = "
             "%s/cert.pem\nssl_options.keyfile = %s/key.pem\n"
             "disk_free_limit.absolute = 10MB\nlog.file = false\nlog.console = "
             "true\nlog.console.level = warning\n%s",
             server->port, server->tls_port, server->folder, server->folder, server->folder, conf);
    write_file(server, "rabbitmq.conf", text);
    write_file(server, "enabled_plugins", "[].\n");
    /* A bare machine may lack /etc/hosts: Erlang wants to know who localhost is. */
    write_file(server, "inetrc",
               "{host, {127,0,0,1}, [\"localhost\"]}.\n{lookup, [file, native]}.\n");
    char epmd[] = "epmd", port[] = "-port", number[16], address[] = "-address",
         loopback[] = "127.0.0.1";
    snprintf(number, sizeof(number), "%d", server->epmd_port);
    server->epmd = spawn(server, (char *[]){ epmd, port, number, address, loopback, NULL });
    rabbitmq_up(server);
}

void
rabbitmq_stop(rabbitmq *server)
{
    char command[128];

    end_group(server, &server->server);
    end_group(server, &server->epmd);
    close(server->guard); /* which removes the folder */
    snprintf(command, sizeof(command), "rm -rf %s", server->folder);
    if (system(command) != 0)
        fprintf(stderr, "%s is left\n", server->folder);
}

const char *
rabbitmq_url(const rabbitmq *server)
{
    static char url[64];

    snprintf(url, sizeof(url), "amqp://guest:guest@127.0.0.1:%d//", server->port);
    return url;
}

/* ---- tools ---- */

/* The output of a command, which has to succeed. */
static const char *
output_of(const rabbitmq *server, const char *command)
{
    static char text[65536];
    int ends[2], status;
    size_t len = 0;
    ssize_t n;

    if (pipe(ends) != 0)
        die("no pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        set_environment(server);
        dup2(ends[1], 1);
        close(ends[0]);
        close(ends[1]);
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    close(ends[1]);
    while (len < sizeof(text) - 1 && (n = read(ends[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    close(ends[0]);
    waitpid(pid, &status, 0);
    if (status != 0)
        die("`%s` failed: %s", command, text);
    return text;
}

const char *
rabbitmq_ctl(const rabbitmq *server, const char *words)
{
    char command[600];
    const char *tool = access("/usr/lib/rabbitmq/bin/rabbitmqctl", X_OK) == 0
                           ? "/usr/lib/rabbitmq/bin/rabbitmqctl"
                           : "rabbitmqctl";

    snprintf(command, sizeof(command), "%s -q -n apium%d@localhost %s 2>&1", tool, server->port,
             words);
    return output_of(server, command);
}

const char *
rabbitmq_python(const rabbitmq *server, const char *program)
{
    char command[128];

    write_file(server, "program.py", program);
    snprintf(command, sizeof(command),
             "PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 %s/program.py 2>&1", server->folder);
    return output_of(server, command);
}
