/* What `runs.py` writes, and `runs.c` reads. */

struct payloads {
    uint32_t count;
    uint16_t sizes[64];
    uint8_t markers[64]; /* 0x80 or 0, as they stand in the second octet of the header */
    char bytes[];        /* one payload behind the other */
};

struct header {
    uint16_t size;
    uint16_t counter_at; /* of the transport-wide sequence number; 0: there is none */
    char bytes[];        /* of a packet without numbers */
};

struct outgoing { /* one run for one peer */
    const struct payloads *payloads;
    const struct header *header;
    uintptr_t session; /* libsrtp's */
    const char *control; /* control messages, such as which address of ours it is to leave from */
    uint32_t timestamp;
    uint32_t ssrc;
    uint16_t sequence;
    uint16_t counter;
    uint16_t address_size;
    uint16_t control_size;
    uint8_t payload_type;
    uint8_t address[28]; /* sockaddr_in or sockaddr_in6 */
    int16_t taken; /* said back: packets that the kernel took */
    int16_t error; /* said back: errno of those that it did not take */
};

struct egress {
    uintptr_t protect; /* srtp_protect */
    char *memory; /* in which packets are written */
    int32_t capacity;
    int32_t trailer; /* bytes that srtp_protect may write behind a packet */
    int32_t socket;
    int32_t segmentation; /* whether the kernel cuts; 0 from when it said that it cannot */
    int32_t taken;        /* said back: packets of all runs that the kernel took */
};

int usable(int socket);
int write_run(const struct egress *, const struct outgoing *, char *at, int room);
int send_runs(struct egress *, struct outgoing *, int count);
