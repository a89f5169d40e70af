"""How often DTLS goes to an address from which nobody has proved to listen. Sans-IO.

The source of a connectivity check and that of a ClientHello can be forged by whoever made the session, and what is answered with is larger
than what was asked with. What is kept true: such an address is sent no flight of a handshake (RFC 6347 §4.2.4) more than `MOST` times,
whatever comes in its name; one that only who has read the flight before can have asked for is another flight.
"""

MOST = 3
_HANDSHAKE = 22  # RFC 5246 §6.2.1, the record's first byte
_MESSAGE = 13  # RFC 6347 §4.1: where the record's payload begins, with a handshake message's type
_STAGES = 8  # a handshake has four flights


class Flights:
    """To one unproved address after another: they share the count."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}  # by what the flight begins with

    def take(self, datagram: bytes) -> bool:
        """Whether this datagram, with which a flight begins, may go out; it is then counted."""
        handshake = datagram[:1] == bytes((_HANDSHAKE,)) and len(datagram) > _MESSAGE
        stage = datagram[_MESSAGE] if handshake else -1
        sent = self._sent.get(stage, 0)
        if sent >= MOST or (not sent and len(self._sent) >= _STAGES):
            return False
        self._sent[stage] = sent + 1
        return True
