"""Answers by which we receive, to every captured offer of a publisher: which codecs, in which order, with which attributes."""

from dataclasses import dataclass

import pytest
from aiortc.sdp import SessionDescription

from protocols.media import Codec, Kind
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from tests.unit.protocols.webrtc.sdp.test_answer import DATA, TRANSPORT


@dataclass(frozen=True)
class Expected:
    """Of one offer: the mids of what is taken, and of its video the payload types in our order, with what the peer must see of it."""

    mids: tuple[str, ...]
    video: tuple[int, ...] = ()
    opus: int = 0
    rtx: int = 0
    layers: tuple[str, ...] = ()
    feedback: tuple[str, ...] = ()
    extensions: tuple[int, ...] = ()  # mid, rid, repaired rid, transport-cc


ALL = ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc")
CHROMIUM_H264 = (108, 102, 116, 114, 104, 39)
EXPECTED = {
    "chromium-156-h264": Expected(("0", "1"), CHROMIUM_H264, 111, 6, (), ALL, (4, 0, 0, 3)),
    "chromium-156": Expected(("0", "1"), CHROMIUM_H264, 111, 6, (), ALL, (4, 0, 0, 3)),
    "chromium-156-trickle": Expected(("0", "1"), CHROMIUM_H264, 111, 6, (), ALL, (4, 0, 0, 3)),
    "chromium-156-simulcast": Expected(("0", "1"), CHROMIUM_H264, 111, 6, ("h", "m", "l"), ALL, (4, 10, 11, 3)),
    "chromium-156-vp8": Expected(("0", "1"), (96,), 111, 1, (), ALL, (4, 0, 0, 3)),
    "ffmpeg-9.0.2": Expected(("0", "1"), (106,), 111, 1, (), ("nack",)),
    "ffmpeg-9.0.2-audioonly": Expected(("0",), (), 111),
    "ffmpeg-9.0.2-videoonly": Expected(("1",), (106,), 0, 1, (), ("nack",)),
    "firefox-esr": Expected(("0", "1"), (120,), 109, 1, (), ALL, (3, 0, 0, 7)),
    "firefox-esr-h264": Expected(("0", "1"), (126, 105, 97, 103), 109, 4, (), ALL, (3, 0, 0, 7)),
    "gstreamer-whipclientsink": Expected(("video0", "audio1"), (96,), 100, 0, (), ("nack pli", "ccm fir", "transport-cc")),
    "obs-32.2.2-single": Expected(("0", "1"), (96,), 111, 0, (), ("nack", "nack pli", "goog-remb"), (1, 0, 0, 0)),
    "obs-32.2.2-av1": Expected(("0", "1"), (96,), 111, 0, (), ("nack", "nack pli", "goog-remb"), (1, 0, 0, 0)),
    "obs-32.2.2": Expected(("0", "1"), (96,), 111, 0, ("0", "1", "2"), ("nack", "nack pli", "goog-remb"), (1, 2, 0, 0)),
    "obs-32.2.2-simulcast3": Expected(
        ("0", "1"), (96,), 111, 0, ("0", "1", "2"), ("nack", "nack pli", "goog-remb"), (1, 2, 0, 0)
    ),
}


def offer_of(name: str) -> sdp.Offer:
    return sdp.parse_offer((DATA / f"{name}.sdp").read_bytes())


