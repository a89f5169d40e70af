"""What real encoders send that is wrong, over RTMP through a running gateway: who watches gets all that is right, and the streamer reads
what is left out. The files: `tests/data/faults/README.md`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from protocols.bitstream.nal import START
from tests.support.delivery import assert_delivered, assert_shown
from tests.support.flv import Tag, tags
from tests.support.gateway_process import GatewayProcess
from tests.support.rtmp_client import rtmp_client
from tests.support.viewer import watching

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOLD_WITHIN_S = 2.0
ENDING = 12  # frames of sound that may be under way where the stream ends
HEARD = 0.97


@dataclass(frozen=True)
class Fault:
    """`pictures` from 0 that are shown, `sound` in seconds; `finding` is in what the streamer reads, empty: nothing is left out. It begins
    after `begins` seconds. `file`, where it is not the name, is in `tests/data/faults`, and is changed by `change`."""

    name: str
    pictures: int
    sound: float
    finding: str = ""
    begins: float = 0.0
    size: tuple[int, int] = (320, 192)
    file: str = ""
    change: Callable[[list[Tag]], list[Tag]] = list


def by_start_code(source: list[Tag]) -> list[Tag]:
    """Annex B instead of lengths of 4 bytes."""

    def changed(body: bytes) -> bytes:
        units, at = b"", 5
        while at < len(body):
            size = int.from_bytes(body[at : at + 4])
            units += START + body[at + 4 : at + 4 + size]
            at += 4 + size
        return body[:5] + units

    return [Tag(tag.kind, tag.time, changed(tag.body)) if tag.kind == 9 else tag for tag in source]


def without_aac_header(source: list[Tag]) -> list[Tag]:
    return [tag for tag in source if not (tag.kind == 8 and tag.body[1] == 0)]


def with_what_is_no_command(source: list[Tag]) -> list[Tag]:
    return [*source[:50], Tag(20, source[50].time, b"\x0a\xff\xff"), *source[50:]]


BODIES = (
    Fault("rtmp-empty-nal", 100, 4, "an empty NAL unit", 0.4),
    Fault("rtmp-padding", 100, 4, "bytes behind the last NAL unit", 0.4),
    Fault("rtmp-short-tags", 100, 4, "A part of the video cannot be read", 0.4),
    Fault("rtmp-metadata-72k", 75, 3, "a message of 72103 bytes"),
)
HEADERS = (
    Fault("rtmp-bad-aac-header", 100, 4, "A part of the sound cannot be read", 1.6),
    Fault("rtmp-cut-avc-header", 100, 4, "A part of the video cannot be read", 1.6),
    Fault("rtmp-bad-mp3-tag", 100, 4, "broken MPEG audio header", 1.6),
    Fault("rtmp-sets-in-band", 100, 4),
    Fault("rtmp-adts-in-tags", 100, 4),
)
CODECS = (
    Fault("rtmp-h263", 0, 4, "The video is Sorenson H.263, which is not taken: choose H.264"),
    Fault("rtmp-g711-alaw", 100, 4),
    Fault("rtmp-speex", 100, 4),
    Fault("rtmp-track-1-first", 75, 3, "track 1 is left out"),
)
MADE = (
    Fault("start-codes", 100, 4, file="rtmp-sets-in-band", change=by_start_code),
    Fault("no-aac-header", 100, 0, "AAC without its header", file="rtmp-sets-in-band", change=without_aac_header),
    Fault(
        *("no-command", 100, 4, "A part of the metadata or commands cannot be read", 1.0),
        file="rtmp-sets-in-band",
        change=with_what_is_no_command,
    ),
)


@pytest.mark.parametrize("faults", [BODIES, HEADERS, CODECS, MADE], ids=["bodies", "headers", "codecs", "made"])
async def test_what_is_right_is_shown_and_the_rest_is_told(gateway: GatewayProcess, faults: tuple[Fault, ...]) -> None:
    await asyncio.gather(*(_shown_and_told(gateway, fault) for fault in faults))


async def _shown_and_told(gateway: GatewayProcess, fault: Fault) -> None:
    user, call = fault.name, f"livestream:own-{_number(fault)}"
    sound = max(0, round(fault.sound * 50) - ENDING)
    async with (
        watching(gateway.url(f"/whep/{call}")) as viewer,
        rtmp_client(gateway.ports["rtmp"], gateway.key(call, user)) as client,
        asyncio.TaskGroup() as tasks,
    ):
        if fault.finding:
            tasks.create_task(_told(gateway, user, fault))
        await client.send(fault.change(tags(fault.file or fault.name)))
        if fault.pictures:
            await viewer.until_number(fault.pictures - 2)
        await viewer.until_sounding(max(0, round(sound * HEARD)))
        stream = await gateway.stream(user, tracks=bool(fault.sound) + bool(fault.pictures))
        assert not client.over.is_set(), "the stream stays live to its end"
        lost = viewer.lost()
    assert_shown(viewer.numbers, 0, fault.pictures - 2, lost)
    assert viewer.sizes == [fault.size] * bool(fault.pictures)
    assert_delivered(sound, viewer.sounding, lost, share=HEARD)
    assert viewer.frequency == pytest.approx(1000 if fault.sound else 0, rel=0.05)
    told = [line["what"] for line in gateway.log if line["message"] == "left out" and line["user"] == user]
    assert len(set(told)) == len(told), "each is told once"
    assert bool(told) == bool(fault.finding), told
    assert any(fault.finding in warning for warning in (*stream["warnings"], "")), stream["warnings"]
    assert [track["codec"] for track in stream["tracks"] if track["kind"] == "video"] == ["h264"] * bool(fault.pictures)


async def _told(gateway: GatewayProcess, user: str, fault: Fault) -> None:
    line = await gateway.logged(fault.finding, fault.begins + TOLD_WITHIN_S, user=user)
    assert line["message"] == "left out"


def _number(fault: Fault) -> int:
    return (*BODIES, *HEADERS, *CODECS, *MADE).index(fault)
