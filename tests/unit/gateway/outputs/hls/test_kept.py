"""A stream of HLS that goes on in another process: to a player it is the same one, with a discontinuity."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.model.kept import KeptSeat
from gateway.outputs.hls.broadcasts import HlsBroadcasts
from gateway.outputs.hls.kept import KeptRendition, KeptStream
from gateway.outputs.hls.policy import HlsTotals
from gateway.outputs.hls.stream import HlsStream
from gateway.sessions.capacity import Capacity
from protocols.hls.segmenter import Timing
from protocols.media import EncodedPacket
from tests.support.hls_checker import Follower
from tests.support.memory import NoFeedback
from tests.unit.gateway.outputs.hls.test_stream import POLICY, SOUND, Seat, look, regular, sound, timed
from tests.unit.transcode.media import SECOND

CID = "livestream:demo"
WHOLE: dict[str, Any] = {
    "id": "s",
    "timing": {"target": 2 * SECOND, "part": SECOND // 3},
    "end": SECOND,
    "interruptions": 1,
    "renditions": {"video": {"segment": 5, "discontinuities": 1, "init": 2, "archived": 5}},
}


class Process:
    """One that has the stream, from `left` on, and what a player has seen of it."""

    def __init__(self, followers: dict[str, Follower], left: KeptStream | None = None) -> None:
        seat = Seat()
        self.begun = 0
        self.stream = HlsStream("id", seat, POLICY, HlsTotals(), None, self.note, left)
        self.stream.attach(seat)
        self.followers = followers

    def note(self) -> None:
        self.begun += 1

    def play(self, seconds: float) -> None:
        track, video = timed(regular(1 / 30, seconds))
        feeds = {1: self.stream.publish(track, NoFeedback()), 2: self.stream.publish(SOUND, NoFeedback())}
        media: list[EncodedPacket] = sorted([*video, *sound(seconds)], key=lambda packet: packet.dts)
        for number, packet in enumerate(media):
            feeds[packet.track].push(packet)
            if number % 16 == 0:
                self.look()
        self.look()

    def look(self) -> None:
        for name, rendition in self.stream.renditions.items():
            look(self.followers.setdefault(name, Follower()), rendition)


def test_numbers_go_on_and_nothing_that_is_gone_is_listed() -> None:
    followers: dict[str, Follower] = {}
    before = Process(followers)
    before.play(25)
    before.stream.detach()  # an encoder that reconnected
    before.stream.attach(Seat())
    before.play(25)
    kept = before.stream.kept
    assert kept is not None
    last = {name: max(follower.seen) for name, follower in followers.items()}
    listed = {name: sum(each.discontinuity for each in follower.seen.values()) for name, follower in followers.items()}
    left = KeptStream.of(json.loads(json.dumps(kept.to_json())))
    assert left == kept
    after = Process(followers, left.after(3 * SECOND))
    for name, follower in followers.items():
        follower.goes_on_from = last[name] + 1
    assert all(after.stream.awaits(name) for name in followers)
    after.play(25)
    assert set(after.stream.renditions) == {"video", "audio"}
    for name, rendition in after.stream.renditions.items():
        assert not after.stream.awaits(name)
        first = rendition.playlist.segments[0]
        assert first.number == last[name] + 1
        assert first.discontinuity
        assert rendition.playlist.discontinuities == listed[name]
        assert f"init{first.init}.mp4" not in {
            segment.init for number, segment in followers[name].seen.items() if number <= last[name]
        }


def test_a_rendition_that_begins_after_it_counts_as_the_others_do() -> None:
    left = replace(KeptStream.of(WHOLE), renditions={"audio": KeptRendition(5, 1, 2, 5)})
    follower = Follower()
    follower.goes_on_from = 5
    process = Process({"audio": follower}, left.after(0))
    process.play(25)
    video, audio = (process.stream.renditions[name].playlist for name in ("video", "audio"))
    assert video.segments[0].number == 0
    assert video.discontinuities + video.segments[0].discontinuity == audio.discontinuities + audio.segments[0].discontinuity


def test_what_is_kept_is_never_behind_what_is_listed_when_a_segment_begins() -> None:
    """Else a number would be given twice, should the process end just then."""
    process = Process({})
    numbers = []

    def note() -> None:
        kept = process.stream.kept
        assert kept is not None
        for name, rendition in process.stream.renditions.items():
            if rendition.playlist.segments:
                numbers.append(rendition.playlist.segments[-1].number)
                assert kept.renditions[name].segment == numbers[-1] + 1

    process.stream.on_segment = note
    process.play(25)
    assert max(numbers) >= 2


def test_who_was_awaited_in_vain_has_an_end() -> None:
    stream = HlsStream("s", Seat(), POLICY, HlsTotals(), None, lambda: None, KeptStream.of(WHOLE).after(SECOND))
    assert stream.awaits("video")
    assert stream.farewell("video") is None
    stream.end()
    assert not stream.awaits("video")
    text = stream.farewell("video")
    assert text is not None
    assert "#EXT-X-MEDIA-SEQUENCE:5\n" in text
    assert text.endswith("#EXT-X-ENDLIST\n")
    assert stream.farewell("audio") is None


@pytest.mark.parametrize(
    "damage",
    [
        None,
        [],
        {},
        {**WHOLE, "timing": {"target": "2"}},
        {**WHOLE, "renditions": {"video": {"segment": 1}}},
        {**WHOLE, "renditions": {"video": {"segment": -1, "discontinuities": 0, "init": 0, "archived": 0}}},
        {**WHOLE, "renditions": []},
        {**WHOLE, "end": None},
        {**WHOLE, "interruptions": True},
    ],
)
def test_what_cannot_be_gone_on_with_is_said_to_be_so(damage: Any) -> None:
    with pytest.raises(ValueError, match="no stream that was kept"):
        KeptStream.of(damage)


class NoLinks:
    """Nobody asks for an address here."""


def broadcasts(**more: Any) -> HlsBroadcasts:
    capacity = Capacity(1, 0, enforced=False)
    return HlsBroadcasts(replace(POLICY, auto=True, **more), capacity, NoLinks(), "")  # type: ignore[arg-type]


def kept_seat(outputs: dict[str, Any]) -> KeptSeat:
    now = datetime.now(UTC)
    return KeptSeat(CID, "ada", "seat", "rtmp", now, 0, 0, 30, now, now, outputs=outputs)


async def test_a_stream_is_there_under_its_address_before_its_encoder_is_and_ends_without() -> None:
    output = broadcasts()
    changes: list[None] = []
    output.follow(lambda: changes.append(None))
    output.resume(kept_seat({"hls": WHOLE}), SECOND)
    output.resume(kept_seat({"hls": WHOLE}), SECOND)
    assert list(output.streams) == ["s"]
    assert output.kept(CID, "ada") == {**WHOLE, "end": 2 * SECOND, "interruptions": 2}
    output.give_up(CID, "ada")
    assert output.streams["s"].ended
    assert changes
    assert output.kept(CID, "ada") is None


async def test_what_is_not_known_begins_anew() -> None:
    output = broadcasts()
    for outputs in ({}, {"hls": {"id": "another version's"}}):
        output.resume(kept_seat(outputs), 0)
    assert output.streams == {}


async def test_where_another_process_goes_on_nothing_ends() -> None:
    output = broadcasts()
    output.resume(kept_seat({"hls": WHOLE}), 0)
    output.hand_over()
    output.give_up(CID, "ada")
    assert not output.streams["s"].ended


def test_a_playlist_that_was_left_off_stays_as_it_is() -> None:
    process = Process({})
    process.play(25)
    before = {name: rendition.text(skip=False).plain for name, rendition in process.stream.renditions.items()}
    process.stream.leave_off()
    process.stream.attach(Seat())
    process.play(25)
    assert {name: rendition.text(skip=False).plain for name, rendition in process.stream.renditions.items()} == before


def test_timing_is_what_was_promised() -> None:
    left = KeptStream.of({**WHOLE, "timing": {"target": 4 * SECOND, "part": SECOND}, "renditions": {}})
    process = Process({}, left)
    process.play(25)
    assert process.stream.renditions["video"].playlist.timing == Timing(4 * SECOND, SECOND)
