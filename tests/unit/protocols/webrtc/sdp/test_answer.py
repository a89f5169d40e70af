"""Answers to real offers: what is accepted, with which numbers, in which words."""

from pathlib import Path

import pytest
from aiortc.sdp import SessionDescription

from protocols.media import Codec, Kind
from protocols.webrtc.rtp import SendFormat
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.transport.ice import Credentials, host_candidates

DATA = Path(__file__).parents[4] / "data" / "sdp"
TRANSPORT = answer.LocalTransport(
    Credentials("ufrag123", "p" * 32),
    "sha-256 AA:BB",
    "passive",
    host_candidates(["2001:db8::1", "203.0.113.1", "203.0.113.2"], 8189),
)


def offer_of(name: str) -> sdp.Offer:
    return sdp.parse_offer((DATA / f"{name}.sdp").read_bytes())


def answered(offer: sdp.Offer) -> tuple[str, SessionDescription, tuple[answer.Accepted | None, ...]]:
    accepted = answer.sending(offer, "cname")
    text = answer.render(offer, accepted, TRANSPORT)
    return text, SessionDescription.parse(text), accepted


@pytest.mark.parametrize("path", sorted(DATA.glob("*.sdp")), ids=lambda path: path.stem)
def test_every_captured_offer_is_answered_in_crlf_lines_and_in_its_order(path: Path) -> None:
    offer = sdp.parse_offer(path.read_bytes())
    text, parsed, accepted = answered(offer)
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "")
    assert [media.kind for media in parsed.media] == [media.kind for media in offer.media]
    assert [media.rtp.muxId for media in parsed.media] == [media.mid for media in offer.media]
    assert [media.port != 0 for media in parsed.media] == [each is not None for each in accepted]
    # Only the captures of viewers ask to receive.
    assert any(accepted) == path.name.endswith(".whep.sdp")


def test_chromium_gets_every_codec_that_we_send_and_what_it_offered_of_each() -> None:
    text, parsed, accepted = answered(offer_of("chromium-156-h264.whep"))
    video, audio = (each.send for each in accepted if each is not None and each.send is not None)
    assert video.kind is Kind.VIDEO
    assert list(video.formats.items()) == [
        (Codec.H264, SendFormat(108, 109)),  # 42e01f, before 42001f at 102
        (Codec.VP8, SendFormat(96, 97)),
        (Codec.VP9, SendFormat(98, 99)),  # profile 0, not 1 or 2
        (Codec.AV1, SendFormat(45, 46)),  # profile 0, not 1
    ]
    assert (video.mid_extension, video.abs_send_time_extension, video.transport_cc_extension) == (9, 2, 4)
    assert (video.playout_delay_extension, audio.playout_delay_extension) == (5, 0)
    assert (audio.kind, audio.formats, audio.rtx_ssrc) == (Kind.AUDIO, {Codec.OPUS: SendFormat(111)}, None)
    assert len({video.ssrc, video.rtx_ssrc, audio.ssrc}) == 3
    assert "a=group:BUNDLE 0 1\r\n" in text
    assert "a=ice-lite\r\n" in text
    for payload_type in (108, 96, 98, 45):
        for feedback in ("nack", "nack pli", "ccm fir", "goog-remb", "transport-cc"):
            assert f"a=rtcp-fb:{payload_type} {feedback}\r\n" in text
        assert f"a=rtpmap:{payload_type + 1} rtx/90000\r\na=fmtp:{payload_type + 1} apt={payload_type}\r\n" in text
    assert [line for line in text.split("\r\n") if line.startswith("m=video")] == [
        "m=video 8189 UDP/TLS/RTP/SAVPF 108 109 96 97 98 99 45 46"
    ]
    assert "a=fmtp:98 profile-id=0\r\n" in text
    assert "a=fmtp:45 level-idx=5;profile=0;tier=0\r\n" in text
    assert "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n" in text
    assert "a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1\r\n" in text
    assert f"a=ssrc-group:FID {video.ssrc} {video.rtx_ssrc}\r\n" in text
    assert [media.direction for media in parsed.media] == ["sendonly", "sendonly"]
    assert len({(media.msid or "").split()[0] for media in parsed.media}) == 1  # one stream: kept in sync


