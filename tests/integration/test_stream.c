/* test_stream.c - a connection and its end, with a peer that is a plain socket here. */
#include <arpa/inet.h>
#include <netinet/in.h>
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

START_TEST(a_peer_that_still_talks_hears_all_when_we_part)
{
    ends e;
    char text[16];

    connect_ends(&e);
    apm_buf_addz(apm_stream_out(e.stream), "last words");
    apm_stream_flush(e.stream);
    ck_assert_int_eq(send(e.peer, "news", 4, 0), 4);
    apm_stream_part(e.stream);
    for (int i = 0; i < 3; i++) {
        uv_run(&e.loop, UV_RUN_NOWAIT);
        ck_assert_int_eq(send(e.peer, "more", 4, MSG_NOSIGNAL), 4);
    }
    ck_assert_int_eq(recv(e.peer, text, sizeof(text), 0), 10);
    ck_assert_int_eq(recv(e.peer, text, sizeof(text), 0), 0); /* an end in good order */
    close(e.peer);
    uv_run(&e.loop, UV_RUN_DEFAULT);
    ck_assert(!e.lost);
    ck_assert_int_eq(uv_loop_close(&e.loop), 0);
}
END_TEST

START_TEST(a_peer_that_does_not_end_is_left_after_a_second)
{
    ends e;

    connect_ends(&e);
    int64_t start = apm_clock_ms();
    apm_stream_part(e.stream);
    uv_run(&e.loop, UV_RUN_DEFAULT);
    ck_assert_int_ge(apm_clock_ms() - start, 950);
    ck_assert_int_eq(uv_loop_close(&e.loop), 0);
    close(e.peer);
}
END_TEST

int
main(void)
{
    const TTest *const tests[] = {
        a_peer_that_still_talks_hears_all_when_we_part,
        a_peer_that_does_not_end_is_left_after_a_second,
        NULL,
    };

    return suite_run("stream", tests, 20);
}
