"""What the gateway and a fan-out process say to each other comes out as it went in, and what a process says is read as from a stranger."""

import json
from collections.abc import Callable

import pytest

from gateway.outputs.fanout import messages
from gateway.outputs.fanout.messages import (
    Answered,
    FanoutMessage,
    ProcessFigures,
    ProcessSettings,
    PushedUnit,
    Restarted,
    Sent,
    ShownTracks,
)
from protocols.errors import ProtocolError, Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.sdp.description import Fragment
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.transport.ice import Credentials
from protocols.webrtc.transport.places import Standing
from protocols.whep.fanout import ViewerOffer, ViewerState
from transcode.messages import MAX_BODY, MessageFrame, MessageReader, pack

TRACK = Track(7, Codec.H264, extradata=b"\0\0\0\1\x67", width=1280, height=720, frame_rate=29.97, layer="a rid of theirs")


def through(message: bytes) -> MessageFrame:
    """As it comes out of the socket."""
    reader = MessageReader()
    room = reader.room()
    room[: len(message)] = message
    (frame,) = reader.received(len(message))
    return frame


def test_what_is_said_to_a_process_comes_out_as_it_went_in() -> None:
    settings = ProcessSettings("::", 8190, ("192.0.2.1", "2001:db8::1"), 500, 10.0)
    assert messages.read_start(through(messages.pack_start(settings)).body) == settings
    offer = ViewerOffer(b"v=0\r\n\xff", "john")
    frame = through(messages.pack_offer(9, offer, Standing.KNOWN))
    assert frame.stream == 9
    assert messages.read_offer(frame.body) == (offer, Standing.KNOWN)
    for ice in (Credentials("ufrag", "password"), None):
        assert messages.read_restart(through(messages.pack_restart(1, ice)).body) == Fragment(ice, 0, complete=False)
    wish = Wish(layer="h", width=640, max_height=360)
    assert messages.read_wish(through(messages.pack_wish(1, "0", wish)).body) == ("0", wish)
    assert messages.read_source(through(messages.pack_source(1, "livestream:demo", "john", TRACK)).body) == (
        "livestream:demo",
        "john",
        TRACK,
    )
    assert messages.read_changed_track(through(messages.pack_track(1, TRACK)).body) == TRACK
    shown = ShownTracks("livestream:demo", "john", {Kind.VIDEO: (2, 1), Kind.AUDIO: (3,)}, frozenset({Kind.AUDIO}))
    assert messages.read_show(through(messages.pack_show(shown)).body) == shown
    assert messages.read_hide(through(messages.pack_hide("livestream:demo", "john")).body) == ("livestream:demo", "john")
    words = messages.text(FanoutMessage.CLOSE, 3, "the call's host has taken you out of it")
    assert messages.read_words(through(words).body) == "the call's host has taken you out of it"


def test_a_unit_comes_out_as_its_bytes_or_as_the_payloads_that_rtp_brought() -> None:
    def out(packet: EncodedPacket) -> PushedUnit:
        unit = messages.pack_unit(PushedUnit(packet, 5, -(1 << 60), 1 << 40, True))
        assert unit is not None
        frame = through(messages.unit_of(65535, unit) + unit.data)
        assert (frame.kind, frame.stream) == (FanoutMessage.UNIT, 65535)
        return messages.read_unit(frame.body)

    whole = out(EncodedPacket(1, 40, 20, True, b"access unit", 1, 2))
    assert (whole.packet.data, whole.packet.payloads, whole.packet.pts, whole.packet.keyframe) == (b"access unit", (), 40, True)
    assert (whole.pushed, whole.wall, whole.media, whole.cached) == (5, -(1 << 60), 1 << 40, True)
    parts = out(EncodedPacket(1, 40, 20, False, b"access unit", 1, 2, payloads=(b"a", b"", b"ccc")))
    assert (parts.packet.payloads, parts.packet.keyframe) == ((b"a", b"", b"ccc"), False)


