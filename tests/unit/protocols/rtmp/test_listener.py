"""The listener on real sockets: lives, refusals, waits, bounds, and the attacks of which others die."""

import asyncio
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from protocols.errors import ProtocolError, Reason, Rejected
from protocols.inbox import Item
from protocols.media import EncodedPacket, TracksChanged
from protocols.rtmp import amf0
from protocols.rtmp.amf0 import Value
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.listener import RtmpListener
from protocols.rtmp.message import MessageType
from protocols.rtmp.publisher import RtmpPublisher
from protocols.rtmp.tls import TlsFiles
from tests.support.waiting import eventually
from tests.unit.protocols.rtmp.listener_process import listening_elsewhere
from tests.unit.protocols.rtmp.peer import (
    HANDSHAKE,
    SERVER_HANDSHAKE_BYTES,
    aac_config,
    aac_frame,
    capture,
    command,
    control,
    message,
    opening,
    read_messages,
)

WAIT_S = 10
MIB = 1 << 20
QUICK = replace(RtmpLimits(), handshake_s=0.2, publish_s=0.2, media_idle_s=0.2, decision_s=0.2)


@asynccontextmanager
async def listening(
    limits: RtmpLimits | None = None, host: str = "127.0.0.1", tls: TlsFiles | None = None
) -> AsyncIterator[RtmpListener]:
    async with (
        asyncio.timeout(30),
        RtmpListener(host, 0, limits=limits, tls=tls, tls_port=0, passwords={"bob": "pw"}.get) as listener,
    ):
        yield listener


class Client:
    """A socket of an encoder."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Does not mind if the server has closed."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            pass

    async def closed(self) -> bytes:
        """Waits for the server to close; what it has said."""
        said = b""
        async with asyncio.timeout(WAIT_S):
            try:
                while data := await self.reader.read(65536):
                    said += data
            except ConnectionError:
                pass
        return said

    async def heard(self, text: bytes) -> None:
        async with asyncio.timeout(WAIT_S):
            await self.reader.readuntil(text)


@asynccontextmanager
async def client(
    port: int, data: bytes = b"", host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    one = Client(reader, writer)
    try:
        await one.send(data)
        yield one
    finally:
        writer.transport.abort()


async def next_publisher(listener: RtmpListener) -> RtmpPublisher:
    async with asyncio.timeout(WAIT_S):
        return await anext(aiter(listener))


async def until(condition: Callable[[], bool]) -> None:
    """Lets the other tasks run until it is so."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  the objects under test have no event for it
            await asyncio.sleep(0.005)


async def collect(publisher: RtmpPublisher) -> list[Item]:
    async with asyncio.timeout(WAIT_S):
        return [item async for item in publisher]


def statuses(said: bytes) -> list[tuple[object, object, object]]:
    found: list[tuple[object, object, object]] = []
    for sent in read_messages(said[SERVER_HANDSHAKE_BYTES:]):
        if sent.type == MessageType.COMMAND_AMF0:
            values = amf0.decode(sent.payload)
            if values[0] == "onStatus" and isinstance(values[-1], dict):
                found.append((values[-1]["level"], values[-1]["code"], values[-1]["description"]))
    return found


async def test_a_whole_life() -> None:
    async with listening() as listener, client(listener.port, capture("ff51_h264_aac")) as encoder:
        publisher = await next_publisher(listener)
        assert (publisher.protocol, publisher.credential.key) == ("rtmp", "ff51")
        assert publisher.remote == "127.0.0.1:{}".format(encoder.writer.get_extra_info("sockname")[1])
        assert len(publisher.id) >= 16
        assert not publisher.request_keyframe()
        await publisher.accept()
        items = await collect(publisher)
        assert sum(isinstance(item, EncodedPacket) for item in items) == 92 + 142
        packet = next(item for item in items if isinstance(item, EncodedPacket))
        assert 0 < packet.begun <= packet.arrival
        stats = publisher.stats
        assert (stats.bytes_received, stats.packets_received) == (len(capture("ff51_h264_aac")), 237)
        assert stats.round_trip_ns > 0
        encoder.writer.close()
        await publisher.aclose()
        await publisher.aclose()
        assert not any(listener.stats.failures().values())


