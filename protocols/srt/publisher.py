"""One encoder that publishes over SRT: a `protocols.publisher.Publisher`."""

import secrets
from collections.abc import AsyncIterator

from protocols.errors import ProtocolError, Rejected
from protocols.inbox import Inbox, Item
from protocols.publisher import Credential
from protocols.srt.admission import Reservation
from protocols.srt.receiver import SrtReceiver
from protocols.srt.statistics import SrtStats


class SrtPublisher:
    """One connected encoder (`protocols.publisher.Publisher`)."""

    protocol = "srt"
    software = ""  # SRT does not say

    def __init__(self, receiver: SrtReceiver, socket: int, reservation: Reservation, inbox: Inbox, stats: SrtStats) -> None:
        stream = reservation.stream
        self.id = secrets.token_urlsafe(12)
        self.remote = str(reservation.address)
        self.credential = Credential(stream.key, reservation.access.user)
        self.params = stream.beside
        self.stats = stats
        self._receiver = receiver
        self._socket = socket
        self._inbox = inbox

    async def accept(self) -> None:
        """The handshake is over already. Raises `ProtocolError` if the encoder has gone."""
        if self._inbox.over:
            raise ProtocolError("the encoder has gone")

    async def reject(self, refusal: Rejected) -> None:
        """Close: a connected caller cannot be told why; `authorise` can."""
        await self.aclose(refusal.detail)

    def __aiter__(self) -> AsyncIterator[Item]:
        return aiter(self._inbox)

    def pause(self, paused: bool) -> None:
        """SRT has no back-pressure that a live encoder heeds."""

    def request_keyframe(self, layer: str = "") -> bool:
        return False

    async def aclose(self, why: str = "") -> None:
        if not self._inbox.over:
            self._receiver.end(self._socket, None)
            self._inbox.end(None)  # where the receiver has stopped
