"""What real encoders send gives the counts that were captured, in every split of the bytes."""

import itertools
import random

import pytest

from protocols.media import Codec, EncodedPacket
from protocols.rtmp.events import PublishRequested, StreamEnded
from tests.unit.protocols.rtmp.peer import Run, capture, capture_names, run

# (video packets, audio packets, video codec, audio codec): the messages of the README without sequence headers and ends of sequence
EXPECTED = {
    "ff51_adobe_auth_url": (32, 0, Codec.H264, None),
    "ff51_app_two_level": (32, 0, Codec.H264, None),
    "ff51_audio_only": (0, 95, None, Codec.AAC),
    "ff51_bwdone_checkbw": (32, 47, Codec.H264, Codec.AAC),
    "ff51_chunk128": (62, 95, Codec.H264, Codec.AAC),
    "ff51_extts": (62, 95, Codec.H264, Codec.AAC),
    "ff51_h264_aac": (92, 142, Codec.H264, Codec.AAC),
    "ff51_silence_cross": (0, 95, None, Codec.AAC),
    "ff51_video_only": (62, 0, Codec.H264, None),
    "ff51_wrap31": (152, 237, Codec.H264, Codec.AAC),
    "ff9_av1_opus": (90, 151, Codec.AV1, Codec.OPUS),
    "ff9_h264_aac": (92, 142, Codec.H264, Codec.AAC),
    "ff9_hevc_aac": (92, 142, Codec.HEVC, Codec.AAC),
    "ff9_hevc_noflag": (92, 142, Codec.HEVC, Codec.AAC),
    "ff9_multitrack": (92, 142, Codec.H264, Codec.AAC),
    "ff9_vp9_flac": (90, 141, Codec.VP9, Codec.FLAC),
    "ff9_wrap31": (152, 236, Codec.H264, Codec.AAC),
    "gst_librtmp_rtmpsink": (90, 141, Codec.H264, Codec.AAC),
    "gst_rtmp2sink": (90, 141, Codec.H264, Codec.AAC),
    "obs_h264_aac": (92, 142, Codec.H264, Codec.AAC),
    "obs_hevc_aac": (92, 142, Codec.HEVC, Codec.AAC),
}


def seen(fed: Run) -> list[object]:
    """The events, with the credential (it has no equality) as its key."""
    return [event.credential.key if isinstance(event, PublishRequested) else event for event in fed.events]


def test_every_capture_is_expected() -> None:
    assert set(EXPECTED) == set(capture_names())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_counts_and_codecs(name: str) -> None:
    fed = run(capture(name))
    tracks = {track.id: track.codec for track in fed.changes[-1].tracks}
    assert (len(fed.of(0)), len(fed.of(1)), tracks.get(0), tracks.get(1)) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "messages"), [("ff51_h264_aac", 94 + 143), ("ff51_chunk128", 64 + 96), ("ff51_silence_cross", 96)]
)
def test_message_counts_of_the_readme(name: str, messages: int) -> None:
    """The README counts A/V messages with their sequence headers and ends."""
    assert run(capture(name)).session.packets_received == messages


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_byte_by_byte_is_the_same(name: str) -> None:
    data = capture(name)[:40_000]  # its start and a second of media; to its end it says the same for long
    assert seen(run(data, splits=[1])) == seen(run(data))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_random_splits_are_the_same(name: str) -> None:
    data, chance = capture(name), random.Random(name)
    whole = seen(run(data))
    for largest in (7, 130, 5000):
        splits = [chance.randint(1, largest) for _ in range(997)]
        assert seen(run(data, splits=splits)) == whole


@pytest.mark.parametrize("name", sorted(set(EXPECTED) - {"ff51_bwdone_checkbw"}))
def test_the_end_is_in_order(name: str) -> None:
    fed = run(capture(name))
    assert isinstance(fed.events[-1], StreamEnded)
    assert not fed.session.unfinished


def test_decoding_order_and_composition_of_b_frames() -> None:
    fed = run(capture("ff51_h264_aac"))
    video = fed.of(0)
    assert [packet.dts for packet in video] == sorted(packet.dts for packet in video)
    assert all(33_000_000 <= packet.pts - packet.dts < 135_000_000 for packet in video)
    assert (video[0].dts, video[-1].dts) == (0, 3034_000_000)


def test_extended_timestamps() -> None:
    packets = run(capture("ff51_extts")).packets
    assert (packets[0].dts, packets[-1].dts) == (19_999_933_000_000, 20_001_984_000_000)


def test_deltas_repeated_by_headers_of_type_3_cross_24_bits() -> None:
    times = [packet.dts // 1_000_000 for packet in run(capture("ff51_silence_cross")).of(1)]
    assert (times[0], times[-1]) == (16_776_479, 16_778_484)
    assert {later - earlier for earlier, later in itertools.pairwise(times)} <= {21, 22}


@pytest.mark.parametrize("name", ["ff51_wrap31", "ff9_wrap31"])
def test_wrap_at_31_bits_goes_on(name: str) -> None:
    for track in (0, 1):
        times = [packet.dts // 1_000_000 for packet in run(capture(name)).of(track)]
        assert times[-1] > 1 << 31 > times[0]
        assert all(0 <= later - earlier < 60 for earlier, later in itertools.pairwise(times))


def test_multitrack_takes_the_first_of_each_and_counts_the_rest() -> None:
    fed = run(capture("ff9_multitrack"))
    # 94 video and 143 audio messages of track 1, of which the end of sequence holds nothing
    assert fed.session.packets_ignored == 236
    assert {packet.track for packet in fed.packets} == {0, 1}


def test_repeated_metadata_and_headers_change_nothing() -> None:
    """GStreamer sends onMetaData 25 times in 3 s."""
    assert len(run(capture("gst_rtmp2sink")).changes) == 2


def test_keys_params_and_software() -> None:
    two_level = run(capture("ff51_app_two_level")).request()
    assert two_level.credential.key == "key"
    assert two_level.params == {"app": "live/inst", "tok": "1"}
    query = run(capture("ff51_h264_aac")).request()
    assert (query.params["user"], query.params["pass"]) == ("u", "p")
    assert run(capture("gst_rtmp2sink")).session.software == "GStreamer 1.22.0 FLV muxer"
    assert run(capture("ff9_h264_aac")).session.software == "Lavf63.1.102"


def test_arrival_is_the_last_byte_and_begun_the_first() -> None:
    data = capture("ff51_video_only")
    fed = run()
    for time, at in enumerate(range(0, len(data), 512)):
        fed.feed(data[at : at + 512], now=time)
    key = fed.of(0)[0]
    assert isinstance(key, EncodedPacket)
    assert key.arrival - key.begun == pytest.approx(len(key.data) / 512, abs=1.5)
