"""One viewer of a call: its slots, which participant each shows, and its feedback.

What is kept true: a slot is the n-th video with the n-th audio m-line of the viewer's offer; a participant keeps its slot while it is
shown; those who find none wait in the order they came. A viewer may come before the participants, and before its own connection stands.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from protocols.media import Kind
from protocols.webrtc.answer import Accepted
from protocols.webrtc.fanout import Sender, Source
from protocols.webrtc.feedback import Feedback
from protocols.webrtc.peer import Peer

_REPORT_INTERVAL = 1.0  # s
_MAX_WAITING = 256
_MAX_WATCHERS = 4


class Audience(Protocol):
    """Those who watch one call. Being in it, a viewer is shown each participant by `show` and `hide`."""

    def add_viewer(self, viewer: "Viewer") -> None: ...

    def remove_viewer(self, viewer: "Viewer") -> None: ...


class Program(Protocol):
    """What there is to watch; given by the owner of the calls."""

    async def admit(self, call: str, token: str | None) -> Audience:
        """The audience of `call`; raises `Rejected` for those who may not watch it."""


@dataclass(frozen=True, slots=True)
class Participant:
    id: str
    name: str
    sources: Mapping[Kind, tuple[Source, ...]]  # of each kind the layers, the largest first


@dataclass(slots=True)
class _Slot:
    """One place to show a participant: a sender for each kind that the viewer's offer has here."""

    number: int
    senders: dict[Kind, Sender] = field(default_factory=dict)
    participant: Participant | None = None

    def show(self, participant: Participant | None, now: int) -> None:
        self.participant = participant
        for kind, sender in self.senders.items():
            layers = participant.sources.get(kind, ()) if participant else ()
            if sender.source in layers[:1]:
                continue
            if layers:
                sender.attach(layers[0], now)
            else:
                sender.detach()

    def describe(self) -> dict[str, object]:
        mids = {kind: sender.parameters.mid for kind, sender in self.senders.items()}
        shown = self.participant
        return {
            "slot": self.number,
            "video_mid": mids.get(Kind.VIDEO),
            "audio_mid": mids.get(Kind.AUDIO),
            "participant": shown.id if shown else None,
            "name": shown.name if shown else None,
            "video": shown is not None and Kind.VIDEO in mids and Kind.VIDEO in shown.sources,
            "audio": shown is not None and Kind.AUDIO in mids and Kind.AUDIO in shown.sources,
        }


class Viewer:
    """See the file. `run` is its life; `show` and `hide` are the call's."""

    def __init__(self, peer: Peer, accepted: Sequence[Accepted | None], without: str = "") -> None:
        """`without` is a participant that is not shown, such as the viewer himself."""
        self.peer = peer
        self._without = without
        self._waiting: dict[str, Participant] = {}
        self._watchers: set[asyncio.Event] = set()
        self._wake = asyncio.Event()
        numbered: dict[int, _Slot] = {}
        for each in accepted:
            if each is not None and each.send is not None:
                slot = numbered.setdefault(each.number, _Slot(each.number))
                slot.senders[each.send.kind] = Sender(peer, each.send)
        self._slots = [numbered[number] for number in sorted(numbered)]
        self.senders = tuple(sender for slot in self._slots for sender in slot.senders.values())
        self._feedback = Feedback(send=peer.send_rtcp)
        for sender in self.senders:
            self._feedback.add(sender)
        peer.on_rtcp = self._feedback.receive

    @property
    def estimated_bitrate(self) -> int | None:
        """What the viewer's path carries, in bit/s, as its own feedback says."""
        return self._feedback.estimated_bitrate

    def show(self, participant: str, name: str, sources: Mapping[Kind, tuple[Source, ...]]) -> None:
        """Show a participant, or what has changed of it, in the slot it has, else in the first free one, else once one is free."""
        if participant == self._without:
            return
        shown = Participant(participant, name, dict(sources))
        slot = self._slot_of(participant) or next((slot for slot in self._slots if slot.participant is None), None)
        if slot is not None:
            slot.show(shown, time.monotonic_ns())
        elif participant in self._waiting or len(self._waiting) < _MAX_WAITING:
            self._waiting[participant] = shown
        self._changed()

    def hide(self, participant: str) -> None:
        """The participant has left: its slot goes to the one that waits longest."""
        self._waiting.pop(participant, None)
        slot = self._slot_of(participant)
        if slot is not None:
            following = next(iter(self._waiting), None)
            slot.show(self._waiting.pop(following) if following is not None else None, time.monotonic_ns())
        self._changed()

    def describe(self) -> dict[str, object]:
        """What the page is told: which mids show whom."""
        return {"slots": [slot.describe() for slot in self._slots], "waiting": len(self._waiting)}

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event | None]:
        """An event that is set at each change and at the end; None when too many watch."""
        if len(self._watchers) >= _MAX_WATCHERS:
            yield None
            return
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

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
        for sender in self.senders:
            sender.start(time.monotonic_ns())
        while True:
            for report in self._feedback.due(time.monotonic_ns()):
                self.peer.send_rtcp(report)
            self._wake.clear()
            try:
                async with asyncio.timeout(_REPORT_INTERVAL):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _slot_of(self, participant: str) -> _Slot | None:
        return next((slot for slot in self._slots if slot.participant and slot.participant.id == participant), None)

    def _changed(self) -> None:
        self._wake.set()
        for event in self._watchers:
            event.set()
