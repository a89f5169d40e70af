"""Audio and video bodies of every kind become tracks and packets."""

import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Kind, Lack, TracksChanged
from protocols.rtmp.chunk import RtmpMessage
from protocols.rtmp.flv import MAX_TRACKS
from protocols.rtmp.tracks import MediaItem, MediaTracks, Unwrapper
from tests.unit.protocols.rtmp.peer import ASC, AVCC, IDR, P_SLICE

MS = 1_000_000
OPUS_HEAD = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
AAC_44100_MONO = bytes.fromhex("1208")
AC3_FRAME = bytes.fromhex("0b770000144043") + bytes(60)  # 48 kHz, bsid 8, stereo
MP3_FRAME = bytes.fromhex("fffb9064") + bytes(60)  # MPEG-1 layer III, 44.1 kHz, joint stereo
FLAC_HEADER = b"fLaC" + bytes.fromhex("80000022100010000000000000000bb802f000000000") + bytes(16)


class Media:
    """A `MediaTracks` fed body by body."""

    def __init__(self, patient: bool = False) -> None:
        self.tracks = MediaTracks(patient)
        self.now = 2

    def video(self, body: bytes, timestamp: int = 0) -> list[MediaItem]:
        return list(self.tracks.video(RtmpMessage(9, 1, timestamp, body, 1, self.now)))

    def audio(self, body: bytes, timestamp: int = 0) -> list[MediaItem]:
        return list(self.tracks.audio(RtmpMessage(8, 1, timestamp, body, 1, 2)))


def changed(items: list[MediaItem]) -> list[Codec]:
    (change,) = items
    assert isinstance(change, TracksChanged)
    return [track.codec for track in change.tracks]


def packet(items: list[MediaItem]) -> EncodedPacket:
    found = items[-1]
    assert isinstance(found, EncodedPacket)
    return found


def test_legacy_h264() -> None:
    media = Media()
    (change,) = media.video(b"\x17\x00\x00\x00\x00" + AVCC)
    assert isinstance(change, TracksChanged)
    assert (change.tracks[0].width, change.tracks[0].height) == (320, 180)
    key = packet(media.video(b"\x17\x01\x00\x00\x21" + IDR, 100))
    assert (key.dts, key.pts, key.keyframe, key.begun, key.arrival) == (100 * MS, 133 * MS, True, 1, 2)
    assert key.data.startswith(b"\x00\x00\x00\x01\x67")
    other = packet(media.video(b"\x27\x01\xff\xff\xff" + P_SLICE, 133))
    assert (other.pts, other.keyframe) == (132 * MS, False), "the composition time is signed"


@pytest.mark.parametrize(
    ("body", "pts"),
    [
        pytest.param(b"\x91avc1\x00\x00\x05" + IDR, 105 * MS, id="coded frames"),
        pytest.param(b"\x93avc1" + IDR, 100 * MS, id="coded frames without composition time"),
        pytest.param(b"\x97\x02\x00\x03\xe8\x03avc1" + IDR, 100 * MS + 1000, id="ModEx: nanosecond offset"),
        pytest.param(b"\x97\x00\xff\x17\x02\x00\x03\xe8\x03avc1" + IDR, 100 * MS + 1000, id="ModEx: an unknown one before"),
        pytest.param(b"\x97\xff\x01\x00" + bytes(257) + b"\x13avc1" + IDR, 100 * MS, id="ModEx: 257 bytes long"),
        pytest.param(b"\x96\x01avc1\x00\x00\x00\x05" + IDR, 105 * MS, id="multitrack: one track"),
        pytest.param(b"\x96\x13avc1\x00" + len(IDR).to_bytes(3, "big") + IDR, 100 * MS, id="multitrack: many tracks"),
        pytest.param(b"\x96\x23avc1\x00" + len(IDR).to_bytes(3, "big") + IDR, 100 * MS, id="multitrack: many codecs"),
    ],
)
def test_enhanced_h264(body: bytes, pts: int) -> None:
    media = Media()
    assert changed(media.video(b"\x90avc1" + AVCC)) == [Codec.H264]
    assert packet(media.video(body, 100)).pts == pts


def test_enhanced_multitrack_takes_the_first_and_counts_the_others() -> None:
    media = Media()
    size = len(AVCC).to_bytes(3, "big")
    assert changed(media.video(b"\x96\x10avc1\x03" + size + AVCC + b"\x04" + size + AVCC)) == [Codec.H264]
    assert media.tracks.ignored == 1
    assert media.video(b"\x96\x03avc1\x04" + IDR) == []
    assert packet(media.video(b"\x96\x03avc1\x03" + IDR)).keyframe
    assert media.tracks.ignored == 2


