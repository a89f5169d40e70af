"""The server session: what it answers, what it refuses, and what it overlooks."""

import pytest

from protocols.errors import ProtocolError
from protocols.media import Kind, Lack, LeftOut
from protocols.rtmp import amf0
from protocols.rtmp.amf0 import Value
from protocols.rtmp.authmod import AdobeAuthenticator
from protocols.rtmp.events import Dismissed, HandshakeDone, PublishRequested, StreamEnded
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.message import MessageType
from protocols.rtmp.session import SessionPhase
from tests.unit.protocols.rtmp.peer import (
    HANDSHAKE,
    Run,
    aac_config,
    aac_frame,
    audio,
    command,
    control,
    h264_config,
    h264_frame,
    message,
    opening,
    run,
    video,
)


def connect(**facts: Value) -> bytes:
    return HANDSHAKE + command("connect", 7, {"app": "live", **facts})


def data(*values: Value, chunk_stream: int = 4) -> bytes:
    return message(MessageType.DATA_AMF0, amf0.encode(*values), chunk_stream)


def left_out(fed: Run) -> list[tuple[Lack, Kind | None]]:
    """What the streamer is told of."""
    return [(event.lack, event.kind) for event in fed.events if isinstance(event, LeftOut)]


def info_of(sent: list[Value]) -> dict[str, Value]:
    assert isinstance(sent[-1], dict)
    return sent[-1]


def test_a_whole_life() -> None:
    fed = run(
        opening()
        + h264_config()
        + aac_config()
        + h264_frame(0, key=True)
        + aac_frame(5)
        + command("deleteStream", 0, None, 1.0)
    )
    assert [type(event).__name__ for event in fed.events] == [
        "HandshakeDone",
        "PublishRequested",
        "TracksChanged",
        "TracksChanged",
        "EncodedPacket",
        "EncodedPacket",
        "StreamEnded",
    ]
    assert fed.session.packets_ignored == 0


def test_handshake_echoes_c1() -> None:
    fed = run(HANDSHAKE[:1537])
    assert len(fed.output) == 3073
    assert fed.output[0] == 3
    assert fed.output[1537:] == HANDSHAKE[1:1537]
    assert fed.events == []
    fed.feed(HANDSHAKE[1537:])
    assert fed.events == [HandshakeDone()]


@pytest.mark.parametrize("first", [b"\x06", b"G", b"\x16", b"\x00", b"\xff"])
def test_what_is_not_rtmp_ends_at_its_first_byte_without_an_answer(first: bytes) -> None:
    fed = run()
    with pytest.raises(ProtocolError, match="version"):
        fed.feed(first)
    assert fed.session.take_output() == b""


def test_connect_is_answered_with_its_own_transaction() -> None:
    fed = run(connect())
    kinds = [(sent.type, sent.stream_id) for sent in fed.messages()]
    assert kinds == [(5, 0), (6, 0), (1, 0), (20, 0)]
    assert [int.from_bytes(sent.payload[:4], "big") for sent in fed.messages()[:3]] == [2_500_000, 2_500_000, 65536]
    (answer,) = fed.commands()
    assert answer[:2] == ["_result", 7.0]
    assert info_of(answer)["code"] == "NetConnection.Connect.Success"
    assert "fourCcList" not in info_of(answer)


@pytest.mark.parametrize("asked", [{"fourCcList": ["hvc1"]}, {"capsEx": 3.0}])
def test_enhanced_capabilities_are_told_to_who_asks(asked: dict[str, Value]) -> None:
    (answer,) = run(connect(**asked)).commands()
    info = info_of(answer)
    assert isinstance(info["fourCcList"], list)
    assert {"hvc1", "av01", "vp09", "Opus", "ac-3"} <= set(map(str, info["fourCcList"]))
    assert info["capsEx"] == 14.0
    assert isinstance(info["videoFourCcInfoMap"], dict)


def test_publish_is_answered_on_its_stream() -> None:
    fed = run(opening())
    begin, status = fed.messages()[-2:]
    assert (begin.type, begin.stream_id, bytes(begin.payload)) == (4, 0, b"\x00\x00\x00\x00\x00\x01")
    assert status.stream_id == 1
    assert info_of(amf0.decode(status.payload))["code"] == "NetStream.Publish.Start"