async def test_a_closed_connection_is_an_end_and_a_cut_message_is_not() -> None:
    async with listening() as listener:
        for rest, broken in ((b"", False), (aac_frame(30)[:-2], True)):
            async with client(listener.port, opening() + aac_config() + aac_frame(0) + rest) as encoder:
                publisher = await next_publisher(listener)
                await publisher.accept()
                items = aiter(publisher)
                assert isinstance(await anext(items), TracksChanged)
                assert isinstance(await anext(items), EncodedPacket)
                await encoder.heard(b"NetStream.Publish.Start")
                await encoder.heard(b"publishing stream.\x00\x00\x09")  # with bytes unread its kernel would send a reset
                encoder.writer.close()
                if broken:
                    with pytest.raises(ProtocolError, match="within a message"):
                        await anext(items)
                else:
                    with pytest.raises(StopAsyncIteration):
                        await anext(items)


async def test_a_reset_is_a_protocol_error() -> None:
    async with listening() as listener, client(listener.port, opening() + aac_config()) as encoder:
        publisher = await next_publisher(listener)
        await publisher.accept()
        encoder.writer.get_extra_info("socket").setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER 0
        encoder.writer.transport.abort()
        with pytest.raises(ProtocolError, match="broke"):
            await collect(publisher)


@pytest.mark.parametrize(
    ("reason", "code"), [(Reason.UNAUTHORIZED, "NetStream.Publish.Denied"), (Reason.CONFLICT, "NetStream.Publish.BadName")]
)
async def test_a_refusal_is_heard(reason: Reason, code: str) -> None:
    async with listening() as listener, client(listener.port, opening() + aac_config() * 100) as encoder:
        publisher = await next_publisher(listener)
        closing = asyncio.create_task(publisher.reject(Rejected(reason, "The stream key has expired.")))
        assert statuses(await encoder.closed()) == [("error", code, "The stream key has expired.")]
        await closing
        assert await collect(publisher) == []
        with pytest.raises(ProtocolError):
            await publisher.accept()


async def test_the_end_is_said_and_the_iteration_ends() -> None:
    async with listening() as listener, client(listener.port, opening() + aac_config()) as encoder:
        publisher = await next_publisher(listener)
        await publisher.accept()
        await encoder.heard(b"NetStream.Publish.Start")
        closing = asyncio.create_task(publisher.aclose("The call has ended."))
        await encoder.heard(b"The call has ended.")
        await closing
        await collect(publisher)


async def test_leaving_the_listener_tells_every_encoder() -> None:
    async with listening() as listener:
        async with client(listener.port, opening()) as encoder, client(listener.port, HANDSHAKE) as early:
            publisher = await next_publisher(listener)
            await publisher.accept()
            await early.heard(bytes(1))
            leaving = asyncio.create_task(listener.__aexit__(None, None, None))
            assert b"going down" in await encoder.closed()
            await early.closed()
            await leaving
        assert [publisher async for publisher in listener] == []
        with pytest.raises(OSError, match=r".*"):
            await asyncio.open_connection("127.0.0.1", listener.port)


@pytest.mark.parametrize(
    ("data", "label"),
    [
        pytest.param(b"", "handshake_timeout", id="silent"),
        pytest.param(HANDSHAKE[:1000], "handshake_timeout", id="half a handshake"),
        pytest.param(HANDSHAKE, "publish_timeout", id="no command"),
        pytest.param(HANDSHAKE + command("connect", 1, {"app": "live"}), "publish_timeout", id="no publish"),
        pytest.param(b"GET / HTTP/1.1\r\n", "bad_handshake", id="HTTP"),
        pytest.param(b"\x06", "bad_handshake", id="RTMPE"),
        pytest.param(HANDSHAKE + command("publish", 1, None, "key"), "protocol_error", id="publish before connect"),
    ],
)
async def test_what_never_publishes_is_closed_and_counted(data: bytes, label: str) -> None:
    async with listening(QUICK) as listener, client(listener.port, data) as encoder:
        await encoder.closed()
        await until(lambda: listener.stats.failures()[label] == 1)
        assert sum(listener.stats.failures().values()) == 1


