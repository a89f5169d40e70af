"""One SRT connection that gives media: read, demultiplexed and counted, by turns of the event loop."""

from collections.abc import Callable
from time import monotonic_ns
from typing import Final

from protocols.errors import ProtocolError
from protocols.inbox import DropToKeyframe, Inbox
from protocols.srt.libsrt import FAILED, READABLE, Libsrt, Option
from protocols.srt.limits import ReceiveLimits
from protocols.srt.receiver import SrtReceiver
from protocols.srt.statistics import MS, LinkStatistics, SrtStats
from protocols.srt.tracks import Item, TsDemuxer

_SILENT: Final = 0.8  # of the idle time-out: a connection that ends after such a silence was lost, not closed


def inbox(limits: ReceiveLimits, stats: SrtStats) -> Inbox:
    """For a connection's media. SRT has no back-pressure that a live encoder heeds: what is not taken in time is dropped, and counted."""

    def dropped(packets: int) -> None:
        stats.units_dropped += packets

    return Inbox(limits.queue_ms, limits.queue_bytes, DropToKeyframe(dropped))


class SrtConnection:
    """One connected encoder or source: bytes to packets (`protocols.srt.receiver.Endpoint`)."""

    events = READABLE | FAILED

    def __init__(
        self,
        receiver: SrtReceiver,
        socket: int,
        demuxer: TsDemuxer,
        inbox: Inbox,
        stats: SrtStats,
        limits: ReceiveLimits,
        on_end: Callable[[], None],
    ) -> None:
        """`on_end` is called when the connection has ended."""
        self.socket = socket
        self._receiver = receiver
        self._demuxer = demuxer
        self._inbox = inbox
        self._stats = stats
        self._limits = limits
        self._on_end = on_end
        self._link: LinkStatistics | None = None
        self._last_data = monotonic_ns()
        self._counted = (0, 0, 0, 0, stats.units_dropped)

    def ready(self, now: int) -> None:
        data = self._receiver.read(self.socket)
        if data is None:
            if now - self._last_data > _SILENT * self._limits.peer_idle_ms * MS:
                raise ProtocolError(f"the encoder has been silent for {self._limits.peer_idle_ms // 1000} s: connection lost")
            self._take(self._demuxer.settle(now, 0))
            self._stats.stopped = True  # it has shut the connection down (SHUTDOWN, draft-sharabayko-srt §3.2.7)
            self._receiver.end(self.socket, None)
        elif data:
            self._last_data = now
            self._stats.bytes_received += len(data)
            self._receiver.totals.bytes_received += len(data)
            self._take(self._demuxer.feed(data, now))

    def _take(self, items: list[Item]) -> None:
        for item in items:
            self._inbox.put(item)

    def sweep(self, now: int) -> None:
        self._demuxer.check(now)
        self._take(self._demuxer.settle(now))
        self._take_statistics()
        if not self._receiver.srt.connected(self.socket):  # one that broke before it was watched never raises an event
            self.ready(now)

    def ended(self, error: ProtocolError | None, now: int) -> None:
        self._take_statistics()
        self._inbox.end(error)
        self._on_end()

    def _take_statistics(self) -> None:
        link = self._receiver.srt.statistics(self.socket)
        packets, units = self._demuxer.packets, self._demuxer.counts
        counted = (packets.ignored, packets.continuity_errors, packets.sync_lost, units.broken, self._stats.units_dropped)
        ignored, errors, lost, broken, dropped = (new - old for new, old in zip(counted, self._counted, strict=True))
        for stats in (self._stats, self._receiver.totals):
            if link is not None:
                stats.add_link(link, self._link)
            stats.packets_ignored += ignored
            stats.continuity_errors += errors
            stats.sync_lost_bytes += lost
            stats.broken_units += broken
        self._receiver.totals.units_dropped += dropped  # its own were counted as they were dropped
        self._link = link or self._link
        self._counted = counted


def prepare(srt: Libsrt, socket: int, limits: ReceiveLimits, latency_ms: int) -> None:
    """The options of every socket that will receive; accepted sockets inherit them from their listener."""
    for option, value in (
        (Option.RCVSYN, 0),
        (Option.SNDSYN, 0),
        (Option.RCVLATENCY, latency_ms),
        (Option.PEERLATENCY, 0),
        (Option.TLPKTDROP, 1),
        (Option.ENFORCEDENCRYPTION, 1),
        (Option.PEERIDLETIMEO, limits.peer_idle_ms),
        (Option.PAYLOADSIZE, 1456),  # senders with more than seven TS packets per message
        (Option.FC, 8192),  # packets: 20 Mbit/s for 4 s; half the memory per caller of the default
        (Option.RCVBUF, 8192 * 1472),
        (Option.SNDBUF, 64 * 1472),  # we do not send
        (Option.UDP_RCVBUF, 4 << 20),
        (Option.MINVERSION, 0x010300),  # handshake 5, which brings the stream id
        (Option.LOSSMAXTTL, 0),
    ):
        srt.set(socket, option, value)
