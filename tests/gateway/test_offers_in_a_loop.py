"""Who asks to watch or to publish, leaves and asks again as fast as they can is slowed: their offers are not read any more."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import monotonic

import aiohttp
import psutil
import pytest

from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.publishing import OFFER

TURNS = 600
BURST = 128
WANTS = OFFER.replace(b"sendonly", b"recvonly")
CALL = "livestream:demo"
PUBLISHERS_AT_ONCE, PUBLISHERS_PER_S = 30, 2


class Visits:
    """Offers to one address, one after the other, each session that was made deleted at once."""

    def __init__(self, gateway: GatewayProcess, http: aiohttp.ClientSession, path: str, offer: bytes) -> None:
        self._gateway, self._http, self._path, self._offer = gateway, http, path, offer
        self.statuses = Counter[int]()
        self.problems = list[str]()
        self.waits = set[str | None]()

    async def turn(self, token: str = "") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        offered = self._http.post(
            self._gateway.url(self._path), data=self._offer, headers=headers | {"Content-Type": "application/sdp"}
        )
        async with offered as made:
            self.statuses[made.status] += 1
            if made.status != 201:
                self.problems.append((await made.json())["detail"])
                self.waits.add(made.headers.get("Retry-After"))
                return made.status
        async with self._http.delete(self._gateway.url(made.headers["Location"]), headers=headers) as gone:
            assert gone.status == 200
        return 201

    async def turns(self, tokens: Iterator[str]) -> float:
        """Seconds that they took."""
        process = psutil.Process(self._gateway.pid)
        before, began = sum(process.cpu_times()[:2]), monotonic()
        for token in tokens:
            await self.turn(token)
        took = monotonic() - began
        print(f"\n{dict(self.statuses)} in {took:.1f} s, {sum(process.cpu_times()[:2]) - before:.2f} s of CPU")
        return took


def in_turn(tokens: Sequence[str], turns: int = TURNS) -> Iterator[str]:
    return islice(cycle(tokens), turns)


@pytest.mark.parametrize("who", ["", "viewer"], ids=["strangers", "a token"])
async def test_who_watches_and_leaves_in_a_loop_is_slowed(who: str) -> None:
    async with running_gateway() as gateway, aiohttp.ClientSession() as http:
        visits = Visits(gateway, http, f"/whep/{CALL}", WANTS)
        took = await visits.turns(in_turn([gateway.key(CALL, who) if who else ""]))
        assert set(visits.statuses) == {201, 429}
        assert visits.statuses[201] <= BURST * (1 + took / 10) + 1
        assert set(visits.waits) == {"1"}
        assert await gateway.metric('ingress_viewers_refused_total{reason="too_many_requests"}') == visits.statuses[429]
        if who:
            assert set(visits.problems) == {"too many offers came with your token: wait 1 s"}
            assert await visits.turn(gateway.key(CALL, "another")) == 201, "behind the same address"


async def test_many_viewers_behind_one_address_with_tokens_of_their_own_are_not_slowed() -> None:
    async with running_gateway() as gateway, aiohttp.ClientSession() as http:
        visits = Visits(gateway, http, f"/whep/{CALL}", WANTS)
        await visits.turns(in_turn([gateway.key(CALL, f"viewer{number}") for number in range(20)]))
        assert set(visits.statuses) == {201}


async def test_who_publishes_and_leaves_in_a_loop_is_slowed() -> None:
    async with running_gateway() as gateway, aiohttp.ClientSession() as http:
        visits = Visits(gateway, http, f"/whip/{CALL}", OFFER)
        took = await visits.turns(in_turn([gateway.key(CALL)]))
        assert set(visits.statuses) == {201, 429}
        assert visits.statuses[201] <= PUBLISHERS_AT_ONCE + PUBLISHERS_PER_S * took + 1
        assert all(re.fullmatch(r"this key begins too many streams: wait 1 s, .*", each) for each in visits.problems)
        assert set(visits.waits) == {"1"}
        refused = await gateway.metric('ingress_refused_total{protocol="whip",reason="too_many_requests"}')
        assert refused == visits.statuses[429]
        assert await visits.turn(gateway.key(CALL, "another")) == 201, "another user's key"