async def test_no_decision_and_no_media_end_the_connection_with_words() -> None:
    async with listening(QUICK) as listener:
        async with client(listener.port, opening()) as encoder:
            await next_publisher(listener)
            assert "in time" in str(statuses(await encoder.closed()))
        async with client(listener.port, opening()) as encoder:
            publisher = await next_publisher(listener)
            await publisher.accept()
            assert "No media" in str(statuses(await encoder.closed()))
            with pytest.raises(ProtocolError, match="No media"):
                await collect(publisher)


async def test_connections_are_capped_by_address_and_in_all() -> None:
    for limits in (replace(RtmpLimits(), connections_per_address=2), replace(RtmpLimits(), connections=2)):
        async with listening(limits) as listener:
            async with client(listener.port, HANDSHAKE) as one, client(listener.port, HANDSHAKE) as two:
                await one.heard(bytes(1))
                await two.heard(bytes(1))
                async with client(listener.port, HANDSHAKE) as three:
                    assert await three.closed() == b""
                assert listener.stats.too_many_connections == 1
            async with client(listener.port, opening()):
                await until(lambda: listener.stats.connections >= 4)


async def test_reading_stops_while_nobody_takes_the_media() -> None:
    """Back-pressure: 64 MiB offered, a bounded part taken, and all of it given once it is asked for."""
    limits = replace(RtmpLimits(), queue_bytes=2 * MIB)
    frame = message(MessageType.AUDIO, b"\xaf\x01" + bytes(60_000), 4, chunk=65536, timestamp=0)
    count = 1000
    async with listening(limits) as listener:
        async with client(listener.port, opening() + control(1, 65536) + aac_config()) as encoder:
            publisher = await next_publisher(listener)
            await publisher.accept()
            sending = asyncio.create_task(encoder.send(frame * count))
            await until(lambda: publisher._connection.filling.high)
            taken = publisher.stats.bytes_received
            assert taken <= 2 * MIB
            items = aiter(publisher)
            assert isinstance(await anext(items), TracksChanged)
            for _ in range(count):
                assert isinstance(await anext(items), EncodedPacket)
            await sending
            assert publisher.stats.bytes_received > count * 60_000


async def test_backlog_is_bounded_in_media_time() -> None:
    async with listening() as listener, client(listener.port, opening() + aac_config()) as encoder:
        publisher = await next_publisher(listener)
        await publisher.accept()
        await encoder.send(b"".join(aac_frame(number * 20) for number in range(52)))
        await until(lambda: publisher._connection.filling.high)
        assert publisher.stats.packets_received <= 53


async def test_pause_stops_reading_and_does_not_count_as_idle() -> None:
    async with listening(QUICK) as listener, client(listener.port, opening() + aac_config()) as encoder:
        publisher = await next_publisher(listener)
        await publisher.accept()
        items = aiter(publisher)
        await anext(items)
        publisher.pause(True)
        await encoder.send(aac_frame(0))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):  # longer than the 0.2 s of idleness that are allowed
                await anext(items)
        publisher.pause(False)
        async with asyncio.timeout(WAIT_S):
            assert isinstance(await anext(aiter(publisher)), EncodedPacket)


async def test_replies_that_nobody_reads_are_bounded() -> None:
    async with listening() as listener, client(listener.port, opening()) as encoder:
        publisher = await next_publisher(listener)
        await publisher.accept()
        encoder.reader._transport.pause_reading()  # type: ignore[attr-defined]
        pings = message(4, b"\x00\x06\x00\x00\x00\x00", 2, 0) * 50_000
        sending = asyncio.gather(*(encoder.send(pings) for _ in range(20)))
        with pytest.raises(ProtocolError, match="does not read"):
            await collect(publisher)
        await sending


async def test_ipv6() -> None:
    async with listening(host="::1") as listener, client(listener.port, opening(), host="::1"):
        publisher = await next_publisher(listener)
        assert publisher.remote.startswith("[::1]:")


async def test_every_address_of_both_families() -> None:
    async with listening(host="") as listener:
        for host, remote in (("127.0.0.1", "127.0.0.1:"), ("::1", "[::1]:")):
            async with client(listener.port, opening(), host=host):
                publisher = await next_publisher(listener)
                assert publisher.remote.startswith(remote)