def test_every_capture_of_a_publisher_is_in_the_table() -> None:
    assert set(EXPECTED) == {path.stem for path in DATA.glob("*.sdp") if not path.stem.endswith(".whep")}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_captured_offer_is_answered(name: str) -> None:
    expected, offer = EXPECTED[name], offer_of(name)
    accepted = answer.receiving(offer)
    text = answer.render(offer, accepted, TRANSPORT)
    parsed = SessionDescription.parse(text)
    assert [media.mid for media, each in zip(offer.media, accepted, strict=True) if each] == list(expected.mids)
    assert f"a=group:BUNDLE {' '.join(expected.mids)}\r\n" in text
    assert {media.direction for media in parsed.media} == {"recvonly"}
    received = {each.receive.kind: each.receive for each in accepted if each and each.receive}
    if expected.opus:
        audio = received[Kind.AUDIO]
        assert {pt: format.codec for pt, format in audio.formats.items()} == {expected.opus: Codec.OPUS}
        (fmtp,) = [line for line in text.split("\r\n") if line.startswith(f"a=fmtp:{expected.opus} ")]
        assert {"stereo=1", "useinbandfec=1"} <= set(fmtp.partition(" ")[2].split(";"))
    if expected.video:
        video = received[Kind.VIDEO]
        assert tuple(video.formats) == expected.video
        assert len(video.repair_formats) == expected.rtx
        assert video.layers == expected.layers
        first = next(iter(video.formats.values()))
        assert first.feedback == frozenset(expected.feedback)
        if expected.extensions:
            assert (
                video.mid_extension, video.rid_extension, video.repaired_rid_extension, video.transport_cc_extension,
            ) == expected.extensions  # fmt: skip
    assert ("a=simulcast:recv " + ";".join(expected.layers) + "\r\n" in text) == bool(expected.layers)
    assert [f"a=rid:{rid} recv" in text.split("\r\n") for rid in expected.layers] == [True] * len(expected.layers)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_what_all_clients_need_is_in_each_answer(name: str) -> None:
    offer = offer_of(name)
    text = answer.render(offer, answer.receiving(offer), TRANSPORT)
    assert "\n" not in text.replace("\r\n", "")
    for section in text.split("\r\nm=")[1:]:
        lines = section.split("\r\n")
        first = next(line for line in lines if line.startswith("a=candidate:"))
        assert first.split()[2:8] == ["udp", first.split()[3], "203.0.113.1", "8189", "typ", "host"]
        assert "a=rtcp-mux" in lines
        assert not any(line.startswith(("a=ssrc", "a=msid:")) for line in lines)


def test_ffmpeg_tells_which_stream_repairs_which() -> None:
    video = answer.receiving(offer_of("ffmpeg-9.0.2"))[1]
    assert video is not None
    assert video.receive is not None
    assert video.receive.sources == (3056138166,)
    assert dict(video.receive.repairs) == {3056138167: 3056138166}


def test_firefox_may_send_h264_in_mode_0_too() -> None:
    text = (DATA / "firefox-esr-h264.sdp").read_text()
    assert "a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1" in text
    video = answer.receiving(offer_of("firefox-esr-h264"))[1]
    assert video is not None
    assert 97 in {each.codec.payload_type for each in video.formats}


def offer(*sections: str, bundle: str = "0 1 2") -> sdp.Offer:
    head = f"v=0\na=group:BUNDLE {bundle}\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 AA:BB\n"
    return sdp.parse_offer((head + "".join(sections)).encode())


def section(mid: int, kind: str, *codecs: str, direction: str = "sendonly", more: str = "") -> str:
    numbered = list(enumerate(codecs, 96 + 10 * mid))
    types = " ".join(str(number) for number, _ in numbered)
    lines = [f"m={kind} 9 UDP/TLS/RTP/SAVPF {types}\na=mid:{mid}\na=rtcp-mux\na={direction}\n{more}"]
    for number, codec in numbered:
        name, _, parameters = codec.partition(" ")
        lines.append(f"a=rtpmap:{number} {name}\n" + (f"a=fmtp:{number} {parameters}\n" if parameters else ""))
    return "".join(lines)


def taken(*sections: str) -> list[tuple[str, ...] | None]:
    accepted = answer.receiving(offer(*sections))
    return [tuple(each.codec.name for each in line.formats) if line else None for line in accepted]


def test_what_needs_no_transcoding_comes_first() -> None:
    codecs = ("AV1/90000", "VP9/90000", "VP8/90000", "H265/90000", "H264/90000 packetization-mode=1", "ulpfec/90000")
    assert taken(section(0, "video", *codecs)) == [("h264", "vp8", "vp9", "av1", "h265")]


