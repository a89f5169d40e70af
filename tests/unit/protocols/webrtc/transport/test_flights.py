"""How often DTLS goes to an address that has not answered."""

from protocols.webrtc.transport.flights import MOST, Flights


def record(kind: int, message: int) -> bytes:
    return bytes((kind, 0xFE, 0xFD)) + bytes(10) + bytes((message,)) + bytes(50)


CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, CIPHER, ALERT = (
    record(22, 1),
    record(22, 2),
    record(22, 11),
    record(20, 1),
    record(21, 2),
)


def test_one_flight_goes_out_three_times_whatever_else_comes() -> None:
    flights = Flights()
    taken = [flights.take(SERVER_HELLO) for _ in range(1000)]
    assert taken.count(True) == MOST == 3


def test_the_next_flight_of_a_handshake_counts_by_itself() -> None:
    for handshake in ((CLIENT_HELLO, CERTIFICATE), (SERVER_HELLO, CIPHER)):
        flights = Flights()
        assert [flights.take(flight) for flight in handshake for _ in range(4)] == [True, True, True, False] * 2


def test_all_that_can_be_made_up_is_bounded_too() -> None:
    flights = Flights()
    everything = [record(kind, message) for kind in range(256) for message in range(256)] + [b"", b"\x16", ALERT]
    assert sum(flights.take(each) for each in everything * 5) <= 24