# The attacks of which pyrtmp dies (S1-S6): the connection ends, memory stays, others are served.


async def other_is_served(port: int) -> None:
    async with client(port, HANDSHAKE + command("connect", 1, {"app": "live"})) as other:
        await other.heard(b"NetConnection.Connect.Success")


def flood_of_partial_messages() -> bytes:
    parts = b"".join(bytes([stream]) + bytes(3) + (4 * MIB).to_bytes(3, "big") + b"\x09" + bytes(4) for stream in range(3, 64))
    return HANDSHAKE + control(1, 65536) + parts + bytes(4 * MIB)


def flood_of_small_partial_messages() -> bytes:
    one = b"".join(
        bytes([stream]) + bytes(3) + (60_000).to_bytes(3, "big") + b"\x14" + bytes(4) + bytes(59_000) for stream in range(3, 33)
    )
    return HANDSHAKE + control(1, 59_000) + one * 4


def one_huge_connect() -> bytes:
    members: dict[str, Value] = {f"k{number}": {"a": [1.0] * 8} for number in range(7000)}
    return HANDSHAKE + control(1, 0xFFFFFF) + message(20, amf0.encode("connect", 1.0, members), 3, 0, chunk=0xFFFFFF)


def deep_connect() -> bytes:
    body = amf0.encode("connect", 1.0) + b"\x03\x00\x01a" * 15_000
    return HANDSHAKE + control(1, 65536) + message(20, body, 3, 0, chunk=65536)


def tiny_chunks() -> bytes:
    return HANDSHAKE + control(1, 1) + message(20, bytes(40_000), 3, 0, chunk=1)


def one_big_message() -> bytes:
    return HANDSHAKE + control(1, 0xFFFFFF) + b"\x03" + bytes(3) + b"\xff\xff\xff\x14" + bytes(4) + bytes(16 * MIB)


def many_chunk_streams() -> bytes:
    return HANDSHAKE + b"".join(b"\x01" + number.to_bytes(2, "little") + bytes(11) for number in range(20_000))


ATTACKS = (
    flood_of_partial_messages,
    flood_of_small_partial_messages,
    one_huge_connect,
    deep_connect,
    tiny_chunks,
    one_big_message,
    many_chunk_streams,
)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_attack_before_publish(attack: Callable[[], bytes]) -> None:
    data = attack()
    async with listening_elsewhere() as listener:
        await other_is_served(listener.port)
        before = listener.peak()
        async with client(listener.port) as attacker:
            sending = asyncio.create_task(attacker.send(data))
            await other_is_served(listener.port)
            await attacker.closed()
            await sending
        await other_is_served(listener.port)
        assert listener.peak() - before < MIB
        assert (await listener.failures())["protocol_error"] == 1


async def test_aborted_messages_swallow_nothing() -> None:
    """S2: a message given up, then valid media: it is received, and nothing is held."""
    given_up = b"\x04" + bytes(3) + (200_000).to_bytes(3, "big") + b"\x08" + bytes(4) + bytes(128)
    async with listening() as listener, client(listener.port, opening() + given_up * 50 + aac_config() + aac_frame(0)):
        publisher = await next_publisher(listener)
        await publisher.accept()
        items = aiter(publisher)
        assert isinstance(await anext(items), TracksChanged)
        assert isinstance(await anext(items), EncodedPacket)
        assert not publisher._connection.session.unfinished


async def test_unfinished_media_is_bounded_after_accept() -> None:
    one = b"".join(
        bytes([stream]) + bytes(3) + (8 * MIB).to_bytes(3, "big") + b"\x09" + bytes(4) + bytes(8 * MIB - 1)
        for stream in (6, 7, 8)
    )
    async with listening() as listener, client(listener.port, opening() + control(1, 8 * MIB - 1)) as encoder:
        publisher = await next_publisher(listener)
        await publisher.accept()
        sending = asyncio.create_task(encoder.send(one))
        with pytest.raises(ProtocolError, match="unfinished"):
            await collect(publisher)
        await sending