def test_track_0_is_the_default_whichever_comes_first() -> None:
    """Enhanced RTMP v2, multitrack."""
    media = Media(patient=True)
    smaller = b"\x96\x00avc1\x01" + silent_avcc()
    assert media.video(smaller) == []
    assert media.video(b"\x96\x01avc1\x01\x00\x00\x00" + IDR) == []
    (change,) = media.video(b"\x96\x00avc1\x00" + AVCC)
    assert isinstance(change, TracksChanged)
    assert change.tracks[0].height == 180
    media.video(b"\x96\x01avc1\x01\x00\x00\x00" + P_SLICE)
    assert [item.text.split(":")[1] for item in media.tracks.left_out.take()] == [
        " track 1 is left out, since a stream has one video here."
    ]


def test_another_track_is_taken_where_there_is_no_default() -> None:
    media = Media(patient=True)
    for time, number in ((0, 3), (0, 2), (400, 3), (400, 2), (600, 3)):
        media.now = time * MS
        assert media.video(b"\x96\x00avc1" + bytes([number]) + silent_avcc()) == []
    media.now = 601 * MS
    change, *_ = [*media.video(b"\x96\x01avc1\x02\x00\x00\x00" + IDR), *media.tracks.settle(None)]
    assert isinstance(change, TracksChanged)
    assert change.tracks[0].height == 192
    assert media.video(b"\x96\x00avc1\x00" + AVCC) != [], "it comes late, and is the default all the same"
    assert len(media.tracks.left_out.take()) == 1


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"\x22\x00", "Sorenson H.263"),
        (b"\x24\x00", "VP6"),
        (b"\x29\x00", "MPEG-4 part 2"),
        (b"\x91vvc1\x00\x00\x00", "VVC"),
        (b"\x91\x00\xff\x00\x01\x00", "the codec 00ff0001"),
        (b"\x91abcd\x00", "the codec 'abcd'"),
    ],
)
def test_a_video_codec_that_is_not_taken_is_named(body: bytes, name: str) -> None:
    media = Media()
    media.video(body)
    media.video(body)
    (told,) = media.tracks.left_out.take()
    assert (told.lack, told.kind) == (Lack.CODEC, Kind.VIDEO)
    assert f"The video is {name}, which is not taken: choose H.264 in the encoder" in told.text


@pytest.mark.parametrize(
    ("body", "name"), [(b"\xf2\x00", "device-specific sound"), (b"\x62\x00", "Nellymoser"), (b"\x12", "ADPCM")]
)
def test_a_sound_codec_that_is_not_taken_is_named(body: bytes, name: str) -> None:
    media = Media()
    media.audio(body)
    (told,) = media.tracks.left_out.take()
    assert f"The sound is {name}, which is not taken: choose AAC in the encoder" in told.text


def test_names_of_the_peer_are_bounded() -> None:
    media = Media()
    for number in range(1000):
        media.video(b"\x91" + number.to_bytes(4) + b"\x00")
    assert len(media.tracks.left_out.take()) == 16


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x94hvc1\x02\x00\x09colorInfo\x05", id="metadata"),
        pytest.param(b"\xd4hvc1\x02\x00\x09colorInfo\x05", id="metadata with frame type 5, as ffmpeg sends it"),
        pytest.param(b"\xd0\x00", id="command frame"),
        pytest.param(b"\x57\x00", id="legacy command frame"),
        pytest.param(b"\x92avc1", id="end of sequence"),
        pytest.param(b"\x17\x02\x00\x00\x00", id="legacy end of sequence"),
        pytest.param(b"\x95av01", id="MPEG-2 TS sequence start"),
        pytest.param(b"\x96\x31avc1\x00", id="unknown kind of multitrack"),
    ],
)
def test_video_that_says_nothing_to_a_decoder(body: bytes) -> None:
    media = Media()
    assert media.video(body) == []
    assert media.tracks.ignored == 0


@pytest.mark.parametrize("body", [b"\x22\x00\x00", b"\x90vvc1\x00", b"\x91xxxx\x00\x00\x00"])
def test_unknown_video_codecs_are_counted(body: bytes) -> None:
    media = Media()
    assert media.video(body) == []
    assert media.tracks.ignored == 1


