import pytest

from protocols.errors import Reason, Rejected
from protocols.rate_limit import SECOND
from protocols.srt.address import Address, pack_sockaddr, unpack_sockaddr
from protocols.srt.admission import Access, CallerAdmission, Handshake, LookUpBudget, Reservation
from protocols.srt.statistics import LinkStatistics, SrtStats
from protocols.srt.streamid import StreamId


def reservation(at: int) -> Reservation:
    return Reservation(StreamId(key="k"), Access(), Address("192.0.2.1", 9), at)


def admission(max_pending: int = 8) -> CallerAdmission:
    return CallerAdmission(rate=2, burst=3, expiry_ns=10 * SECOND, max_pending=max_pending, repeated_ns=2 * SECOND)


def test_calls_beyond_the_burst_wait_for_the_rate() -> None:
    gate = admission()
    for _ in range(3):
        gate.check_rate("192.0.2.1", 0)
    with pytest.raises(Rejected) as refusal:
        gate.check_rate("192.0.2.1", 0)
    assert refusal.value.reason is Reason.TOO_MANY_REQUESTS
    with pytest.raises(Rejected):
        gate.check_rate("::ffff:192.0.2.1", 0)
    gate.check_rate("192.0.2.2", 0)
    gate.check_rate("192.0.2.1", SECOND // 2)
    with pytest.raises(Rejected):
        gate.check_rate("192.0.2.1", SECOND // 2)


def test_reservations_are_taken_once_or_expire() -> None:
    gate = admission()
    gate.reserve(1, reservation(0))
    gate.reserve(2, reservation(5 * SECOND))
    assert gate.take(1) is not None
    assert gate.take(1) is None
    gate.expire(14 * SECOND)
    assert (gate.expired, len(gate)) == (0, 1)
    gate.expire(16 * SECOND)
    assert (gate.expired, len(gate)) == (1, 0)


def test_reservations_are_bounded() -> None:
    gate = admission(max_pending=1)
    gate.reserve(1, reservation(0))
    with pytest.raises(Rejected) as refusal:
        gate.reserve(2, reservation(0))
    assert refusal.value.reason.srt_code == 1402


def test_what_repeats_a_refused_handshake_is_refused_alike_and_nobody_else() -> None:
    gate, caller = admission(), Address("192.0.2.1", 9)
    refused = Handshake(caller, b"live")
    gate.refuse(refused, Reason.NOT_FOUND, 0)
    assert gate.refused(Handshake(Address("192.0.2.1", 9), b"live"), 2 * SECOND - 1) is Reason.NOT_FOUND
    assert gate.refused(refused, 2 * SECOND) is None
    for another in (
        Handshake(Address("192.0.2.1", 8), b"live"),
        Handshake(caller, b"other"),
        Handshake(caller, b"live", "key"),
    ):
        assert gate.refused(another, 1) is None


def test_the_refusals_that_are_remembered_are_bounded() -> None:
    gate = admission()
    for port in range(2000):
        gate.refuse(Handshake(Address("192.0.2.1", port), b"live"), Reason.NOT_FOUND, 0)
    remembered = [gate.refused(Handshake(Address("192.0.2.1", port), b"live"), 1) for port in range(2000)]
    assert remembered == [None] * 976 + [Reason.NOT_FOUND] * 1024


def test_a_port_waits_for_answers_a_share_of_the_time() -> None:
    budget = LookUpBudget(40, share=0.1)
    assert budget.left(1000) == 40
    budget.spent(1000, 1030)
    assert budget.left(1299) == 0
    assert budget.left(1300) == 40
    waited, now = 0, 2000
    while now < 100_000:  # somebody calls all the time, whose answer does not come
        if left := budget.left(now):
            budget.spent(now, now + left)
            waited, now = waited + left, now + left
        now += 1
    assert 0.09 < waited / (now - 2000) <= 0.1


@pytest.mark.parametrize("passphrase", ["short", "x" * 80])
def test_a_passphrase_has_10_to_79_bytes(passphrase: str) -> None:
    with pytest.raises(ValueError, match="10 to 79"):
        Access(passphrase)
    assert "secret-secret" not in repr(Access("secret-secret"))


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_addresses_go_both_ways(host: str) -> None:
    assert unpack_sockaddr(pack_sockaddr(host, 9000)) == Address(host, 9000)


def test_a_mapped_address_is_read_as_ipv4() -> None:
    address = unpack_sockaddr(pack_sockaddr("::ffff:192.0.2.7", 9000))
    assert str(address) == "192.0.2.7:9000"
    assert str(Address("2001:db8::7", 1)) == "[2001:db8::7]:1"


def link(packets: int, lost: int, round_trip_ms: float = 50, latency_ms: int = 120) -> LinkStatistics:
    return LinkStatistics(packets, packets * 1316, lost, 0, 0, 0, 0, 0, round_trip_ms, latency_ms, 100, 10, 4.0, 12.0)


def test_totals_go_on_over_reconnections() -> None:
    stats = SrtStats()
    stats.add_link(link(100, 5), None)
    stats.add_link(link(150, 6), link(100, 5))
    stats.add_link(link(10, 1), None)
    assert (stats.packets_received, stats.packets_lost) == (160, 7)


def test_latency_below_three_round_trips_is_advised_against() -> None:
    stats = SrtStats()
    stats.add_link(link(1, 0, 40, 120), None)
    assert stats.advice == ""
    stats.add_link(link(1, 0, 50.5, 120), None)
    assert "set latency to 152 ms or more" in stats.advice
    assert stats.network_latency_ns == 145_250_000


def test_a_reservation_whose_socket_has_ended_is_given_back_at_once_with_its_address() -> None:
    gate = admission()
    for socket in (1, 2):
        gate.reserve(socket, reservation(5 * SECOND))
    (broken,) = gate.break_off(lambda socket: socket == 1)
    assert str(broken.address)
    assert (len(gate), gate.expired, gate.take(1)) == (1, 1, None)
    assert gate.break_off(lambda socket: socket == 1) == []
    assert gate.take(2) is not None
