"""What the native part sends is what Python sends, byte for byte: for the same viewers, keys and numbers, whatever the frames, the profile,
the header extensions, the addresses, and whatever the kernel refuses. Where it is not there, or fails, Python sends."""

import errno
import logging
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

import pytest
from pylibsrtp import Policy

from protocols.media import Codec, Kind, Track
from protocols.webrtc.native import runs as native
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from protocols.webrtc.transport.egress import Egress
from tests.support.gateway_process import ROOT
from tests.unit.protocols.webrtc.loopback import (
    FRAME,
    GCM_256,
    Peer,
    Timers,
    nal_unit,
    packet,
    parameters,
    sender_to,
    source_of,
    video,
)

PROFILES = (GCM_256, Policy.SRTP_PROFILE_AEAD_AES_128_GCM, Policy.SRTP_PROFILE_AES128_CM_SHA1_80)
EXTENSIONS: Sequence[dict[str, int]] = (
    {},
    {"transport_cc_extension": 0},
    {"mid_extension": 0, "abs_send_time_extension": 0, "transport_cc_extension": 0},
    {"playout_delay_extension": 7},
)
VIEWERS = 5


@dataclass
class World:
    """Viewers of a picture and a sound, and what each of them got: the same whenever it is made from the same seed."""

    module: ModuleType | None
    seed: int = 1
    profile: int = GCM_256
    extensions: dict[str, int] = field(default_factory=dict)
    family: socket.AddressFamily = socket.AF_INET
    from_address: str = ""  # of ours, where it is not to be the usual one

    @contextmanager
    def made(self) -> Iterator[None]:
        self.timers, self.chance = Timers(), random.Random(self.seed)
        self.picture, self.sound = video(self.timers), source_of(Track(2, Codec.OPUS), self.timers)
        with socket.socket(self.family, socket.SOCK_DGRAM) as out:
            out.bind(("" if self.from_address else "127.0.0.1" if self.family == socket.AF_INET else "::1", 0))
            self.egress = Egress(out, self.module)
            self.peers = [Peer(self.egress, self.profile, bytes([number, 1])) for number in range(VIEWERS)]
            self.senders = [sender for peer in self.peers for sender in self._watching(peer)]
            self.got: list[list[bytes]] = [[] for _ in self.peers]
            if self.from_address:
                control = [(socket.IPPROTO_IP, 8, bytes(4) + socket.inet_aton(self.from_address) + bytes(4))]
                self.egress.sources = {peer.address: control for peer in self.peers if peer.address}
            try:
                yield
            finally:
                for peer in self.peers:
                    peer.socket.close()

    def _watching(self, peer: Peer) -> Iterator[Sender]:
        sources: dict[Kind, Source] = {Kind.VIDEO: self.picture, Kind.AUDIO: self.sound}
        for kind, source in sources.items():
            agreed = parameters(kind, ssrc=self.chance.getrandbits(32), rtx_ssrc=None, mid=kind.value[0], **self.extensions)
            numbers = {"sequence": self.chance.randrange(65_000, 66_000), "timestamp": self.chance.getrandbits(32)}
            sender = sender_to(peer, agreed, **numbers)
            sender.attach(source, 0)
            yield sender

    def play(self, frames: int) -> "World":
        """Frames of random sizes and slices, small ones, large ones that are paced, and repairs."""
        chance = self.chance
        for number in range(frames):
            now = number * FRAME
            self.timers.advance(now)
            keyframe = number % 20 == 0
            sizes = [
                chance.choice((1, 30, 1000, 1200, 1201, 9000, 60_000)) + chance.randrange(200)
                for _ in range(chance.randint(1, 4))
            ]
            state = random.getstate()
            random.seed(chance.getrandbits(32))
            units = [nal_unit(7, 20), nal_unit(8, 6)] if keyframe else []
            units += [nal_unit(5 if keyframe else 1, size) for size in sizes]
            self.picture.push(packet(b"".join(b"\0\0\0\1" + unit for unit in units), now, keyframe), now)
            self.sound.push(packet(random.randbytes(chance.randrange(3, 400)), now, True), now)
            random.setstate(state)
            if number % 7 == 3:
                for sender in self.senders[::2]:
                    last = sender.stream.sent[-1]
                    sender.repair([last[0] & 0xFFFF, last[0] - 3 & 0xFFFF], now)
            self.collect()
        self.timers.advance(frames * FRAME)
        self.collect()
        return self

    def collect(self) -> None:
        for peer, got in zip(self.peers, self.got, strict=True):
            while (data := peer.datagram()) is not None:
                got.append(data)


def both(module: ModuleType, **changes: object) -> tuple[World, World]:
    """The same in Python and by the native part; what both are told of the kernel's answers."""
    worlds = World(None, **changes), World(module, **changes)  # type: ignore[arg-type]
    for world in worlds:
        with world.made():
            world.play(60)
    return worlds


def same(module: ModuleType, **changes: object) -> World:
    python, ours = both(module, **changes)
    assert [len(got) for got in ours.got] == [len(got) for got in python.got]
    assert ours.got == python.got
    assert min(map(len, ours.got)) > 500
    assert figures(ours) == figures(python)
    assert ours.egress.runs.__class__ is native.NativeRuns
    assert (ours.egress.sent, ours.egress.dropped, ours.egress.errors) == (python.egress.sent, 0, 0)
    return ours


