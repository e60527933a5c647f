/* test_httpd.c - the HTTP server, and peers that dribble, idle, do not read, or leave: plain sockets, with times shortened. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/httpd/httpd.h"
#include "tests/support/suite.h"

#define BIG (16 << 20)

typedef struct server {
    uv_loop_t loop;
    uv_timer_t tick; /* so that the loop does not sleep for long */
    apm_httpd *httpd;
    int requests, gone, streams_gone;
    apm_http_req *waiting;
    apm_http_stream *stream;
    size_t body;
} server;

static void
on_gone(void *arg)
{
    server *s = arg;
    apm_http_req *req = s->waiting;
    s->gone++;
    s->waiting = NULL;
    apm_http_answer(req, &(apm_http_reply){ .status = 503, .body = APM_STR("{}") });
}

static void
on_stream_gone(void *arg)
{
    server *s = arg;
    s->streams_gone++;
    s->stream = NULL;
}

static void
on_request(void *arg, apm_http_req *req)
{
    server *s = arg;
    s->requests++;
    s->body = apm_http_body(req).len;
    if (strcmp(apm_http_target(req), "/wait") == 0) {
        s->waiting = req;
        apm_http_on_gone(req, on_gone, s);
    } else if (strcmp(apm_http_target(req), "/stream") == 0) {
        s->stream = apm_http_begin(req, &(apm_http_reply){ .status = 200, .type = "text/plain" },
                                   on_stream_gone, s);
        ck_assert_ptr_nonnull(s->stream);
    } else if (strcmp(apm_http_target(req), "/big") == 0) {
        apm_buf big;
        apm_buf_init(&big, BIG * 2);
        for (int i = 0; i < BIG / 64; i++)
            apm_buf_addz(&big, "0123456789012345678901234567890123456789012345678901234567890123");
        apm_http_answer(req, &(apm_http_reply){ .status = 200, .take = &big });
    } else {
        apm_http_answer(req, &(apm_http_reply){ .status = 200, .body = APM_STR("{}") });
    }
}

static void
on_tick(uv_timer_t *timer)
{
    (void)timer;
}

static server *
start(unsigned max_connections)
{
    apium_error error, *err = &error;
    server *s = calloc(1, sizeof(*s));
    ck_assert_int_eq(uv_loop_init(&s->loop), 0);
    uv_timer_init(&s->loop, &s->tick);
    uv_timer_start(&s->tick, on_tick, 5, 5);
    const apm_httpd_opts opts = {
        .addr = "127.0.0.1",
        .max_connections = max_connections,
        .max_body_bytes = 1 << 20,
        .idle_ms = 600,
        .request_ms = 600,
        .answer_ms = 600,
        .on_request = on_request,
        .arg = s,
    };
    ck_ok(apm_httpd_open(&s->loop, &opts, &s->httpd, err));
    return s;
}

static void
stop(server *s)
{
    apm_httpd_close(s->httpd);
    uv_close((uv_handle_t *)&s->tick, NULL);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&s->loop), 0);
    free(s);
}

static int
peer(const server *s, int rcvbuf)
{
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons((uint16_t)apm_httpd_port(s->httpd)) };
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(sock, 0);
    if (rcvbuf)
        setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof(rcvbuf));
    ck_assert_int_eq(connect(sock, (struct sockaddr *)&addr, sizeof(addr)), 0);
    fcntl(sock, F_SETFL, O_NONBLOCK);
    return sock;
}

