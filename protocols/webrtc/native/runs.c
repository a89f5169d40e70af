/* Runs of RTP packets to many peers in one call, without the interpreter: headers, payloads, SRTP in place, sendmmsg with UDP_SEGMENT. What
 * `protocols/webrtc/transport/runs.py` does in Python, byte for byte. Nothing is allocated, and nothing is kept between calls: whose number
 * is the next is Python's to know. */

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "runs.h"

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

#define SEGMENT_LIMIT 1500
#define MESSAGES 64 /* in one system call */
#define CONTROL_LIMIT 64

typedef int (*protect_function)(void *session, void *packet, int *size);

struct message {
    struct outgoing *run;
    int segment; /* of what the kernel is to cut; 0: it is one packet */
    union {
        char bytes[CONTROL_LIMIT + CMSG_SPACE(sizeof(uint16_t))];
        struct cmsghdr align;
    } control;
};

/* What waits for the next system call. */
struct batch {
    int count;
    struct mmsghdr headers[MESSAGES];
    struct iovec parts[MESSAGES];
    struct message messages[MESSAGES];
};

static void put16(uint8_t *at, unsigned value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, value >> 16);
    put16(at + 2, value & 0xFFFF);
}

/* Room that a run takes while it is written, at most. */
static int room_of(const struct egress *egress, const struct outgoing *run) {
    int room = egress->trailer;

    for (unsigned index = 0; index < run->payloads->count; index++)
        room += run->header->size + run->payloads->sizes[index] + egress->trailer;
    return room;
}

/* Writes and protects a packet. Its size, or what libsrtp says, negative. */
static int write_packet(const struct egress *egress, const struct outgoing *run, unsigned index, const char *payload, uint8_t *at) {
    const struct header *header = run->header;
    int payload_size = run->payloads->sizes[index];
    int size = header->size + payload_size;
    int status;

    memcpy(at, header->bytes, header->size);
    at[1] = run->payload_type | run->payloads->markers[index];
    put16(at + 2, run->sequence + index);
    put32(at + 4, run->timestamp);
    put32(at + 8, run->ssrc);
    if (header->counter_at)
        put16(at + header->counter_at, run->counter + index);
    memcpy(at + header->size, payload, (size_t)payload_size);
    status = ((protect_function)egress->protect)((void *)run->session, at, &size);
    return status ? -status : size;
}

/* Writes the packets of a run side by side into `room` bytes. Their size together; -1 where they do not fit, or one cannot be protected. The
 * first one's size is told by `segment`. */
static int write_packets(const struct egress *egress, const struct outgoing *run, char *at, int room, int *segment) {
    const char *payload = run->payloads->bytes;
    int used = 0;

    if (room_of(egress, run) > room)
        return -1;
    for (unsigned index = 0; index < run->payloads->count; index++) {
        int size = write_packet(egress, run, index, payload, (uint8_t *)at + used);

        if (size < 0)
            return -1;
        if (!index)
            *segment = size;
        used += size;
        payload += run->payloads->sizes[index];
    }
    return used;
}

int write_run(const struct egress *egress, const struct outgoing *run, char *at, int room) {
    int segment;

    return write_packets(egress, run, at, room, &segment);
}

/* 0, or what the system says of the call that it takes, negative. */
int usable(int socket) { return sendmmsg(socket, NULL, 0, MSG_DONTWAIT) < 0 ? -errno : 0; }

static void add(struct batch *batch, struct outgoing *run, char *data, int size, int segment) {
    int number = batch->count++;
    struct message *message = &batch->messages[number];
    struct msghdr *header = &batch->headers[number].msg_hdr;

    message->run = run;
    message->segment = segment;
    batch->parts[number].iov_base = data;
    batch->parts[number].iov_len = (size_t)size;
    memset(header, 0, sizeof *header);
    header->msg_name = (void *)run->address;
    header->msg_namelen = run->address_size;
    header->msg_iov = &batch->parts[number];
    header->msg_iovlen = 1;
    header->msg_control = message->control.bytes;
    header->msg_controllen = run->control_size;
    if (run->control_size)
        memcpy(message->control.bytes, run->control, run->control_size);
    if (segment) {
        struct cmsghdr *control = (struct cmsghdr *)(message->control.bytes + run->control_size);
        uint16_t value = (uint16_t)segment;

        memset(control, 0, CMSG_SPACE(sizeof value));
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof value);
        memcpy(CMSG_DATA(control), &value, sizeof value);
        header->msg_controllen += CMSG_SPACE(sizeof value);
    }
}

