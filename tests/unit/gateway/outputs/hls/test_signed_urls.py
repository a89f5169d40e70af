"""The addresses of playlists: who made them, for which call, until when."""

from collections.abc import Container

import pytest

from gateway.outputs.hls.signed_urls import SignedUrls
from protocols.errors import Reason, Rejected

CID = "livestream:demo"


class Clock:
    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def __call__(self) -> float:
        return self.time


async def refuse(cid: str) -> None:
    raise Rejected(Reason.FORBIDDEN, "it is in backstage")


class Judge:
    """Remembers whom it was asked about; those who are `out` may not watch any more."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.out: set[str] = set()

    async def __call__(self, cid: str, whose: str) -> None:
        self.asked.append((cid, whose))
        if whose in self.out:
            raise Rejected(Reason.FORBIDDEN, "The call's host has taken you out of it")


def links(
    clock: Clock,
    *,
    is_open: bool = False,
    secret: bytes = b"secret",
    over: Container[str] = (),
    judge: Judge | None = None,
) -> SignedUrls:
    return SignedUrls(secret, lambda cid: is_open, refuse, 7200, clock, is_over=lambda cid: cid in over, still=judge or Judge())


def permit(path: str) -> str:
    return path.split("/")[3]


async def test_a_signed_address_is_good_for_its_call_until_it_expires() -> None:
    clock = Clock()
    made = links(clock)
    path = made.path(CID)
    assert path.startswith("/hls/livestream%3Ademo/")
    await made.check(CID, permit(path))
    with pytest.raises(Rejected):
        await made.check("livestream:other", permit(path))
    with pytest.raises(Rejected):
        await links(clock, secret=b"another").check(CID, permit(path))
    clock.time += 7200
    await made.check(CID, permit(path))
    clock.time += 3601
    with pytest.raises(Rejected, match="expired"):
        await made.check(CID, permit(path))


async def test_a_signed_address_ends_with_its_call_but_shows_the_end_to_those_who_watched() -> None:
    over: set[str] = set()
    made = links(Clock(), over=over)
    signed = permit(made.path(CID))
    await made.check(CID, signed)
    over.add(CID)
    with pytest.raises(Rejected, match="has ended"):
        await made.check(CID, signed)
    await made.check(CID, signed, to_the_end=True)
    with pytest.raises(Rejected, match="not one of this gateway"):
        await made.check(CID, signed[:-1] + ("A" if signed[-1] != "A" else "B"), to_the_end=True)
    await made.check(CID, "open", to_the_end=True)


async def test_an_address_made_for_a_user_is_judged_by_what_they_may_with_each_request() -> None:
    judge, over = Judge(), set[str]()
    made = links(Clock(), judge=judge, over=over)
    anns, bobs, anybodys = (permit(made.path(CID, user)) for user in ("ann", "bob", ""))
    assert len({anns, bobs, anybodys}) == 3
    assert anns == permit(made.path(CID, "ann")), "so that a cache keeps one"
    assert "ann" not in anns
    await made.check(CID, anns)
    assert judge.asked == [(CID, "ann")]
    judge.out.add("ann")
    with pytest.raises(Rejected, match="taken you out"):
        await made.check(CID, anns)
    over.add(CID)
    with pytest.raises(Rejected, match="taken you out"):
        await made.check(CID, anns, to_the_end=True)
    over.clear()
    await made.check(CID, bobs)
    await made.check(CID, anybodys)
    expires, _, signature = anns.split(".")
    for forged in (f"{expires}.{signature}", f"{expires}.{bobs.split('.')[1]}.{signature}", f"{expires}..{signature}"):
        with pytest.raises(Rejected, match="not one of this gateway"):
            await made.check(CID, forged)
    assert links(Clock(), is_open=True).path(CID, "ann").endswith("/open/index.m3u8")


async def test_what_another_version_has_signed_is_refused_in_words() -> None:
    clock = Clock()
    made = links(clock)
    expires = permit(made.path(CID)).split(".")[0]
    for former in ("AAAAAAAAAAAA.", "A.", "_-."):
        with pytest.raises(Rejected, match="ask for a new one"):
            await made.check(CID, f"{expires}.{former}{made._signature(CID, int(expires, 16), former)}")


def test_addresses_of_the_same_hour_are_the_same_so_that_caches_work() -> None:
    clock = Clock()
    first = links(clock).path(CID)
    clock.time += 10
    assert links(clock).path(CID) == first
    clock.time += 3600
    assert links(clock).path(CID) != first


@pytest.mark.parametrize("forged", ["", "x", ".", "6b49d200.", "0.AAAA", "-1.AAAA", "6b49d200.ä", "9" * 400 + ".A"])
async def test_what_is_no_permit_is_refused(forged: str) -> None:
    with pytest.raises(Rejected):
        await links(Clock()).check(CID, forged)


@pytest.mark.parametrize(
    "spelled",
    [
        "{0:X}",
        "0{0:x}",
        "+{0:x}",
        "0x{0:x}",
        " {0:x}",
        "{0:x}\n",
        "{1}_{2}",
        "{0:x}" + "0" * 5000,
        "0" * 5000 + "{0:x}",
        "-{0:x}",
        "{3}",
    ],
)
async def test_a_signed_address_has_one_spelling_since_caches_keep_each_for_itself(spelled: str) -> None:
    made = links(Clock())
    expires, signature = permit(made.path(CID, "")).split(".")
    fullwidth = "".join(chr(ord(each) + 0xFEE0) for each in expires)
    other = spelled.format(int(expires, 16), expires[:4], expires[4:], fullwidth)
    with pytest.raises(Rejected) as refused:
        await made.check(CID, f"{other}.{signature}")
    assert refused.value.reason is Reason.NOT_FOUND


async def test_an_open_call_has_a_plain_address_that_is_asked_about_each_time() -> None:
    made = links(Clock(), is_open=True)
    assert made.path(CID) == "/hls/livestream%3Ademo/open/index.m3u8"
    with pytest.raises(Rejected, match="backstage"):
        await made.check(CID, "open")