def test_candidates_are_the_ports_and_the_first_is_ipv4_udp() -> None:
    text, parsed, _ = answered(offer_of("firefox-esr-153-h264.whep"))
    lines = [line for line in text.split("\r\n") if line.startswith("a=candidate:")]
    assert [line.split()[4] for line in lines[:3]] == ["203.0.113.1", "203.0.113.2", "2001:db8::1"]
    assert all(" udp " in line and line.endswith(" 8189 typ host") for line in lines)
    assert parsed.media[0].ice_candidates_complete
    assert parsed.media[0].host == "203.0.113.1"


def test_a_viewer_without_h264_gets_what_it_has() -> None:
    _, parsed, accepted = answered(offer_of("firefox-esr-153-vp8.whep"))
    assert accepted[0] is not None
    assert accepted[0].send is not None
    assert accepted[0].send.formats == {
        Codec.VP8: SendFormat(120, 124),
        Codec.VP9: SendFormat(121, 125),
        Codec.AV1: SendFormat(99, 100),
    }
    assert [codec.mimeType for codec in parsed.media[0].rtp.codecs][:3] == ["video/VP8", "video/rtx", "video/VP9"]


def test_a_viewer_without_any_codec_that_we_send_gets_the_sound() -> None:
    formats = "".join(
        f"a=rtpmap:{payload_type} {codec}/90000\na=fmtp:{payload_type} {parameters}\n"
        for payload_type, codec, parameters in [
            (96, "H265", "level-id=93"),
            (97, "VP9", "profile-id=2"),
            (98, "AV1", "profile=1"),
        ]
    )
    _, parsed, accepted = answered(offer(video("0", more=formats), AUDIO.format(mid=1)))
    assert accepted[0] is None
    assert accepted[1] is not None
    assert (parsed.media[0].port, parsed.media[0].direction) == (0, "inactive")
    assert parsed.group[0].items == ["1"]


def offer(*sections: str, bundle: str = "0 1 2 3") -> sdp.Offer:
    head = f"v=0\na=group:BUNDLE {bundle}\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 AA:BB\n"
    return sdp.parse_offer((head + "".join(sections)).encode())


def video(mid: str, *fmtp: str, more: str = "") -> str:
    lines = [f"m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:{mid}\na=rtcp-mux\na=recvonly\n{more}"]
    for payload_type, parameters in enumerate(fmtp, 96):
        lines.append(f"a=rtpmap:{payload_type} h264/90000\na=fmtp:{payload_type} {parameters}\n")
    return "".join(lines)


AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:{mid}\na=rtcp-mux\na=recvonly\na=rtpmap:111 OPUS/48000/2\n"


@pytest.mark.parametrize(
    ("profiles", "chosen"),
    [
        (["64001f", "4d001f", "42001f", "42e01f"], "42e01f"),
        (["64001f", "4d001f", "42001f"], "42001f"),
        (["64001f", "4d001f"], "4d001f"),
        (["f4001f", "64001f"], "64001f"),
        (["f4001f", "640C1F", "64001f"], "640c1f"),
        (["42E034"], "42e034"),
    ],
)
def test_the_profile_that_most_decoders_take_is_chosen(profiles: list[str], chosen: str) -> None:
    (accepted,) = answer.sending(
        offer(video("0", *(f"packetization-mode=1;profile-level-id={each}" for each in profiles))), "c"
    )
    assert accepted is not None
    assert f"profile-level-id={chosen}" in accepted.parameters


def test_h264_without_packetization_mode_1_is_refused() -> None:
    assert answer.sending(offer(video("0", "profile-level-id=42e01f", "packetization-mode=0")), "c") == (None,)


