"""One viewer of a call: its slots, which participant each shows and in which layer, and its feedback.

What is kept true: a slot is the n-th video with the n-th audio m-line of the viewer's offer; a participant keeps its slot while it is
shown; those who find none wait in the order they came. A viewer may come before the participants, and before its own connection stands.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from protocols.media import WEBRTC_VIDEO, Codec, Kind
from protocols.webrtc.sdp.answer import Accepted
from protocols.webrtc.send.report import RtcpSession
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.share import WayShares
from protocols.webrtc.send.simulcast import STRAINED_NS, LayerChoice, Wish
from protocols.webrtc.send.source import Source
from protocols.webrtc.send.way import ViewerWay
from protocols.webrtc.transport.peer import Peer
from protocols.whep.fanout import CallViewer
from protocols.whep.slot import ShownParticipant, Slot
from protocols.whep.watchers import Watchers

_REPORT_INTERVAL = 1.0  # s
_CHOOSE_NS = 500_000_000
_MAX_WAITING = 256


class ViewerAdmission(Protocol):
    """Those who watch one call. Being in it, a viewer is shown each participant."""

    def add_viewer(self, viewer: CallViewer) -> None: ...

    def remove_viewer(self, viewer: CallViewer) -> None: ...


class Admitted(ViewerAdmission, Protocol):
    """The same for one who was let in."""

    @property
    def known(self) -> bool:
        """Whether they showed a token that is worth something."""

    @property
    def user(self) -> str:
        """Whose token that is, by a name that is no other's; empty: nobody's in particular."""


class Program(Protocol):
    """What there is to watch; given by the owner of the calls."""

    async def admit(self, call: str, token: str | None, address: str) -> Admitted:
        """The audience of `call` for who comes from `address`; raises `Rejected` for those who may not watch it."""


class Viewer:
    """See the file. `run` is its life; `show` and `hide` are the call's."""

    def __init__(self, peer: Peer, accepted: Sequence[Accepted | None], without: str = "") -> None:
        """`without` is a participant that is not shown, such as the viewers themselves."""
        self.peer = peer
        self._without = without
        self._waiting: dict[str, ShownParticipant] = {}
        self._watchers = Watchers()
        self._wake = asyncio.Event()
        self._choice = LayerChoice()
        self._shares = WayShares()
        self._choose_due = 0
        self.way = ViewerWay(peer)
        numbered: dict[int, Slot] = {}
        for line, each in enumerate(accepted):
            if each is not None and each.send is not None:
                slot = numbered.setdefault(each.number, Slot(each.number))
                slot.senders[each.send.kind] = Sender(self.way, each.send, on_turn=self._changed)
                if each.send.kind is Kind.VIDEO:
                    slot.video_line = line
        self._slots = [numbered[number] for number in sorted(numbered)]
        self.senders = tuple(sender for slot in self._slots for sender in slot.senders.values())
        lines = [frozenset(sender.parameters.formats) for sender in self.senders if sender.parameters.kind is Kind.VIDEO]
        self.takes: frozenset[Codec] = WEBRTC_VIDEO.intersection(*lines)
        """The video codecs that every picture of this viewer may come in; all that we send where it has none to show."""
        self._feedback = RtcpSession(self.way, self.senders, on_answer=peer.send_rtcp)
        peer.on_rtcp = self._on_rtcp

    @property
    def leaving(self) -> bool:
        """Whether it has to go, or has gone."""
        return bool(self.peer.why)

    def close(self, why: str) -> None:
        """End it; `run` returns soon."""
        self.peer.close(why)

    @property
    def estimated_bitrate(self) -> int | None:
        """What the viewer's path carries, in bit/s, as its own feedback says."""
        return self._feedback.estimated_bitrate

    def _on_rtcp(self, packet: bytes, now: int) -> None:
        feedback = self._feedback
        collapses, judgements = feedback.collapses, feedback.judgements
        feedback.receive(packet, now)
        if feedback.collapses > collapses:
            self._choose(now, patience=0)
            for sender in self.senders:
                sender.cut(now)
        elif now >= self._choose_due or feedback.judgements > judgements:
            self._choose(now)

    def _choose(self, now: int, patience: int = STRAINED_NS) -> None:
        """Which layer of each picture is sent from here on, and what it has to make do with. `patience`: how long the way has carried too
        little (ns)."""
        self._choose_due = now + _CHOOSE_NS
        slots = {slot.number: slot for slot in self._slots}
        pictures = {number: picture for number, slot in slots.items() if (picture := slot.picture()) is not None}
        carried = self._carried()
        for number, share in self._shares.of(pictures, carried, now, patience).items():
            slots[number].senders[Kind.VIDEO].carried = share
        turned = [
            slots[number].show_layer(name, now)
            for number, name in self._choice.choose(pictures, carried, now, patience).items()
        ]
        if any(turned):
            self._changed()

    def _carried(self) -> int | None:
        """What the way has for pictures: the sound goes before."""
        if self.estimated_bitrate is None:
            return None
        sounds = [slot.senders[Kind.AUDIO].source for slot in self._slots if Kind.AUDIO in slot.senders]
        return max(0, self.estimated_bitrate - sum(source.bitrate for source in sounds if source is not None))

    def wish(self, media: str | None, wish: Wish) -> list[str] | None:
        """Ask for a layer of one picture: `media` is the mid of its m-line or the index of that, None: the first. Gives the names of the
        layers that there are; None if there is no such m-line."""
        for slot in self._slots:
            sender = slot.senders.get(Kind.VIDEO)
            if sender is not None and media in (None, sender.parameters.mid, str(slot.video_line)):
                slot.wish = wish
                self._choose(time.monotonic_ns())
                return [source.track.layer for source in slot.sources(Kind.VIDEO)]
        return None

    def layers(self) -> dict[str, object]:
        """By index of the m-line, the layers of each picture (the "layers" event of draft-ietf-wish-whep-03)."""
        by_line: dict[str, object] = {}
        for slot in self._slots:
            if (picture := slot.picture()) is not None:
                by_line[str(slot.video_line)] = [
                    {"rid": layer.name, "width": layer.width, "height": layer.height, "bitrate": layer.bitrate}
                    for layer in picture.layers
                ]
        return by_line

    def show(
        self, participant: str, name: str, sources: Mapping[Kind, Sequence[Source]], muted: frozenset[Kind] = frozenset()
    ) -> None:
        """Show a participant, or what has changed of it, in the slot it has, else in the first free one, else once one is free."""
        if participant == self._without:
            return
        shown = ShownParticipant(participant, name, dict(sources), muted)
        slot = self._slot_of(participant) or next((slot for slot in self._slots if slot.participant is None), None)
        if slot is not None:
            self._show(slot, shown)
        elif participant in self._waiting or len(self._waiting) < _MAX_WAITING:
            self._waiting[participant] = shown
        self._changed()

    def hide(self, participant: str) -> None:
        """The participant has left: its slot goes to the one that waits longest."""
        self._waiting.pop(participant, None)
        slot = self._slot_of(participant)
        if slot is not None:
            following = next(iter(self._waiting), None)
            self._show(slot, self._waiting.pop(following) if following is not None else None)
        self._changed()

    def _show(self, slot: Slot, participant: ShownParticipant | None) -> None:
        now = time.monotonic_ns()
        slot.show(participant, now)
        self._choose(now)

    def describe(self) -> dict[str, object]:
        """What the page is told: which mids show whom."""
        return {"slots": [slot.describe() for slot in self._slots], "waiting": len(self._waiting)}

    def watching(self) -> AbstractContextManager[asyncio.Event | None]:
        """An event that is set at each change and at the end; None when too many watch."""
        return self._watchers.watching()

    async def run(self) -> None:
        """Drive the senders' start and their reports until the peer has gone."""
        try:
            async with asyncio.TaskGroup() as group:
                reports = group.create_task(self._report())
                await self.peer.closed.wait()
                reports.cancel()
        finally:
            self.peer.close()
            for slot in self._slots:
                slot.show(None, time.monotonic_ns())
            self._changed()

    async def _report(self) -> None:
        await self.peer.connected.wait()
        loop = asyncio.get_running_loop()
        for sender in self.senders:
            sender.start(time.monotonic_ns())
        while True:
            for report in self._feedback.due(time.monotonic_ns()):
                self.peer.send_rtcp(report)
            self._wake.clear()
            timer = loop.call_later(_REPORT_INTERVAL, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()

    def _slot_of(self, participant: str) -> Slot | None:
        return next((slot for slot in self._slots if slot.participant and slot.participant.id == participant), None)

    def _changed(self) -> None:
        self._wake.set()
        self._watchers.tell()
