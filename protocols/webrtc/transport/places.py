"""Who gets a place on the port while there are others: by who they are, and by the address that asks. Sans-IO.

What is kept true: strangers leave places to those who show a token, and both leave some to publishers, however many come; those who have
not connected yet are few of one address; strangers use up nothing of what an address has for those who show a token, and of these, where
they are told apart, nobody anything of another's. Who goes on asking, to leave again, is slowed before anything is done for them.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum, auto
from math import ceil
from typing import NamedTuple

from protocols.addresses import client_network
from protocols.errors import Reason, Rejected
from protocols.rate_limit import RateLimit

_KEPT_FOR_PUBLISHERS = 20  # one in so many
_KEPT_FOR_KNOWN = 10
_AGAIN_S = 10  # in which an address may make as many offers as it may have peers, after so many at once
_LEAST_OFFERS = 16  # however few those are: a client that reconnects makes some


class Standing(IntEnum):
    """What a peer has shown before it got here; more is higher."""

    ANONYMOUS = auto()
    KNOWN = auto()
    """A token that lets it watch."""
    PUBLISHER = auto()


class Client(NamedTuple):
    """Of whom a place counts: all that behind one network are strangers, or have shown the token of one user."""

    network: str
    stranger: bool
    user: str  # empty: of any, or of none


@dataclass(slots=True, eq=False)
class Place:
    """What one peer takes up until it is given back."""

    standing: Standing
    client: Client | None
    """None: of nobody."""
    connected: bool = False
    used: bool = False  # a peer has it


class Places:
    """`most` in all, `per_client` of one address, `unconnected` of those not connected yet."""

    def __init__(self, most: int, per_client: int, unconnected: int) -> None:
        for_all_but_strangers = most - most // _KEPT_FOR_PUBLISHERS
        self._most = {
            Standing.ANONYMOUS: for_all_but_strangers - most // _KEPT_FOR_KNOWN,
            Standing.KNOWN: for_all_but_strangers,
            Standing.PUBLISHER: most,
        }
        self._per_client = per_client
        self._unconnected = unconnected
        offers = max(per_client, _LEAST_OFFERS)
        self._offers = RateLimit(offers / _AGAIN_S, offers)
        self._taken: Counter[Standing] = Counter()
        self._clients: Counter[Client] = Counter()
        self._connecting: Counter[Client] = Counter()

    def ask(self, standing: Standing, address: str, now: int, user: str = "") -> None:
        """Before their offer is read, which costs a hundred times as much: whether `take` has a place for them, if need be once others of
        theirs have connected, and whether they have not asked too often; `now` is in monotonic ns. Raises `Rejected`."""
        client = client_of(standing, address, user)
        self._check(standing, client)
        if client is not None and not self._offers.take(client, now):
            wait_s = self._offers.wait_s(client, now)
            whence = f"with your token: wait {ceil(wait_s)} s" if client.user else "from your address: try again in a moment"
            raise Rejected(Reason.TOO_MANY_REQUESTS, f"too many offers came {whence}", wait_s)

    def take(self, standing: Standing, address: str, user: str = "") -> Place:
        """For who asks from `address` (empty: not counted); `user`: whose token they have shown, if it is somebody's. Raises `Rejected`."""
        client = client_of(standing, address, user)
        self._check(standing, client)
        if self.crowded(client):
            raise too_many_connecting()
        if client is not None:
            self._clients[client] += 1
            self._connecting[client] += 1
        self._taken[standing] += 1
        return Place(standing, client)

    def _check(self, standing: Standing, client: Client | None) -> None:
        counted = 0
        for each, most in self._most.items():  # whoever stands lower is counted with those above
            counted += self._taken[each]
            if counted >= most and each >= standing:
                raise Rejected(Reason.OVERLOADED, "this gateway has as many WebRTC peers as it takes; try again later")
        if client is not None and self._clients[client] >= self._per_client:
            raise Rejected(Reason.TOO_MANY_REQUESTS, "too many WebRTC peers from your address")

    def crowded(self, client: Client | None) -> bool:
        """Whether as many of theirs as may be have not connected yet."""
        return client is not None and self._connecting[client] >= self._unconnected

    def connect(self, place: Place) -> None:
        """The peer has connected."""
        if not place.connected:
            place.connected = True
            _less(self._connecting, place.client)

    def give_back(self, place: Place) -> None:
        """The peer has ended. Once for each place."""
        self.connect(place)
        self._taken[place.standing] -= 1
        _less(self._clients, place.client)


def client_of(standing: Standing, address: str, user: str) -> Client | None:
    """None: of nobody, where there is no address."""
    return Client(client_network(address), standing is Standing.ANONYMOUS, user) if address else None


def too_many_connecting() -> Rejected:
    text = "too many WebRTC peers from your address have not connected yet: try again in a moment"
    return Rejected(Reason.TOO_MANY_REQUESTS, text, 1)


def _less(counter: Counter[Client], client: Client | None) -> None:
    if client is not None:
        counter[client] -= 1
        if not counter[client]:
            del counter[client]
