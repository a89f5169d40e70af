"""Runs arrive as the packets they are, cut by the kernel or one by one; nothing that a socket says is raised."""

import errno
import socket
from collections.abc import Iterator

import pytest

from protocols.webrtc.transport.egress import Egress


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


class Unwilling(socket.socket):
    """A real socket whose kernel or network card refuses to cut, with the error given."""

    refusal = errno.EIO
    refusals = 0

    def sendmsg(self, *arguments: object) -> int:
        self.refusals += 1
        raise OSError(self.refusal, "refused")


@pytest.fixture
def unwilling() -> Iterator[Unwilling]:
    with Unwilling(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        yield sock


RUN = b"".join(bytes((65 + index,)) * 1200 for index in range(16)) + b"end"
PACKETS = [RUN[begin : begin + 1200] for begin in range(0, len(RUN), 1200)]


def test_a_run_arrives_as_separate_packets_by_one_call(egress: Egress, sink: socket.socket) -> None:
    assert egress.segmentation
    assert egress.send(memoryview(RUN), 1200, sink.getsockname())
    assert [sink.recv(2048) for _ in PACKETS] == PACKETS
    assert (egress.sent, egress.dropped, egress.errors) == (17, 0, 0)


def test_one_packet_goes_as_it_is(egress: Egress, sink: socket.socket) -> None:
    assert egress.send(memoryview(b"audio"), 5, sink.getsockname())
    assert sink.recv(2048) == b"audio"
    assert egress.sent == 1


def test_without_segmentation_the_same_packets_arrive(egress: Egress, sink: socket.socket) -> None:
    egress.segmentation = False
    assert egress.send(memoryview(RUN), 1200, sink.getsockname())
    assert [sink.recv(2048) for _ in PACKETS] == PACKETS
    assert egress.sent == 17


@pytest.mark.parametrize(
    ("refusal", "sticky"),
    [(errno.EIO, True), (errno.ENOPROTOOPT, True), (errno.EINVAL, False), (errno.EMSGSIZE, False)],
)
def test_a_refused_run_is_sent_packet_by_packet(unwilling: Unwilling, sink: socket.socket, refusal: int, sticky: bool) -> None:
    unwilling.refusal = refusal
    egress = Egress(unwilling)
    for _ in range(2):
        assert egress.send(memoryview(RUN), 1200, sink.getsockname())
        assert [sink.recv(2048) for _ in PACKETS] == PACKETS
    assert unwilling.refusals == (1 if sticky else 2)
    assert (egress.sent, egress.errors) == (34, 0)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_queue_drops_the_run_and_tries_nothing_else(unwilling: Unwilling, sink: socket.socket, code: int) -> None:
    unwilling.refusal = code
    egress = Egress(unwilling)
    assert not egress.send(memoryview(RUN), 1200, sink.getsockname())
    assert (egress.sent, egress.dropped, egress.errors) == (0, 17, 0)
    assert egress.segmentation


def test_a_bad_address_counts_and_ends_nothing(egress: Egress, sink: socket.socket) -> None:
    assert not egress.send(memoryview(RUN), 1200, ("127.0.0.1", 0))
    assert not egress.send(memoryview(b"audio"), 5, ("127.0.0.1", 0))
    assert egress.errors == 18
    assert egress.send(memoryview(RUN), 1200, sink.getsockname())
    assert [sink.recv(2048) for _ in PACKETS] == PACKETS


def test_a_closed_socket_is_counted_too(egress: Egress) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        closed = Egress(sock)
    assert not closed.send(memoryview(RUN), 1200, ("127.0.0.1", 9))
    assert closed.errors == 17


def test_ipv6(sink: socket.socket) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as far, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as near:
        far.bind(("::1", 0))
        far.settimeout(5)
        assert Egress(near).send(memoryview(RUN), 1200, far.getsockname())
        assert [far.recv(2048) for _ in PACKETS] == PACKETS


def test_a_segment_beyond_any_mtu_is_our_mistake(egress: Egress) -> None:
    with pytest.raises(ValueError, match="segment"):
        egress.send(memoryview(bytes(4000)), 1501, ("127.0.0.1", 9))
