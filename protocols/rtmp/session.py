"""One RTMP connection as a server sees it: bytes in, events out, bytes to send (RTMP 1.0 §7, Enhanced RTMP v2). Sans-IO.

Its stages are a line: HANDSHAKE, OPENING (connect, createStream, publish), HELD until the publisher is accepted or refused, LIVE, OVER.
While HELD nothing is read, so what a client sends too early waits in the small buffer. Media before `publish` is an error; media after
the end, unknown messages and unknown commands are ignored and counted. A message whose body cannot be read costs that body, once LIVE: it
is left out, counted and told. What breaks the chunk layer, or the opening, is told as `Broken`, and it is over.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from typing import TypeAlias

from protocols.errors import ProtocolError, Reason
from protocols.media import TracksChanged
from protocols.publisher import Credential
from protocols.rate_limit import TokenBucket
from protocols.rtmp import amf0, handshake
from protocols.rtmp.address import NO_KEY, app_and_params, name_and_params, raw_query
from protocols.rtmp.amf0 import Value
from protocols.rtmp.authmod import AdobeAuthenticator, ChallengeRefused
from protocols.rtmp.buffer import ReceiveBuffer
from protocols.rtmp.chunk import ChunkReader, RtmpMessage
from protocols.rtmp.connect import connect_accepted, connect_rejected
from protocols.rtmp.events import Broken, Dismissed, Event, HandshakeDone, PublishRequested, StreamEnded
from protocols.rtmp.limits import CHANGE_STEPS, SMALL, SMALL_STEPS, TAG_STEPS, RtmpLimits
from protocols.rtmp.message import (
    COURTESY,
    MEDIA,
    Command,
    MessageType,
    MessageWriter,
    UserControl,
    amf3_body,
    control_value,
    printable,
    read_command,
    read_metadata,
    split_aggregate,
    text_of,
)
from protocols.rtmp.tracks import MediaItem, MediaTracks
from protocols.wire import Reader

_WINDOW = 2_500_000
_LEAST_WINDOW = 64 * 1024  # an acknowledgement may not be asked for every few bytes
_CHUNK_SIZE = 65536  # ffmpeg takes it over for its own sending: cheap for both
_MAX_STREAMS = 8


class SessionPhase(Enum):
    HANDSHAKE = auto()
    OPENING = auto()
    HELD = auto()
    LIVE = auto()
    OVER = auto()


class ServerSession:
    """The state of one connection. The caller reads into `space()`, tells by `received()`, and sends `take_output()` after each call."""

    def __init__(
        self, limits: RtmpLimits, address: str = "", authenticator: AdobeAuthenticator | None = None, patient: bool = False
    ) -> None:
        """`address` is the peer's, for counting failed passwords. `patient`: the owner calls `settle` at `due`."""
        self.stage = SessionPhase.HANDSHAKE
        self.software = ""
        self.ending = False  # the encoder has said that it is about to end
        self.bytes_received = 0
        self.packets_received = 0
        self.last_media = 0  # ns, of the last audio or video message
        self._limits = limits
        self._address = address
        self._authenticator = authenticator
        self._buffer = ReceiveBuffer(limits.opening_buffer)
        self._chunks = ChunkReader(
            self._buffer,
            streams=limits.chunk_streams,
            otherwise=limits.message_bytes,
            partial=2 * limits.message_bytes,
        )
        self._work = TokenBucket(limits.steps_per_second, limits.steps_at_once)
        self._writer = MessageWriter()
        self._media = MediaTracks(patient)
        self._greeted = False  # S0, S1 and S2 are sent
        self._ignored = 0
        self._acknowledged = 0
        self._window = _WINDOW
        self._user: str | None = None
        self._params: dict[str, str] = {}
        self._connected = False
        self._streams = 0
        self._stream_id = 0  # message stream of the publish command

    @property
    def packets_ignored(self) -> int:
        return self._ignored + self._media.ignored

    @property
    def packets_unreadable(self) -> int:
        return self._media.left_out.unreadable

    @property
    def due(self) -> int | None:
        """Monotonic ns at which `settle` has something to give, if nothing comes before."""
        return self._media.due if self.stage is SessionPhase.LIVE else None

    @property
    def unfinished(self) -> bool:
        """The peer has sent a part of a message and not the rest."""
        return len(self._buffer) > 0 or self._chunks.partial > 0

    @property
    def busy(self) -> bool:
        """The last call stopped for its bound of work: go on with `proceed`."""
        return self._chunks.steps <= 0 and self.stage in (SessionPhase.OPENING, SessionPhase.LIVE)

    def space(self) -> memoryview:
        """Where the next bytes are to be written; empty only while the session is held or busy."""
        return self._buffer.space()

    def received(self, count: int, now: int) -> list[Event]:
        """`count` bytes were written to `space()` at `now` ns: what they bring, the last event being `Broken` if they break the format."""
        self.bytes_received += count
        self._work.spend(-count / self._limits.bytes_per_step, now)
        self._buffer.filled(count)
        return self.proceed(now)

    def proceed(self, now: int) -> list[Event]:
        """Goes on with the bytes that are there, as `received`."""
        events: list[Event] = []
        try:
            if self.stage is SessionPhase.HANDSHAKE:
                self._shake_hands(events)
            self._chunks.steps = self._limits.steps
            while self.stage in (SessionPhase.OPENING, SessionPhase.LIVE) and (message := self._chunks.next(now)):
                self._take(message, events)
                if self._media.left_out.pending:
                    events.extend(self._media.left_out.take())
            changes = sum(isinstance(event, TracksChanged) for event in events)
            if not self._work.spend(self._limits.steps - self._chunks.steps + CHANGE_STEPS * changes, now):
                raise ProtocolError("more tiny messages and changes than any encoder sends")
            if self.stage is SessionPhase.OPENING and self.bytes_received > self._limits.opening_bytes:
                raise ProtocolError(f"{self.bytes_received} bytes and no publish")
        except ProtocolError as error:
            self.stage = SessionPhase.OVER
            events.append(Broken(error))
        if self.stage is SessionPhase.OVER:
            self._buffer.start = self._buffer.end
        elif self.bytes_received - self._acknowledged >= self._window // 2:
            self._acknowledged = self.bytes_received
            self._writer.acknowledgement(self.bytes_received)
        return events

    def settle(self, now: int | None = None) -> list[MediaItem]:
        """What has waited long enough by `now` for more of it to come; None: nothing more comes."""
        return list(self._media.settle(now))

    def take_output(self) -> bytes:
        """The bytes to send now."""
        return self._writer.take()

    def accept(self) -> None:
        """The publisher may send. The bytes held back are read by `proceed`."""
        if self.stage is not SessionPhase.HELD:
            raise ProtocolError("there is nothing to accept")
        limits = self._limits
        self._writer.user_control(UserControl.STREAM_BEGIN, self._stream_id.to_bytes(4, "big"))
        self._writer.status(self._stream_id, "status", "NetStream.Publish.Start", "Started publishing stream.")
        self._buffer.enlarge(limits.buffer)
        longest: dict[int, int] = {
            MessageType.AUDIO: limits.audio_bytes,
            MessageType.VIDEO: limits.video_bytes,
            MessageType.AGGREGATE: limits.video_bytes,
        }
        self._chunks.allow(longest, limits.partial_bytes, COURTESY)
        self.stage = SessionPhase.LIVE

    def end(self, code: str, description: str) -> None:
        """Tells the encoder why its stream is refused or ended; after it the session is over."""
        if self.stage in (SessionPhase.HELD, SessionPhase.LIVE):
            self._writer.status(self._stream_id, "error", code, description)
        self.stage = SessionPhase.OVER

    def _shake_hands(self, events: list[Event]) -> None:
        buffer = self._buffer
        if not self._greeted:
            if len(buffer):
                handshake.check_version(buffer.data[buffer.start])
            if len(buffer) < handshake.OPENING_BYTES:
                return
            self._writer.raw(handshake.reply(buffer.take(handshake.OPENING_BYTES)))
            self._greeted = True
        if len(buffer) >= handshake.C1_BYTES:
            buffer.take(handshake.C1_BYTES)  # C2: §5.2.4 says that it echoes S1; many send something else
            self.stage = SessionPhase.OPENING
            events.append(HandshakeDone())

    def _take(self, message: RtmpMessage, events: list[Event]) -> None:
        take = _TAKE.get(message.type)
        if take is None:
            self._ignored += 1
            return
        try:
            events.extend(take(self, message) or ())  # what came before an error stays
        except ProtocolError as error:
            if self.stage is not SessionPhase.LIVE or message.type == MessageType.SET_CHUNK_SIZE:
                raise
            self._media.broken(MEDIA.get(message.type), len(message.payload), str(error))

    # Control messages

    def _set_chunk_size(self, message: RtmpMessage) -> None:
        self._chunks.set_chunk_size(control_value(message.payload))

    def _abort(self, message: RtmpMessage) -> None:
        self._chunks.abort(control_value(message.payload))

    def _set_window(self, message: RtmpMessage) -> None:
        self._window = max(_LEAST_WINDOW, min(_WINDOW, control_value(message.payload)))

    def _user_control(self, message: RtmpMessage) -> None:
        reader = Reader(message.payload)
        if reader.u16() == UserControl.PING_REQUEST:
            self._writer.user_control(UserControl.PING_RESPONSE, reader.take(4))

    # Media

    def _audio(self, message: RtmpMessage) -> Iterable[Event]:
        return self._media_message(message, self._media.audio)

    def _video(self, message: RtmpMessage) -> Iterable[Event]:
        return self._media_message(message, self._media.video)

    def _media_message(self, message: RtmpMessage, read: Callable[[RtmpMessage], Iterable[MediaItem]]) -> Iterable[Event]:
        if self.stage is not SessionPhase.LIVE:
            raise ProtocolError("media before publish")
        self.last_media = message.arrival
        self.packets_received += 1
        if not message.payload:
            self._ignored += 1
            return ()
        if len(message.payload) < SMALL:
            self._chunks.steps -= SMALL_STEPS
        return read(message)

    def _aggregate(self, message: RtmpMessage) -> Iterable[Event]:
        """Several FLV tags in one message (§7.1.6): their times count from that of the first, which is the message's."""
        events: list[Event] = []
        for type_, time, payload in split_aggregate(message.payload):
            self._chunks.steps -= TAG_STEPS
            if type_ in (MessageType.AUDIO, MessageType.VIDEO):
                timestamp = (message.timestamp + time) & 0xFFFFFFFF
                self._take(message._replace(type=type_, timestamp=timestamp, payload=payload), events)
        return events

    def _data_amf3(self, message: RtmpMessage) -> Iterator[Event]:
        return self._data(message, skip=1)

    def _data(self, message: RtmpMessage, skip: int = 0) -> Iterator[Event]:
        self._chunks.steps -= amf0.steps(message.payload)
        try:
            if message.passed_over:
                raise ProtocolError(f"a message of {message.passed_over} bytes")
            facts = read_metadata(memoryview(message.payload)[skip:])
        except ProtocolError as error:  # metadata is a courtesy: a stream without it is as good
            self._ignored += 1
            self._media.broken(None, message.passed_over or len(message.payload), str(error))
            return
        if facts is None:
            self._ignored += 1
            return
        encoder, frame_rate = facts.get("encoder"), facts.get("framerate")
        if isinstance(encoder, str) and encoder:
            self.software = printable(encoder)
        if isinstance(frame_rate, float):
            yield from self._media.frame_rate(frame_rate)

    # Commands

    def _command_amf3(self, message: RtmpMessage) -> Iterator[Event]:
        return self._perform(read_command(amf3_body(message.payload)), message)

    def _command_amf0(self, message: RtmpMessage) -> Iterator[Event]:
        return self._perform(read_command(message.payload), message)

    def _perform(self, command: Command, message: RtmpMessage) -> Iterator[Event]:
        self._chunks.steps -= amf0.steps(message.payload)
        perform = _PERFORM.get(command.name)
        if perform is None:
            self._ignored += 1
        else:
            yield from perform(self, command, message) or ()

    def _connect(self, command: Command, message: RtmpMessage) -> Iterator[Event]:
        if self._connected:
            raise ProtocolError("a second connect")
        facts = command.members()
        app = text_of(facts, "app")
        self.software = printable(text_of(facts, "flashVer"))
        path, self._params = app_and_params(app, text_of(facts, "tcUrl"))
        self._writer.window(_WINDOW)
        self._writer.peer_bandwidth(_WINDOW)
        self._writer.chunk_size(_CHUNK_SIZE)
        if self._authenticator and path.split("/")[0] == self._authenticator.app:
            verdict = self._authenticator.judge(raw_query(app), self._address, message.arrival)
            if isinstance(verdict, ChallengeRefused):
                self._writer.command("_error", command.transaction, None, connect_rejected(verdict.description))
                self.stage = SessionPhase.OVER
                yield Dismissed(verdict.delay, verdict.failed)
                return
            self._user = verdict.user
            self._params = {"app": path}  # the answer to the challenge is nobody's parameter
        self._connected = True
        properties: Value = {"fmsVer": "FMS/3,5,7,7009", "capabilities": 31.0, "mode": 1.0}
        self._writer.command("_result", command.transaction, properties, connect_accepted(facts))

    def _answer(self, command: Command, message: RtmpMessage) -> None:
        """Commands that want to hear that all is well."""
        if command.transaction:
            self._writer.command("_result", command.transaction, None, None)

    def _announce(self, command: Command, message: RtmpMessage) -> None:
        """FCPublish: the name is ours to know at publish; some clients wait for onFCPublish."""
        if command.transaction:
            self._writer.command("_result", command.transaction, None, None)
            info: Value = {"level": "status", "code": "NetStream.Publish.Start", "description": ""}
            self._writer.command("onFCPublish", 0, None, info)

    def _announce_end(self, command: Command, message: RtmpMessage) -> None:
        """FCUnpublish, before deleteStream. Not answered: ffmpeg closes without reading, and its kernel answers with a reset that
        destroys what we have not read yet."""
        self.ending = True

    def _create_stream(self, command: Command, message: RtmpMessage) -> None:
        self._need_connection()
        self._streams += 1
        if self._streams > _MAX_STREAMS:
            raise ProtocolError(f"more than {_MAX_STREAMS} streams")
        self._writer.command("_result", command.transaction, None, float(self._streams))

    def _publish(self, command: Command, message: RtmpMessage) -> Iterator[Event]:
        self._need_connection()
        if self.stage is not SessionPhase.OPENING:
            self._writer.status(message.stream_id, "error", "NetStream.Publish.BadName", "This connection publishes already.")
            return
        key, params = name_and_params(command.text(1), "" if self._user else self._params["app"])
        if not key:
            self._writer.status(message.stream_id, "error", Reason.UNAUTHORIZED.rtmp_code, NO_KEY)
            self.stage = SessionPhase.OVER
            yield Broken(ProtocolError("publish without a name"), told=True)
            return
        self.stage, self._stream_id = SessionPhase.HELD, message.stream_id
        yield PublishRequested(Credential(key, self._user), {**self._params, **params, "app": self._params["app"]})

    def _play(self, command: Command, message: RtmpMessage) -> None:
        self._writer.status(message.stream_id, "error", "NetStream.Play.Failed", "This address takes streams and gives none.")

    def _end_stream(self, command: Command, message: RtmpMessage) -> Iterator[Event]:
        # The argument of deleteStream is a number, text (GStreamer) or missing: there is one stream, so it does not matter.
        if self.stage is SessionPhase.LIVE:
            self.stage = SessionPhase.OVER
            yield from self._media.settle(None)
            yield StreamEnded()

    def _need_connection(self) -> None:
        if not self._connected:
            raise ProtocolError("a command before connect")


