/* What `floor.py` writes, and `floor.c` reads. */

struct run { /* packets that leave together for each viewer: at most 64, and 64 KiB with all that is written beside them */
    const char *header; /* without numbers */
    const char *payloads; /* one behind the other */
    const uint16_t *sizes;
    const uint8_t *markers;
    uint32_t timestamp;
    int32_t count;
    int32_t header_size;
    int32_t counter_at; /* of the transport-wide sequence number; 0: there is none */
    int32_t stream;     /* 0 or 1: which of a viewer's streams */
    uint8_t payload_type;
};

struct viewer {
    uintptr_t session; /* libsrtp's */
    uint32_t ssrc[2];
    uint16_t sequence[2];
    uint16_t counter;
    uint8_t address[16]; /* sockaddr_in */
};

int fan_out(int socket, uintptr_t protect, const struct run *, int run_count, struct viewer *, int viewer_count);
