"""Frames into tracks and packets: key frames first, losses, changes of size, B-frames, and the layers of a simulcast."""

import itertools
from typing import Any

from protocols.media import Codec, EncodedPacket, Track, TracksChanged
from protocols.webrtc.receive.clock import WallClock
from protocols.webrtc.receive.jitter import ReceivedFrame
from protocols.webrtc.receive.stream import Stream
from protocols.webrtc.send.packetize import packetize_h264
from protocols.whip.tracks import Item, Tracks
from tests.unit.protocols.bitstream.samples import access_units
from tests.unit.protocols.webrtc.loopback import MS, SECOND
from tests.unit.protocols.webrtc.receive.test_receiver import H264, OPUS, audio, video

SMALL, LARGE, WITH_B_FRAMES = "h264_baseline.h264", "h264_1080p.h264", "h264_high_b2.h264"
FRAME = SECOND // 30


class Publisher:
    """Its streams, the time, and all that came out. Frames are 1/30 s apart; the n-th of a layer has the timestamp 3000 n."""

    def __init__(self, *rids: str) -> None:
        self.lines = (video(layers=rids), audio())
        self.items: list[Item] = []
        self.asked: list[str] = []
        self.tracks = Tracks(self.lines, self.items.append, lambda stream: self.asked.append(stream.rid))
        self.now = 1000 * SECOND
        self.streams: dict[str, Stream] = {}
        for number, rid in enumerate(rids or ("",)):
            self.streams[rid] = Stream(100 + number, self.lines[0], rid, H264, 0, WallClock())
        self.sound = Stream(200, self.lines[1], "", OPUS, 0, WallClock())

    def show(self, unit: bytes, number: int, rid: str = "", *, continuous: bool = True, **changes: Any) -> list[Item]:
        """What one access unit gives."""
        before = len(self.items)
        payloads = packetize_h264(unit) if not changes.get("payloads") else changes["payloads"]
        self.tracks.frame(self.streams[rid], ReceivedFrame(H264, 3000 * number, payloads, self.now, self.now, continuous))
        return self.items[before:]

    def speak(self, number: int) -> list[Item]:
        before = len(self.items)
        self.tracks.frame(self.sound, ReceivedFrame(OPUS, 960 * number, [b"\xfcsound"], self.now, self.now, True))
        return self.items[before:]


def units(name: str) -> list[bytes]:
    return list(access_units(name))


def packets(items: list[Item]) -> list[EncodedPacket]:
    return [item for item in items if isinstance(item, EncodedPacket)]


def heights(items: list[Item]) -> list[int]:
    return [track.height for item in items if isinstance(item, TracksChanged) for track in item.tracks if track.width]


def test_a_track_is_told_before_its_first_packet_and_again_with_the_next() -> None:
    publisher = Publisher()
    told, sound = publisher.speak(0)
    assert isinstance(told, TracksChanged)
    assert isinstance(sound, EncodedPacket)
    (opus,) = told.tracks
    assert (opus.codec, opus.sample_rate, opus.channels, opus.extradata[:8]) == (Codec.OPUS, 48_000, 2, b"OpusHead")
    told, picture = publisher.show(units(SMALL)[0], 0)
    assert isinstance(told, TracksChanged)
    assert isinstance(picture, EncodedPacket)
    assert [track.codec for track in told.tracks] == [Codec.H264, Codec.OPUS]
    assert picture.keyframe
    assert picture.data.startswith(b"\x00\x00\x00\x01\x67")
    assert picture.track != sound.track
    assert len(packets(publisher.items)) == 2


def test_video_begins_with_a_key_frame() -> None:
    publisher = Publisher()
    key, *rest = units(SMALL)
    assert publisher.show(rest[0], 0) == []
    assert publisher.show(rest[1], 1) == []
    assert publisher.asked == ["", ""]
    assert publisher.tracks.undecodable == 2
    assert len(packets(publisher.show(key, 2))) == 1
    assert len(packets(publisher.show(rest[0], 3))) == 1


def test_after_a_loss_it_goes_on_with_a_key_frame_only() -> None:
    publisher = Publisher()
    key, *rest = units(SMALL)
    publisher.show(key, 0)
    assert publisher.show(rest[0], 5, continuous=False) == []
    assert publisher.show(rest[1], 6) == []
    assert publisher.asked
    assert [packet.keyframe for packet in packets(publisher.show(key, 7, continuous=False))] == [True]
    assert len(packets(publisher.show(rest[0], 8))) == 1


def test_a_broken_frame_counts_and_is_a_loss() -> None:
    publisher = Publisher()
    key, *rest = units(SMALL)
    publisher.show(key, 0)
    assert publisher.show(b"", 1, payloads=[b"\x7c\x05"]) == []
    assert publisher.tracks.broken == 1
    assert publisher.show(rest[0], 2) == []
    assert len(packets(publisher.show(key, 3))) == 1


def test_a_loss_with_parameter_sets_alone_is_still_one() -> None:
    publisher = Publisher()
    key, *rest = units(SMALL)
    publisher.show(key, 0)
    publisher.show(b"\0\0\1\x09\xf0", 1, continuous=False)  # gives no picture
    assert publisher.show(rest[0], 2) == []