_Take: TypeAlias = Callable[[ServerSession, RtmpMessage], Iterable[Event] | None]
_TAKE: dict[int, _Take] = {
    MessageType.SET_CHUNK_SIZE: ServerSession._set_chunk_size,
    MessageType.ABORT: ServerSession._abort,
    MessageType.ACKNOWLEDGEMENT: lambda session, message: None,  # told us, and no matter to us
    MessageType.USER_CONTROL: ServerSession._user_control,
    MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE: ServerSession._set_window,
    MessageType.SET_PEER_BANDWIDTH: lambda session, message: None,
    MessageType.AUDIO: ServerSession._audio,
    MessageType.VIDEO: ServerSession._video,
    MessageType.DATA_AMF3: ServerSession._data_amf3,
    MessageType.COMMAND_AMF3: ServerSession._command_amf3,
    MessageType.DATA_AMF0: ServerSession._data,
    MessageType.COMMAND_AMF0: ServerSession._command_amf0,
    MessageType.AGGREGATE: ServerSession._aggregate,
}
_Perform: TypeAlias = Callable[[ServerSession, Command, RtmpMessage], Iterator[Event] | None]
_PERFORM: dict[str, _Perform] = {
    "connect": ServerSession._connect,
    "releaseStream": ServerSession._answer,
    "FCPublish": ServerSession._announce,
    "FCUnpublish": ServerSession._announce_end,
    "_checkbw": ServerSession._answer,
    "getStreamLength": ServerSession._answer,
    "createStream": ServerSession._create_stream,
    "publish": ServerSession._publish,
    "play": ServerSession._play,
    "deleteStream": ServerSession._end_stream,
    "closeStream": ServerSession._end_stream,
}