def test_what_no_message_has_room_for_is_known() -> None:
    def there_is_room(packet: EncodedPacket) -> bool:
        return messages.pack_unit(PushedUnit(packet, 0, 0, 0, False)) is not None

    assert there_is_room(EncodedPacket(1, 0, 0, True, bytes(MAX_BODY - 100), 0, 0))
    assert not there_is_room(EncodedPacket(1, 0, 0, True, bytes(MAX_BODY), 0, 0))
    assert not there_is_room(EncodedPacket(1, 0, 0, True, b"", 0, 0, payloads=(bytes(MAX_BODY // 2),) * 2))
    assert not there_is_room(EncodedPacket(1, 0, 0, True, b"", 0, 0, payloads=(b"a",) * messages.MOST_NUMBERS))


def test_what_a_process_says_comes_out_as_it_went_in() -> None:
    answered = Answered("v=0\r\n", "etag", "ufrag", frozenset({Codec.H264, Codec.VP8}))
    assert messages.read_answer(through(messages.pack_answer(1, answered)).body) == answered
    state = ViewerState('{"slots":[]}', '{"0":[]}')
    assert messages.read_state(through(messages.pack_state(1, state)).body) == state
    assert messages.read_bitrate(through(messages.pack_bitrate(1, 1_500_000)).body) == 1_500_000
    sent = [Sent(1 << 50, 3, 4), Sent(0, 5, 6)]
    assert messages.read_sent(through(messages.pack_sent(1, sent)).body) == sent
    figures = ProcessFigures({"frames": 3}, {"received": 4}, 5)
    assert messages.read_figures(through(messages.pack_figures(figures)).body) == figures
    restarted = messages.fields(FanoutMessage.RESTARTED, 1, text="a=ice-ufrag:x", etag="x", remote_ufrag="y")
    assert messages.read_restarted(through(restarted).body) == Restarted("a=ice-ufrag:x", "x", "y")
    for layers in (["f", "h"], None):
        assert messages.read_wished(through(messages.fields(FanoutMessage.WISHED, 1, layers=layers)).body) == layers


def test_a_refusal_is_the_same_refusal_on_the_other_side() -> None:
    refusal = messages.read_refused(through(messages.pack_refused(1, Rejected(Reason.OVERLOADED, "later", 3))).body)
    assert isinstance(refusal, Rejected)
    assert (refusal.reason, refusal.detail, refusal.wait_s) == (Reason.OVERLOADED, "later", 3)
    broken = messages.read_refused(through(messages.pack_refused(1, ProtocolError("the offer has no m-line"))).body)
    assert isinstance(broken, ProtocolError)
    assert str(broken) == "the offer has no m-line"


@pytest.mark.parametrize(
    ("read", "body"),
    [
        (messages.read_answer, b"\xff"),
        (messages.read_answer, b"[]"),
        (messages.read_answer, json.dumps({"answer": 1, "etag": "", "remote_ufrag": "", "takes": []}).encode()),
        (messages.read_answer, b"[" * 100_000),
        (messages.read_refused, b'{"reason":"","words":""}'),
        (messages.read_restarted, b'{"text":"","etag":""}'),
        (messages.read_wished, b'{"layers":{}}'),
        (messages.read_state, b"\0"),
        (messages.read_state, b'\2\0\0\0{}{"a":\n1}'),
        (messages.read_state, b"\2\0\0\0\r}{}"),
        (messages.read_refused, b'{"reason":"OVERLOADED","words":"","wait_s":NaN}'),
        (messages.read_bitrate, b"12345"),
        (messages.read_sent, bytes(25)),
        (messages.read_sent, bytes(24 * (messages.MOST_SENT + 1))),
        (messages.read_figures, b'{"viewers":[],"transport":{},"cpu_ns":0}'),
        (messages.read_port, b'{"port":"8190"}'),
    ],
)
def test_what_a_process_says_wrongly_is_a_broken_format(read: Callable[[memoryview], object], body: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(through(pack(FanoutMessage.STATE, 1, body=body)).body)