def test_commands_of_fmle_are_answered_if_they_have_a_transaction() -> None:
    """All but FCUnpublish: ffmpeg closes behind it, and what it has not read becomes a reset."""
    asked = ("releaseStream", "FCPublish", "_checkbw", "getStreamLength", "FCUnpublish")
    with_transaction = run(connect() + b"".join(command(name, 9, None, "key") for name in asked))
    assert [answer[0] for answer in with_transaction.commands()[1:]] == [
        "_result",
        "_result",
        "onFCPublish",
        "_result",
        "_result",
    ]
    without = run(connect() + b"".join(command(name, 0, None, "key") for name in asked))
    assert len(without.commands()) == 1


def test_transaction_0_as_gstreamer_sends_it() -> None:
    fed = run(connect() + command("createStream", 4, None) + command("publish", 0, None, "key", "live", stream_id=1))
    assert fed.request().credential.key == "key"


def test_chunk_size_after_publish_as_gstreamer_sends_it() -> None:
    fed = run(opening() + control(MessageType.SET_CHUNK_SIZE, 4096) + message(9, b"\x17" + bytes(3000), 6, chunk=4096)[:12])
    fed.feed(message(9, b"\x57" + bytes(3000), 6, chunk=4096))
    assert fed.session.packets_received == 1


def test_arguments_are_optional() -> None:
    """A command may end anywhere; each is read or refused, none fails otherwise."""
    for name in ("connect", "createStream", "publish", "deleteStream", "FCPublish", "releaseStream", "play", "x"):
        for body in (amf0.encode(name), amf0.encode(name, 1.0), amf0.encode(name, None, None), amf0.encode(name, "x", "y", {})):
            for prefix in (HANDSHAKE, connect()):
                try:
                    run(prefix + message(MessageType.COMMAND_AMF0, body, 3, 0))
                except ProtocolError:
                    assert (name, prefix) not in {("releaseStream", HANDSHAKE), ("deleteStream", HANDSHAKE), ("x", HANDSHAKE)}


def test_publish_without_type() -> None:
    fed = run(connect() + command("createStream", 2, None) + command("publish", 3, None, "key", stream_id=1))
    assert fed.request().credential.key == "key"


@pytest.mark.parametrize("argument", [1.0, "1", None, True])
def test_delete_stream_with_an_argument_of_any_type(argument: Value) -> None:
    assert isinstance(run(opening() + command("deleteStream", 0, None, argument)).events[-1], StreamEnded)
    assert isinstance(run(opening() + command("closeStream", 0)).events[-1], StreamEnded)


@pytest.mark.parametrize("name", [None, "", 5.0, "?token=1"])
def test_publish_without_a_key_is_refused(name: Value) -> None:
    with pytest.raises(ProtocolError):
        run(opening(name))


def test_key_and_queries() -> None:
    fed = run(opening("a/b c%20d?user=bob&token=x%2By&empty=", "live/inst?user=eve&app=x&only=app"))
    request = fed.request()
    assert request.credential.key == "a/b c%20d"
    assert request.params == {"app": "live/inst", "user": "bob", "token": "x+y", "empty": "", "only": "app"}
    assert "a/b" not in repr(request)
    assert "bob" not in repr(request)


def test_long_keys_and_queries_are_refused() -> None:
    with pytest.raises(ProtocolError, match="key"):
        run(opening("k" * 5000))
    with pytest.raises(ProtocolError, match="query"):
        run(opening("k?" + "&".join(f"a{n}=1" for n in range(100))))


def test_nothing_is_read_while_the_decision_is_open() -> None:
    fed = run(opening() + h264_config() + h264_frame(0, key=True), accept=False)
    assert fed.session.stage is SessionPhase.HELD
    assert fed.packets == []
    fed.accept()
    assert len(fed.packets) == 1


