"""Places are kept for those who have shown something, and an address has few peers that have not connected."""

import pytest

from protocols.errors import Reason, Rejected
from protocols.webrtc.transport.places import Place, Places, Standing

MANY = 1 << 20


def taken(places: Places, standing: Standing, address: str = "") -> list[Place]:
    """As many as there are, or a thousand."""
    made: list[Place] = []
    try:
        while len(made) < 1000:
            made.append(places.take(standing, address))
    except Rejected:
        pass
    return made


@pytest.mark.parametrize("most", [1, 2, 10, 60, 400])
def test_strangers_leave_places_to_the_known_and_all_leave_some_to_publishers(most: int) -> None:
    places = Places(most, MANY, MANY)
    strangers = taken(places, Standing.ANONYMOUS)
    known = taken(places, Standing.KNOWN)
    publishers = taken(places, Standing.PUBLISHER)
    assert (len(known), len(publishers)) == (most // 10, most // 20)
    assert len(strangers) + len(known) + len(publishers) == most
    places.give_back(strangers[0])
    assert len(taken(places, Standing.ANONYMOUS)) == 1


def test_what_the_known_and_publishers_take_is_not_kept_twice() -> None:
    places = Places(100, MANY, MANY)
    for _ in range(15):
        places.take(Standing.KNOWN, "")
    places.take(Standing.PUBLISHER, "")
    assert len(taken(places, Standing.ANONYMOUS)) == 80
    assert len(taken(places, Standing.KNOWN)) == 0
    assert len(taken(places, Standing.PUBLISHER)) == 4


def test_publishers_alone_may_have_every_place() -> None:
    assert len(taken(Places(40, MANY, MANY), Standing.PUBLISHER)) == 40


def test_an_address_has_few_peers_that_have_not_connected() -> None:
    places = Places(100, 20, 4)
    waiting = taken(places, Standing.ANONYMOUS, "2001:db8::1")
    assert len(waiting) == 4
    with pytest.raises(Rejected, match="not connected yet") as refused:
        places.take(Standing.ANONYMOUS, "2001:db8::2")  # the same /64
    assert refused.value.reason is Reason.TOO_MANY_REQUESTS
    places.take(Standing.ANONYMOUS, "2001:db8:0:1::1")
    for place in waiting:
        places.connect(place)
        places.connect(place)  # counts once
    assert len(taken(places, Standing.ANONYMOUS, "2001:db8::1")) == 4
    for _ in range(3):
        for place in taken(places, Standing.ANONYMOUS, "2001:db8::1"):
            places.connect(place)


def test_strangers_use_up_nothing_of_what_the_known_have_behind_the_same_address() -> None:
    places = Places(100, 8, 4)
    assert len(taken(places, Standing.ANONYMOUS, "203.0.113.1")) == 4
    assert len(taken(places, Standing.KNOWN, "203.0.113.1")) == 4


def test_places_that_are_given_back_leave_nothing_behind() -> None:
    places = Places(100, 8, 4)
    for connected in (False, True):
        place = places.take(Standing.ANONYMOUS, "203.0.113.1")
        if connected:
            places.connect(place)
        places.give_back(place)
    assert not +places._taken
    assert not places._clients
    assert not places._connecting


def test_who_offers_and_leaves_again_and_again_is_slowed() -> None:
    places, now = Places(100, 20, 4), 0

    def offered(standing: Standing, address: str) -> int:
        for number in range(1000):
            try:
                places.ask(standing, address, now)
            except Rejected:
                return number
            places.give_back(places.take(standing, address))
        return 1000

    assert offered(Standing.ANONYMOUS, "2001:db8::1") == 20
    assert offered(Standing.ANONYMOUS, "2001:db8::2") == 0, "the same /64"
    assert offered(Standing.KNOWN, "2001:db8::1") == 20, "strangers use up nothing of theirs"
    assert offered(Standing.ANONYMOUS, "203.0.113.1") == 20
    assert offered(Standing.ANONYMOUS, "") == 1000, "nobody's"
    with pytest.raises(Rejected, match="try again in a moment") as refused:
        places.ask(Standing.ANONYMOUS, "203.0.113.1", now)
    assert refused.value.reason is Reason.TOO_MANY_REQUESTS
    now += 5 * 10**9
    assert offered(Standing.ANONYMOUS, "2001:db8::1") == 10


def test_behind_one_address_those_with_tokens_of_their_own_count_each_for_themselves() -> None:
    places, nat = Places(1000, 20, 4), "203.0.113.1"
    for user in map(str, range(100)):
        places.ask(Standing.KNOWN, nat, 0, user)
        places.take(Standing.KNOWN, nat, user)
    for _ in range(19):
        places.ask(Standing.KNOWN, nat, 0, "7")
    with pytest.raises(Rejected, match="with your token: wait 1 s") as refused:
        places.ask(Standing.KNOWN, nat, 0, "7")
    assert refused.value.wait_s == 1
    places.ask(Standing.KNOWN, "203.0.113.2", 0, "7")  # another viewer, by the same link
    for _ in range(3):
        places.take(Standing.KNOWN, nat, "7")
    with pytest.raises(Rejected, match="not connected yet"):
        places.take(Standing.KNOWN, nat, "7")


def test_an_offer_for_which_there_is_no_place_is_not_even_read() -> None:
    places = Places(20, 20, MANY)
    taken(places, Standing.ANONYMOUS, "203.0.113.1")
    with pytest.raises(Rejected, match="as many WebRTC peers"):
        places.ask(Standing.ANONYMOUS, "203.0.113.1", 0)
    taken(places, Standing.PUBLISHER)
    with pytest.raises(Rejected, match="as many WebRTC peers"):
        places.ask(Standing.PUBLISHER, "203.0.113.2", 0)
    few = Places(100, 4, MANY)
    taken(few, Standing.ANONYMOUS, "203.0.113.1")
    with pytest.raises(Rejected, match="from your address"):
        few.ask(Standing.ANONYMOUS, "203.0.113.1", 0)
