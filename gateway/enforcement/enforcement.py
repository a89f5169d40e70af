"""Takes out of a call, at once, who may not be in it any more: viewers when it is not live, publishers when it has ended, whoever is
blocked, kicked or has lost their role or key. Withholds of those in it what they may not send any more, and what the call says is muted.

Nobody gives orders for that: whatever is written into the store, on this node, another one or by the command line, the rights of those whom
it concerns are asked again. Kept true: it ends nobody while the store does not answer.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity
from gateway.access.rights_cache import RightsCache
from gateway.access.viewers import AdmittedViewer, Viewers
from gateway.model import lifecycle
from gateway.model.permissions import SENDING, Capability, barred
from gateway.model.records import Call, Change, ChangeKind
from gateway.sessions.admission import Rights
from gateway.sessions.registry import Registry
from gateway.store.calls import NoSuchCall, muted
from gateway.store.database import StoreUnavailable
from gateway.store.store import Store
from gateway.telemetry.log import event
from protocols.errors import Reason, Rejected
from protocols.media import Kind

log = logging.getLogger(__name__)

_KICKED = "the call's host has taken you out of it"
_ENDED = "the stream was ended by the call's host"

_CONCERNS: Mapping[ChangeKind, Callable[[str, str, Identity], bool]] = {
    ChangeKind.CALL: lambda key, cid, who: cid == key,
    ChangeKind.USER: lambda key, cid, who: who.user_id == key,
    ChangeKind.STREAM_KEY: lambda key, cid, who: who.stream_key == key,
    ChangeKind.API_KEY: lambda key, cid, who: True,  # it may have given anybody their role
    ChangeKind.CALL_TYPE: lambda key, cid, who: cid.startswith(f"{key}:"),
}
"""Whom a change concerns: (key of the change, cid, who is in it). The other kinds are said of one person."""


class Enforcement:
    """`rights` are those of the inputs of live seats."""

    def __init__(
        self,
        registry: Registry,
        rights: Rights,
        viewers_admitted: Viewers,
        rights_cache: RightsCache,
        authorizer: Authorizer,
        store: Store,
        *,
        on_changed: Callable[[str], None],
        on_ended: Callable[[Call, Call], None],
        on_muted: Callable[[str, str, frozenset[Kind]], None],
    ) -> None:
        """`on_changed` is told in which call rights may have changed (`*`: in any), as soon as the rights cache knows; `on_ended` of a call
        that is ended here, as it was before and as it is; `on_muted` the call, the user and the kinds of which another node's wish to
        mute everybody mutes somebody here."""
        self._registry = registry
        self._rights = rights
        self._viewers_admitted = viewers_admitted
        self._rights_cache = rights_cache
        self._authorizer = authorizer
        self._store = store
        self._on_changed = on_changed
        self._on_ended = on_ended
        self._on_muted = on_muted

    async def apply(self, changes: Sequence[Change]) -> None:
        """These have been written: afterwards the rights cache says so, and who has to go is told. Raises `StoreUnavailable`."""
        await self._rights_cache.apply(changes)
        for cid in dict.fromkeys(change.key if change.kind is ChangeKind.CALL else "*" for change in changes):
            self._on_changed(cid)
        for change in changes:
            if (concerns := _CONCERNS.get(change.kind)) is not None:
                await self.review(partial(concerns, change.key))
            elif change.kind is ChangeKind.MUTE_ALL:
                await self._mute_all(change)
            else:
                self._take_out(change)

    async def start_anew(self) -> None:
        """So much was written that nobody knows what: everything is read and asked again."""
        await self._rights_cache.start()
        self._on_changed("*")
        await self.review(lambda cid, identity: True)

    async def review(self, concerned: Callable[[str, Identity], bool]) -> None:
        """Asks the rights of these people again."""
        for (cid, user_id, rank), grant in list(self._rights.items()):
            if concerned(cid, grant.identity):
                refusals = {each: await self._refusal(grant.identity, cid, each) for each in sorted(SENDING)}
                sends = [each for each, refusal in refusals.items() if refusal is None]
                seat = self._registry.seats.get((cid, user_id))
                if seat is not None and not sends:
                    seat.inputs.end_rank(rank, refusals[Capability.SEND_VIDEO] or "")
                elif seat is not None:
                    seat.withhold(await self._muted(cid, user_id), barred(sends), rank)
        for viewer in list(self._viewers_admitted.admitted):
            if concerned(viewer.cid, viewer.identity) and (
                why := await self._refusal(viewer.identity, viewer.cid, Capability.JOIN_CALL)
            ):
                viewer.send_out(why)

    async def end_overdue(self, now: datetime) -> None:
        """Ends the calls in use that have been live for longer than their settings allow."""
        for cid in list(self._registry.calls):
            await self._rights_cache.look_up(cid=cid)
            known = self._rights_cache.call(cid)
            kind = self._rights_cache.call_types.get(cid.partition(":")[0])
            if known is None or kind is None or not known.call.live or known.call.live_started_at is None:
                continue
            longest = known.call.settings(kind).limits.max_duration_seconds
            if longest and now >= known.call.live_started_at + timedelta(seconds=longest):
                with suppress(NoSuchCall):  # it has just been deleted
                    self._on_ended(
                        known.call, await self._store.calls.change(cid, lambda call: lifecycle.ended(call, now), now=now)
                    )

    async def _refusal(self, identity: Identity, cid: str, capability: Capability) -> str | None:
        try:
            await self._authorizer.admit(identity, cid, capability)
        except Rejected as refusal:
            return refusal.detail if refusal.reason is not Reason.OVERLOADED else None
        return None

    async def _muted(self, cid: str, user_id: str) -> frozenset[Kind]:
        await self._rights_cache.look_up(cid=cid)
        known = self._rights_cache.call(cid)
        return known.call.muted_users.get(user_id, frozenset()) if known is not None else frozenset()

    async def _mute_all(self, change: Change) -> None:
        """Another node has muted those whom it knew to be in the call; these are ours. What is then written comes here as any change."""
        cid, _, named = change.key.partition(" ")
        kinds = frozenset(map(Kind, named.split()))
        ours = [user_id for (of, user_id), seat in self._registry.seats.items() if of == cid and not kinds <= seat.muted]
        if not ours:
            return
        try:
            await self._store.calls.change(cid, lambda call: muted(call, ours, kinds), now=self._authorizer.authenticator.now)
        except StoreUnavailable:
            raise
        except Rejected as refusal:  # the call has been deleted, or has too many muted users
            event(log, logging.WARNING, f"not everybody is muted: {refusal.detail}", call=cid)
            return
        for user_id in ours:
            self._on_muted(cid, user_id, kinds)

    def _take_out(self, change: Change) -> None:
        cid, _, user_id = change.key.partition(" ")
        kicked = change.kind is ChangeKind.KICK
        if kicked:
            self._authorizer.send_out(cid, user_id)
        if (seat := self._registry.seats.get((cid, user_id))) is not None:
            seat.end(_KICKED if kicked else _ENDED)
        for viewer in self._watching(cid, user_id) if kicked else ():
            viewer.send_out(_KICKED)

    def _watching(self, cid: str, user_id: str) -> Iterator[AdmittedViewer]:
        viewers = list(self._viewers_admitted.admitted)
        return (viewer for viewer in viewers if viewer.cid == cid and viewer.identity.user_id == user_id)
