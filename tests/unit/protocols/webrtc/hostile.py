"""What a peer may send to make the gateway work: datagrams and descriptions by name, all within what the wire allows. For tests of cost."""

from collections.abc import Mapping

from protocols.webrtc.sdp.description import MAX_BYTES

SSRC = 1
DATAGRAM = 1350  # bytes of RTCP that libsrtp and the path take


def _packet(kind: int, count: int, body: bytes) -> bytes:
    return bytes((0x80 | count, kind)) + (len(body) // 4).to_bytes(2, "big") + body


def transport_feedback(base: int, count: int, chunks: bytes, deltas: bytes = b"") -> bytes:
    """That claims `count` packets from `base` on."""
    body = bytes(3) + b"\x01" + bytes(4) + base.to_bytes(2, "big") + count.to_bytes(2, "big") + bytes(4) + chunks + deltas
    return _packet(205, 15, body + bytes(-len(body) % 4))


def _filled(piece: bytes) -> bytes:
    return piece * min(64, DATAGRAM // len(piece))


def rtcp(media: int, base: int) -> Mapping[str, bytes]:
    """Datagrams of a viewer: `media` is the SSRC that it is sent, `base` a transport-wide sequence number of what it is sent."""
    of = media.to_bytes(4, "big")
    feedback = bytes(4) + of
    lost = (2048).to_bytes(2, "big")  # a run of packets that have not come
    block = of + bytes(20)
    return {
        "feedback on 2048 packets in 24 bytes each": _filled(transport_feedback(base, 2048, lost)),
        "feedback on 2048 packets from ever later on": b"".join(
            transport_feedback(base + number & 0xFFFF, 2048, lost) for number in range(DATAGRAM // 24)
        ),
        "feedback on one packet each": b"".join(
            transport_feedback(base + number & 0xFFFF, 1, (0x2001).to_bytes(2, "big"), b"\x01")
            for number in range(DATAGRAM // 24)
        ),
        "feedback of small deltas": transport_feedback(base, 1200, (0x2000 | 1200).to_bytes(2, "big"), bytes(1200)),
        "feedback of large deltas": transport_feedback(base, 600, (0x4000 | 600).to_bytes(2, "big"), bytes(1200)),
        "feedback of single bits": transport_feedback(base, 2048, b"\x80\x01" * 147, bytes(147)),
        "feedback of pairs": transport_feedback(base, 2048, b"\xc0\x01" * 293, bytes(293)),
        "NACKs of everything": _packet(
            205, 1, feedback + b"".join((number * 17 & 0xFFFF).to_bytes(2, "big") + b"\xff\xff" for number in range(330))
        ),
        "NACKs of one packet each": _filled(_packet(205, 1, feedback + base.to_bytes(2, "big") + bytes(2))),
        "PLIs": _filled(_packet(206, 1, feedback)),
        "FIRs": _packet(206, 4, bytes(8) + b"".join(of + bytes((number & 255, 0, 0, 0)) for number in range(160))),
        "REMBs": _filled(_packet(206, 15, bytes(8) + b"REMB\x01\x02\x03\x04" + of)),
        "receiver reports": _filled(_packet(201, 31, bytes(4) + block * 31)),
        "receiver reports of nothing": _filled(_packet(201, 0, bytes(4))),
        "sender reports": _filled(_packet(200, 31, bytes(24) + block * 31)),
        "descriptions": _filled(_packet(202, 31, bytes(4))),
        "reference times": _filled(_packet(207, 0, bytes(4) + b"\x04\x00\x00\x02" + bytes(8))),
        "reference times behind blocks": _packet(207, 0, bytes(4) + bytes(4) * 320 + b"\x04\x00\x00\x02" + bytes(8)),
        "packets of nothing": _filled(_packet(204, 0, b"")),
        "ever more packets of nothing": _packet(204, 0, b"") * (DATAGRAM // 4),
        "a packet cut off": _filled(_packet(201, 0, bytes(4)))[:-1],
    }


_HEAD = b"v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\n"
_SECTION = b"m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:%d\r\na=sendrecv\r\na=rtcp-mux\r\n"
_CODEC = b"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"


def _lines(line: bytes, head: bytes = b"", tail: bytes = b"", sections: int = 1) -> bytes:
    """An offer that is as large as may be of one kind of line: `%d` in it counts up to the payload types that there are."""
    offer = bytearray(_HEAD + head)
    room = (MAX_BYTES - len(offer) - len(tail)) // sections
    counts = b"%d" in line
    for number in range(sections):
        section = bytearray(_SECTION % number + _CODEC) if sections else bytearray()
        index = 0
        while len(section) + len(line) + 2 < room and index < 8100 // sections:
            section += line % ((index % 128,) * line.count(b"%d")) if counts else line
            index += 1
        offer += section
    return bytes(offer + tail)


def _session(line: bytes) -> bytes:
    """As many lines of the session as there may be, for 32 m-lines to look through."""
    sections = b"".join(_SECTION % number + _CODEC for number in range(32))
    return (_HEAD + line * min(7000, (MAX_BYTES - len(_HEAD) - len(sections)) // len(line)) + sections)[:MAX_BYTES]


def offers() -> Mapping[str, bytes]:
    """Session descriptions as large as they may be."""
    numbered = b"".join(b"a=rtpmap:%d H264/90000\r\n" % number for number in range(128))
    every = b"".join(b"a=rtcp-fb:* x%d\r\n" % number for number in range(7000))
    distinct = b"".join(b"a=extmap:%d u%d\r\n" % (number % 14 + 1, number) for number in range(7000))
    bundle = b"a=group:BUNDLE " + b"a " * 60_000 + b"\r\n"
    return {
        "feedback of all payload types": (_HEAD + _SECTION % 0 + numbered + every)[:MAX_BYTES],
        "extensions of the session": (_HEAD + distinct)[: MAX_BYTES - 4000]
        + b"\r\n"
        + b"".join(_SECTION % number + _CODEC for number in range(32)),
        "extensions": _lines(b"a=extmap:%d urn:%d\r\n"),
        "extensions in 32": _lines(b"a=extmap:%d urn:%d\r\n", sections=32),
        "rtpmaps of one": _lines(b"a=rtpmap:96 H264/90000\r\n"),
        "rtpmaps": _lines(b"a=rtpmap:%d H264/90000\r\n"),
        "rtpmaps in 32": _lines(b"a=rtpmap:%d H264/90000\r\n", sections=32),
        "as many codecs as there may be": _HEAD
        + b"".join(
            _SECTION % line + b"".join(b"a=rtpmap:%d H264/90000\r\n" % number for number in range(128)) for line in range(32)
        ),
        "as many codecs with repairs": _HEAD
        + b"".join(
            _SECTION % line
            + b"".join(
                b"a=rtpmap:%d VP8/90000\r\na=rtpmap:%d rtx/90000\r\na=fmtp:%d apt=%d\r\n"
                % (number, number + 64, number + 64, number)
                for number in range(58)
            )
            for line in range(32)
        ),
        "repairs": _lines(b"a=rtpmap:%d rtx/90000\r\na=fmtp:%d apt=%d\r\n", sections=2),
        "parameters": _lines(b"a=fmtp:%d a=1;b=2;c=3;d=4\r\n"),
        "a parameter without end": _lines(b"a=fmtp:96 " + b"a=b;" * 1000 + b"\r\n"),
        "empty parameters": _lines(b"a=fmtp:96 " + b";" * 4000 + b"\r\n"),
        "feedback": _lines(b"a=rtcp-fb:%d x%d\r\n"),
        "feedback in 32": _lines(b"a=rtcp-fb:%d x%d\r\n", sections=32),
        "sources": _lines(b"a=ssrc:%d\r\n"),
        "groups of sources": _lines(b"a=ssrc-group:FID %d %d\r\n"),
        "a long group of sources": _lines(b"a=ssrc-group:FID " + b"1 " * 60_000 + b"\r\n"),
        "rids": _lines(b"a=rid:%d send\r\n", tail=b"a=simulcast:send 1;2\r\n"),
        "a long simulcast": _lines(b"a=rid:1 send\r\na=simulcast:send " + b"1;" * 60_000 + b"\r\n"),
        "a long bundle": _HEAD + bundle + b"".join(_SECTION % number + _CODEC for number in range(32)),
        "groups of the session": _session(b"a=group:X y\r\n"),
        "attributes of the session": _session(b"a=x\r\n"),
        "round trips": _lines(b"a=rtcp-xr:x\r\n"),
        "fingerprints": _session(b"a=fingerprint:sha-256 AA\r\n"),
        "a long fingerprint": _HEAD + b"a=fingerprint:" + b"a " * 60_000 + b"\r\n" + _SECTION % 0 + _CODEC,
        "candidates": _lines(b"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", sections=32),
        "attributes": _lines(b"a=%d\r\n"),
        "one line": _lines(b"a=" + b"x" * 120_000 + b"\r\n"),
        "payload types": _HEAD + b"m=video 9 UDP/TLS/RTP/SAVPF" + b" 96" * 40_000 + b"\r\n",
        "m-lines": _HEAD + b"m=video 9 UDP/TLS/RTP/SAVPF 96\r\n" * 3000,
    }