def test_a_refusal_says_why_on_the_stream() -> None:
    fed = run(opening(), accept=False)
    fed.session.end("NetStream.Publish.Denied", "The stream key has expired.")
    fed.output += fed.session.take_output()
    status = fed.messages()[-1]
    assert status.stream_id == 1
    info = info_of(amf0.decode(status.payload))
    assert (info["level"], info["code"], info["description"]) == (
        "error",
        "NetStream.Publish.Denied",
        "The stream key has expired.",
    )
    fed.feed(h264_config() + b"\xff" * 1000)
    assert fed.packets == []


@pytest.mark.parametrize("early", [h264_config(), aac_config()])
def test_media_before_publish_is_an_error(early: bytes) -> None:
    with pytest.raises(ProtocolError, match="before publish"):
        run(connect() + early)


def test_media_after_the_end_is_overlooked() -> None:
    fed = run(opening() + command("deleteStream", 0, None, 1.0) + h264_config() + b"\xff\xff")
    assert isinstance(fed.events[-1], StreamEnded)


def test_a_second_publish_is_told_so_and_changes_nothing() -> None:
    fed = run(opening() + command("publish", 5, None, "other", stream_id=1) + aac_config() + aac_frame(0))
    assert info_of(fed.commands()[-1])["code"] == "NetStream.Publish.BadName"
    assert len(fed.packets) == 1
    assert sum(isinstance(event, PublishRequested) for event in fed.events) == 1


def test_play_is_refused_in_words() -> None:
    fed = run(connect() + command("play", 4, None, "key", stream_id=1))
    assert info_of(fed.commands()[-1])["level"] == "error"


def test_ping_is_answered() -> None:
    fed = run(connect() + message(4, b"\x00\x06\x01\x02\x03\x04", 2, 0) + message(4, b"\x00\x00\x00\x00\x00\x01", 2, 0))
    assert bytes(fed.messages()[-1].payload) == b"\x00\x07\x01\x02\x03\x04"


def test_acknowledgements_every_half_window() -> None:
    fed = run(opening())
    for _ in range(3):
        fed.feed(control(MessageType.SET_CHUNK_SIZE, 1 << 20) + message(9, b"\x57" + bytes(700_000), 6, chunk=1 << 20))
    acknowledged = [int.from_bytes(sent.payload, "big") for sent in fed.messages() if sent.type == 3]
    assert len(acknowledged) == 1
    assert 1_250_000 <= acknowledged[0] <= 1_250_000 + (128 << 10)


def test_a_peer_cannot_ask_for_an_acknowledgement_of_every_byte() -> None:
    fed = run(opening() + control(MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE, 1))
    for _ in range(1000):
        fed.feed(message(4, b"\x00\x07\x00\x00\x00\x00", 2, 0))
    assert sum(sent.type == 3 for sent in fed.messages()) <= 1


def test_unknown_messages_commands_and_data_are_counted() -> None:
    odd = message(99, b"x", 5, 0) + message(19, b"\x00", 5, 0) + message(16, b"\x00", 5, 0)
    odd += command("somethingElse", 3, None) + data("onTextData", {"a": 1.0}) + message(18, b"\xff\xff", 4)
    fed = run(opening() + odd)
    assert fed.session.packets_ignored == 6
    assert fed.session.stage is SessionPhase.LIVE


def test_empty_media_is_counted() -> None:
    fed = run(opening() + video(b"") + audio(b""))
    assert (fed.session.packets_received, fed.session.packets_ignored) == (2, 2)


def test_amf3_commands_and_data_hold_amf0() -> None:
    body = b"\x00" + amf0.encode("connect", 1.0, {"app": "live"})
    fed = run(HANDSHAKE + message(MessageType.COMMAND_AMF3, body, 3, 0))
    assert fed.commands()[0][0] == "_result"
    metadata = b"\x00" + amf0.encode("onMetaData", {"encoder": "AMF3 client"})
    assert run(opening() + message(MessageType.DATA_AMF3, metadata, 4)).session.software == "AMF3 client"


def test_metadata_with_and_without_set_data_frame() -> None:
    for values in (["@setDataFrame", "onMetaData"], ["onMetaData"]):
        assert run(opening() + data(*values, {"encoder": "X 1.0"})).session.software == "X 1.0"