async def test_many_idle_sockets_cost_little_and_end() -> None:
    """S5: half handshakes."""
    async with listening_elsewhere(handshake_s=1.5, connections_per_address=400) as listener:
        await other_is_served(listener.port)
        before = listener.peak()
        streams = []
        for _ in range(3):
            streams += [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(100)]
            for _, writer in streams[-100:]:
                writer.write(HANDSHAKE[:1500])
            await other_is_served(listener.port)  # and so are those before it accepted: the kernel's queue is short
        assert listener.peak() - before < 24 * MIB

        async def all_ended() -> bool:
            return (await listener.failures())["handshake_timeout"] == len(streams)

        await eventually(all_ended, within_s=WAIT_S)
        for _, writer in streams:
            writer.transport.abort()


async def test_nothing_of_the_peers_is_logged_raw(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    name = "x\n2026-01-01 CRITICAL forged\x1b[31m"
    async with listening() as listener:
        data = HANDSHAKE + command(name, 1, None) + command("connect", 1, {"app": name}) + command("connect", 2, {"app": name})
        async with client(listener.port, data) as encoder:
            await encoder.closed()
        await until(lambda: listener.stats.protocol_error == 1)
    assert [record for record in caplog.records if record.name.startswith("protocols")]
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert "forged" not in caplog.text


async def test_wrong_passwords_close_and_slow_down() -> None:
    guess = {"app": "auth?authmod=adobe&user=bob&challenge=0&response=guess&opaque=x"}
    async with listening() as listener:
        for attempt in range(4):
            async with client(listener.port, HANDSHAKE + command("connect", 1, dict(guess))) as encoder:
                began = asyncio.get_running_loop().time()
                assert b"authfailed" in await encoder.closed()
                waited = asyncio.get_running_loop().time() - began
                assert (waited >= 2) == (attempt == 3)
        assert listener.stats.auth_failed == 4


def make_certificate(folder: Path, name: str) -> None:
    subject = ["-subj", f"/CN={name}", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    out = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", "req", "-x509", *subject, *out], check=True, capture_output=True, timeout=30)


def name_of(encoder: Client) -> str:
    certificate = encoder.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return "one" if b"one" in certificate else "two"


async def test_rtmps_and_a_renewed_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    make_certificate(tmp_path, "one")
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")

    def touched(change: Callable[[], object]) -> None:
        change()
        os.utime(files.certificate, ns=(1, os.stat(files.certificate).st_mtime_ns + 1))

    async with listening(tls=files) as listener:
        assert listener.tls_port not in (0, listener.port)
        async with client(listener.tls_port, capture("ff51_h264_aac"), tls=trusting) as encoder:
            publisher = await next_publisher(listener)
            assert (publisher.protocol, name_of(encoder)) == ("rtmps", "one")
            await publisher.accept()
            assert sum(isinstance(item, EncodedPacket) for item in await collect(publisher)) == 92 + 142
            assert publisher.stats.round_trip_ns > 0
        touched(lambda: Path(files.certificate).write_text("no certificate"))
        for _ in range(2):
            async with client(listener.tls_port, tls=trusting) as encoder:
                assert name_of(encoder) == "one"
        assert sum("old one stays" in record.getMessage() for record in caplog.records) == 1
        touched(lambda: make_certificate(tmp_path, "two"))
        async with client(listener.tls_port, opening(), tls=trusting) as encoder:
            assert name_of(encoder) == "two"
            publisher = await next_publisher(listener)
            refusing = asyncio.create_task(publisher.reject(Rejected(Reason.NOT_FOUND, "No such call.")))
            assert "No such call." in str(statuses(await encoder.closed()))
            await refusing


async def test_rtmps_counts_what_is_no_tls(tmp_path: Path) -> None:
    make_certificate(tmp_path, "one")
    async with listening(QUICK, tls=TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")) as listener:
        async with client(listener.tls_port, HANDSHAKE) as encoder:
            await encoder.closed()
        async with client(listener.tls_port) as encoder:
            await encoder.closed()
        await until(lambda: sum(listener.stats.failures().values()) == 2)


async def test_a_certificate_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r".*"):
        await RtmpListener("127.0.0.1", 0, tls=TlsFiles(tmp_path / "no.pem", tmp_path / "no.pem")).__aenter__()