def test_sound_goes_on_over_losses() -> None:
    publisher = Publisher()
    assert len(packets([item for number in (0, 1, 5, 6) for item in publisher.speak(number)])) == 4
    assert [packet.pts - publisher.now for packet in packets(publisher.items)] == [0, 20 * MS, 100 * MS, 120 * MS]


def test_a_new_size_is_told_before_its_key_frame() -> None:
    publisher = Publisher()
    publisher.show(units(SMALL)[0], 0)
    items = publisher.show(units(LARGE)[0], 1)
    assert [type(item) for item in items] == [TracksChanged, EncodedPacket]
    assert heights(items) == [1080]


def test_b_frames_are_decoded_before_they_are_shown() -> None:
    publisher = Publisher()
    order = [0, 3, 1, 2, 6, 4, 5]
    for number, unit in zip(order, units(WITH_B_FRAMES), strict=False):
        publisher.show(unit, number + 5)
    made = packets(publisher.items)
    assert len(made) == len(order)
    assert all(packet.dts <= packet.pts for packet in made)
    assert all(before.dts < after.dts for before, after in itertools.pairwise(made))
    assert sorted(range(len(order)), key=lambda index: made[index].pts) == sorted(range(len(order)), key=order.__getitem__)


# -- simulcast -----------------------------------------------------------------------------------------------------------------------


def layers(items: list[Item]) -> list[list[str]]:
    """The layers of the picture, each time that they were told."""
    return [[track.layer for track in item.tracks if track.width] for item in items if isinstance(item, TracksChanged)]


def test_each_layer_is_a_track_of_its_own_and_the_largest_is_told_first() -> None:
    publisher = Publisher("h", "l")
    small, large = units(SMALL), units(LARGE)
    assert layers(publisher.show(small[0], 0, "l")) == [["l"]]
    assert publisher.show(large[1], 1, "h") == []
    assert publisher.asked == ["h"]
    assert layers(publisher.show(large[0], 2, "h")) == [["h", "l"]]
    assert heights(publisher.items)[-2:] == [1080, track_of(SMALL).height]
    publisher.show(small[1], 1, "l")
    publisher.show(large[1], 3, "h")
    made = packets(publisher.items)
    assert [packet.layer for packet in made] == ["l", "h", "l", "h"]
    assert len({(packet.layer, packet.track) for packet in made}) == 2
    assert set(publisher.tracks.streams) == {"h", "l"}


def test_the_layers_of_one_picture_have_one_time() -> None:
    publisher = Publisher("h", "l")
    for number in range(3):
        publisher.now += FRAME
        publisher.show(units(LARGE)[number], number, "h")
        publisher.show(units(SMALL)[number], number, "l")
    made = packets(publisher.items)
    assert len({packet.pts for packet in made}) == 3
    assert all(one.pts == other.pts for one, other in zip(made[::2], made[1::2], strict=True))


def test_a_layer_that_falls_silent_is_left_and_comes_back_with_a_key_frame() -> None:
    publisher = Publisher("h", "l")
    small, large = units(SMALL), units(LARGE)
    publisher.show(large[0], 0, "h")
    publisher.show(small[0], 0, "l")
    for number in range(1, 40):
        publisher.now += FRAME
        publisher.show(small[1], number, "l")
    assert layers(publisher.items) == [["h"], ["h", "l"], ["l"]]
    assert set(publisher.tracks.streams) == {"l"}
    assert publisher.show(large[0], 40, "h") == []  # it is not let come and go all the time
    assert publisher.asked == []
    publisher.now += 4 * SECOND
    assert publisher.show(large[1], 160, "h") == []
    assert publisher.asked == ["h"]
    assert layers(publisher.show(large[0], 161, "h")) == [["h", "l"]]


def test_layers_of_a_screen_on_which_nothing_moves_are_not_silent() -> None:
    publisher = Publisher("h", "l")
    publisher.show(units(LARGE)[0], 0, "h")
    publisher.show(units(SMALL)[0], 0, "l")
    for number in range(1, 6):
        publisher.now += 2 * SECOND
        publisher.show(units(LARGE)[1], number, "h")
        publisher.show(units(SMALL)[1], number, "l")
    assert layers(publisher.items) == [["h"], ["h", "l"]]


def test_a_layer_of_losses_is_as_good_as_silent() -> None:
    publisher = Publisher("h", "l")
    small, large = units(SMALL), units(LARGE)
    publisher.show(large[0], 0, "h")
    publisher.show(small[0], 0, "l")
    for number in range(1, 40):
        publisher.now += FRAME
        publisher.show(large[1], number, "h", continuous=False)
        publisher.show(small[1], number, "l")
    assert layers(publisher.items)[-1] == ["l"]


def test_a_layer_that_begins_anew_with_another_ssrc_takes_its_place() -> None:
    publisher = Publisher()
    key, *rest = units(SMALL)
    publisher.show(key, 0)
    publisher.streams[""] = Stream(999, publisher.lines[0], "", H264, 0, WallClock())
    assert publisher.show(rest[0], 0) == []
    assert len(packets(publisher.show(key, 1))) == 1
    assert publisher.tracks.streams == publisher.streams


def track_of(name: str) -> Track:
    publisher = Publisher()
    (told, _) = publisher.show(units(name)[0], 0)
    assert isinstance(told, TracksChanged)
    return told.tracks[0]
