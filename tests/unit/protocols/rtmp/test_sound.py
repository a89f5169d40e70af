"""Frames of sound with the facts that their messages have, and none where they have none."""

import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec, Track
from protocols.rtmp.flv import AUDIO_FOURCC, LEGACY_FRAMES, split_audio
from protocols.rtmp.sound import BY_FRAME, BY_HEADER, BY_TAG, Frames
from tests.support.flv import tags

ADTS = [tag.body[2:] for tag in tags("rtmp-adts-in-tags") if tag.kind == 8]


class Sound:
    """`Frames` fed with message bodies."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.frames = Frames(self.notes.append)

    def take(self, body: bytes) -> list[tuple[bytes, int]]:
        return [frame for part in split_audio(body) for frame in self.frames.take(part)]

    @property
    def facts(self) -> tuple[Codec, int, int, int]:
        track = self.frames.track
        assert isinstance(track, Track)
        return track.codec, track.sample_rate, track.channels, track.bit_depth


@pytest.mark.parametrize(
    ("first", "facts"),
    [
        pytest.param(0x72, (Codec.G711_ALAW, 8000, 1, 8), id="G.711 A-law"),
        pytest.param(0x8F, (Codec.G711_ULAW, 8000, 2, 8), id="G.711 µ-law, stereo, whatever the rate says"),
        pytest.param(0xB6, (Codec.SPEEX, 16000, 1, 8), id="Speex"),
        pytest.param(0x3F, (Codec.PCM, 44100, 2, 16), id="PCM of 16 bits"),
        pytest.param(0x3A, (Codec.PCM, 22050, 1, 16), id="PCM of 22 kHz"),
        pytest.param(0x34, (Codec.PCM, 11025, 1, 8), id="PCM of 8 bits"),
        pytest.param(0x03, (Codec.PCM, 5512, 2, 16), id="PCM of the platform"),
    ],
)
def test_the_first_byte_says_what_sound_without_header_is(first: int, facts: tuple[Codec, int, int, int]) -> None:
    sound = Sound()
    assert sound.take(bytes([first]) + bytes(160)) == [(bytes(160), 0)]
    assert sound.facts == facts


def test_each_codec_that_is_taken_has_one_place_where_its_facts_stand() -> None:
    taken = {*AUDIO_FOURCC.values(), *LEGACY_FRAMES.values()}
    assert sorted([*BY_HEADER, *BY_FRAME, *BY_TAG]) == sorted(taken)


def test_adts_frames_of_one_message_follow_each_other() -> None:
    sound = Sound()
    assert sound.take(b"\xaf\x01" + ADTS[0] + ADTS[1]) == [(ADTS[0][7:], 0), (ADTS[1][7:], 21_333_333)]
    assert sound.facts[:3] == (Codec.AAC, 48000, 2)
    assert sound.take(b"\xaf\x01" + ADTS[2] + ADTS[3][:-1]) == [(ADTS[2][7:], 0)]
    assert sound.notes == ["an ADTS frame that is cut off"]


@pytest.mark.parametrize("body", [ADTS[0][:-1], ADTS[0][:5], bytes.fromhex("fff14c000f9ffc") + ADTS[0][7:]])
def test_adts_that_cannot_be_read(body: bytes) -> None:
    sound = Sound()
    with pytest.raises(ProtocolError):
        sound.take(b"\xaf\x01" + body)
    assert sound.frames.track is None


def test_what_only_looks_like_adts_behind_a_header_is_raw() -> None:
    sound = Sound()
    sound.frames.configure(Codec.AAC, b"\x11\x90")
    chance = ADTS[0][:-1]
    assert sound.take(b"\xaf\x01" + chance) == [(chance, 0)]
    assert sound.take(b"\xaf\x01" + ADTS[0]) == [(ADTS[0][7:], 0)]


def test_opus_without_its_header_is_stereo() -> None:
    sound = Sound()
    assert sound.take(b"\x91Opus\xfc\xff\xfe") == [(b"\xfc\xff\xfe", 0)]
    assert sound.facts[:3] == (Codec.OPUS, 48000, 2)
    with pytest.raises(ProtocolError):
        sound.take(b"\x91Opus\xff")


def test_another_codec_is_taken_once_it_can_be_read() -> None:
    sound = Sound()
    sound.frames.configure(Codec.AAC, b"\x11\x90")
    for bad in (b"\x2f" + bytes(40), b"\x91ac-3" + bytes(40)):
        with pytest.raises(ProtocolError):
            sound.take(bad)
    with pytest.raises(ProtocolError):
        sound.frames.configure(Codec.AAC, b"\x12")
    assert sound.facts == (Codec.AAC, 48000, 2, 8)
    assert sound.take(b"\xaf\x01\x21\x10") == [(b"\x21\x10", 0)]
    sound.take(b"\x2f" + bytes.fromhex("fffb9064") + bytes(60))
    assert sound.facts == (Codec.MP3, 44100, 2, 8)
