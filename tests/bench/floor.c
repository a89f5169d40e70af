/* The least that it can cost to give packets to viewers: each is copied behind its header, protected by libsrtp and handed to the kernel,
 * which cuts runs of them (UDP_SEGMENT), those of many viewers in one system call. Nothing is chosen, remembered, paced or repaired. */

#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "floor.h"

#define SOL_UDP 17
#define UDP_SEGMENT 103
#define MESSAGES 64
#define MEMORY (128 << 10)
#define RUN_LIMIT (64 << 10)

typedef int (*protect_function)(void *session, void *packet, int *size);

static char memory[MEMORY];
static struct mmsghdr messages[MESSAGES];
static struct iovec parts[MESSAGES];
static char controls[MESSAGES][CMSG_SPACE(sizeof(uint16_t))];

static void put16(uint8_t *at, uint16_t value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value) {
    put16(at, (uint16_t)(value >> 16));
    put16(at + 2, (uint16_t)value);
}

/* Writes the run's packets for this viewer. Bytes; 0 where one could not be protected. `segment`: of the first. */
static int write_run(protect_function protect, const struct run *run, struct viewer *viewer, uint8_t *at, int *segment) {
    const char *payload = run->payloads;
    int used = 0;

    for (int index = 0; index < run->count; index++) {
        uint8_t *packet = at + used;
        int size = run->header_size + run->sizes[index];

        memcpy(packet, run->header, (size_t)run->header_size);
        packet[1] = run->payload_type | run->markers[index];
        put16(packet + 2, viewer->sequence[run->stream]++);
        put32(packet + 4, run->timestamp);
        put32(packet + 8, viewer->ssrc[run->stream]);
        if (run->counter_at)
            put16(packet + run->counter_at, viewer->counter++);
        memcpy(packet + run->header_size, payload, run->sizes[index]);
        if (protect((void *)viewer->session, packet, &size))
            return 0;
        if (!index)
            *segment = size;
        payload += run->sizes[index];
        used += size;
    }
    return used;
}

static void add(int number, struct viewer *viewer, uint8_t *data, int size, int segment) {
    struct msghdr *header = &messages[number].msg_hdr;
    struct cmsghdr *control = (struct cmsghdr *)controls[number];
    uint16_t value = (uint16_t)segment;

    parts[number].iov_base = data;
    parts[number].iov_len = (size_t)size;
    memset(header, 0, sizeof *header);
    header->msg_name = viewer->address;
    header->msg_namelen = sizeof viewer->address;
    header->msg_iov = &parts[number];
    header->msg_iovlen = 1;
    if (size > segment) {
        header->msg_control = control;
        header->msg_controllen = sizeof controls[number];
        control->cmsg_level = SOL_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof value);
        memcpy(CMSG_DATA(control), &value, sizeof value);
    }
}

static int flush(int socket, int count) {
    int sent = 0;

    while (sent < count) {
        int taken = sendmmsg(socket, messages + sent, (unsigned)(count - sent), MSG_DONTWAIT);

        if (taken <= 0)
            return -1;
        sent += taken;
    }
    return 0;
}

/* Every run to every viewer. 0, or -1 where a packet could not be sent. */
int fan_out(int socket, uintptr_t protect, const struct run *runs, int run_count, struct viewer *viewers, int viewer_count) {
    for (const struct run *run = runs; run < runs + run_count; run++) {
        int count = 0, used = 0;

        for (struct viewer *viewer = viewers; viewer < viewers + viewer_count; viewer++) {
            int segment = 0, size;

            if (count == MESSAGES || used + RUN_LIMIT > MEMORY) {
                if (flush(socket, count))
                    return -1;
                count = used = 0;
            }
            size = write_run((protect_function)protect, run, viewer, (uint8_t *)memory + used, &segment);
            if (!size)
                return -1;
            add(count++, viewer, (uint8_t *)memory + used, size, segment);
            used += size;
        }
        if (flush(socket, count))
            return -1;
    }
    return 0;
}
