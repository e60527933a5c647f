/* fsmsg.c - the messages of forkserver.h, and the task table */
#include "worker/forkserver.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/error.h"

bool
apm_fs_send(int sock, const apm_fs_msg *msg, const int *fds, unsigned n)
{
    apm_fs_msg copy = *msg;
    struct iovec part = { &copy, sizeof(copy) };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(APM_FS_FDS * sizeof(int))];
    } control = { .bytes = { 0 } };
    struct msghdr header = { .msg_iov = &part, .msg_iovlen = 1 };
    if (n > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(n * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
    }
    ssize_t sent;
    do
        sent = sendmsg(sock, &header, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)sizeof(copy);
}

int
apm_fs_recv(int sock, bool nowait, apm_fs_msg *msg, int fds[APM_FS_FDS])
{
    struct iovec part = { msg, sizeof(*msg) };
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(APM_FS_FDS * sizeof(int))];
    } control;
    struct msghdr header = { .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes) };
    ssize_t got;
    for (int i = 0; i < APM_FS_FDS; i++)
        fds[i] = -1;
    do
        got = recvmsg(sock, &header, MSG_CMSG_CLOEXEC | (nowait ? MSG_DONTWAIT : 0));
    while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return 0;
    if (got <= 0)
        return -1;
    unsigned n = 0;
    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header); cmsg; cmsg = CMSG_NXTHDR(&header, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= cmsg->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + at, sizeof(fd));
            if (n < APM_FS_FDS)
                fds[n++] = fd;
            else
                close(fd);
        }
    }
    if (got != (ssize_t)sizeof(*msg)) {
        for (unsigned i = 0; i < n; i++)
            close(fds[i]);
        return -1;
    }
    msg->text[sizeof(msg->text) - 1] = '\0';
    return 1;
}

/* ---- the table: for each task its numbers, then its five texts with their NULs; a lone byte 1
 * before each that is there ---- */

static const size_t texts[] = {
    offsetof(apm_task_info, name),        offsetof(apm_task_info, rate_limit),
    offsetof(apm_task_info, queue),       offsetof(apm_task_info, exchange),
    offsetof(apm_task_info, routing_key),
};
#define TEXTS (sizeof(texts) / sizeof(*texts))

static apm_task_info
info_of(const apium_task_def *def)
{
    return (apm_task_info){
        .name = def->name,
        .time_limit = def->time_limit,
        .soft_time_limit = def->soft_time_limit,
        .rate_limit = def->rate_limit,
        .acks_late = def->acks_late,
        .ignore_result = def->ignore_result,
        .track_started = def->track_started,
        .reject_on_worker_lost = def->reject_on_worker_lost,
        .acks_on_failure_or_timeout = def->acks_on_failure_or_timeout,
        .store_errors_even_if_ignored = def->store_errors_even_if_ignored,
        .max_retries = def->max_retries,
        .errback = def->errback,
        .queue = def->queue,
        .exchange = def->exchange,
        .routing_key = def->routing_key,
    };
}

static const char **
text_of(apm_task_info *info, size_t i)
{
    return (const char **)(void *)((char *)info + texts[i]);
}

void
apm_fs_table_write(const apium_app *app, apm_buf *buf)
{
    const apium_task_def *def;
    uint64_t count = 0;
    while (apm_app_task_at(app, count))
        count++;
    apm_buf_add(buf, &count, sizeof(count));
    for (size_t n = 0; (def = apm_app_task_at(app, n)) != NULL; n++) {
        apm_task_info info = info_of(def);
        apm_buf_add(buf, &info, sizeof(info));
        for (size_t i = 0; i < TEXTS; i++) {
            const char *text = *text_of(&info, i);
            apm_buf_addc(buf, text ? 1 : 0);
            if (text)
                apm_buf_add(buf, text, strlen(text) + 1);
        }
    }
}

apium_status
apm_fs_table_read(apm_str bytes, apm_task_info **out, size_t *out_n, apium_error *err)
{
    uint64_t count;
    const char *at = bytes.p, *end = bytes.p + bytes.len;
    apm_task_info *infos = NULL;

    if (bytes.len < sizeof(count))
        goto bad;
    memcpy(&count, at, sizeof(count));
    at += sizeof(count);
    if (count > bytes.len / (sizeof(*infos) + TEXTS))
        goto bad;
    /* The texts are kept behind the infos, as one copy of all the bytes. */
    infos = malloc((size_t)count * sizeof(*infos) + bytes.len);
    if (!infos)
        return apm_fail_sys(err, ENOMEM, "cannot keep the table of tasks");
    char *copy = memcpy((char *)(infos + count), bytes.p, bytes.len);
    for (size_t n = 0; n < count; n++) {
        if ((size_t)(end - at) < sizeof(*infos))
            goto bad;
        memcpy(&infos[n], at, sizeof(*infos));
        at += sizeof(*infos);
        for (size_t i = 0; i < TEXTS; i++) {
            if (at == end)
                goto bad;
            bool there = *at++ != 0;
            const char *nul = there ? memchr(at, '\0', (size_t)(end - at)) : NULL;
            if (there && !nul)
                goto bad;
            *text_of(&infos[n], i) = there ? copy + (at - bytes.p) : NULL;
            at = there ? nul + 1 : at;
        }
        if (!infos[n].name)
            goto bad;
    }
    *out = infos;
    *out_n = (size_t)count;
    return APIUM_OK;
bad:
    free(infos);
    return apm_fail(err, APIUM_E_DECODE, "the fork server's table of tasks is damaged");
}
