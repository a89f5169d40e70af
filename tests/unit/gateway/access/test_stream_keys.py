"""Short stream keys, sealed secrets and slowed addresses: what is derived, what is recognised, what wears off."""

import pytest

from gateway.access import stream_keys
from gateway.access.sealing import Sealing
from gateway.access.throttle import Throttle
from protocols.rate_limit import SECOND

SECRET = b"0123456789abcdef" * 4


def test_a_key_says_whose_it_is_and_only_this_gateway_makes_it() -> None:
    name = stream_keys.new_name(SECRET)
    key = stream_keys.whole(SECRET, name)
    assert len(key) == 36
    assert stream_keys.name_of(SECRET, key) == stream_keys.name_of(SECRET, f" {key.upper()}\n") == name
    assert stream_keys.name_of(b"another" * 8, key) is None
    assert not stream_keys.name_is_whole(b"another" * 8, name)
    assert key == f"{name}-{stream_keys.password(SECRET, name)}"
    assert 10 <= len(stream_keys.password(SECRET, name)) <= 79, "what SRT takes as a passphrase"
    assert len({stream_keys.new_name(SECRET) for _ in range(1000)}) == 1000


def test_every_changed_or_missing_character_is_noticed() -> None:
    key = stream_keys.whole(SECRET, stream_keys.new_name(SECRET))
    for place in range(len(key)):
        other = "a" if key[place] != "a" else "b"
        assert stream_keys.name_of(SECRET, key[:place] + other + key[place + 1 :]) is None
        assert stream_keys.name_of(SECRET, key[:place] + key[place + 1 :]) is None


def test_a_mistyped_name_is_nearly_always_noticed_by_itself() -> None:
    names = [stream_keys.new_name(SECRET) for _ in range(40)]
    typos = [name[:5] + ("a" if name[5] != "a" else "b") + name[6:] for name in names]
    assert all(stream_keys.name_is_whole(SECRET, name) for name in names)
    assert sum(stream_keys.name_is_whole(SECRET, typo) for typo in typos) <= 1


@pytest.mark.parametrize(
    "text", ["", "sk", "cam1", "eyJhbGciOiJIUzI1NiJ9.e30.x", "skype me", "sk7f3kq9w2mxp4a-UPPER!", "x" * 5000]
)
def test_other_texts_are_no_keys(text: str) -> None:
    assert stream_keys.name_of(SECRET, text) is None
    assert not stream_keys.looks_like_key(text)


def test_a_sealed_secret_opens_only_with_its_key_and_where_it_belongs() -> None:
    sealed = Sealing(SECRET).seal(b"hunter2", "app")
    assert b"hunter2" not in sealed
    assert Sealing(SECRET).unseal(sealed, "app") == b"hunter2"
    assert Sealing(SECRET).unseal(sealed, "another app") is None
    assert Sealing(b"x" * 32).unseal(sealed, "app") is None
    for broken in (b"", sealed[:5], sealed[:-1], sealed[:-1] + bytes([sealed[-1] ^ 1])):
        assert Sealing(SECRET).unseal(broken, "app") is None
    assert Sealing(SECRET).seal(b"hunter2", "app") != sealed


def test_failures_wear_off_and_one_address_is_not_another() -> None:
    throttle, minute = Throttle(6), 60 * SECOND
    for _ in range(6):
        assert throttle.wait_s("192.0.2.1", 0) == 0
        throttle.failed("192.0.2.1", 0)
    assert throttle.wait_s("192.0.2.1", 0) == 10
    assert throttle.wait_s("192.0.2.2", 0) == 0
    assert throttle.wait_s("::ffff:192.0.2.1", 0) == 10
    assert throttle.wait_s("192.0.2.1", 10 * SECOND) == 0
    throttle.failed("192.0.2.1", 10 * SECOND)
    assert throttle.wait_s("192.0.2.1", 10 * SECOND) == 10
    assert throttle.wait_s("192.0.2.1", 10 * SECOND + minute) == 0
    assert throttle.refused == 3


def test_an_ipv6_user_has_one_allowance_and_zero_is_none_to_keep() -> None:
    throttle, open_ = Throttle(1), Throttle(0)
    throttle.failed("2001:db8:1:2::1", 0)
    assert throttle.wait_s("2001:db8:1:2:ffff::9", 0) == 60
    assert throttle.wait_s("2001:db8:1:3::1", 0) == 0
    open_.failed("192.0.2.1", 0)
    assert open_.wait_s("192.0.2.1", 0) == 0


def test_the_table_is_bounded() -> None:
    throttle = Throttle(1)
    for n in range(10_000):
        throttle.failed(f"10.0.{n // 256}.{n % 256}", 0)
    assert throttle.wait_s("10.0.0.0", 0) == 0
    assert throttle.wait_s("10.0.39.15", 0) == 60
