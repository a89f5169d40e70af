"""Who is let in at the HTTP port, and who makes room."""

from ipaddress import ip_network

import pytest

from gateway.api.framework.connections import KEPT, ClientConnection, ClientConnections, ConnectionLimits

PLACES = 8


class Crowd:
    """Connections that notes who was cut off."""

    def __init__(self, per_address: int = 100) -> None:
        self.connections = ClientConnections(ConnectionLimits(PLACES, per_address), (ip_network("10.0.0.0/8"),))
        self.evicted: list[int] = []
        self._came = 0

    def enter(self, host: str = "") -> ClientConnection | None:
        number = self._came
        self._came += 1
        return self.connections.enter(host or f"198.51.100.{number}", lambda: self.evicted.append(number))

    def answering(self, host: str = "") -> ClientConnection:
        connection = self.enter(host)
        assert connection is not None
        self.connections.began(connection)
        return connection


def test_who_has_waited_longest_without_asking_makes_room() -> None:
    crowd = Crowd()
    asked = crowd.answering()
    for _ in range(PLACES - 1):
        assert crowd.enter() is not None
    last = crowd.enter()
    assert last is not None
    assert not last.kept
    assert crowd.evicted == [1], "not the one that is being answered"
    crowd.connections.answered(asked)
    for _ in range(PLACES):
        assert crowd.enter() is not None
    assert crowd.evicted == [*range(1, PLACES + 1), 0], "who was answered waits anew"
    assert crowd.connections.open == PLACES
    assert crowd.connections.ended["evicted"] == PLACES + 1


def test_beyond_the_places_a_few_are_kept_for_health_and_then_there_is_none() -> None:
    crowd = Crowd()
    all_there = [crowd.answering() for _ in range(PLACES)]
    kept = [crowd.answering() for _ in range(KEPT)]
    assert not any(each.kept for each in all_there)
    assert all(each.kept for each in kept)
    assert crowd.enter() is None
    assert crowd.connections.ended["full"] == 1
    assert crowd.connections.open == PLACES + KEPT
    assert crowd.evicted == []
    for each in (*all_there, *kept[1:]):
        crowd.connections.leave(each)
        crowd.connections.leave(each)
    crowd.connections.answered(kept[0])
    crowd.connections.began(kept[0])
    assert not kept[0].kept, "there is room for it now"
    assert crowd.connections.open == 1


@pytest.mark.parametrize("hosts", [["203.0.113.1"] * 9, ["::ffff:203.0.113.1"] * 9, [f"2001:db8:1:2::{n:x}" for n in range(9)]])
def test_one_address_has_its_share(hosts: list[str]) -> None:
    crowd = Crowd(per_address=3)
    connections = [crowd.enter(host) for host in hosts]
    assert [each is not None for each in connections] == [True] * 3 + [False] * 6
    assert crowd.connections.ended["address_full"] == 6
    assert crowd.enter("203.0.113.2") is not None
    assert connections[0] is not None
    crowd.connections.leave(connections[0])
    assert crowd.enter(hosts[0]) is not None


def test_a_trusted_proxy_brings_more_than_one_client() -> None:
    crowd = Crowd(per_address=1)
    assert all(crowd.enter("::ffff:10.1.2.3") is not None for _ in range(PLACES))


def test_what_was_evicted_while_its_request_came_holds_no_place() -> None:
    crowd = Crowd()
    connections = [crowd.enter() for _ in range(PLACES + 1)]
    assert crowd.evicted == [0]
    assert connections[0] is not None
    crowd.connections.began(connections[0])
    crowd.connections.answered(connections[0])
    assert crowd.connections.open == PLACES