def test_a_forged_profile_is_not_repeated() -> None:
    (accepted,) = answer.sending(offer(video("0", "packetization-mode=1;profile-level-id=42e01f a=x")), "c")
    assert accepted is not None
    assert accepted.parameters.endswith("profile-level-id=42e01f")


def test_pairs_share_a_stream_and_numbers() -> None:
    h264 = "packetization-mode=1"
    accepted = answer.sending(offer(video("0", h264), AUDIO.format(mid=1), video("2", h264), AUDIO.format(mid=3)), "c")
    assert [each.number for each in accepted if each] == [0, 0, 1, 1]
    streams = [each.lines[0].split()[0] for each in accepted if each]
    assert streams == ["a=msid:slot-0"] * 2 + ["a=msid:slot-1"] * 2
    assert len({each.send.ssrc for each in accepted if each and each.send}) == 4


def test_a_refused_m_line_still_counts_in_the_pairing() -> None:
    accepted = answer.sending(
        offer(video("0"), AUDIO.format(mid=1), video("2", "packetization-mode=1"), AUDIO.format(mid=3)), "c"
    )
    assert accepted[0] is None
    assert [each.number for each in accepted if each] == [0, 1, 1]


@pytest.mark.parametrize(
    "section",
    [
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:0\na=rtcp-mux\na=recvonly\na=sctp-port:5000\n",
        AUDIO.format(mid=0).replace("recvonly", "sendonly"),
        AUDIO.format(mid=0).replace("recvonly", "inactive"),
        AUDIO.format(mid=0).replace("m=audio 9", "m=audio 0"),
        AUDIO.format(mid=0).replace("a=rtcp-mux\n", ""),
        AUDIO.format(mid=0).replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
        AUDIO.format(mid=9),  # outside the bundle
        AUDIO.format(mid=0).replace("OPUS/48000/2", "PCMU/8000"),
    ],
)
def test_what_cannot_be_served_is_refused_with_port_0(section: str) -> None:
    one = offer(section)
    text, parsed, accepted = answered(one)
    assert accepted == (None,)
    assert parsed.media[0].port == 0
    assert "a=group:BUNDLE" not in text


def test_bundle_only_with_port_0_is_live() -> None:
    (accepted,) = answer.sending(offer(AUDIO.format(mid=0).replace("m=audio 9", "m=audio 0") + "a=bundle-only\n"), "c")
    assert accepted is not None


def test_extension_ids_of_two_byte_headers_are_not_taken() -> None:
    (accepted,) = answer.sending(offer(video("0", "packetization-mode=1", more=f"a=extmap:15 {answer.MID}\n")), "c")
    assert accepted is not None
    assert accepted.extensions == {}


def test_transport_cc_needs_its_feedback_too() -> None:
    more = f"a=extmap:5 {answer.TRANSPORT_CC}\n"
    (without,) = answer.sending(offer(video("0", "packetization-mode=1", more=more)), "c")
    (with_it,) = answer.sending(offer(video("0", "packetization-mode=1", more=more + "a=rtcp-fb:96 transport-cc\n")), "c")
    assert without is not None
    assert with_it is not None
    assert (without.extensions, with_it.extensions) == ({}, {answer.TRANSPORT_CC: 5})


def test_without_a_bundle_only_the_first_m_line_is_served() -> None:
    text = AUDIO.format(mid=0) + video("1", "packetization-mode=1")
    unbundled = sdp.parse_offer(
        b"v=0\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 AA:BB\n" + text.encode()
    )
    assert [each is not None for each in answer.sending(unbundled, "c")] == [True, False]


def test_the_fragment_after_a_restart_is_read_as_one() -> None:
    one = offer(AUDIO.format(mid=0))
    text = answer.render_fragment(one, answer.sending(one, "c"), TRANSPORT)
    fragment = sdp.parse_fragment(text.encode())
    assert fragment == sdp.Fragment(TRANSPORT.ice, 3, True)
    assert "a=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" in text
