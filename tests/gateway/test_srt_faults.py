"""What real encoders send that is wrong, over SRT through a running gateway: who watches gets all that is right, and the streamer reads
what is left out. The files: `tests/data/faults/README.md`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.peers.srt_peers import caller
from tests.support.delivery import assert_delivered, assert_shown
from tests.support.gateway_process import GatewayProcess
from tests.support.shared import shared_gateway
from tests.support.transport_stream import NULL, PACKETS, PLAIN, Framing, Message, messages, send
from tests.support.viewer import watching
from tests.unit.protocols.srt.streams import pmt

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDING = 12  # frames of sound that may be under way where the stream ends
HEARD = 0.97


@dataclass(frozen=True)
class TsFault:
    """`pictures` from 0 that are shown, `sound` in seconds; `finding` is in what the streamer reads, empty: nothing is left out. `file`,
    where it is not the name, is in `tests/data/faults`, and each message of it is changed by `change`."""

    name: str
    pictures: int
    sound: float
    framing: Framing = PLAIN
    finding: str = ""
    file: str = ""
    change: Callable[[bytes], bytes] = bytes


def with_mpeg2_video(message: bytes) -> bytes:
    """The programme map has one line more."""
    more = pmt({256: 0x1B, 257: 0x0F, 258: 0x02}, pid=_PMT)
    packets = [message[at : at + 188] for at in range(0, len(message), 188)]
    return b"".join(packet[:1] + more[1:3] + packet[3:4] + more[4:] if _pid(packet) == _PMT else packet for packet in packets)


def _pid(packet: bytes) -> int:
    return int.from_bytes(packet[1:3]) & 0x1FFF


_PMT = 0x1000
NOTHING = {
    framing: bytes(framing.before_message) + (bytes(framing.before_packet) + NULL) * PACKETS
    for framing in (PLAIN, Framing(before_message=12), Framing(before_packet=4))
}
"""What is sent behind the end: a multiplex of constant rate goes on."""

FAULTS = (
    TsFault("srt-two-pictures-a-pes.ts", 74, 3),
    TsFault("srt-pes-per-slice.ts", 75, 3),
    TsFault("srt-picture-cut-at-2000.ts", 50, 2),
    TsFault("srt-rtp-headers.bin", 75, 3, Framing(before_message=12)),
    TsFault("srt-192-byte-packets.bin", 75, 3, Framing(before_packet=4)),
    TsFault(
        *("mpeg-2-video", 75, 3, PLAIN, "The video is MPEG-2 video, which is not taken: choose H.264"),
        *("srt-pes-per-slice.ts", with_mpeg2_video),
    ),
)

THERE = ("live", "stalled", "slate")  # an encoder that is through with its script sends nothing


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway() -> AsyncIterator[GatewayProcess]:
    """What is counted are pictures of the encoders."""
    async with shared_gateway("slate.enabled=false") as running:
        yield running


async def test_what_is_right_is_shown_and_the_rest_is_told(gateway: GatewayProcess) -> None:
    await asyncio.gather(*(_shown_and_told(gateway, fault) for fault in FAULTS))


async def _shown_and_told(gateway: GatewayProcess, fault: TsFault) -> None:
    user, call = fault.name, f"livestream:own-{FAULTS.index(fault)}"
    sound = max(0, round(fault.sound * 50) - ENDING)
    script = [Message(due, fault.change(data)) for due, data in messages(fault.file or fault.name, fault.framing)]
    script += [Message(script[-1].due + number / 50, NOTHING[fault.framing]) for number in range(1, 50)]
    settings = {"message": fault.framing.size, "options": {"PAYLOADSIZE": fault.framing.size}}
    async with (
        watching(gateway.url(f"/whep/{call}")) as viewer,
        caller(gateway.ports["srt"], gateway.key(call, user), **settings) as (process, said),
    ):
        assert said == {"connected": True}
        assert process.stdin is not None
        await send(process.stdin, script)
        await viewer.until_number(fault.pictures - 2)
        await viewer.until_sounding(round(sound * HEARD))
        stream = await gateway.stream(user, tracks=2, states=THERE)
        lost = viewer.lost()
    assert_shown(viewer.numbers, 0, fault.pictures - 2, lost)
    assert viewer.sizes == [(320, 192)]
    assert_delivered(sound, viewer.sounding, lost, share=HEARD)
    assert viewer.frequency == pytest.approx(1000, rel=0.05)
    told = [line["what"] for line in gateway.log if line["message"] == "left out" and line["user"] == user]
    assert len(told) == bool(fault.finding), told
    assert any(fault.finding in warning for warning in (*stream["warnings"], "")), stream["warnings"]