static void
say(int sock, const char *text)
{
    ck_assert_int_eq(send(sock, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static int
asks(const server *s, int rcvbuf, const char *text)
{
    int sock = peer(s, rcvbuf);
    say(sock, text);
    return sock;
}

/* Turn the loop until the condition holds; a test fails when it does not within 10 s. */
#define turn_until(s, condition)                                                                   \
    do {                                                                                           \
        int64_t end_ = apm_clock_ms() + 10000;                                                     \
        while (!(condition)) {                                                                     \
            ck_assert_msg(apm_clock_ms() < end_, "not within 10 s: %s", #condition);               \
            uv_run(&(s)->loop, UV_RUN_ONCE);                                                       \
        }                                                                                          \
    } while (0)

static void
turn_for(server *s, int64_t ms)
{
    int64_t end = apm_clock_ms() + ms;
    while (apm_clock_ms() < end)
        uv_run(&s->loop, UV_RUN_ONCE);
}

/* Has the server ended the connection? What it said before is read and forgotten. */
static bool
ended(int sock)
{
    char text[65536];
    ssize_t n;
    do
        n = recv(sock, text, sizeof(text), 0);
    while (n > 0);
    return n == 0 || errno == ECONNRESET;
}

/* What is there of an answer begins so. */
static bool
answered(int sock, const char *head)
{
    char text[256] = "";
    ssize_t n = recv(sock, text, sizeof(text) - 1, MSG_PEEK);
    return n >= (ssize_t)strlen(head) && memcmp(text, head, strlen(head)) == 0;
}

/* Say a text a byte at a time, every 50 ms, until the server has had enough; ms it took. */
static int64_t
dribble(server *s, int sock, const char *text)
{
    int64_t began = apm_clock_ms();
    for (;; text += text[1] != '\0') {
        if (ended(sock))
            return apm_clock_ms() - began;
        ck_assert_msg(apm_clock_ms() - began < 10000, "it is let dribble");
        (void)!send(sock, text, 1, MSG_NOSIGNAL);
        turn_for(s, 50);
    }
}

START_TEST(a_body_that_dribbles_in_is_cut)
{
    server *s = start(0);
    int plain = peer(s, 0), chunked = peer(s, 0);
    say(plain, "PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    ck_assert_int_ge(dribble(s, plain, "yyyy"), 600);
    say(chunked, "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    ck_assert_int_ge(dribble(s, chunked,
                             "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n1\r\ne\r\n1\r\nf\r\n1\r\n"
                             "g\r\n1\r\nh\r\n1\r\ni\r\n1\r\nj\r\n1\r\nk\r\n1\r\nl\r\n1\r\nm\r\n"),
                     0);
    turn_until(s, apm_httpd_connections(s->httpd) == 0);
    ck_assert_int_eq(s->requests, 0);
    close(plain);
    close(chunked);
    stop(s);
}
END_TEST

START_TEST(headers_that_dribble_in_are_cut)
{
    server *s = start(0);
    int sock = peer(s, 0), silent = peer(s, 0);
    say(sock, "GET /x HTTP/1.1\r\nHost: h\r\nX: ");
    ck_assert_int_ge(dribble(s, sock, "zzzz"), 600);
    turn_until(s, ended(silent)); /* it has not even begun */
    turn_until(s, apm_httpd_connections(s->httpd) == 0);
    ck_assert_int_eq(s->requests, 0);
    close(sock);
    close(silent);
    stop(s);
}
END_TEST

START_TEST(a_body_in_pieces_that_come_in_time_is_whole)
{
    server *s = start(0);
    int sock = asks(s, 0, "PUT /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (const char *at = "2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"; *at; at++) {
        ck_assert_int_eq(send(sock, at, 1, MSG_NOSIGNAL), 1);
        turn_for(s, 5);
    }
    turn_until(s, answered(sock, "HTTP/1.1 200"));
    ck_assert_uint_eq(s->body, 5);
    close(sock);
    stop(s);
}
END_TEST

START_TEST(whoever_does_not_read_its_answer_is_cut)
{
    server *s = start(0);
    int sock = peer(s, 4096), other = peer(s, 0);
    say(sock, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until(s, s->requests == 1);
    say(other, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    turn_until(s, answered(other, "HTTP/1.1 200")); /* others are served meanwhile */
    turn_until(s, apm_httpd_connections(s->httpd) == 0);
    close(sock);
    close(other);
    stop(s);
}
END_TEST

START_TEST(whoever_reads_slowly_but_does_gets_all_of_it)
{
    server *s = start(0);
    int sock = peer(s, 0);
    char text[65536];
    size_t got = 0;
    say(sock, "GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    int64_t end = apm_clock_ms() + 10000;
    while (got < BIG && apm_clock_ms() < end) {
        ssize_t n = recv(sock, text, sizeof(text), 0);
        ck_assert(n != 0);
        got += n > 0 ? (size_t)n : 0;
        uv_run(&s->loop, UV_RUN_NOWAIT);
    }
    ck_assert_uint_ge(got, BIG);
    close(sock);
    stop(s);
}
END_TEST

START_TEST(a_request_that_waits_is_not_cut)
{
    server *s = start(0);
    int sock = asks(s, 0, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_for(s, 2500);
    ck_assert_ptr_nonnull(s->waiting);
    ck_assert_int_eq(s->gone, 0);
    apm_http_answer(s->waiting, &(apm_http_reply){ .status = 200, .body = APM_STR("{}") });
    turn_until(s, answered(sock, "HTTP/1.1 200"));
    close(sock);
    stop(s);
}
END_TEST

START_TEST(whoever_waits_for_a_peer_that_left_is_told)
{
    server *s = start(0);
    int sock = asks(s, 0, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until(s, s->waiting);
    close(sock);
    turn_until(s, s->gone == 1);
    turn_until(s, apm_httpd_connections(s->httpd) == 0);
    stop(s);
}
END_TEST

START_TEST(a_stream_that_nobody_reads_is_cut)
{
    server *s = start(0);
    int sock = asks(s, 4096, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until(s, s->stream);
    turn_for(s, 1500);
    ck_assert_ptr_nonnull(s->stream); /* nothing to read is no fault of the reader */
    char *text = calloc(1, 1 << 20);
    for (int i = 0; i < 16 && s->stream; i++) {
        (void)apm_http_write(s->stream, (apm_str){ text, 1 << 20 });
        uv_run(&s->loop, UV_RUN_NOWAIT);
    }
    free(text);
    turn_until(s, s->streams_gone == 1);
    int left = asks(s, 0, "GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until(s, s->stream);
    close(left);
    turn_until(s, s->streams_gone == 2);
    turn_until(s, apm_httpd_connections(s->httpd) == 0);
    close(sock);
    stop(s);
}
END_TEST

START_TEST(connections_beyond_the_bound_wait_for_room)
{
    server *s = start(4);
    int socks[4];
    for (int i = 0; i < 4; i++) {
        socks[i] = asks(s, 0, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
        turn_until(s, answered(socks[i], "HTTP/1.1 200"));
    }
    int more = peer(s, 0);
    turn_for(s, 100);
    ck_assert_uint_le(apm_httpd_connections(s->httpd), 4);
    for (int i = 0; i < 4; i++)
        close(socks[i]);
    turn_until(s, apm_httpd_connections(s->httpd) == 0 || ended(more));
    int next = asks(s, 0, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until(s, answered(next, "HTTP/1.1 200"));
    close(more);
    close(next);
    stop(s);
}
END_TEST

START_TEST(requests_in_a_row_are_answered_in_a_row)
{
    server *s = start(0);
    int sock =
        asks(s, 0,
             "GET /a HTTP/1.1\r\nHost: h\r\n\r\nPUT /b HTTP/1.1\r\nHost: h\r\nContent-Length: "
             "3\r\n\r\nabcGET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    turn_until(s, s->requests == 3);
    turn_until(s, ended(sock));
    close(sock);
    stop(s);
}
END_TEST

START_TEST(who_waits_when_the_server_stops_is_answered)
{
    server *s = start(0);
    int sock = asks(s, 0, "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n");
    turn_until(s, s->waiting);
    int *gone = &s->gone;
    apm_httpd_dismiss(s->httpd);
    ck_assert_int_eq(*gone, 1);
    turn_until(s, answered(sock, "HTTP/1.1 503"));
    close(sock);
    stop(s);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_body_that_dribbles_in_is_cut,
        headers_that_dribble_in_are_cut,
        a_body_in_pieces_that_come_in_time_is_whole,
        whoever_does_not_read_its_answer_is_cut,
        whoever_reads_slowly_but_does_gets_all_of_it,
        a_request_that_waits_is_not_cut,
        whoever_waits_for_a_peer_that_left_is_told,
        a_stream_that_nobody_reads_is_cut,
        connections_beyond_the_bound_wait_for_room,
        requests_in_a_row_are_answered_in_a_row,
        who_waits_when_the_server_stops_is_answered,
        NULL,
    };
    return suite_run("httpd", tests, 60);
}