/* The kernel or the network card cannot cut, for good; or this one way takes no run of this size. */
static int cannot_cut(int error) { return error == EIO || error == ENOPROTOOPT || error == EOPNOTSUPP; }
static int try_singly(int error) { return cannot_cut(error) || error == EINVAL || error == EMSGSIZE; }

/* A message that the kernel refused with `error`: its packets go one by one where that may help. */
static void refused(struct egress *egress, struct batch *batch, int number, int error) {
    struct message *message = &batch->messages[number];
    struct msghdr single = batch->headers[number].msg_hdr;
    struct iovec part = batch->parts[number];
    size_t left = part.iov_len;

    if (!message->segment || !try_singly(error)) {
        message->run->error = (int16_t)error;
        return;
    }
    single.msg_iov = &part;
    single.msg_controllen = message->run->control_size;
    while (left) {
        part.iov_len = left < (size_t)message->segment ? left : (size_t)message->segment;
        if (sendmsg(egress->socket, &single, MSG_DONTWAIT) < 0)
            message->run->error = (int16_t)errno;
        else
            message->run->taken++;
        left -= part.iov_len;
        part.iov_base = (char *)part.iov_base + part.iov_len;
    }
    if (cannot_cut(error) && message->run->taken == (int)message->run->payloads->count)
        egress->segmentation = 0;
}

/* Sends what waits. 0, or -ENOSYS where there is no such system call. */
static int flush(struct egress *egress, struct batch *batch) {
    int sent = 0;

    while (sent < batch->count) {
        int taken = sendmmsg(egress->socket, batch->headers + sent, (unsigned)(batch->count - sent), MSG_DONTWAIT);

        if (taken < 0) { /* of the first: what came before it was told of */
            if (errno == ENOSYS)
                return -ENOSYS;
            if (errno != EINTR)
                refused(egress, batch, sent++, errno);
            continue;
        }
        for (; taken > 0; taken--, sent++) {
            struct message *message = &batch->messages[sent];

            message->run->taken = (int16_t)(message->run->taken + (message->segment ? (int)message->run->payloads->count : 1));
        }
    }
    batch->count = 0;
    return 0;
}

/* A run as one message that the kernel cuts, or as one for each packet. */
static void add_run(struct egress *egress, struct batch *batch, struct outgoing *run, char *data, int size, int segment) {
    if (size <= segment)
        add(batch, run, data, size, 0);
    else if (egress->segmentation && segment <= SEGMENT_LIMIT)
        add(batch, run, data, size, segment);
    else
        for (int at = 0; at < size; at += segment)
            add(batch, run, data + at, size - at < segment ? size - at : segment, 0);
}

/* Sends the runs in their order, and says in each how many of its packets were taken. The number of those runs that were not, or not whole;
 * -ENOSYS where the system has not what it takes. */
int send_runs(struct egress *egress, struct outgoing *runs, int count) {
    struct batch batch;
    int used = 0, lost = 0;

    batch.count = 0;
    egress->taken = 0;
    for (int index = 0; index < count; index++) {
        struct outgoing *run = &runs[index];
        int size, segment;

        run->taken = run->error = 0;
        if (run->payloads->count > MESSAGES || run->control_size > CONTROL_LIMIT)
            continue;
        if (batch.count + (int)run->payloads->count > MESSAGES || used + room_of(egress, run) > egress->capacity) {
            if (flush(egress, &batch))
                return -ENOSYS;
            used = 0;
        }
        size = write_packets(egress, run, egress->memory + used, egress->capacity - used, &segment);
        if (size > 0) {
            add_run(egress, &batch, run, egress->memory + used, size, segment);
            used += size;
        }
    }
    if (flush(egress, &batch))
        return -ENOSYS;
    for (int index = 0; index < count; index++) {
        egress->taken += runs[index].taken;
        lost += runs[index].taken < (int)runs[index].payloads->count;
    }
    return lost;
}
