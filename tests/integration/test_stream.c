/* test_stream.c - a connection and its end, with a peer that is a plain socket here. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/link/stream.h"
#include "tests/support/suite.h"

typedef struct ends {
    uv_loop_t loop;
    apm_stream *stream;
    int peer;
    bool open, lost;
} ends;

static void
on_open(void *arg)
{
    ((ends *)arg)->open = true;
}

static void
on_data(void *arg, const char *p, size_t len)
{
    (void)arg;
    (void)p;
    (void)len;
}

static void
on_lost(void *arg, apium_status status, const char *why)
{
    (void)status;
    (void)why;
    ((ends *)arg)->lost = true;
}

static void
connect_ends(ends *e)
{
    apium_error error, *err = &error;
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *e = (ends){ 0 };
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    ck_assert_int_eq(uv_loop_init(&e->loop), 0);
    const apm_stream_opts opts = { .host = "127.0.0.1",
                                   .port = ntohs(addr.sin_port),
                                   .connect_timeout_ms = 5000,
                                   .on_open = on_open,
                                   .on_data = on_data,
                                   .on_lost = on_lost,
                                   .arg = e };
    ck_ok(apm_stream_open(&e->stream, &e->loop, &opts, err));
    while (!e->open && !e->lost)
        uv_run(&e->loop, UV_RUN_ONCE);
    ck_assert(e->open);
    e->peer = accept(listener, NULL, NULL);
    ck_assert_int_ge(e->peer, 0);
    close(listener);
}

static const apm_stream_last last = { 4, "done" };

static void
say(ends *e, const char *text)
{
    ck_assert_int_eq(send(e->peer, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    for (int i = 0; i < 3; i++)
        uv_run(&e->loop, UV_RUN_NOWAIT);
}

/* Has our side ended, in good order? */
static bool
ended(const ends *e)
{
    char byte;
    ssize_t n = recv(e->peer, &byte, 1, MSG_DONTWAIT);

    ck_assert(n == 0 || (n < 0 && errno == EAGAIN));
    return n == 0;
}

START_TEST(our_side_ends_with_the_last_words_of_the_peer)
{
    ends e;
    char text[16];

    connect_ends(&e);
    apm_buf_addz(apm_stream_out(e.stream), "last words");
    apm_stream_flush(e.stream);
    ck_assert_int_eq(send(e.peer, "news", 4, 0), 4);
    apm_stream_part(e.stream, &last);
    ck_assert_int_eq(recv(e.peer, text, sizeof(text), 0), 10);
    say(&e, "more, done and more");
    say(&e, "d");
    say(&e, "on");
    say(&e, "more to be ");
    say(&e, "do");
    ck_assert(!ended(&e));
    say(&e, "ne");
    ck_assert(ended(&e));
    uv_run(&e.loop, UV_RUN_DEFAULT);
    ck_assert(!e.lost);
    ck_assert_int_eq(uv_loop_close(&e.loop), 0);
    close(e.peer);
}
END_TEST

START_TEST(our_side_ends_when_the_peers_does)
{
    ends e;

    connect_ends(&e);
    apm_stream_part(e.stream, &last);
    say(&e, "don");
    ck_assert(!ended(&e));
    shutdown(e.peer, SHUT_WR);
    uv_run(&e.loop, UV_RUN_DEFAULT);
    ck_assert(ended(&e));
    ck_assert(!e.lost);
    ck_assert_int_eq(uv_loop_close(&e.loop), 0);
    close(e.peer);
}
END_TEST

/* The peer reads only after we have parted, so that a write is under way and more is gathered behind it. */
START_TEST(what_waits_behind_a_write_goes_out_before_we_part)
{
    ends e;
    size_t len = (size_t)16 << 20, got = 0;
    char *block = calloc(1, len);

    connect_ends(&e);
    apm_buf_add(apm_stream_out(e.stream), block, len);
    apm_stream_flush(e.stream);
    apm_buf_addz(apm_stream_out(e.stream), "last words");
    apm_stream_flush(e.stream);
    ck_assert_uint_gt(apm_stream_unsent(e.stream), 10);
    apm_stream_part(e.stream, &last);
    while (got < len + 10) {
        ssize_t n = recv(e.peer, block, len, MSG_DONTWAIT);
        ck_assert(n > 0 || (n < 0 && errno == EAGAIN));
        if (n > 0)
            got += (size_t)n;
        uv_run(&e.loop, UV_RUN_NOWAIT);
    }
    ck_assert(!ended(&e));
    say(&e, "done");
    ck_assert(ended(&e));
    uv_run(&e.loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&e.loop), 0);
    close(e.peer);
    free(block);
}
END_TEST

START_TEST(a_peer_that_does_not_end_is_left_after_three_seconds)
{
    ends e;

    connect_ends(&e);
    int64_t start = apm_clock_ms();
    apm_stream_part(e.stream, &last);
    uv_run(&e.loop, UV_RUN_DEFAULT);
    ck_assert_int_ge(apm_clock_ms() - start, 2950);
    ck_assert_int_eq(uv_loop_close(&e.loop), 0);
    close(e.peer);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        our_side_ends_with_the_last_words_of_the_peer,
        our_side_ends_when_the_peers_does,
        what_waits_behind_a_write_goes_out_before_we_part,
        a_peer_that_does_not_end_is_left_after_three_seconds,
        NULL,
    };

    return suite_run("stream", tests, 20);
}