def figures(world: World) -> list[tuple[int, ...]]:
    return [
        (stream.packets, stream.payload_bytes, stream.dropped, stream.retransmitted)
        for stream in (sender.stream for sender in world.senders)
    ]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("extensions", EXTENSIONS, ids=lambda each: " ".join(each) or "all")
def test_the_same_packets_leave(module: ModuleType, profile: int, extensions: dict[str, int]) -> None:
    same(module, profile=profile, extensions=extensions, seed=profile * 10 + len(extensions))


def test_the_same_packets_leave_over_ipv6(module: ModuleType) -> None:
    same(module, family=socket.AF_INET6)


def test_they_leave_from_the_address_of_ours_that_the_viewer_knows(module: ModuleType) -> None:
    with (world := World(module, from_address="127.0.0.2")).made():
        world.picture.push(packet(b"\0\0\0\1\x65" + bytes([9]) * 20_000, 0, True), 0)
        world.timers.advance(FRAME)
        assert world.peers[0].socket.recvfrom(2048)[1][0] == "127.0.0.2"
        world.collect()
        assert {len(got) for got in world.got[1:]} == {len(world.got[0]) + 1} != {1}


def test_without_segmentation_the_same_packets_leave(module: ModuleType) -> None:
    worlds = World(None), World(module)
    for world in worlds:
        with world.made():
            world.egress.segmentation = False
            world.play(25)
    assert worlds[0].got == worlds[1].got


@pytest.mark.parametrize(("error", "for_good"), [("EIO", True), ("EINVAL", False), ("EMSGSIZE", False)])
def test_where_the_kernel_cannot_cut_they_go_one_by_one(
    stubborn: Callable[..., ModuleType], error: str, for_good: bool
) -> None:
    ours = same(stubborn(error, runs_alone=True))
    assert ours.egress.segmentation is not for_good


@pytest.mark.parametrize("error", ["EAGAIN", "ENOBUFS", "EPERM"])
@pytest.mark.parametrize("every", [1, 2, 7])
def test_what_the_kernel_does_not_take_is_lost_alone_and_counted(
    stubborn: Callable[..., ModuleType], error: str, every: int
) -> None:
    python, ours = both(stubborn(error, every))
    left = [set(got) for got in python.got]
    for got, all_of_it in zip(ours.got, left, strict=True):
        assert all_of_it.issuperset(got)
        assert len(got) < len(all_of_it)
    dropped, errors = ours.egress.dropped, ours.egress.errors
    lost = python.egress.sent - ours.egress.sent
    assert (dropped, errors) == ((0, lost) if error == "EPERM" else (lost, 0))
    assert sum(stream.dropped for stream in (sender.stream for sender in ours.senders)) > 0
    assert ours.egress.runs.__class__ is native.NativeRuns


@pytest.mark.parametrize("every", [1, 400])
def test_where_it_breaks_python_goes_on_and_that_is_said_once(
    stubborn: Callable[..., ModuleType], every: int, caplog: pytest.LogCaptureFixture
) -> None:
    python, ours = both(stubborn("ENOSYS", every))
    assert [list(dict.fromkeys(got)) for got in ours.got] == [list(dict.fromkeys(got)) for got in python.got]
    assert figures(ours) == figures(python)
    assert ours.egress.native_failures == 1
    (line,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert os.strerror(errno.ENOSYS) in line.getMessage()


def test_a_viewer_whose_packets_cannot_be_protected_disturbs_none(module: ModuleType) -> None:
    worlds = World(None), World(module)
    for world in worlds:
        with world.made():
            world.play(60)
            lost = world.senders[2].stream
            lost._sequence -= 1500  # older than libsrtp's window of those that it has seen
            world.play(1)
    assert worlds[0].got == worlds[1].got
    assert figures(worlds[0]) == figures(worlds[1])
    assert worlds[1].senders[2].stream.dropped > 0
    assert sum(sender.stream.dropped for sender in worlds[1].senders) == worlds[1].senders[2].stream.dropped
    assert (worlds[1].egress.dropped, worlds[1].egress.errors) == (0, 0), "the kernel has refused none"


def test_where_it_was_not_built_python_sends() -> None:
    with pytest.raises(native.CannotSend, match="not built"):
        native.module("protocols.webrtc.native._absent")
    code = (
        "import asyncio, sys, logging; sys.modules['protocols.webrtc.native._runs'] = None; logging.basicConfig(level='INFO')\n"
        "from protocols.webrtc.transport.udp_mux import UdpMux\n"
        "async def main():\n"
        "    async with UdpMux('127.0.0.1') as mux:\n"
        "        print(type(mux._shared.egress.runs).__name__, [each[2] for each in mux.counters() if each[0] == 'native_failures'])\n"
        "asyncio.run(main())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.split() == ["PythonRuns", "[0]"]
    assert "sent in Python" in run.stderr


def test_without_a_compiler_building_says_so_and_fails_softly() -> None:
    code = "import sys; from protocols.webrtc.native import build; build.made = lambda: None; sys.exit(build.main())"
    environment = os.environ | {"CC": "/there/is/none"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "sent in Python: there is no /there/is/none" in run.stderr
    assert "Traceback" not in run.stderr
