"""SRTP in place is the same SRTP, and what is not authentic is a `ProtocolError`."""

import pytest
from aiortc.rtp import RtpPacket

from protocols.errors import ProtocolError
from protocols.webrtc.transport.srtp import Arena, InboundSrtp, OutboundSrtp, SrtpError
from tests.unit.protocols.webrtc.loopback import sessions

RTCP = bytes.fromhex("80c90001 00000001")


def protected(outbound: OutboundSrtp, packet: bytes, arena: Arena, offset: int = 0) -> bytes:
    arena.view[offset : offset + len(packet)] = packet
    size = outbound.protect(arena, offset, len(packet))
    return bytes(arena.view[offset : offset + size])


def test_packets_side_by_side_in_the_arena_open_with_the_public_interface() -> None:
    near, far = sessions()
    outbound, arena, offset = OutboundSrtp(near), Arena(), 0
    for number in range(40):
        packet = RtpPacket(payload_type=96, sequence_number=number, ssrc=7, payload=bytes((number,)) * 1180).serialize()
        made = protected(outbound, packet, arena, offset)
        assert far.unprotect(made) == packet
        offset += len(made)


def test_rtcp_goes_there_and_back() -> None:
    near, far = sessions()
    made = OutboundSrtp(near).protect_rtcp(RTCP)
    assert RTCP not in made[8:]
    assert InboundSrtp(far).unprotect_rtcp(made) == RTCP


def test_a_repeated_or_changed_packet_is_refused() -> None:
    near, far = sessions()
    inbound = InboundSrtp(far)
    packet = RtpPacket(payload_type=96, sequence_number=1, ssrc=7, payload=b"media").serialize()
    made = protected(OutboundSrtp(near), packet, Arena())
    changed = made[:-1] + bytes((made[-1] ^ 1,))
    with pytest.raises(ProtocolError):
        inbound.unprotect_rtp(changed)
    assert inbound.unprotect_rtp(made) == packet
    report = OutboundSrtp(near).protect_rtcp(RTCP)
    inbound.unprotect_rtcp(report)
    with pytest.raises(ProtocolError):
        inbound.unprotect_rtcp(report)


@pytest.mark.parametrize("size", [0, 1, 8, 11, 12, 13, 28, 1500, 1501, 65_000])
def test_junk_of_any_size_is_a_protocol_error(size: int) -> None:
    inbound = InboundSrtp(sessions()[1])
    for first in (0x80, 0x90, 0x8F, 0xBF, 0xFF, 0x00):
        junk = bytes((first,)) * size
        with pytest.raises(ProtocolError):
            inbound.unprotect_rtp(junk)
        with pytest.raises(ProtocolError):
            inbound.unprotect_rtcp(junk)


def test_a_packet_too_old_for_the_window_is_an_error_of_that_viewer_alone() -> None:
    outbound, arena = OutboundSrtp(sessions()[0]), Arena()
    for sequence in (1, 5000):
        protected(outbound, RtpPacket(sequence_number=sequence, ssrc=7, payload=b"x").serialize(), arena)
    with pytest.raises(SrtpError):
        protected(outbound, RtpPacket(sequence_number=2, ssrc=7, payload=b"x").serialize(), arena)


def test_a_compound_that_fits_no_datagram_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        OutboundSrtp(sessions()[0]).protect_rtcp(bytes(1400))