def test_names_of_software_are_printable_and_short() -> None:
    """What reaches a log cannot forge a line of it."""
    fed = run(opening(flashVer="x\n2026 CRITICAL forged\x1b[31m" + "y" * 100))
    assert fed.session.software.isprintable()
    assert len(fed.session.software) <= 80
    assert run(opening() + data("onMetaData", {"encoder": "a\r\nb\x00\u202e"})).session.software == "ab"


@pytest.mark.parametrize("name", ["x\n2026 CRITICAL forged\x1b[31m", "\x00"])
def test_errors_hold_nothing_of_the_peers_text(name: str) -> None:
    fed = run(connect() + command(name, 1, None))
    assert fed.session.packets_ignored == 1
    with pytest.raises(ProtocolError) as caught:
        run(connect() + command("connect", 1, {"app": name}))
    assert str(caught.value).isprintable()


def test_aggregates_are_their_tags() -> None:
    def tag(type_: int, time: int, body: bytes) -> bytes:
        head = (
            bytes([type_])
            + len(body).to_bytes(3, "big")
            + (time & 0xFFFFFF).to_bytes(3, "big")
            + bytes([time >> 24])
            + bytes(3)
        )
        return head + body + (11 + len(body)).to_bytes(4, "big")

    body = (
        tag(8, 5000, b"\xaf\x00\x11\x90")
        + tag(8, 5010, b"\xaf\x01\x21\x10")
        + tag(8, 5031, b"\xaf\x01\x21\x10")
        + tag(18, 5031, b"")
    )
    fed = run(opening() + message(MessageType.AGGREGATE, body, 4, timestamp=100))
    assert [packet.dts // 1_000_000 for packet in fed.packets] == [110, 131]
    endless = run(opening() + message(MessageType.AGGREGATE, tag(8, 0, b"") * 300, 4))
    assert (endless.session.stage, endless.session.packets_unreadable) == (SessionPhase.LIVE, 1)
    with pytest.raises(ProtocolError):
        run(connect() + message(MessageType.AGGREGATE, body, 4))


@pytest.mark.parametrize(
    ("type_", "limit"),
    [
        (MessageType.VIDEO, 8 << 20),
        (MessageType.AUDIO, 256 << 10),
        (MessageType.COMMAND_AMF0, 64 << 10),
    ],
)
def test_longest_messages(type_: int, limit: int) -> None:
    def header(length: int) -> bytes:
        return b"\x05" + bytes(3) + length.to_bytes(3, "big") + bytes([type_]) + bytes(4)

    run(opening() + header(limit))
    with pytest.raises(ProtocolError):
        run(opening() + header(limit + 1))
    with pytest.raises(ProtocolError):
        run(connect() + header((64 << 10) + 1))


@pytest.mark.parametrize("type_", [MessageType.DATA_AMF0, MessageType.DATA_AMF3])
def test_data_messages_of_any_length_cost_nothing_but_themselves(type_: int) -> None:
    """A key frame index in onMetaData, as recorders put it there, is longer than anything that is kept."""
    body = b"\x00" * (type_ == MessageType.DATA_AMF3) + amf0.encode("onMetaData", {"encoder": "x", "index": "y" * 200_000})
    fed = run(opening() + message(type_, body, 4) + aac_config() + aac_frame(20))
    assert [packet.dts for packet in fed.packets] == [20_000_000]
    assert left_out(fed) == [(Lack.UNREADABLE, None)]
    with pytest.raises(ProtocolError):
        run(connect() + message(type_, body[: (64 << 10) + 1], 4))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(video(b"\x27"), Kind.VIDEO, id="a video tag of one byte"),
        pytest.param(video(b"\x27\x01\x00"), Kind.VIDEO, id="a video tag cut in its head"),
        pytest.param(video(b"\x17\x00\x00\x00\x00\x01\x42\xc0"), Kind.VIDEO, id="a video header cut"),
        pytest.param(video(b"\x91hv"), Kind.VIDEO, id="cut in the FourCC"),
        pytest.param(audio(b"\xaf"), Kind.AUDIO, id="a sound tag of one byte"),
        pytest.param(audio(b"\xaf\x00\x12"), Kind.AUDIO, id="an AAC header of one byte"),
        pytest.param(audio(b"\x2f" + bytes(40)), Kind.AUDIO, id="zeros that say they are MP3"),
        pytest.param(message(MessageType.COMMAND_AMF0, b"\x0a\xff", 3), None, id="a command that is no AMF"),
        pytest.param(message(MessageType.DATA_AMF0, b"\xff\xff", 4), None, id="data that is no AMF"),
        pytest.param(message(MessageType.ABORT, b"\x00", 2, 0), None, id="an abort of one byte"),
        pytest.param(message(MessageType.USER_CONTROL, b"\x00", 2, 0), None, id="user control of one byte"),
        pytest.param(command("connect", 9, {"app": "live"}), None, id="a second connect"),
        pytest.param(message(MessageType.AGGREGATE, b"\x08\x00\x00", 4), Kind.VIDEO, id="an aggregate that is cut"),
    ],
)
def test_a_body_that_cannot_be_read_costs_that_body(body: bytes, kind: Kind | None) -> None:
    before = h264_config() + aac_config() + h264_frame(0, key=True) + aac_frame(0)
    after = h264_frame(40) + aac_frame(40)
    fed = run(opening() + before + body + after + body)
    assert fed.session.stage is SessionPhase.LIVE
    assert [packet.dts // 1_000_000 for packet in fed.of(1)] == [0, 40]
    assert len(fed.changes) == 2, "the headers before it go on holding"
    assert left_out(fed) == [(Lack.UNREADABLE, kind)], "told once"
    assert fed.session.packets_unreadable == 2


def test_the_chunk_layer_stays_fatal() -> None:
    with pytest.raises(ProtocolError, match="chunk size"):
        run(opening() + control(MessageType.SET_CHUNK_SIZE, 0))


def test_what_may_come_before_publish_is_bounded() -> None:
    with pytest.raises(ProtocolError, match="no publish"):
        run(connect() + message(4, bytes(6), 2, 0) * 20_000)


def test_commands_out_of_order_are_refused() -> None:
    for early in (command("createStream", 2, None), command("publish", 3, None, "key", stream_id=1)):
        with pytest.raises(ProtocolError, match="before connect"):
            run(HANDSHAKE + early)
    with pytest.raises(ProtocolError, match="second connect"):
        run(connect() + command("connect", 2, {"app": "live"}))
    with pytest.raises(ProtocolError, match="streams"):
        run(connect() + command("createStream", 2, None) * 9)


def test_tiny_messages_are_read_in_slices() -> None:
    """100 kB of messages of one byte on the wire: no call reads them all."""
    calls = 1
    fed = run(opening() + message(8, b"", 4, timestamp=1))
    space = fed.session.space()
    space[:100_000] = b"\xc4" * 100_000
    fed.session.received(100_000, 0)
    while fed.session.busy:
        fed.session.proceed(0)
        calls += 1
    assert calls >= 100_000 // RtmpLimits().steps
    assert fed.session.packets_received == 100_001


def test_tiny_messages_without_end_are_refused() -> None:
    fed = run(opening() + message(8, b"", 4, timestamp=1))
    with pytest.raises(ProtocolError, match="tiny messages"):
        fed.feed(b"\xc4" * 200_000)


def test_the_smallest_sound_goes_on_for_ever() -> None:
    """Opus in packets of 2.5 ms, of 20 bytes: 400 messages a second, for five minutes."""
    fed = run(opening())
    second = audio(b"\x9fOpus" + bytes(15)) * 400
    for now in range(300):
        fed.feed(second, now=now * 1_000_000_000)
    assert fed.session.packets_received == 400 * 300


def test_adobe_challenge_over_the_wire() -> None:
    judge = AdobeAuthenticator("auth", {"bob": "secret"}.get)
    fed = run(HANDSHAKE + command("connect", 1, {"app": "auth"}), authenticator=judge)
    assert fed.events[-1] == Dismissed(0, False)
    assert fed.session.stage is SessionPhase.OVER
    answer = fed.commands()[-1]
    assert answer[0] == "_error"
    assert info_of(answer)["code"] == "NetConnection.Connect.Rejected"
    assert "need auth" in str(info_of(answer)["description"])
    assert run(opening(app="live"), authenticator=judge).request().credential.user is None
