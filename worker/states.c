/* states.c - see states.h */
#include "worker/states.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/base/error.h"

#define STATE_MAX 1024 /* bytes of a state's name */
#define CHUNK     65536

struct header {
    uint32_t slot, seq, state_len, meta_len;
};

apium_status
apm_states_send(int sock, const apm_state_frame *frame, apium_error *err)
{
    if (frame->state.len > STATE_MAX || frame->meta.len > APM_BUF_MAX / 2)
        return apm_fail(err, APIUM_E_TOOBIG, "cannot report a state of %zu bytes",
                        frame->state.len + frame->meta.len);
    struct header header = {
        .slot = frame->slot,
        .seq = frame->seq,
        .state_len = (uint32_t)frame->state.len,
        .meta_len = (uint32_t)frame->meta.len,
    };
    struct iovec parts[3] = {
        { &header, sizeof(header) },
        { (void *)(uintptr_t)frame->state.p, frame->state.len },
        { (void *)(uintptr_t)frame->meta.p, frame->meta.len },
    };
    struct msghdr msg = { .msg_iov = parts, .msg_iovlen = 3 };
    while (msg.msg_iovlen > 0) {
        ssize_t sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return apm_fail(err, APIUM_E_CLOSED, "cannot report a state: the worker is gone");
        size_t left = (size_t)sent;
        while (msg.msg_iovlen > 0 && left >= msg.msg_iov->iov_len) {
            left -= msg.msg_iov->iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen > 0) {
            msg.msg_iov->iov_base = (char *)msg.msg_iov->iov_base + left;
            msg.msg_iov->iov_len -= left;
        }
    }
    return APIUM_OK;
}

void
apm_states_init(apm_states *states)
{
    *states = (apm_states){ .at = 0 };
    apm_buf_init(&states->in, APM_BUF_MAX);
}

void
apm_states_clear(apm_states *states)
{
    apm_buf_clear(&states->in);
    states->at = 0;
}

bool
apm_states_read(apm_states *states, int sock, bool *ended)
{
    bool got = false;
    for (int turns = 0; turns < 64; turns++) { /* then others have their turn */
        char *p = apm_buf_reserve(&states->in, CHUNK);
        if (!p) {
            states->in.failed = false; /* memory is short: the rest stays in the socket */
            break;
        }
        ssize_t n = recv(sock, p, CHUNK, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            if (ended && (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)))
                *ended = true;
            break;
        }
        states->in.len += (size_t)n;
        got = true;
        if (n < CHUNK)
            break;
    }
    return got;
}

int
apm_states_peek(const apm_states *states, apm_state_frame *frame)
{
    struct header header;
    size_t have = states->in.len - states->at;
    if (have < sizeof(header))
        return 0;
    const char *p = states->in.p + states->at;
    memcpy(&header, p, sizeof(header));
    if (header.state_len > STATE_MAX || header.meta_len > APM_BUF_MAX / 2)
        return -1;
    if (have < sizeof(header) + header.state_len + header.meta_len)
        return 0;
    p += sizeof(header);
    *frame = (apm_state_frame){
        .slot = header.slot,
        .seq = header.seq,
        .state = { p, header.state_len },
        .meta = { p + header.state_len, header.meta_len },
    };
    return 1;
}

void
apm_states_pop(apm_states *states)
{
    apm_state_frame frame;
    if (apm_states_peek(states, &frame) != 1)
        return;
    states->at += sizeof(struct header) + frame.state.len + frame.meta.len;
    if (states->at < states->in.len && states->at < CHUNK)
        return;
    /* Move what is left to the front, seldom enough to cost nothing; a rare huge frame's storage
     * goes. */
    size_t left = states->in.len - states->at;
    memmove(states->in.p, states->in.p + states->at, left);
    states->in.len = left;
    states->at = 0;
    if (left == 0 && states->in.cap > 16 * CHUNK)
        apm_buf_clear(&states->in);
}
