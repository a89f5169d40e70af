"""Offers of real clients read, and what is no offer refused."""

from pathlib import Path

import pytest

from protocols.errors import ProtocolError
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.transport.ice import Credentials

CAPTURED = sorted((Path(__file__).parents[4] / "data" / "sdp").glob("*.sdp"))
BASE = """v=0
o=- 1 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=mid:0
a=recvonly
a=rtcp-mux
a=ice-ufrag:abcd
a=ice-pwd:0123456789012345678901
a=fingerprint:sha-256 AA:BB
a=setup:actpass
a=rtpmap:96 H264/90000
a=fmtp:96 packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:* transport-cc
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:4/recvonly http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time
"""


def parse(text: str) -> sdp.Offer:
    return sdp.parse_offer(text.encode())


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_every_captured_offer_is_read(path: Path) -> None:
    offer = sdp.parse_offer(path.read_bytes())
    assert len(offer.media) == len(offer.bundle)
    assert all(media.live and media.rtcp_mux and media.mid in offer.bundle for media in offer.media)
    assert offer.setup == ("passive" if "ffmpeg" in path.name else "actpass")
    assert all(codec.name == codec.name.lower() for media in offer.media for codec in media.codecs)
    assert offer.fingerprints[0][0] == "sha-256"


def test_there_are_captures() -> None:
    assert len(CAPTURED) == 18


def test_an_m_line_in_full() -> None:
    media = parse(BASE).media[0]
    assert (media.kind, media.mid, media.direction, media.live) == ("video", "0", "recvonly", True)
    h264, rtx = media.codecs
    assert h264.parameters == {"packetization-mode": "1", "profile-level-id": "42e01f"}
    assert h264.feedback == {"nack", "nack pli", "transport-cc"}
    assert (rtx.name, rtx.parameters) == ("rtx", {"apt": "96"})
    assert media.extensions["http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"] == 4


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_both_line_ends(line_end: str) -> None:
    assert parse(BASE.replace("\n", line_end)).ice == Credentials("abcd", "0123456789012345678901")


@pytest.mark.parametrize(
    "attribute",
    ["a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901", "a=fingerprint:sha-256 AA:BB", "a=setup:actpass", "a=rtcp-mux"],
)
def test_attributes_may_stand_at_session_level(attribute: str) -> None:
    moved = BASE.replace(attribute + "\n", "").replace("t=0 0\n", f"t=0 0\n{attribute}\n")
    assert parse(moved) == parse(BASE)


def test_a_direction_at_session_level_holds_where_the_m_line_has_none() -> None:
    text = BASE.replace("a=recvonly\n", "").replace("t=0 0\n", "t=0 0\na=recvonly\n")
    assert parse(text).media[0].direction == "recvonly"
    assert parse(BASE.replace("a=recvonly\n", "")).media[0].direction == "sendrecv"


def test_port_0_is_off_unless_bundle_only() -> None:
    off = BASE.replace("m=video 9", "m=video 0")
    assert not parse(off).media[0].live
    assert parse(off + "a=bundle-only\n").media[0].live


def test_unknown_lines_are_ignored() -> None:
    assert parse(BASE + "a=novel\na=novel:1\nb=AS:500\nx\n\na=ssrc:x\na=candidate:?\na=extmap:nonsense\n") == parse(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("v=0", "v=1"),
        ("v=0\n", ""),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96 97", "m=video"),
        ("m=video 9", "m=video -1"),
        ("m=video 9", "m=video 999999"),
        ("a=mid:0", "a=mid:a b"),
        ("a=mid:0", "a=mid:" + "x" * 300),
        ("a=mid:0", "a=mid:\r0"),
        ("a=mid:0", "a=mid:ü"),
        ("a=ice-ufrag:abcd", "a=ice-ufrag:abc"),
        ("a=ice-ufrag:abcd", "a=ice-ufrag:a:cd"),
        ("a=ice-ufrag:abcd", "a=ice-ufrag:" + "x" * 257),
        ("a=ice-pwd:0123456789012345678901", "a=ice-pwd:short"),
        ("a=ice-ufrag:abcd\n", ""),
        ("a=fingerprint:sha-256 AA:BB\n", ""),
        ("a=fingerprint:sha-256 AA:BB", "a=fingerprint:sha-256"),
        ("a=setup:actpass", "a=setup:holdconn"),
        ("a=rtpmap:96 H264/90000", "a=rtpmap:96 H264"),
        ("a=rtpmap:96 H264/90000", "a=rtpmap:300 H264/90000"),
        ("a=rtpmap:96 H264/90000", "a=rtpmap:96 H264/" + "9" * 50),
    ],
)
def test_what_is_broken_is_a_protocol_error(old: str, new: str) -> None:
    assert old in BASE
    with pytest.raises(ProtocolError):
        parse(BASE.replace(old, new))


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"hello", b"v=0\n", b"v=0\nm=\n", b"\x00" * 100])
def test_what_is_no_description_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        sdp.parse_offer(body)


def test_an_offer_is_bounded() -> None:
    section = BASE[BASE.index("m=") :]
    whole = [BASE] + [section.replace("a=mid:0", f"a=mid:{number}") for number in range(1, sdp.MAX_MEDIA)]
    assert len(parse("".join(whole)).media) == sdp.MAX_MEDIA
    with pytest.raises(ProtocolError, match="m-lines"):
        parse("".join(whole) + section.replace("a=mid:0", "a=mid:x"))
    candidate = "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\n"
    parse(BASE + candidate * sdp.MAX_CANDIDATES)
    with pytest.raises(ProtocolError, match="candidates"):
        parse(BASE + candidate * (sdp.MAX_CANDIDATES + 1))
    with pytest.raises(ProtocolError, match="bytes"):
        parse(BASE + "a=x\n" * sdp.MAX_BYTES)
    with pytest.raises(ProtocolError, match="lines"):
        parse(BASE + "\n" * 10_000)
    with pytest.raises(ProtocolError, match="same mid"):
        parse(BASE + section)


def test_gstreamers_trickle_fragment() -> None:
    body = (
        "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:video0\r\n"
        "a=candidate:1 1 UDP 2015363327 192.0.2.2 49203 typ host\r\na=candidate:2 1 TCP 1015021823 fe80::1 9 typ host tcptype active\r\n"
    )
    assert sdp.parse_fragment(body.encode()) == sdp.Fragment(Credentials("abcd", "0123456789012345678901"), 2, False)


def test_a_fragment_that_only_ends_the_candidates() -> None:
    assert sdp.parse_fragment(b"a=end-of-candidates\r\n") == sdp.Fragment(None, 0, True)


def test_a_fragment_with_half_a_credential_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        sdp.parse_fragment(b"a=ice-ufrag:abcd\r\n")


def test_passwords_are_not_shown() -> None:
    assert "0123456789012345678901" not in repr(parse(BASE))
