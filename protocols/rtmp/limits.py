"""What one RTMP peer may cost us: every size, count and wait of the listener, with the value that real encoders stay below."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
SMALL, SMALL_STEPS = (
    512,
    11,
)  # steps of work, see `RtmpLimits.steps`, of a media message of fewer bytes: those alone would not pay for it,
TAG_STEPS = 2  # of a tag in an aggregate,
CHANGE_STEPS = 50  # and of a change of a track, with what follows in whoever takes it


@dataclass(frozen=True, slots=True)
class RtmpLimits:
    """Bounds of one listener. Waits in seconds, sizes in bytes."""

    connections: int = 2000
    connections_per_address: int = 64  # an IPv6 peer counts by its /64
    handshake_s: float = 5.0  # from the accepted socket to the end of the handshake, TLS included
    publish_s: float = 10.0  # from there to `publish`
    decision_s: float = 30.0  # from there to accept() or reject()
    media_idle_s: float = 20.0
    linger_s: float = 0.3  # a refusal stays on the wire before the close: clients read the reason first (facts: 0.3 s)
    close_s: float = 2.0  # for the peer to take our last bytes
    queue_ms: int = 2000  # of media between the socket and the session; reading stops at half of it
    queue_bytes: int = 16 * MIB
    output_bytes: int = 256 * KIB  # replies that the peer does not read

    chunk_streams: int = 32
    partial_bytes: int = 16 * MIB  # of all unfinished messages together
    message_bytes: int = 64 * KIB  # a command, data or control message; before the publisher is accepted: any
    audio_bytes: int = 256 * KIB
    video_bytes: int = 8 * MIB
    opening_bytes: int = 256 * KIB  # all that may come before `publish`
    opening_buffer: int = 4 * KIB  # 1,500 idle sockets must not cost 190 MB
    buffer: int = 128 * KIB
    steps: int = 1024  # of work in one go, each that of a chunk header, so that tiny chunks cannot hold the event loop
    steps_at_once: int = 100_000  # in all, beyond those that bytes pay for: half a second of CPU,
    steps_per_second: int = 4000  # and so many come back; an encoder's smallest sound is 400 messages a second
    bytes_per_step: int = 8
