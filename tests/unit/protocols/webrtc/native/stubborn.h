/* A kernel that refuses now and then: REFUSAL is its errno, EVERY how often, RUNS_ALONE whether only what it is to cut. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>

static int messages_seen;

static int stubborn_sendmmsg(int socket, struct mmsghdr *messages, unsigned count, int flags) {
    for (unsigned at = 0; at < count; at++) {
        int refused = !(RUNS_ALONE && !messages[at].msg_hdr.msg_controllen) && messages_seen++ % EVERY == EVERY - 1;

        if (!refused)
            continue;
        if (!at) {
            errno = REFUSAL;
            return -1;
        }
        messages_seen--; /* it is offered again */
        return sendmmsg(socket, messages, at, flags);
    }
    return sendmmsg(socket, messages, count, flags);
}

#define sendmmsg stubborn_sendmmsg
