"""The plain RTMP handshake, server side (RTMP 1.0 §5.2). Sans-IO.

The plain form is enough: every client that was tried takes it. What does not begin with version 3 (an HTTP request, a TLS hello, RTMPE's
version 6) is refused at its first byte and gets no answer.
"""

import os

from protocols.errors import ProtocolError

VERSION = 3
C1_BYTES = 1536
OPENING_BYTES = 1 + C1_BYTES  # C0 and C1


def check_version(first_byte: int) -> None:
    """Raises `ProtocolError` if C0 is not RTMP's."""
    if first_byte != VERSION:
        raise ProtocolError(f"not an RTMP handshake: version {first_byte}")


def reply(opening: bytes) -> bytes:
    """S0, S1 and S2 (3,073 bytes) for C0 and C1 (1,537 bytes)."""
    # RTMP 1.0 §5.2.3: S1 is a time, four zero bytes and 1,528 random bytes; §5.2.4: S2 echoes C1.
    return bytes([VERSION]) + bytes(8) + os.urandom(C1_BYTES - 8) + opening[1:]
