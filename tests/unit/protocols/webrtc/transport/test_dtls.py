"""DTLS between two ends joined in memory: both roles, both kinds of certificate, loss, junk and the goodbye."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pylibsrtp
import pytest
from aiortc.rtcdtlstransport import generate_certificate
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from protocols.errors import ProtocolError
from protocols.webrtc.transport.dtls import Certificate, DtlsSession
from tests.unit.protocols.webrtc.clients import rsa_certificate

ALERT = 21  # the type of a record (RFC 5246 §6.2.1)

Filter = Callable[[bytes], bytes | None]


def fingerprints(certificate: Certificate) -> list[tuple[str, str]]:
    algorithm, value = certificate.fingerprint.split()
    return [(algorithm, value)]


class Pair:
    """A client and a server, and what the path between them does to each datagram."""

    def __init__(
        self, client: Certificate, server: Certificate, to_server: Filter = lambda d: d, to_client: Filter = lambda d: d
    ):
        self.client_certificate, self.server_certificate = client, server
        self.sent: list[bytes] = []
        self.client = DtlsSession(client, active=True, send=lambda d: self._pass(self.server, to_server(d)))
        self.server = DtlsSession(server, active=False, send=lambda d: self._pass(self.client, to_client(d)))

    def _pass(self, receiver: DtlsSession, datagram: bytes | None) -> None:
        if datagram is not None:
            self.sent.append(datagram)
            receiver.receive(datagram)

    async def connect(self) -> Any:
        return await within(
            asyncio.gather(
                self.client.handshake(fingerprints(self.server_certificate)),
                self.server.handshake(fingerprints(self.client_certificate)),
            )
        )

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.server.aclose()


async def within(awaitable: Awaitable[Any], timeout: float = 10) -> Any:
    async with asyncio.timeout(timeout):
        return await awaitable


@pytest.mark.parametrize("client", [Certificate.generate, rsa_certificate])
@pytest.mark.parametrize("server", [Certificate.generate, rsa_certificate])
async def test_peers_of_both_kinds_connect_and_agree_on_keys(client: Any, server: Any) -> None:
    pair = Pair(client(), server())
    (client_out, client_in), (server_out, server_in) = await pair.connect()
    packet = b"\x80\x60\x00\x01" + bytes(8) + b"payload"
    assert server_in.unprotect(client_out.protect(packet)) == packet
    assert client_in.unprotect(server_out.protect(packet)) == packet
    await pair.aclose()


async def test_a_packet_is_sent_again_and_taken_late_within_the_window_of_repair() -> None:
    pair = Pair(Certificate.generate(), Certificate.generate())
    (outbound, _), (_, inbound) = await pair.connect()
    packets = [b"\x80\x60" + number.to_bytes(2, "big") + bytes(8) + b"payload" for number in range(1025)]
    sent = [outbound.protect(packet) for packet in packets]
    for protected in sent[2:]:
        inbound.unprotect(protected)
    assert outbound.protect(packets[2]) == sent[2]
    assert inbound.unprotect(sent[1]) == packets[1]
    with pytest.raises(pylibsrtp.Error, match="too old"):
        inbound.unprotect(sent[0])
    with pytest.raises(pylibsrtp.Error, match="replay"):
        inbound.unprotect(sent[1])
    await pair.aclose()


async def test_one_certificate_serves_many_peers() -> None:
    server = Certificate.generate()
    for _ in range(3):
        pair = Pair(Certificate.generate(), server)
        await pair.connect()
        await pair.aclose()


async def test_a_lost_first_flight_goes_out_again_within_the_second() -> None:
    lost = 0

    def lose_first(datagram: bytes) -> bytes | None:
        nonlocal lost
        lost += 1
        return None if lost == 1 else datagram

    pair = Pair(Certificate.generate(), Certificate.generate(), to_server=lose_first)
    await within(pair.connect(), 0.9)  # OpenSSL's own timer fires after 1 s
    await pair.aclose()


async def test_every_second_datagram_lost_still_connects() -> None:
    counts = [0, 0]

    def losing(side: int) -> Filter:
        def pass_some(datagram: bytes) -> bytes | None:
            counts[side] += 1
            return None if counts[side] % 2 else datagram

        return pass_some

    pair = Pair(Certificate.generate(), Certificate.generate(), losing(0), losing(1))
    await pair.connect()
    await pair.aclose()


async def test_nothing_is_sent_again_once_connected() -> None:
    pair = Pair(Certificate.generate(), Certificate.generate())
    await pair.connect()
    before = len(pair.sent)
    with pytest.raises(TimeoutError):
        await within(pair.server.closed(), 0.5)
    assert len(pair.sent) == before
    await pair.aclose()


@pytest.mark.parametrize("closing", ["client", "server"])
async def test_the_other_end_sees_the_goodbye(closing: str) -> None:
    pair = Pair(Certificate.generate(), Certificate.generate())
    await pair.connect()
    ends = {"client": pair.client, "server": pair.server}
    await ends.pop(closing).aclose()
    (other,) = ends.values()
    await within(other.closed())
    await pair.aclose()


async def test_the_other_end_sees_the_goodbye_of_one_that_is_cancelled_as_it_says_it() -> None:
    """As is a peer that two decisions end one after the other."""
    pair = Pair(Certificate.generate(), Certificate.generate())
    await pair.connect()
    closing = asyncio.create_task(pair.client.aclose())
    asyncio.get_running_loop().call_soon(closing.cancel)  # after its first step
    await asyncio.wait({closing})
    assert closing.cancelled()
    await within(pair.server.closed())
    await pair.aclose()


async def test_a_certificate_that_the_offer_did_not_name_is_refused() -> None:
    pair = Pair(Certificate.generate(), Certificate.generate())
    client = asyncio.create_task(pair.client.handshake(fingerprints(pair.server_certificate)))
    with pytest.raises(ProtocolError, match="certificate"):
        await within(pair.server.handshake(fingerprints(Certificate.generate())))
    await within(client)
    await pair.server.aclose()
    await within(pair.client.closed())  # so that it need not wait for an answer to its media
    await pair.client.aclose()


async def test_the_offers_fingerprints_count_whatever_their_case_and_each_that_can_prove_anything_must_be_right() -> None:
    certificate = Certificate.generate()
    (_, value), *_ = fingerprints(certificate)
    for offered in ([("SHA-256", value.lower())], [("sha-1", "AA"), ("sha-256", value)]):
        pair = Pair(certificate, Certificate.generate())
        await within(
            asyncio.gather(pair.client.handshake(fingerprints(pair.server_certificate)), pair.server.handshake(offered))
        )
        await pair.aclose()
    pair = Pair(certificate, Certificate.generate())
    client = asyncio.create_task(pair.client.handshake(fingerprints(pair.server_certificate)))
    with pytest.raises(ProtocolError, match="certificate"):
        await within(pair.server.handshake([("sha-256", value), ("sha-512", value)]))
    await within(client)
    await pair.aclose()


async def test_a_handshake_that_cannot_succeed_is_refused_with_an_alert() -> None:
    heard: list[bytes] = []
    server = DtlsSession(Certificate.generate(), active=False, send=heard.append)
    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    client = DtlsSession(Certificate.generate(), active=True, send=said.set_result)
    task = asyncio.create_task(client.handshake([]))
    hello = await within(said)
    task.cancel()
    await asyncio.wait({task})
    server.receive(hello.replace(b"\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30\xcc\xa9\xcc\xa8\xc0\x09\xc0\x13", b"\x00\x01" * 8))
    with pytest.raises(ProtocolError):
        await within(server.handshake([]))
    assert heard[-1][0] == 21  # RFC 5246 §7.2
    for end in (client, server):
        await end.aclose()
    assert len(heard) == 1  # and no goodbye: nothing was agreed on


@pytest.mark.parametrize("unusable", [[("sha-1", "AA:BB")], [("md5", "")], [("sha-256", "")], []])
async def test_fingerprints_that_prove_nothing_are_refused(unusable: list[tuple[str, str]]) -> None:
    pair = Pair(Certificate.generate(), Certificate.generate())
    client = asyncio.create_task(pair.client.handshake(fingerprints(pair.server_certificate)))
    with pytest.raises(ProtocolError):
        await within(pair.server.handshake(unusable))
    client.cancel()
    await asyncio.wait({client})
    await pair.aclose()


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16",
        b"\x16\xfe\xfd" + bytes(20),
        b"\x15\xfe\xfd" + bytes(10) + b"\x02\x28",
        b"\x3f" * 1500,
        b"\x14\xfe\xff" + b"\xff" * 40,
    ],
)
async def test_junk_amid_the_handshake_does_not_end_it(junk: bytes) -> None:
    pair = Pair(Certificate.generate(), Certificate.generate())
    pair.server.receive(junk)
    pair.client.receive(junk)
    await pair.connect()
    pair.server.receive(junk)
    with pytest.raises(TimeoutError):
        await within(pair.server.closed(), 0.1)
    await pair.aclose()


@pytest.mark.parametrize("asking", ["client", "server"])
async def test_a_second_handshake_in_one_that_stands_is_refused(asking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Certificate.generate()
    with monkeypatch.context() as patched:
        patched.setattr(SSL, "OP_NO_RENEGOTIATION", 0)
        peers = Certificate.generate()
    answers = asyncio.Queue[bytes]()

    def heard(datagram: bytes) -> bytes:
        answers.put_nowait(datagram)
        return datagram

    pair = Pair(peers, ours, to_client=heard) if asking == "client" else Pair(ours, peers, to_server=heard)
    await pair.connect()
    peer = pair.client if asking == "client" else pair.server
    while not answers.empty():
        answers.get_nowait()
    assert peer._tls is not None
    assert peer._tls.renegotiate()
    with suppress(SSL.WantReadError):
        peer._tls.do_handshake()
    peer._flush(peer._tls)
    assert (await within(answers.get()))[0] == ALERT
    assert answers.empty()
    await pair.aclose()


async def test_a_curve_that_we_do_not_have_fails_as_a_protocol_error() -> None:
    key = ec.generate_private_key(ec.SECP224R1())  # what PyAV's whip muxer presents
    odd = Certificate(key, generate_certificate(key))
    pair = Pair(Certificate.generate(), odd)
    results = await within(
        asyncio.gather(
            pair.client.handshake(fingerprints(odd)),
            pair.server.handshake(fingerprints(pair.client_certificate)),
            return_exceptions=True,
        ),
        15,
    )
    assert any(isinstance(result, ProtocolError) for result in results)
    assert all(isinstance(result, ProtocolError | tuple) for result in results)
    await pair.aclose()


async def test_datagrams_that_nobody_reads_are_bounded() -> None:
    session = DtlsSession(Certificate.generate(), active=False, send=lambda datagram: None)
    taken = [session.receive(b"\x16" * 20) for _ in range(1000)]
    assert taken.count(True) == 32


async def test_closing_before_and_amid_the_handshake() -> None:
    pair = Pair(Certificate.generate(), Certificate.generate(), to_client=lambda datagram: None)
    await pair.server.aclose()
    task = asyncio.create_task(pair.client.handshake(fingerprints(pair.server_certificate)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await pair.client.aclose()


def test_a_certificate_is_renewed_before_it_ends() -> None:
    assert not Certificate.generate().expiring
