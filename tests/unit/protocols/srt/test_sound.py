"""Sound by its frames: found again in whatever stands between them, put together, and no more of it than there can be."""

import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec
from protocols.srt.sound import MAX_FRAMES, SECOND, Framed, ac3, adts, loas, mpeg_audio
from protocols.srt.tracks import TsDemuxer
from tests.fuzz.subjects import Muxer, eac3, latm, mpeg
from tests.fuzz.subjects import adts as adts_frame

GARBAGE = b"\x00\xff\xff\x0b\x0b\x56\x56\x47" * 20
FRAMES = {
    "adts": (adts, adts_frame(3, 20)),
    "mpeg": (mpeg_audio, mpeg(0)),
    "ac3": (ac3, b"\x0b\x77\x00\x00\x00\x40\x43".ljust(128, b"\1")),
    "eac3": (ac3, eac3(2, 64)),
    "loas": (loas, latm(3)),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_found_again_behind_garbage(name: str) -> None:
    make, frame = FRAMES[name]
    reader: Framed = make(1)
    units = reader.split(GARBAGE + frame * 3 + GARBAGE + frame * 2, 0, 0)
    assert len(units) == 5
    assert len({unit.data for unit in units}) == 1
    assert reader.track is not None


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("size", [1, 7, 13])
def test_frames_in_any_pieces_are_the_same(name: str, size: int) -> None:
    make, frame = FRAMES[name]
    data = frame * 5
    whole, pieces = make(1), make(1)
    together = whole.split(data, 0, 0)
    parts = [unit for at in range(0, len(data), size) for unit in pieces.split(data[at : at + size], None if at else 0, None)]
    assert [unit.data for unit in parts] == [unit.data for unit in together]


def test_dependent_substreams_belong_to_the_frame_before() -> None:
    first, second = eac3(0, 64), eac3(1, 16, kind=1)
    units = ac3(1).split((first + second * 3) * 2, 0, 0)
    assert [unit.data for unit in units] == [first + second * 3] * 2
    assert units[1].pts - units[0].pts == 1536 * SECOND // 48000


def test_the_track_follows_the_header() -> None:
    reader = mpeg_audio(1)
    facts = []
    for raw in (mpeg(0), mpeg(0), mpeg(3), mpeg(1)):
        reader.split(raw, 0, 0)
        assert reader.track is not None
        facts.append((reader.track.codec, reader.track.sample_rate, reader.track.channels))
    assert facts == [(Codec.MP3, 22050, 2), (Codec.MP3, 22050, 2), (Codec.MP3, 22050, 1), (Codec.MP3, 24000, 1)]


def test_more_frames_than_a_pes_can_have_are_refused() -> None:
    frame = adts_frame(0, 9)
    assert len(adts(1).split(frame * MAX_FRAMES, 0, 0)) == MAX_FRAMES
    with pytest.raises(ProtocolError, match="more than"):
        adts(1).split(frame * (MAX_FRAMES + 1), 0, 0)


def test_sync_words_without_frames_are_refused() -> None:
    with pytest.raises(ProtocolError, match="without frames"):
        mpeg_audio(1).split(b"\xff\xfb\x90\x00" * 1000, 0, 0)


def test_frames_beyond_what_time_allows_are_left_out_until_it_has_passed() -> None:
    demuxer, payload = TsDemuxer(), adts_frame(0, 9) * MAX_FRAMES
    muxer = Muxer()
    demuxer.feed(muxer.sound(0x0F, [payload] * 20), 0)
    at_once = demuxer.counts.units
    assert 2000 <= at_once <= 2000 + MAX_FRAMES
    assert demuxer.counts.broken >= 15
    demuxer.feed(muxer.sound(0x0F, [payload] * 20), SECOND)
    assert demuxer.counts.units >= at_once + 2000


def test_a_mux_config_that_comes_with_each_frame_is_paid_once() -> None:
    reader = loas(1)
    units = [unit for _ in range(3000) for unit in reader.split(latm(3), 0, 0)]
    assert len(units) == 3000
    with pytest.raises(ProtocolError, match="too often"):
        [reader.split(latm(number % 12), 0, 0) for number in range(1000)]
