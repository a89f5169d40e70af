"""One encoder or browser that publishes over WebRTC: a `protocols.publisher.Publisher`.

Its peer exists from the session's `accept` on and not before, so that who may not publish costs nothing but an HTTP answer. What is kept
true: what the session has not taken is bounded, and overflows to the newest key frame; the publisher ends when its peer has gone, in order
if the peer said goodbye or was told to go.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress

from protocols.errors import ProtocolError, Rejected
from protocols.inbox import DropToKeyframe, Inbox, Item
from protocols.publisher import Credential, PublisherStats
from protocols.webrtc.receive.jitter import NEVER
from protocols.webrtc.receive.receiver import RtpReceiver
from protocols.webrtc.receive.stream import Stream
from protocols.webrtc.sdp.answer import Accepted
from protocols.webrtc.sdp.description import Offer
from protocols.webrtc.transport.peer import Peer
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.srtp import SrtpError
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whip.limits import WhipLimits
from protocols.whip.tracks import Tracks

_MEASURE_NS = 2_000_000_000
_CLOSING_S = 2.0
_CLOSED, _DELETED = "closed by the peer", "deleted by the peer"
_IN_ORDER = frozenset({_CLOSED, _DELETED})
_DELETE_S = 1.0  # from the close to the DELETE of who closes first: OBS, browsers


class WhipPublisher:
    """Made of an offer. `decided` is set by accept(), reject() or `abandon`; then there is a `peer` or a `refusal`."""

    def __init__(
        self,
        mux: UdpMux,
        offer: Offer,
        accepted: Sequence[Accepted | None],
        *,
        credential: Credential,
        params: Mapping[str, str],
        client: str,
        remote: str,
        software: str,
        limits: WhipLimits,
    ) -> None:
        """`client` is the address by which peers are counted, `remote` the same with its port."""
        self.decided = asyncio.Event()
        self.peer: Peer | None = None
        self.refusal: Rejected | None = None
        self.dropped = 0
        """Packets that the session took too slowly."""
        self.offer = offer
        self.accepted = accepted
        self._mux = mux
        self._client = client
        self._id = secrets.token_urlsafe(12)
        self._credential = credential
        self._params = params
        self._remote = remote
        self._software = software
        self._idle_s = limits.idle_s
        self._stats = PublisherStats(keyframes_on_demand=True)
        lines = tuple(each.receive for each in accepted if each is not None and each.receive is not None)
        self._inbox = Inbox(limits.queue_ms, limits.queue_bytes, DropToKeyframe(self._on_drop))
        self._tracks = Tracks(lines, self._inbox.put, self._want_keyframe)
        self._admission = RtpReceiver(lines, secrets.randbelow(0xFFFFFFFE) + 1, secrets.token_hex(8), self._tracks.frame)
        self._deleted = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = NEVER  # for when (monotonic ns)
        self._measure_due = 0
        self._loop = asyncio.get_running_loop()

    # -- the session's side ----------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def protocol(self) -> str:
        return "whip"

    @property
    def remote(self) -> str:
        return self._remote

    @property
    def software(self) -> str:
        return self._software

    @property
    def credential(self) -> Credential:
        return self._credential

    @property
    def params(self) -> Mapping[str, str]:
        return self._params

    @property
    def stats(self) -> PublisherStats:
        self._stats.round_trip_ns = self._round_trip()
        self._stats.bytes_received = self.peer.received_bytes if self.peer is not None else 0
        self._stats.packets_ignored = self._admission.ignored
        totals = self._admission.totals()
        self._stats.packets_lost, self._stats.packets_dropped = totals["lost"] + totals["repaired"], totals["lost"]
        return self._stats

    @property
    def admission(self) -> RtpReceiver:
        """For metrics."""
        return self._admission

    @property
    def tracks(self) -> Tracks:
        """For metrics."""
        return self._tracks

    async def accept(self) -> None:
        if self.decided.is_set():
            raise self._inbox.error or ProtocolError("the encoder has gone")
        try:
            self.peer = self._mux.add(self.offer, self._mux.take(self._client, Standing.PUBLISHER))
        except Rejected as refusal:
            await self.reject(refusal)
            raise ProtocolError(refusal.detail) from None
        self.peer.on_rtp, self.peer.on_rtcp = self._on_rtp, self._on_rtcp
        self.decided.set()

    async def reject(self, refusal: Rejected) -> None:
        if self.decided.is_set():
            await self.aclose(refusal.detail)
        else:
            self.refusal = refusal
            self._inbox.end(ProtocolError(refusal.detail))
            self.decided.set()

    def __aiter__(self) -> AsyncIterator[Item]:
        return aiter(self._inbox)

    def pause(self, paused: bool) -> None:
        """Nothing: what is not taken in time is dropped."""

    def request_keyframe(self, layer: str = "") -> bool:
        stream = self._tracks.streams.get(layer)
        if stream is None or not stream.answers:
            return False
        self._want_keyframe(stream)
        return True

    async def aclose(self, why: str = "") -> None:
        if not self.decided.is_set():
            self.abandon(why or "the session has ended")
        peer = self.peer
        self._inbox.end(None)
        if peer is None:
            return
        peer.close(why)
        try:
            async with asyncio.timeout(_CLOSING_S):
                await peer.closed.wait()
        except TimeoutError:
            pass  # its task ends by its own bounds

    # -- the resource's side ---------------------------------------------------------------------------------------------------------

    def abandon(self, why: str) -> None:
        """The encoder does not wait for the answer any more, whatever was decided."""
        self._inbox.end(ProtocolError(why))
        self.decided.set()
        if self.peer is not None:
            self.peer.close(why)

    def end(self, why: str) -> None:
        """By the client's DELETE, or since the gateway ends all sessions."""
        if why == _DELETED:
            self._deleted.set()
        if self.peer is not None:
            self.peer.close(why)

    async def run(self, peer: Peer) -> None:
        """The peer's life, from the answer on. It is stopped by a DELETE (RFC 9725 §4.2); who only closes may come back."""
        try:
            while not await self._quiet(peer):
                pass
            peer.close(f"no media for {self._idle_s:g} s")
            await peer.closed.wait()
            if peer.why == _CLOSED:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DELETE_S):
                        await self._deleted.wait()
        finally:
            peer.close()
            if self._timer is not None:
                self._timer.cancel()
            self._stats.stopped = self._deleted.is_set()
            self._inbox.end(None if peer.why in _IN_ORDER else ProtocolError(peer.why or "closed"))

    async def _quiet(self, peer: Peer) -> bool:
        """Whether nothing came for so long, or the peer has gone."""
        before = self._stats.packets_received
        try:
            async with asyncio.timeout(self._idle_s):
                await peer.closed.wait()
        except TimeoutError:
            return self._stats.packets_received == before
        return True

    def _round_trip(self) -> int:
        if self.peer is not None and self.peer.round_trip:
            return self.peer.round_trip
        return max((stream.buffer.repair_time for stream in self._admission.streams.values()), default=0)

    # -- packets ---------------------------------------------------------------------------------------------------------------------

    def _on_rtp(self, packet: bytes, now: int) -> None:
        admission = self._admission
        self._stats.packets_received += 1
        admission.receive_rtp(packet, now)
        if admission.due < self._armed:
            self._arm(now)

    def _on_rtcp(self, packet: bytes, now: int) -> None:
        self._admission.receive_rtcp(packet, now)

    def _on_drop(self, packets: int) -> None:
        self.dropped += packets
        for stream in self._tracks.streams.values():
            self._admission.want_keyframe(stream)

    def _want_keyframe(self, stream: Stream) -> None:
        self._admission.want_keyframe(stream)
        if self._admission.due < self._armed:
            self._arm(time.monotonic_ns())

    def _arm(self, now: int) -> None:
        """Poll when the reception is due: never within the reading of one batch of packets, so that what was only reordered is not asked
        for."""
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._admission.due
        self._timer = self._loop.call_later(max(0, self._armed - now) / 1e9, self._poll) if self._armed < NEVER else None

    def _poll(self) -> None:
        peer, now = self.peer, time.monotonic_ns()
        if peer is None or self._inbox.over:
            return
        self._admission.round_trip = self._round_trip()
        for compound in self._admission.poll(now):
            with suppress(SrtpError):  # the keys are used up: the peer will end
                peer.send_rtcp(compound)
        if now >= self._measure_due:
            self._measure_due = now + _MEASURE_NS
            peer.measure(now)
        self._arm(now)
