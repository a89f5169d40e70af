"""No half answers: of offers drawn by lot each is refused in words, or every m-line of it that asks for media is served, as a peer that
goes by the letter of the answer would see it."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from aiortc.sdp import MediaDescription, SessionDescription

from protocols.errors import ProtocolError
from protocols.media import Kind, Track
from protocols.webrtc.receive.receiver import RtpReceiver
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.sdp.unserved import unreceived, unsent
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.transport.egress import Egress
from tests.unit.protocols.webrtc import loopback
from tests.unit.protocols.webrtc.loopback import FRAME, MID, SECOND, Timers, packet, source_of
from tests.unit.protocols.webrtc.receive.test_receiver import rtp
from tests.unit.protocols.webrtc.sdp.test_answer import TRANSPORT
from tests.unit.protocols.webrtc.sdp.test_codecs import unit

OFFERS = 1500
PASSWORD = "0123456789012345678901"
VIDEO = ("H264/90000", "H264/90000", "VP8/90000", "VP9/90000", "AV1/90000", "H265/90000", "H264/8000", "MP4V-ES/90000")
AUDIO = ("opus/48000/2", "opus/48000/2", "opus/48000/2", "OPUS/48000/2", "opus/48000", "PCMU/8000")
H264 = (
    "",
    "packetization-mode=0",
    "packetization-mode=1",
    "packetization-mode=1;profile-level-id=640c1f",
    "packetization-mode=2",
)
ANNOUNCED = "a=ssrc:{} cname:x\n"


@dataclass(frozen=True)
class Drawn:
    """An offer, and what its peer means by it."""

    text: str
    ufrags: tuple[str, ...]  # of each m-line
    sources: tuple[int, ...]  # SSRC that each would send with


def drawn(chance: random.Random, asks: str) -> Drawn:
    """Of every kind that peers make, and of some that none should: `asks` is the direction of most of its m-lines."""
    likely = chance.random() < 0.5  # most of what goes wrong goes wrong alone
    odd = 0.04 if likely else 0.25
    kinds = (
        ["video", "audio"] if likely else chance.choices(["video", "audio", "application"], [4, 4, 1], k=chance.randint(1, 4))
    )
    chance.shuffle(kinds)
    mids = [str(number) if chance.random() > odd else "" for number in range(len(kinds))]
    bundled = [mid for mid in mids if mid and chance.random() > odd / 2]
    if chance.random() < odd:
        bundled.reverse()
    own_transports, shared_types = chance.random() < 0.3, chance.random() < 0.3
    mid_extension = chance.choice(["", f"a=extmap:{MID} {answer.MID}\n"] * 3 + [f"a=extmap:{MID}/inactive {answer.MID}\n"])
    ufrags = tuple(f"ufrag{number}" if own_transports else "ufrag" for number in range(len(kinds)))
    colliding = chance.random() < odd
    sources = (7,) * len(kinds) if colliding else tuple(range(1, 1 + len(kinds)))
    sections = []
    for number, kind in enumerate(kinds):
        first = 96 if shared_types else 96 + 8 * number
        types = range(first, first + chance.randint(1, 3))
        names = [chance.choice(VIDEO if kind == "video" else AUDIO) for _ in types]
        lines = "".join(f"a=rtpmap:{type_} {name}\n" for type_, name in zip(types, names, strict=True))
        for type_, name in zip(types, names, strict=True):
            if name.startswith("H264") and (parameters := chance.choice(H264)):
                lines += f"a=fmtp:{type_} {parameters}\n"
        others = {"sendonly", "recvonly", "inactive", "sendrecv"}
        direction = asks if chance.random() > odd else chance.choice(sorted(others))
        sections.append(
            f"m={kind} {0 if chance.random() < odd else 9} UDP/TLS/RTP/{'SAVP' if chance.random() < odd / 2 else 'SAVPF'} "
            f"{' '.join(map(str, types))}\n"
            + (f"a=mid:{mids[number]}\n" if mids[number] else "")
            + f"a={direction}\na=ice-ufrag:{ufrags[number]}\na=ice-pwd:{PASSWORD}\n"
            + ("a=rtcp-mux\n" if chance.random() > odd / 2 else "")
            + ("a=bundle-only\n" if chance.random() < odd else "")
            + (mid_extension if chance.random() > odd else "")
            + (ANNOUNCED.format(sources[number]) if colliding or chance.random() < 0.5 else "")
            + lines
        )
    head = "v=0\na=fingerprint:sha-256 AA\n" + (f"a=group:BUNDLE {' '.join(bundled)}\n" if chance.random() > odd else "")
    return Drawn(head + "".join(sections), ufrags, sources)


def offers(asks: str) -> Iterator[tuple[Drawn, sdp.Offer]]:
    chance = random.Random(14)
    for _ in range(OFFERS):
        each = drawn(chance, asks)
        yield each, sdp.parse_offer(each.text.encode())


def asked(offer: sdp.Offer, asks: str) -> list[int]:
    """The m-lines from which something is expected."""
    return [
        number
        for number, media in enumerate(offer.media)
        if media.live and media.kind in ("audio", "video") and media.direction in (asks, "sendrecv")
    ]


def answered(each: Drawn, offer: sdp.Offer, accepted: Sequence[answer.Accepted | None]) -> list[MediaDescription]:
    """What the peer reads of our answer, which must be one that it can go by."""
    text = answer.render(offer, accepted, TRANSPORT)
    parsed = SessionDescription.parse(text)
    live = [number for number, media in enumerate(parsed.media) if media.port]
    if offer.bundle:
        (group,) = [group for group in parsed.group if group.semantic == "BUNDLE"]
        assert set(group.items) == {parsed.media[number].rtp.muxId for number in live}
        assert [mid for mid in offer.bundle if mid in group.items] == group.items
        carrier = next(number for number in live if parsed.media[number].rtp.muxId == group.items[0])
    else:
        assert "BUNDLE" not in text
        (carrier,) = live
    assert offer.ice.ufrag == each.ufrags[carrier], "the transport of an m-line that is not taken"
    return list(parsed.media)


def served(
    asks: str,
    accept: Callable[[sdp.Offer], tuple[answer.Accepted | None, ...]],
    why_not: Callable[[sdp.Offer, Sequence[answer.Accepted | None]], str],
    words: Sequence[str],
) -> Iterator[tuple[Drawn, sdp.Offer, Sequence[answer.Accepted | None], list[int], list[MediaDescription]]]:
    """The offers that are not refused and ask for something, with the m-lines that do and what the peer reads of our answer. In the end
    these were a fifth, and each of `words` stood in a refusal."""
    count, refusals = 0, set[str]()
    for each, offer in offers(asks):
        accepted = accept(offer)
        if why := why_not(offer, accepted):
            refusals.add(why)
            continue
        expected = asked(offer, asks)
        assert expected == [number for number, line in enumerate(accepted) if line is not None], each.text
        if expected:
            count += 1
            yield each, offer, accepted, expected, answered(each, offer, accepted)
    assert count > OFFERS // 5
    for said in words:
        assert any(said in why for why in refusals), said


def test_who_publishes_is_refused_or_every_packet_finds_its_line() -> None:
    words = ("rtcp-mux", "BUNDLE", "SAVP ", "before it", "H.264", "share payload type", "same a=ssrc", "ice-ufrag")
    for each, _, accepted, expected, media in served("sendonly", answer.receiving, unreceived, words):
        lines = [line.receive for line in accepted if line and line.receive]
        receiver = RtpReceiver(lines, 9, "us", lambda stream, frame: None)
        for number in expected:
            description = media[number].rtp
            numbers = [one.id for one in description.headerExtensions if one.uri == answer.MID and description.muxId]
            mid = {one: description.muxId.encode() for one in numbers}
            payload_type = description.codecs[0].payloadType
            assert payload_type is not None
            receiver.receive_rtp(rtp(payload_type, 1, 0, each.sources[number], b"\x65\x88\x80", mid), SECOND)
        found = [stream.parameters for stream in receiver.streams.values()]
        assert found == lines, each.text


def test_who_watches_is_refused_or_sent_on_every_line_what_it_can_read(egress: Egress) -> None:
    words = ("rtcp-mux", "BUNDLE", "SAVP ", "packetization-mode=1: in mode 0", "or Opus", "ice-ufrag")
    watching = served("recvonly", lambda offer: answer.sending(offer, "cname"), unsent, words)
    for turn, (_, offer, accepted, expected, media) in enumerate(watching):
        for number in expected:
            line, description = accepted[number], media[number]
            assert line is not None
            assert line.send is not None
            modes = {codec.payload_type: codec.parameters.get("packetization-mode") for codec in offer.media[number].codecs}
            for format in line.formats:
                assert format.codec.name != "h264" or modes[format.codec.payload_type] == "1", "fragments that it cannot read"
            if turn % 20 == 0:
                _sent(line, description, egress)


def _sent(line: answer.Accepted, description: MediaDescription, egress: Egress) -> None:
    """What comes on the wire has the numbers of the answer."""
    assert line.send is not None
    codec = next(iter(line.send.formats))
    viewer, timers = loopback.Peer(egress), Timers()
    with viewer.socket:
        source = source_of(Track(1, codec), timers)
        sender = Sender(viewer.way, line.send, on_turn=lambda: None)
        sender.attach(source, 0)
        source.push(packet(unit(codec, True, 3000) if codec.kind is Kind.VIDEO else b"sound", FRAME, True), FRAME)
        sender.detach()
        packets = viewer.receive()
    assert packets
    for each in packets:
        assert each.ssrc == description.ssrc[0].ssrc
        assert each.payload_type == description.rtp.codecs[0].payloadType
        if any(extension.uri == answer.MID for extension in description.rtp.headerExtensions):
            assert each.extensions.mid == description.rtp.muxId


HEAD = f"v=0\na=ice-ufrag:abcd\na=ice-pwd:{PASSWORD}\na=fingerprint:sha-256 AA\na=rtcp-mux\n"


def line(kind: str, mid: int, rtpmap: str, more: str = "", direction: str = "sendonly") -> str:
    return f"m={kind} 9 UDP/TLS/RTP/SAVPF 96\na=mid:{mid}\na={direction}\na=rtpmap:96 {rtpmap}\n{more}"


MID_LINE = f"a=extmap:{MID} {answer.MID}\n"


@pytest.mark.parametrize(
    ("of_video", "of_audio", "taken"),
    [
        ("", "", False),
        (MID_LINE, "", False),
        (MID_LINE, MID_LINE, True),
        (f"a=extmap:{MID}/recvonly {answer.MID}\n", MID_LINE, False),  # a mid that the peer wants to be sent, and does not send
        (f"a=extmap:{MID}/sendonly {answer.MID}\n", MID_LINE, True),
        ("a=ssrc:1 cname:x\n", "", False),
        ("a=ssrc:1 cname:x\n", "a=ssrc:2 cname:x\n", True),
        ("a=ssrc:1 cname:x\n", MID_LINE, True),
    ],
)
def test_one_payload_type_for_two_lines_needs_what_tells_them_apart(of_video: str, of_audio: str, taken: bool) -> None:
    text = HEAD + "a=group:BUNDLE 0 1\n" + line("video", 0, "VP8/90000", of_video) + line("audio", 1, "opus/48000/2", of_audio)
    offer = sdp.parse_offer(text.encode())
    why = unreceived(offer, answer.receiving(offer))
    assert (not why) == taken
    assert taken or "share payload type 96" in why


def test_of_a_repair_and_a_sound_with_one_payload_type_the_same_holds() -> None:
    repair = "a=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n"
    sound = line("audio", 1, "opus/48000/2").replace("96", "97")
    text = HEAD + "a=group:BUNDLE 0 1\n" + line("video", 0, "VP8/90000", repair) + sound
    offer = sdp.parse_offer(text.encode())
    assert "share payload type 97" in unreceived(offer, answer.receiving(offer))


def test_a_viewer_of_h264_in_mode_0_is_told_to_offer_mode_1_with_vp8_beside_it_too() -> None:
    for fmtp in ("", "a=fmtp:96 packetization-mode=0\n", "a=fmtp:96 profile-level-id=42e01f\n"):
        alone = sdp.parse_offer((HEAD + line("video", 0, "H264/90000", fmtp, "recvonly")).encode())
        assert "offer packetization-mode=1" in unsent(alone, answer.sending(alone, "c"))
        beside = sdp.parse_offer((HEAD + line("video", 0, "H264/90000", fmtp + "a=rtpmap:97 VP8/90000\n", "recvonly")).encode())
        assert "offer packetization-mode=1" in unsent(beside, answer.sending(beside, "c"))
    vp8 = sdp.parse_offer((HEAD + line("video", 0, "VP8/90000", direction="recvonly")).encode())
    assert unsent(vp8, answer.sending(vp8, "c")) == ""


def test_the_bundle_lives_on_the_transport_of_the_line_that_it_names_first() -> None:
    def own(mid: int) -> str:
        return f"a=ice-ufrag:ufrag{mid}\na=ice-pwd:{PASSWORD}\n"

    def two(bundle: str, first: str = "sendonly") -> sdp.Offer:
        video = line("video", 0, "VP8/90000", own(0) + MID_LINE, first)
        audio = line("audio", 1, "opus/48000/2", own(1) + MID_LINE)
        return sdp.parse_offer(f"{HEAD}a=group:BUNDLE {bundle}\n{video}{audio}".encode())

    assert two("0 1").ice.ufrag == "ufrag0"
    backwards = two("1 0")
    assert backwards.ice.ufrag == "ufrag1"
    assert "a=group:BUNDLE 1 0\r\n" in answer.render(backwards, answer.receiving(backwards), TRANSPORT)
    assert two("1").ice.ufrag == "ufrag1"
    inactive = two("0 1", "inactive")
    assert "ice-ufrag" in unreceived(inactive, answer.receiving(inactive))


@pytest.mark.parametrize(
    ("former", "latter", "words"),
    [
        ("v=0\n", "v=0\na=ice-lite\n", "a=ice-lite"),  # neither end would ever begin
        ("sha-256 AA", "md5 AA", "sha-256"),  # no certificate would ever fit
    ],
)
def test_who_could_never_connect_hears_why(former: str, latter: str, words: str) -> None:
    text = (HEAD + line("audio", 0, "opus/48000/2")).replace(former, latter)
    with pytest.raises(ProtocolError, match=words):
        sdp.parse_offer(text.encode())
