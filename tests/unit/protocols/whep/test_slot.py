"""What a slot asks of the viewer's player: that a picture waits, where there is sound beside it."""

from typing import Any

import pytest

from protocols.media import Codec, Kind, Track
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.source import Source
from protocols.whep.slot import BESIDE_SOUND_MS, ShownParticipant, Slot
from tests.unit.protocols.webrtc.conftest import egress, peer, peer_of, timers
from tests.unit.protocols.webrtc.loopback import FORMATS, FRAME, Peer, Timers, parameters, push, sender_to, source_of, video

__all__ = ["egress", "peer", "peer_of", "timers"]

PLAYOUT_DELAY = 5
ONLY: dict[str, Any] = {"mid_extension": 0, "abs_send_time_extension": 0, "transport_cc_extension": 0}


def slot_of(peer: Peer, timers: Timers, **negotiated: Any) -> tuple[Slot, Sender, Source, Source]:
    """One with both m-lines, its sender of pictures, and a picture and a sound to show in it."""
    sender = sender_to(peer, parameters(**ONLY, **negotiated), sequence=100)
    heard = sender_to(peer, parameters(Kind.AUDIO, **ONLY, ssrc=7, rtx_ssrc=None))
    slot = Slot(0, {Kind.VIDEO: sender, Kind.AUDIO: heard})
    return slot, sender, video(timers), source_of(Track(2, Codec.OPUS), timers)


def show(slot: Slot, picture: Source, *sounds: Source) -> None:
    slot.show(ShownParticipant("ann", "Ann", {Kind.VIDEO: (picture,), Kind.AUDIO: sounds}), 0)
    slot.show_layer("", 0)


def wished(peer: Peer) -> list[int]:
    """How long the viewer is to wait with each packet of the picture that has come, at least, ms: headers are not encrypted."""
    wishes = []
    while (data := peer.datagram()) is not None:
        if data[1] & 0x7F in {each.payload_type for each in FORMATS[Kind.VIDEO].values()}:
            assert data[12:17] == bytes.fromhex("bede 0002 52"), "the only extension"
            least, most = int.from_bytes(data[17:20]) >> 12, int.from_bytes(data[17:20]) & 0xFFF
            assert most == 1000, "in units of 10 ms: what a player takes that was told nothing"
            wishes.append(10 * least)
    return wishes


def test_a_picture_waits_for_its_sound_from_its_first_packet_on_and_only_while_there_is_sound(
    peer: Peer, timers: Timers
) -> None:
    slot, _, picture, sound = slot_of(peer, timers, playout_delay_extension=PLAYOUT_DELAY)
    show(slot, picture, sound)
    push(picture, 3000, 0, key=True)
    assert set(wished(peer)) == {BESIDE_SOUND_MS}
    show(slot, picture)  # muted
    push(picture, 3000, FRAME, key=False)
    assert set(wished(peer)) == {0}
    show(slot, picture, sound)
    push(picture, 3000, 2 * FRAME, key=False)
    assert set(wished(peer)) == {BESIDE_SOUND_MS}


@pytest.mark.parametrize("muted", [False, True])
def test_what_is_sent_again_under_its_number_is_what_was_sent(peer: Peer, timers: Timers, muted: bool) -> None:
    """Without RTX: another header under the same number would be encrypted with the same nonce (RFC 7714 §12.1)."""
    plain = {codec: type(each)(each.payload_type) for codec, each in FORMATS[Kind.VIDEO].items()}
    slot, sender, picture, sound = slot_of(peer, timers, playout_delay_extension=PLAYOUT_DELAY, formats=plain, rtx_ssrc=None)
    show(slot, picture, sound)
    push(picture, 500, 0, key=True)
    sent = [data for data in iter(peer.datagram, None) if data[1] & 0x7F == plain[Codec.H264].payload_type]
    if muted:
        show(slot, picture)
    sender.repair([100], FRAME)
    again = list(iter(peer.datagram, None))
    assert again == ([] if muted else sent[:1])


def test_a_viewer_that_has_not_offered_it_is_asked_for_nothing(peer: Peer, timers: Timers) -> None:
    slot, sender, picture, sound = slot_of(peer, timers)
    show(slot, picture, sound)
    push(picture, 500, 0, key=True)
    show(slot, picture)
    sender.repair([100], FRAME)
    assert sender.stream.retransmitted == 1, "nothing has changed"
