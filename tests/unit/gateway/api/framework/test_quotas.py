"""How often one caller may ask: a user, a server, an address with many behind it; and how many calls they may make."""

import pytest

from gateway.access.credentials import Identity
from gateway.api.framework.quotas import QuotaExceeded, Quotas
from gateway.config import QuotasConfig

SECOND = 1_000_000_000
ANN, BOB = Identity("ann", api_key="app"), Identity("bob", api_key="app")
SERVER, NOBODY = Identity(server=True, api_key="app"), Identity()


class Clocked:
    """Quotas with a clock that the test moves."""

    def __init__(self, config: QuotasConfig) -> None:
        self.now = SECOND
        self.quotas = Quotas(config, lambda: self.now)

    def takes(self, identity: Identity, address: str, *, for_list: bool = False, most: int = 10_000) -> int:
        """How many requests are let through until one is refused."""
        for number in range(most):
            try:
                self.quotas.asked(identity, address, for_list=for_list)
            except QuotaExceeded:
                return number
        return most


def test_a_user_has_a_sixth_of_a_minutes_requests_at_once_and_then_so_many_a_minute() -> None:
    clocked = Clocked(QuotasConfig(requests_per_minute=600, lists_per_minute=60))
    assert clocked.takes(ANN, "198.51.100.1") == 100
    assert clocked.takes(ANN, "198.51.100.2") == 0, "wherever they come from"
    assert clocked.takes(BOB, "198.51.100.1") == 100, "others of the address are not the poorer for it"
    clocked.now += 3 * SECOND
    assert clocked.takes(ANN, "198.51.100.1") == 30


def test_lists_cost_more() -> None:
    clocked = Clocked(QuotasConfig(requests_per_minute=600, lists_per_minute=60))
    assert clocked.takes(ANN, "198.51.100.1", for_list=True) == 10
    assert clocked.takes(ANN, "198.51.100.1") == 90
    with pytest.raises(QuotaExceeded, match=r"lists: wait 1 s") as refused:
        clocked.quotas.asked(ANN, "198.51.100.1", for_list=True)
    assert refused.value.wait_s == 1


@pytest.mark.parametrize("addresses", [("198.51.100.1", "::ffff:198.51.100.1"), ("2001:db8::1", "2001:db8::2")])
def test_all_of_one_address_have_ten_times_as_much(addresses: tuple[str, str]) -> None:
    clocked = Clocked(QuotasConfig(requests_per_minute=600, lists_per_minute=60))
    assert clocked.takes(NOBODY, addresses[0], most=600) == 600
    many = [Identity(f"user-{number}", api_key="app") for number in range(10)]
    assert sum(clocked.takes(each, addresses[1]) for each in many) == 400
    assert clocked.takes(NOBODY, "203.0.113.1") == 1000


def test_a_server_is_one_caller_with_ten_times_as_much_whatever_its_address() -> None:
    clocked = Clocked(QuotasConfig(requests_per_minute=600, lists_per_minute=60))
    assert clocked.takes(SERVER, "198.51.100.1", for_list=True) == 100
    assert clocked.takes(SERVER, "198.51.100.1") == 900
    assert clocked.takes(NOBODY, "198.51.100.1") == 1000


def test_zero_is_no_limit() -> None:
    clocked = Clocked(QuotasConfig(requests_per_minute=0, lists_per_minute=0, calls_per_hour=0))
    assert clocked.takes(ANN, "198.51.100.1", for_list=True) == 10_000
    for _ in range(1000):
        clocked.quotas.making_call("ann")


def test_a_user_makes_so_many_calls_an_hour() -> None:
    clocked = Clocked(QuotasConfig(calls_per_hour=3))
    for _ in range(3):
        clocked.quotas.making_call("ann")
    with pytest.raises(QuotaExceeded, match="too many calls"):
        clocked.quotas.making_call("ann")
    clocked.quotas.making_call("bob")
    clocked.now += 20 * 60 * SECOND
    clocked.quotas.making_call("ann")
    with pytest.raises(QuotaExceeded):
        clocked.quotas.making_call("ann")
