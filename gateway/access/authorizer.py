"""Who may do what: the API, viewers and the encoders of all protocols ask here. The rule is `permissions.allowed`; this gathers
what it needs.

Kept true: `examine` and `judge` read memory only, so that they answer at once; what is not in memory is looked up beforehand (`prepare`,
`admit`); a right that somebody was given can be asked again at any time, with today's answer.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from gateway.access.authenticator import Authenticator
from gateway.access.credentials import Grant, Identity
from gateway.access.rights_cache import KnownCall, NotInMemory, RightsCache
from gateway.config import CALL_ID
from gateway.model.lifecycle import created
from gateway.model.permissions import MEMBERS, SENDING, Allowed, CallState, Capability, Role, above, allowed, granted
from gateway.model.records import Call, CallType
from gateway.store.calls import NoSuchCall
from gateway.store.store import Store
from protocols.bounded_map import BoundedMap
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential

_OF_WHO_IS_IN: Final = SENDING | {Capability.JOIN_CALL}

SENT_OUT_S: Final = 30  # after a kick: encoders and pages come back by themselves, people when they are let
_MOST_SENT_OUT: Final = 10_000


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where somebody stands in a call: what is asked for every capability."""

    cid: str
    is_there: bool  # the call; to the operator's own tokens it is, since they may come before it
    state: CallState
    grants: Mapping[str, frozenset[Capability]]
    roles: frozenset[str]
    out_for_s: int  # seconds until who was kicked may come back


@dataclass(frozen=True, slots=True)
class Rules:
    """The configuration's part in it."""

    public: frozenset[str] = frozenset()  # calls that anybody may watch
    create_on_publish: bool = True  # who publishes into a call that is not there makes it, by this gateway's own key


