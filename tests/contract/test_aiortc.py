"""The private names and habits of aiortc that `webrtc/transport/dtls.py` stands on: a new version that changes one fails here first."""

import asyncio
import inspect
from importlib.metadata import version

import pylibsrtp
import pytest
from aiortc import rtcdtlstransport
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsParameters, RTCDtlsTransport
from OpenSSL import SSL


class SilentPath:
    role = "controlled"

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def _recv(self) -> bytes:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def _send(self, data: bytes) -> None:
        self.sent.append(data)


def test_the_pinned_version() -> None:
    assert version("aiortc") == "1.16.0"


def test_what_is_subclassed_and_imported_has_its_shape() -> None:
    assert list(inspect.signature(RTCCertificate).parameters) == ["key", "cert"]
    assert list(inspect.signature(RTCCertificate._create_ssl_context).parameters) == ["self", "srtp_profiles"]
    assert hasattr(rtcdtlstransport, "SRTPProtectionProfile")
    assert list(inspect.signature(RTCDtlsTransport).parameters) == ["transport", "certificates"]


def test_the_context_may_be_shared_and_has_no_tickets() -> None:
    context = RTCCertificate.generateCertificate()._create_ssl_context(rtcdtlstransport.SRTP_PROFILES)
    assert isinstance(context, SSL.Context)
    assert context.set_options(0) & SSL.OP_NO_TICKET


async def test_a_transport_before_its_handshake() -> None:
    transport = RTCDtlsTransport(SilentPath(), [RTCCertificate.generateCertificate()])  # type: ignore[arg-type]
    assert transport.state == "new"
    assert {transport._task, transport._tx_srtp, transport._rx_srtp} == {None}
    await transport.stop()  # says nothing, waits for nothing


async def test_the_role_is_set_before_start_and_decides_who_speaks_first() -> None:
    path = SilentPath()
    transport = RTCDtlsTransport(path, [RTCCertificate.generateCertificate()])  # type: ignore[arg-type]
    transport._set_role("client")
    fingerprints = RTCCertificate.generateCertificate().getFingerprints()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await transport.start(RTCDtlsParameters(fingerprints))
    assert transport.state == "connecting"
    assert path.sent[0][0] == 22  # a handshake record, in one datagram
    await transport.stop()
    assert {datagram[0] for datagram in path.sent} == {22}  # amid the handshake there is no goodbye


def test_srtp_sessions_are_pylibsrtps() -> None:
    assert vars(rtcdtlstransport)["Session"] is pylibsrtp.Session


def test_no_fingerprint_is_an_assertion() -> None:
    transport = RTCDtlsTransport(SilentPath(), [RTCCertificate.generateCertificate()])  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        asyncio.run(transport.start(RTCDtlsParameters([])))
