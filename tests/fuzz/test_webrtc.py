"""What the network may say to the WebRTC side, mutated: readers give data or `ProtocolError`, in bounded time."""

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from protocols.errors import ProtocolError
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.ice import Credentials, host_candidates
from tests.fuzz.cost import check, rounds
from tests.fuzz.subjects import at_once, forgiving

OFFERS = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "data" / "sdp").glob("*.sdp"))]
PASSWORD = b"p" * 24
TRANSPORT = answer.LocalTransport(
    Credentials("u" * 16, "p" * 32), "sha-256 AA", "passive", host_candidates(["127.0.0.1"], 8189)
)
TOKENS = [
    b"0",
    b"-1",
    b"65536",
    b"99999999999999999999",
    b"a=",
    b"m=",
    b":",
    b"/",
    b";",
    b" ",
    b"=",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
]
HEADER = b"v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\n"


def inputs(corpus: Sequence[bytes], seconds: float, seed: int) -> Iterator[bytes]:
    """Mutants of the corpus until the time is over: bytes flipped, lines doubled, dropped, moved and joined from other inputs."""
    source = random.Random(seed)
    yield from corpus
    for _ in rounds(seconds):
        data = bytearray(source.choice(corpus))
        for _ in range(source.choice((1, 1, 2, 4, 16))):
            place = source.randrange(len(data) + 1)
            match source.randrange(7):
                case 0:
                    data[place:place] = source.choice(TOKENS)
                case 1:
                    del data[place : place + source.randrange(1, 40)]
                case 2 if data:
                    data[place % len(data)] ^= 1 << source.randrange(8)
                case 3:
                    other = source.choice(corpus)
                    begin = source.randrange(len(other))
                    data[place:place] = other[begin : begin + source.randrange(200)]
                case 4:
                    data[place:place] = bytes(data[place : place + source.randrange(60)]) * source.choice((2, 50, 500))
                case 5:
                    data[place:] = b""
                case _:
                    data[place:place] = source.randbytes(source.randrange(8))
        yield bytes(data)


def survives(
    corpus: Sequence[bytes], read: Callable[[bytes], None], seconds: float, seed: int, *, at_least: int, refuses: bool = True
) -> None:
    taken = refused = 0

    def counted(data: bytes) -> None:
        nonlocal taken, refused
        try:
            read(data)
            taken += 1
        except ProtocolError:
            refused += 1

    for number, data in enumerate(inputs(corpus, seconds, seed)):
        check(partial(at_once, counted), [data], f"{data[:2000]!r}", memory=number % 64 == 0)
    assert number > at_least
    assert taken > 0
    assert refused > 0 or not refuses


def read_stun(data: bytes) -> None:
    message = stun.parse(data)
    if message is not None:
        message.authentic(PASSWORD)


def read_offer(data: bytes) -> None:
    offer = sdp.parse_offer(data)
    accepted = answer.sending(offer, "cname")
    text = answer.render(offer, accepted, TRANSPORT) + answer.render_fragment(offer, accepted, TRANSPORT)
    # What a peer wrote never makes a line of its own in our answer.
    assert all(line[1:2] == "=" and line.isprintable() for line in text.removesuffix("\r\n").split("\r\n"))
    assert text.count("\nm=") >= len(offer.media)


def read_fragment(data: bytes) -> None:
    sdp.parse_fragment(data)


def test_stun(seconds: float, seed: int) -> None:
    attributes = [
        (stun.Attribute.PRIORITY, bytes(4)),
        (stun.Attribute.USE_CANDIDATE, b""),
        (0xC057, bytes(4)),
        (0x7FFE, b"xyz"),
    ]
    corpus = [stun.binding_request(bytes(12), b"here:there", PASSWORD, attributes[:count]) for count in range(5)]
    corpus += [stun.success(bytes(12), "127.0.0.1", 5, PASSWORD), stun.error(bytes(12), stun.ErrorCode.ROLE_CONFLICT, PASSWORD)]
    survives(corpus, read_stun, seconds, seed, at_least=1000, refuses=False)


def test_stun_that_is_well_formed_outside(seconds: float, seed: int) -> None:
    """With header and FINGERPRINT put right, so that the mutants reach the attributes."""
    whole = stun.binding_request(bytes(12), b"here:there", PASSWORD, [(stun.Attribute.PRIORITY, bytes(4)), (0xC057, bytes(4))])

    def read(data: bytes) -> None:
        body = data[:1400] + bytes(-len(data[:1400]) % 4)
        message = whole[:2] + (len(body) + 8).to_bytes(2, "big") + whole[4:20] + body
        read_stun(message + b"\x80\x28\x00\x04" + (zlib.crc32(message) ^ 0x5354554E).to_bytes(4, "big"))

    survives([whole[20:-8]], read, seconds, seed, at_least=1000, refuses=False)


def test_offers(seconds: float, seed: int) -> None:
    survives(OFFERS, read_offer, seconds, seed, at_least=200)


def test_the_dearest_offers_are_bounded() -> None:
    section = b"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
    for line in (
        b"a=rtpmap:%d H264/90000\r\n",
        b"a=rtcp-fb:* n%d\r\n",
        b"a=fmtp:%d a=1;b=2;c=3;d=4\r\n",
        b"a=extmap:%d u\r\n",
        b"a=fmtp:96 " + b";" * 1000 + b"%d\r\n",
        b"a=x%d\r\n",
        b"\r\n%d",
        b"m=video 9 UDP/TLS/RTP/SAVPF %d\r\n",
        b"a=fingerprint:sha-256 %d\r\n",
        b"a=group:BUNDLE %d\r\n",
    ):
        text = bytearray(HEADER + section)
        number = 0
        while len(text) < sdp.MAX_BYTES - 1200:
            text += line % (number % 128)
            number += 1
        check(partial(forgiving, read_offer), [bytes(text)], f"{line!r}", memory=True)


def test_fragments(seconds: float, seed: int) -> None:
    corpus = [
        b"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:video0\r\n"
        b"a=candidate:1 1 UDP 2015363327 192.0.2.2 49203 typ host\r\na=candidate:2 1 TCP 1015021823 fe80::1 9 typ host tcptype active\r\n",
        b"a=ice-options:trickle\r\na=end-of-candidates\r\n",
    ]
    survives(corpus, read_fragment, seconds, seed, at_least=1000)