class Authorizer:
    """See the file. `on_created` is told of each call that is made by publishing into it."""

    def __init__(
        self,
        authenticator: Authenticator,
        rights_cache: RightsCache,
        store: Store,
        rules: Rules,
        on_created: Callable[[None, Call], None],
    ) -> None:
        self.rules = rules
        self._store = store
        self.authenticator = authenticator
        self._rights_cache = rights_cache
        self._sent_out: BoundedMap[tuple[str, str], datetime] = BoundedMap(_MOST_SENT_OUT)  # call and user -> until when
        self._on_created = on_created

    def identify(self, text: str | None, *, api_key: str = "", address: str = "") -> Identity:
        """Who shows this token or stream key; anonymous without one. Raises `Rejected` (UNAUTHORIZED, TOO_MANY_REQUESTS, OVERLOADED)."""
        if not text:
            return Identity()
        return self.authenticator.identify(Credential(text), "The token", api_key=api_key, address=address)

    def examine(self, credential: Credential, call: str | None, address: str = "") -> Grant:
        """Who publishes into which call. Raises `Rejected` with words for the streamer. Reads memory only."""
        identity = self.authenticator.identify(credential, "The stream key", address=address)
        if not identity.user_id:
            raise Rejected(Reason.FORBIDDEN, "The stream key is a server's token, which is nobody's: make one for a user")
        cid = self._call_of(identity, call)
        known = self._rights_cache.call(cid)
        sends = self._sends(identity, cid)
        absent = known is None and not self._may_create(identity, cid)
        if absent or not sends:
            raise self._verdict(identity, cid, Capability.SEND_VIDEO) or NoSuchCall(cid)
        settings = known.call.settings(self._kind(cid)) if known is not None else self._kind(cid).settings
        return Grant(
            identity.user_id,
            cid,
            identity.expires_at,
            identity,
            settings,
            sends=sends,
            exists=known is not None,
            muted=known.call.muted_users.get(identity.user_id, frozenset()) if known is not None else frozenset(),
        )

    async def prepare(self, credential: Credential, call: str | None) -> None:
        """What `examine` will ask for is in memory. Raises `StoreUnavailable`; what is wrong with the credential is `examine`'s to say."""
        if name := self.authenticator.stream_key_name(credential):
            await self._rights_cache.look_up(stream_key=name)
        try:
            identity = self.authenticator.identify(credential, "The stream key")
            cid = self._call_of(identity, call)
        except Rejected:
            return
        await self._rights_cache.look_up(user_id=identity.user_id)
        await self._rights_cache.find(cid)  # one that has ended is not one that never was

    async def settle(self, grant: Grant) -> Grant:
        """The call is there: publishing into one that is not makes it. Raises `Rejected`: meanwhile it may have been made by others."""
        if grant.exists:
            return grant
        now, kind = self.authenticator.now, self._kind(grant.call_cid)
        await self._store.users.ensure([grant.user_id], now)
        call, made = await self._store.calls.get_or_create(created(kind, grant.call_cid.partition(":")[2], grant.user_id, now))
        if made:
            self._on_created(None, call)
        await self._rights_cache.refresh(grant.call_cid)  # one that has ended is not in memory
        sends = self._sends(grant.identity, grant.call_cid)
        if not sends:
            self.judge(grant.identity, grant.call_cid, Capability.SEND_VIDEO)
        return replace(grant, sends=sends, exists=True)

    def _sends(self, identity: Identity, cid: str) -> frozenset[Capability]:
        return frozenset(each for each in SENDING if self._verdict(identity, cid, each) is None)

    def whose(self, credential: Credential, call: str | None) -> tuple[str, str] | None:
        """The user and the call of a good credential of somebody who belongs there, allowed to publish now or not; else None."""
        try:
            identity = self.authenticator.identify(credential, "The stream key")
            cid = self._call_of(identity, call)
            known = self._rights_cache.call(cid)
        except (Rejected, NotInMemory):
            return None
        if identity.call_cids is not None and cid not in identity.call_cids:
            return None
        at_home = known is not None and bool(self._rights_cache.roles_in(known, identity.user_id))
        return (identity.user_id, cid) if identity.claimed or identity.stream_key or at_home else None

    async def watch(self, cid: str, token: str | None, address: str = "") -> Identity:
        """Who watches; raises `Rejected`. A public call asks nobody: there a token that is none is none."""
        if not re.fullmatch(CALL_ID, cid):
            raise Rejected(Reason.NOT_FOUND, "There is no such call: a call is named like livestream:demo")
        try:
            identity = self.identify(token, address=address)
        except Rejected:
            if cid not in self.rules.public:
                raise
            identity = Identity()
        await self.admit(identity, cid, Capability.JOIN_CALL)
        return identity

    async def admit(self, identity: Identity, cid: str, capability: Capability) -> None:
        """Looks up what is not in memory, and judges. Raises `Rejected`."""
        await self._look_up(identity, cid)
        self.judge(identity, cid, capability)

    async def still_watches(self, identity: Identity, cid: str) -> None:
        """Raises `Rejected` where who was let in to watch may not any more, whatever the call's state: HLS may go on in backstage."""
        await self._look_up(identity, cid)
        if refusal := self.authenticator.withdrawn(identity) or self._outside(identity, cid, Capability.JOIN_CALL):
            raise refusal
        standing = self._standing(identity, cid)
        going_on = replace(standing.state, backstage=False, ended=False)
        if refusal := self._judged(identity, Capability.JOIN_CALL, replace(standing, state=going_on)):
            raise refusal

    async def _look_up(self, identity: Identity, cid: str) -> None:
        await self._rights_cache.look_up(cid=cid, user_id=identity.user_id, stream_key=identity.stream_key)

    async def administers(self, identity: Identity) -> bool:
        """Whether they may what is about no call, or about all: the server of an application or its administrator, narrowed to nothing.
        Raises `StoreUnavailable`."""
        if identity.anonymous or not identity.unrestricted:
            return False
        if identity.server:
            return True
        await self._rights_cache.look_up(user_id=identity.user_id)
        return self._rights_cache.role(identity.user_id) == Role.ADMIN

    def judge(self, identity: Identity, cid: str, capability: Capability) -> None:
        """Raises `Rejected` where they may not, now. Reads memory only."""
        refusal = self._verdict(identity, cid, capability)
        if refusal is not None:
            raise refusal

    def may(self, identity: Identity, cid: str, capability: Capability) -> bool:
        """As `judge`; what is not in memory is a no."""
        try:
            self.judge(identity, cid, capability)
        except Rejected:
            return False
        return True

    def role(self, identity: Identity) -> str:
        """In the application, as it is now. For a user who was let in: it is in memory then."""
        return self._rights_cache.role(identity.user_id)

    def is_over(self, cid: str) -> bool:
        """The call has ended or is deleted. For what is in memory."""
        try:
            known = self._rights_cache.call(cid)
        except NotInMemory:
            return False
        return known is None or known.call.ended_at is not None

    def send_out(self, cid: str, user_id: str) -> None:
        """They were kicked: for a while they may neither publish nor watch. Who is blocked as well may come back when that is undone."""
        if user_id not in self._blocked(cid):
            now = self.authenticator.now
            while self._sent_out and next(iter(self._sent_out.values())) <= now:
                self._sent_out.popitem(last=False)
            self._sent_out[cid, user_id] = now + timedelta(seconds=SENT_OUT_S)

    def _blocked(self, cid: str) -> Sequence[str]:
        try:
            known = self._rights_cache.call(cid)
        except NotInMemory:
            return ()
        return known.call.blocked_user_ids if known is not None else ()

    def capabilities(self, identity: Identity, cid: str) -> frozenset[Capability]:
        """All that they may do now in a call that is in memory (`own_capabilities`)."""
        if self.authenticator.withdrawn(identity) or not (identity.call_cids is None or cid in identity.call_cids):
            return frozenset()
        standing = self._standing(identity, cid)  # once: a list of calls asks this of each
        return frozenset(each for each in identity.reach if self._judged(identity, each, standing) is None)

    def inside(self, identity: Identity, cid: str) -> bool:
        """Whether more of a call that they may read is theirs to see than its state and its start: it is not closed to them."""
        known = self._rights_cache.call(cid)
        if identity.server or known is None:
            return identity.server
        call, state = known.call, self._state(identity, cid, known)
        closed = state.backstage and (call.ended_at is None or call.live_started_at is None)
        return not closed or Capability.JOIN_BACKSTAGE in identity.reach & self._held(identity, cid, known)

    def check_gives(self, identity: Identity, cid: str, roles: Iterable[str], *, creating: bool = False) -> None:
        """Raises `Rejected` where one of these roles is above their own: nobody gives away what is not theirs. `creating`: who makes a
        call is its host."""
        if identity.server:
            return
        own = self._roles(identity, self._rights_cache.call(cid)) | ({Role.HOST} if creating else set())
        grants = self._grants(identity, cid)
        for role in roles:
            if lacking := above(grants, own, role):
                words = f"{role} is above your own role: it may {sorted(lacking)[0]}, which you may not. Give a lesser one, or ask a server"
                raise Rejected(Reason.FORBIDDEN, words)

    def _call_of(self, identity: Identity, call: str | None) -> str:
        if call is not None:
            return call
        if identity.call_cids is None:
            words = "The stream key is a user's token: add ?call= and the call's name to it, e.g. ?call=livestream:demo"
            raise Rejected(Reason.BAD_REQUEST, words)
        if len(identity.call_cids) > 1:
            raise Rejected(Reason.BAD_REQUEST, "The stream key is for several calls: add ?call= and the call's name to it")
        return next(iter(identity.call_cids))

    def _verdict(self, identity: Identity, cid: str, capability: Capability) -> Rejected | None:
        """None: they may. Raises `NotInMemory`."""
        refusal = self.authenticator.withdrawn(identity) or self._outside(identity, cid, capability)
        return refusal or self._judged(identity, capability, self._standing(identity, cid))

    def _standing(self, identity: Identity, cid: str) -> _Standing:
        known = self._rights_cache.call(cid)
        return _Standing(
            cid,
            known is not None or bool(identity.claimed),
            self._state(identity, cid, known),
            self._grants(identity, cid),
            self._roles(identity, known),
            self._out_for(identity, cid),
        )

    def _judged(self, identity: Identity, capability: Capability, standing: _Standing) -> Rejected | None:
        """Of a credential that is good for it."""
        if not standing.is_there and capability is not Capability.CREATE_CALL:
            return NoSuchCall(standing.cid)
        if identity.server:
            gone = standing.state.ended and capability in _OF_WHO_IS_IN
            return Rejected(Reason.FORBIDDEN, "the call has ended: create another one") if gone else None
        if capability in _OF_WHO_IS_IN and (seconds := standing.out_for_s):
            return Rejected(Reason.FORBIDDEN, f"the call's host has taken you out of it: you may come back in {seconds} s")
        verdict = allowed(standing.grants, standing.roles, capability, standing.state)
        return None if isinstance(verdict, Allowed) else Rejected(verdict.reason, verdict.why)

    def _out_for(self, identity: Identity, cid: str) -> int:
        """Seconds until who was kicked may come back; 0: they may now."""
        until = self._sent_out.get((cid, identity.user_id)) if identity.user_id else None
        return max(0, ceil((until - self.authenticator.now).total_seconds())) if until is not None else 0

    def _outside(self, identity: Identity, cid: str, capability: Capability) -> Rejected | None:
        """What the credential is not for, whatever the call says."""
        if cid.partition(":")[0] not in self._rights_cache.call_types:
            return _no_type(cid)
        what = "The stream key" if capability in SENDING else "The token"
        if identity.call_cids is not None and cid not in identity.call_cids:
            return Rejected(Reason.FORBIDDEN, f"{what} is for another call: make one for this call")
        if capability not in identity.reach:
            words = "publishing only: use a user's token" if identity.stream_key else "watching only: make one for publishing"
            return Rejected(Reason.FORBIDDEN, f"{what} is for {words}")
        return None

    def _may_create(self, identity: Identity, cid: str) -> bool:
        """By publishing into it: only who shows a key that this gateway's own command made. To an application a call that is not there is a
        mistake, or was deleted."""
        return self.rules.create_on_publish and identity.claimed == Role.HOST

    def _roles(self, identity: Identity, known: KnownCall | None) -> frozenset[str]:
        if identity.claimed:
            return frozenset({identity.claimed})
        if not identity.user_id:
            return frozenset({Role.ANONYMOUS})
        in_call = self._rights_cache.roles_in(known, identity.user_id) if known is not None else frozenset()
        return in_call | {self._rights_cache.role(identity.user_id)}

    def _held(self, identity: Identity, cid: str, known: KnownCall | None) -> frozenset[Capability]:
        """Whatever the call's state."""
        return granted(self._grants(identity, cid), self._roles(identity, known))

    def _grants(self, identity: Identity, cid: str) -> Mapping[str, frozenset[Capability]]:
        """The gateway's own tokens are the operator's word: their roles mean something in every type."""
        grants = self._kind(cid).grants
        return {**MEMBERS, **grants} if identity.claimed else grants

    def _kind(self, cid: str) -> CallType:
        kind = self._rights_cache.call_types.get(cid.partition(":")[0])
        if kind is None:
            raise _no_type(cid)
        return kind

    def _state(self, identity: Identity, cid: str, known: KnownCall | None) -> CallState:
        public = cid in self.rules.public
        if known is None:
            return CallState(backstage=self._kind(cid).settings.backstage.enabled, public=public)
        return known.call.state(self._kind(cid), identity.user_id, self.authenticator.now, public=public)


def _no_type(cid: str) -> Rejected:
    kind = cid.partition(":")[0]
    return Rejected(
        Reason.NOT_FOUND,
        f"there is no call type {kind}: choose livestream, default, audio_room or one of your own",
    )
