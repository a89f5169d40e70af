"""The largest descriptions that there may be take no time to speak of, whatever they are made of."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from protocols.errors import ProtocolError
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.transport.ice import Credentials, host_candidates
from tests.fuzz.cost import slowness
from tests.unit.protocols.webrtc import hostile

LONGEST_S = 0.02
"""CPU to read an offer and to answer it. The dearest took 0.3 s."""
TRANSPORT = answer.LocalTransport(
    Credentials("u" * 16, "p" * 32), "sha-256 AA", "passive", host_candidates(["127.0.0.1"], 8189)
)
REAL = sorted((Path(__file__).parents[4] / "data" / "sdp").glob("*.sdp"))


def answered(data: bytes, accept: Callable[[sdp.Offer], tuple[answer.Accepted | None, ...]]) -> str:
    offer = sdp.parse_offer(data)
    return answer.render(offer, accept(offer), TRANSPORT)


def least(call: Callable[[], object]) -> float:
    """CPU s, in the machine's own speed, of the quickest of five: what else the machine does is not counted."""
    times = []
    for _ in range(5):
        begun = time.process_time()
        with suppress(ProtocolError):
            call()
        times.append((time.process_time() - begun) / slowness(5))
    return min(times)


@pytest.mark.parametrize("name", hostile.offers())
def test_no_offer_takes_long(name: str) -> None:
    data = hostile.offers()[name]
    assert len(data) > sdp.MAX_BYTES - 80_000 or data.count(b"\n") > 7000  # as large as it may be
    assert len(data) <= sdp.MAX_BYTES
    times = [
        least(lambda: answered(data, lambda offer: answer.sending(offer, "cname"))),
        least(lambda: answered(data, answer.receiving)),
        least(lambda: sdp.parse_fragment(data)),
    ]
    print(f"{name}: {len(data)} bytes, {', '.join(f'{each * 1000:.1f}' for each in times)} ms")
    assert max(times) < LONGEST_S


def many(path: Path) -> bytes:
    """A browser that asks for thirty-two of what it asked for there."""
    head, *sections = re.split(rb"(?=^m=)", path.read_bytes(), flags=re.MULTILINE)
    made: list[bytes] = []
    while len(made) < sdp.MAX_MEDIA and len(head) + sum(map(len, made)) < 118_000:
        section = sections[len(made) % len(sections)]
        made.append(re.sub(rb"a=mid:[^\r\n]*", b"a=mid:%d" % len(made), section))
    bundle = b"a=group:BUNDLE " + b" ".join(b"%d" % number for number in range(len(made)))
    return re.sub(rb"a=group:BUNDLE[^\r\n]*", bundle, head) + b"".join(made)


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_the_largest_offers_of_browsers_are_answered_as_quickly(path: Path) -> None:
    data = many(path)
    assert answered(data, lambda offer: answer.sending(offer, "cname")).count("\nm=") > 1
    assert least(lambda: answered(data, lambda offer: answer.sending(offer, "cname"))) < LONGEST_S


@pytest.mark.parametrize(
    ("line", "most"),
    [
        (b"a=rtpmap:96 VP8/90000\r\n", 128),
        (b"a=rtcp-fb:96 nack\r\n", 1024),
        (b"a=extmap:1 urn:x\r\n", 64),
        (b"a=fmtp:96 a=b\r\n", 256),
    ],
)
def test_attributes_are_bounded_and_the_refusal_names_them(line: bytes, most: int) -> None:
    head = b"v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\n"
    section = b"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
    for place in (head + section, head):
        sdp.parse_offer(place + line * most + (b"" if section in place else section))
        with pytest.raises(ProtocolError, match=rf"more than {most} lines a={line[2:].partition(b':')[0].decode()}"):
            sdp.parse_offer(place + line * (most + 1) + (b"" if section in place else section))
