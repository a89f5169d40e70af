"""Calls as HLS: what the API asks of whatever makes it, and how that keeps in step with the wish that stands in each call's record.

Kept true: a wish outlives the process, and one that another node or the command line wrote is followed here too.
"""

from collections.abc import Callable
from typing import Final, Protocol

from gateway.access.credentials import NOBODY, Identity
from gateway.model.records import AllOf, Call, Condition
from gateway.store.store import Store

Written = Callable[[Call | None, Call | None], None]
"""A call was written: what it was, and what it is; None: there was or is none."""

_WISHED: Final = AllOf((Condition("broadcasting", "eq", True), Condition("ended_at", "exists", False)))
_PAGE: Final = 100


class Broadcasts(Protocol):
    """Starting and stopping may be repeated. An address is empty where a call is not broadcast."""

    def check(self, cid: str) -> None:
        """Whether there is room to start it for who is live; raises `Rejected`."""

    def start(self, cid: str) -> None: ...

    def stop(self, cid: str) -> None: ...

    def playlist_url(self, cid: str, watcher: Identity = NOBODY) -> str:
        """For this user, or (where it is none) for whom it is handed on to."""

    def open_playlist_url(self, cid: str) -> str:
        """The same; empty where not everybody may watch."""


class NoBroadcasts:
    """A gateway without HLS: what is wished stands in the call, and nothing comes of it."""

    def check(self, cid: str) -> None: ...

    def start(self, cid: str) -> None: ...

    def stop(self, cid: str) -> None: ...

    def playlist_url(self, cid: str, watcher: Identity = NOBODY) -> str:
        return ""

    def open_playlist_url(self, cid: str) -> str:
        return ""


def follow(broadcasts: Broadcasts, before: Call | None, after: Call | None) -> bool | None:
    """A call was written: whether its HLS was started (True) or stopped (False) for that; None: neither. None for a call: there is none."""
    wished, wishes = (call is not None and call.broadcasting for call in (before, after))
    call = after or before
    if call is None or wished is wishes:
        return None
    if wishes:
        broadcasts.start(call.cid)
    else:
        broadcasts.stop(call.cid)
    return wishes


def in_step(broadcasts: Broadcasts, on_written: Written) -> Written:
    """`on_written`, and HLS in step with what was written."""

    def written(before: Call | None, after: Call | None) -> None:
        on_written(before, after)
        follow(broadcasts, before, after)

    return written


async def resume(broadcasts: Broadcasts, store: Store) -> None:
    """At the start: all calls that wish it. Raises `StoreUnavailable`."""
    cursor: str | None = None
    while True:
        page = await store.calls.query(_WISHED, limit=_PAGE, cursor=cursor)
        for call in page.items:
            broadcasts.start(call.cid)
        if (cursor := page.next) is None:
            return