def test_one_video_and_one_audio_are_taken_and_only_what_is_sent() -> None:
    opus, vp8 = "opus/48000/2", "VP8/90000"
    assert taken(section(0, "video", vp8), section(1, "audio", opus), section(2, "video", vp8)) == [("vp8",), ("opus",), None]
    assert taken(section(0, "video", vp8, direction="recvonly"), section(1, "audio", opus, direction="inactive")) == [
        None,
        None,
    ]
    assert taken(section(0, "video", vp8, direction="sendrecv")) == [("vp8",)]
    audio = section(0, "audio", "PCMU/8000"), section(1, "audio", "opus/48000/1"), section(2, "audio", opus)
    assert taken(*audio) == [None, None, ("opus",)]


def test_the_interleaved_mode_of_h264_is_not_taken() -> None:
    h264 = "H264/90000 packetization-mode="
    (line,) = answer.receiving(offer(section(0, "video", h264 + "2", h264 + "0", "H264/90000", h264 + "1")))
    assert line is not None
    assert [each.codec.payload_type for each in line.formats] == [99, 97, 98]


def test_parameters_that_are_none_are_not_repeated() -> None:
    (line,) = answer.receiving(offer(section(0, "audio", "opus/48000/2 stereo=0;minptime=10;evil=a b;sprop-stereo=1;x=<>")))
    assert line is not None
    assert line.parameters == "stereo=1;minptime=10;useinbandfec=1"


def test_a_simulcast_without_rids_in_its_headers_is_one_stream() -> None:
    rids = "a=rid:h send\na=rid:l send\na=simulcast:send h;l\n"
    mid, rid = f"a=extmap:1 {answer.MID}\n", f"a=extmap:2 {answer.RID}\n"
    for more, layers in ((rids, ()), (rids + mid, ()), (rids + mid + rid, ("h", "l"))):
        (line,) = answer.receiving(offer(section(0, "video", "VP8/90000", more=more)))
        assert line is not None
        assert line.receive is not None
        assert line.receive.layers == layers
        assert bool([each for each in line.lines if "simulcast" in each]) == bool(layers)


@pytest.mark.parametrize(
    ("attribute", "layers"),
    [
        ("send a;b;c", ("a", "b", "c")),
        ("send a,b;~c", ("a", "c")),
        ("send a;a;zz;b", ("a", "b")),
        ("recv a;b", ()),
        ("send a;b recv c", ("a", "b")),
        ("recv c send a;b", ()),
        ("send ", ()),
        ("", ()),
    ],
)
def test_simulcast_attributes(attribute: str, layers: tuple[str, ...]) -> None:
    rids = "".join(f"a=rid:{rid} send\n" for rid in "abc") + "a=rid:zz recv\n"
    more = f"{rids}a=simulcast:{attribute}\na=extmap:1 {answer.MID}\na=extmap:2 {answer.RID}\n"
    assert offer(section(0, "video", "VP8/90000", more=more)).media[0].layers == layers


def test_rids_and_ssrcs_are_bounded() -> None:
    rids = "".join(f"a=rid:{number} send\n" for number in range(100))
    more = rids + "a=simulcast:send " + ";".join(map(str, range(100))) + "\n"
    more += "".join(f"a=ssrc:{number} cname:x\na=ssrc-group:FID {number} {number + 5000}\n" for number in range(1, 1000))
    more += "a=ssrc:99999999999999 cname:x\na=ssrc:x y\na=ssrc-group:FID 1\na=ssrc-group:FID 1 x\na=ssrc-group:SIM 1 2 3\n"
    media = offer(section(0, "video", "VP8/90000", more=more)).media[0]
    assert len(media.layers) == sdp.MAX_LAYERS
    assert len(media.sources) <= 32
    assert len(media.repairs) <= 32