@pytest.mark.parametrize("body", [b"\x22", b"\xf2\x00", b"\x90alac\x00"])
def test_unknown_audio_codecs_are_counted(body: bytes) -> None:
    media = Media()
    assert media.audio(body) == []
    assert media.tracks.ignored == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x91av", id="cut in the FourCC"),
        pytest.param(b"\x97\x00\x00\x07" * 4, id="cut in the modifiers"),
        pytest.param(b"\x97" + b"\x00\x00\x17" * 20, id="endless modifiers"),
        pytest.param(b"\x96\x13avc1\x00\x00\x00\x09abc", id="track cut"),
        pytest.param(b"\x96\x13avc1" + b"\x01\x00\x00\x00" * (MAX_TRACKS + 1), id="too many tracks"),
        pytest.param(b"\x17\x01\x00", id="cut in the composition time"),
        pytest.param(b"\x17\x00\x00\x00\x00\x01\x64", id="cut in the configuration"),
    ],
)
def test_broken_video(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Media().video(body)


@pytest.mark.parametrize(
    ("start", "frame", "codec", "rate", "channels"),
    [
        pytest.param(b"\xaf\x00" + ASC, b"\xaf\x01\x21\x10", Codec.AAC, 48000, 2, id="legacy AAC"),
        pytest.param(b"\x90mp4a" + ASC, b"\x91mp4a\x21\x10", Codec.AAC, 48000, 2, id="AAC"),
        pytest.param(b"\x90Opus" + OPUS_HEAD, b"\x91Opus\xfc\xff\xfe", Codec.OPUS, 48000, 2, id="Opus"),
        pytest.param(b"\x90fLaC" + FLAC_HEADER, b"\x91fLaC\xff\xf8", Codec.FLAC, 48000, 2, id="FLAC"),
        pytest.param(b"\x90ac-3", b"\x91ac-3" + AC3_FRAME, Codec.AC3, 48000, 2, id="AC-3"),
        pytest.param(b"\x90.mp3", b"\x91.mp3" + MP3_FRAME, Codec.MP3, 44100, 2, id="MP3"),
        pytest.param(b"", b"\x2f" + MP3_FRAME, Codec.MP3, 44100, 2, id="legacy MP3"),
        pytest.param(b"\x95\x00mp4a\x01" + ASC, b"\x95\x01mp4a\x01\x21\x10", Codec.AAC, 48000, 2, id="multitrack"),
    ],
)
def test_audio(start: bytes, frame: bytes, codec: Codec, rate: int, channels: int) -> None:
    media = Media()
    items = (media.audio(start) if start else []) + media.audio(frame, 20)
    change = items[0]
    assert isinstance(change, TracksChanged)
    (track,) = change.tracks
    assert (track.codec, track.sample_rate, track.channels) == (codec, rate, channels)
    got = packet(items)
    assert (got.pts, got.dts, got.keyframe) == (20 * MS, 20 * MS, True)
    assert frame.endswith(got.data)
    assert len(media.audio(frame, 40)) == 1, "the same facts are told once"


@pytest.mark.parametrize("body", [b"\x94Opus\x01\x02", b"\x92Opus", b"\xaf\x02"])
def test_audio_that_says_nothing_to_a_decoder(body: bytes) -> None:
    media = Media()
    assert media.audio(body) == []
    assert media.tracks.ignored == 0


def test_empty_aac_header_is_ignored() -> None:
    """ffmpeg -c copy sends one before the right one."""
    media = Media()
    assert media.audio(b"\xaf\x00") == []
    assert changed(media.audio(b"\xaf\x00" + ASC)) == [Codec.AAC]
    assert media.audio(b"\xaf\x00") == []
    assert packet(media.audio(b"\xaf\x01\x21\x10", 20)).dts == 20 * MS


def test_frames_before_their_header_are_counted() -> None:
    media = Media()
    assert media.audio(b"\xaf\x01\x21\x10") == []
    assert media.video(b"\x17\x01\x00\x00\x00" + IDR) == []
    assert media.tracks.ignored == 2


def test_each_track_is_told_at_once_and_changes_again() -> None:
    media = Media()
    assert changed(media.audio(b"\xaf\x00" + ASC)) == [Codec.AAC]
    assert changed(media.video(b"\x17\x00\x00\x00\x00" + AVCC)) == [Codec.H264, Codec.AAC]
    assert media.audio(b"\xaf\x00" + ASC) == []
    assert media.video(b"\x17\x00\x00\x00\x00" + AVCC) == []
    (change,) = media.audio(b"\xaf\x00" + AAC_44100_MONO)
    assert isinstance(change, TracksChanged)
    assert (change.tracks[1].sample_rate, change.tracks[1].channels) == (44100, 1)


def test_a_change_of_codec_is_the_same_track() -> None:
    media = Media()
    media.audio(b"\xaf\x00" + ASC)
    (change,) = media.audio(b"\x90Opus" + OPUS_HEAD)
    assert isinstance(change, TracksChanged)
    assert [(track.id, track.codec) for track in change.tracks] == [(1, Codec.OPUS)]


def silent_avcc() -> bytes:
    """Main profile, 320x192, without VUI: it does not say whether pictures are reordered."""

    def pack(bits: str) -> bytes:
        bits += "1" + "0" * (-(len(bits) + 1) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    sps = bytes.fromhex("674d001e") + pack(
        "1" + "1" + "1" + "1" + "010" + "0" + "000010100" + "0001100" + "1" + "1" + "0" + "0"
    )
    pps = b"\x68" + pack("1" + "1" + "0" + "0" + "1" + "1" + "1" + "0" + "00" + "1" + "1" + "1" + "0" + "0" + "0")
    return b"\x01\x4d\x00\x1e\xff\xe1" + len(sps).to_bytes(2, "big") + sps + b"\x01" + len(pps).to_bytes(2, "big") + pps


def test_seen_reordering_is_a_fact() -> None:
    media = Media()
    (change,) = media.video(b"\x17\x00\x00\x00\x00" + silent_avcc())
    assert isinstance(change, TracksChanged)
    assert change.tracks[0].reorder is None
    assert len(media.video(b"\x17\x01\x00\x00\x42" + IDR, 0)) == 1
    assert len(media.video(b"\x27\x01\x00\x00\x42" + P_SLICE, 33)) == 1
    change, later = media.video(b"\x27\x01\x00\x00\x00" + P_SLICE, 66)
    assert isinstance(change, TracksChanged)
    assert change.tracks[0].reorder == 1
    assert packet([later]).pts == 66 * MS
    assert len(media.video(b"\x27\x01\x00\x00\x00" + P_SLICE, 99)) == 1, "told once"


def test_frame_rate_of_the_metadata_where_the_video_has_none() -> None:
    media = Media()
    media.video(b"\x17\x00\x00\x00\x00" + silent_avcc())
    (change,) = media.tracks.frame_rate(25.0)
    assert isinstance(change, TracksChanged)
    assert change.tracks[0].frame_rate == 25.0


def test_sequence_headers_do_not_move_the_clock() -> None:
    """Their timestamp is 0 while media may begin at 19,999,933."""
    media = Media()
    media.video(b"\x17\x00\x00\x00\x00" + AVCC, 0)
    assert packet(media.video(b"\x17\x01\x00\x00\x00" + IDR, 0xFFFFFFF0)).dts == 0xFFFFFFF0 * MS
    media.audio(b"\xaf\x00" + ASC, 0)
    assert packet(media.video(b"\x17\x01\x00\x00\x00" + IDR, 16)).dts == ((1 << 32) + 16) * MS


def test_frame_rate_of_the_metadata_not_where_the_video_has_one() -> None:
    media = Media()
    media.video(b"\x17\x00\x00\x00\x00" + AVCC)
    assert list(media.tracks.frame_rate(25.0)) == []
    assert list(media.tracks.frame_rate(float("nan"))) == []


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        ([5, 10, 8, 20], [5, 10, 8, 20]),
        ([0xFFFFFFF0, 16], [0xFFFFFFF0, 0x100000010]),
        ([0x7FFFFFFD, 0, 33], [0x7FFFFFFD, 0x80000000, 0x80000021]),
        ([0x7FFFFFFF, 0x80000000], [0x7FFFFFFF, 0x80000000]),
        ([0x7FFFFFFD, 2, 0x7FFFFFFE, 5], [0x7FFFFFFD, 0x80000002, 0x7FFFFFFE, 0x80000005]),
        ([0xFFFFFFEC, 0], [0xFFFFFFEC, 0x100000000]),
    ],
)
def test_unwrapping(timestamps: list[int], expected: list[int]) -> None:
    unwrapper = Unwrapper()
    assert [unwrapper.unwrap(timestamp) for timestamp in timestamps] == expected
