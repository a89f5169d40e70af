"""What must be answered at once: API keys, call types, and the rights in the calls that are not over, all from memory.

Kept true: what this process wrote is seen here before the write returns, what another wrote within `FOLLOW_S`, and what a stream key rests
on not after the key itself; memory is bounded: where there are more open calls, users or stream keys than fit, those read longest ago are
forgotten and looked up when they are asked for again.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from gateway.model.permissions import Role
from gateway.model.records import ApiKey, Call, CallType, Change, ChangeKind, GivenRole, StreamKey
from gateway.store.store import Store
from protocols.bounded_map import BoundedMap
from protocols.errors import Reason, Rejected

MAX_CALLS: Final = 10_000
MAX_USERS: Final = 50_000
MAX_STREAM_KEYS: Final = 50_000

OPERATOR: Final = "gateway"
"""Who creates the calls of the configuration and of the command line: nobody who shows a token is that user's host."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class KnownCall:
    """A call with what its members are."""

    call: Call
    roles: dict[str, GivenRole]  # user id -> role in the call


class NotInMemory(Rejected):
    """It must be looked up in the store first (`RightsCache.look_up`), or was forgotten again since."""

    def __init__(self) -> None:
        super().__init__(Reason.OVERLOADED, "the gateway has too many calls to remember this one: connect again in a moment")


class Memory(Generic[K, V]):
    """The most recently used of what the store has. As long as all of it fits (`complete`), what is not here is nowhere."""

    def __init__(self, most: int) -> None:
        self.complete = True
        self._known: BoundedMap[K, V | None] = BoundedMap(most)
        self._fetches = 0
        self._newest: dict[K, int] = {}  # which of the fetches under way began last

    def get(self, key: K) -> V | None:
        """None: there is none. Raises `NotInMemory`."""
        try:
            return self._known[key]
        except KeyError:
            if self.complete:
                return None
            raise NotInMemory from None

    def put(self, key: K, value: V | None) -> None:
        if value is None and self.complete:
            self._known.pop(key, None)
            return
        if self._known.full and key not in self._known:
            self.complete = False  # before one is forgotten: no other thread may take it for one that is nowhere
        self._known[key] = value

    def __contains__(self, key: K) -> bool:
        return key in self._known

    def knows(self, key: K) -> bool:
        """Whether `get` has an answer."""
        return self.complete or key in self._known

    async def fetch(self, key: K, read: Callable[[K], Awaitable[V | None]]) -> None:
        """Remembers what `read` gives. Of several at once the one that began last has the last word: it read the newest. Until it has
        spoken, what the others read is good."""
        self._fetches += 1
        ticket = self._newest[key] = self._fetches
        value: V | None = None
        try:
            value = await read(key)
        finally:
            newest = self._newest.get(key)
            if newest == ticket:
                del self._newest[key]
        if newest is not None:
            self.put(key, value)

    def clear(self) -> None:
        self._known.clear()
        self.complete = True


class RightsCache:
    """Reads and follows the store. `start` first; `apply` is given each change."""

    def __init__(self, store: Store, *, max_calls: int = MAX_CALLS) -> None:
        """`max_calls`: so many calls are kept in memory."""
        self.api_keys: dict[str, ApiKey] = {}
        self.call_types: dict[str, CallType] = {}
        self._store = store
        self._max_calls = max_calls
        self._calls: Memory[str, KnownCall] = Memory(max_calls)
        self._roles: Memory[str, GivenRole] = Memory(MAX_USERS)  # only those who are more or less than a plain user
        self._stream_keys: Memory[str, StreamKey] = Memory(MAX_STREAM_KEYS)

    async def start(self) -> None:
        """Everything from the store, as it is now."""
        store = self._store
        self.api_keys = await store.api_keys.all()
        self.call_types = await store.call_types.all()
        for memory in (self._calls, self._roles, self._stream_keys):
            memory.clear()
        calls, all_of_them = await store.calls.open_ones(self._max_calls)
        roles = await store.calls.roles()
        for call in reversed(calls):  # the newest last: it is forgotten last
            self._calls.put(call.cid, KnownCall(call, roles.get(call.cid, {})))
        self._calls.complete = all_of_them
        special = await store.users.special(MAX_USERS + 1)
        for user_id, role in special.items():
            self._roles.put(user_id, role)
        keys = await store.stream_keys.usable(MAX_STREAM_KEYS + 1)
        for key in keys:
            self._stream_keys.put(key.name, key)

    def call(self, cid: str) -> KnownCall | None:
        """None: there is no such call. Raises `NotInMemory`."""
        return self._calls.get(cid)

    def stands(self, api_key: str) -> bool:
        """Whether what this API key has given holds: it was not revoked since. What the gateway's operator has given (empty) does."""
        return not api_key or ((key := self.api_keys.get(api_key)) is not None and key.revoked_at is None)

    def role(self, user_id: str) -> str:
        """The user's role in the app, that of a plain user for one nobody named yet. Raises `NotInMemory`."""
        given = self._roles.get(user_id)
        return given.role if given is not None and self.stands(given.api_key) else Role.USER

    def roles_in(self, known: KnownCall, user_id: str) -> frozenset[str]:
        """What they are in the call, as its member and as who has created it, so far as that holds."""
        call, given = known.call, known.roles.get(user_id)
        roles = {given.role} if given is not None and self.stands(given.api_key) else set[str]()
        if call.created_by_id == user_id != OPERATOR and self.stands(call.api_key):
            roles.add(Role.HOST)
        return frozenset(roles)

    def stream_key(self, name: str) -> StreamKey | None:
        """None: there is none, or it was revoked, or the API key that made it. Raises `NotInMemory`."""
        key = self._stream_keys.get(name)
        return key if key is not None and self.stands(key.api_key) else None

    async def look_up(self, *, cid: str = "", user_id: str = "", stream_key: str = "") -> None:
        """Afterwards these are in memory. Raises `StoreUnavailable`."""
        if cid and not self._calls.knows(cid):
            await self._calls.fetch(cid, self._read_call)
        if user_id and not self._roles.knows(user_id):
            await self._roles.fetch(user_id, self._read_role)
        # One that is not here may have been made elsewhere a moment ago; nobody can ask for names at will, they carry a code of ours.
        if stream_key and stream_key not in self._stream_keys:
            await self._stream_keys.fetch(stream_key, self._read_stream_key_and_what_it_names)

    async def find(self, cid: str) -> KnownCall | None:
        """The call, one that has ended too: in memory is at first none of those. None: there is none. Raises `StoreUnavailable`."""
        await self.look_up(cid=cid)
        if (known := self.call(cid)) is None:
            await self.refresh(cid)
            known = self.call(cid)
        return known

    async def refresh(self, cid: str) -> None:
        """The call as the store has it is in memory, one that has ended too."""
        await self._calls.fetch(cid, self._read_call)

    async def apply(self, changes: Sequence[Change]) -> None:
        """These have been written: what is in memory of them is read again. Raises `StoreUnavailable`."""
        by_kind = _by_kind(changes)
        # Stream keys last: nobody may come with one before what it rests on is known
        for kind in sorted(by_kind, key=lambda kind: kind is ChangeKind.STREAM_KEY):
            keys = by_kind[kind]
            match kind:
                case ChangeKind.API_KEY:
                    self.api_keys = await self._store.api_keys.all()
                case ChangeKind.CALL_TYPE:
                    self.call_types = await self._store.call_types.all()
                case ChangeKind.CALL:
                    await self._again(self._calls, keys, self._read_call)
                case ChangeKind.USER:
                    await self._again(self._roles, keys, self._read_role)
                case ChangeKind.STREAM_KEY:
                    await self._again(self._stream_keys, keys, self._read_stream_key)
                case ChangeKind.KICK | ChangeKind.END_STREAM | ChangeKind.MUTE_ALL:
                    pass

    @staticmethod
    async def _again(memory: Memory[str, V], keys: Sequence[str], read: Callable[[str], Awaitable[V | None]]) -> None:
        for key in keys:
            if memory.complete or key in memory:
                await memory.fetch(key, read)

    async def _read_call(self, cid: str) -> KnownCall | None:
        call = await self._store.calls.get(cid)
        if call is None:
            return None
        return KnownCall(call, (await self._store.calls.roles(cid)).get(cid, {}))

    async def _read_role(self, user_id: str) -> GivenRole | None:
        user = (await self._store.users.get([user_id])).get(user_id)
        return GivenRole(user.role, user.api_key) if user is not None and user.role != Role.USER else None

    async def _read_stream_key_and_what_it_names(self, name: str) -> StreamKey | None:
        """For one that was made elsewhere: so may have been, just before, its call and that one's type, its user's membership and role, and
        the API key by which all these came about."""
        if (key := await self._read_stream_key(name)) is None:
            return None
        if key.call_cid.partition(":")[0] not in self.call_types:
            self.call_types = await self._store.call_types.all()
        await self._roles.fetch(key.user_id, self._read_role)
        if await self._may_refresh(key):
            await self.refresh(key.call_cid)
        if not {key.api_key, *self._given_by(key)} <= self.api_keys.keys() | {""}:
            self.api_keys = await self._store.api_keys.all()
        return key

    async def _may_refresh(self, key: StreamKey) -> bool:
        """Its call is not the one that is known, or only its members are not: what else is new of one is for the changes that are followed,
        which are told to clients by the difference. Unless its user is nobody there so far, which would keep them out."""
        try:
            known = self.call(key.call_cid)
        except NotInMemory:
            return True
        if known is None or not self.roles_in(known, key.user_id):
            return True
        return await self._store.calls.get(key.call_cid) == known.call

    def _given_by(self, key: StreamKey) -> Iterator[str]:
        """The API keys by which its user has what rights they have."""
        with suppress(NotInMemory):  # forgotten again since
            if (role := self._roles.get(key.user_id)) is not None:
                yield role.api_key
            if (known := self.call(key.call_cid)) is not None:
                yield known.call.api_key
                if key.user_id in known.roles:
                    yield known.roles[key.user_id].api_key

    async def _read_stream_key(self, name: str) -> StreamKey | None:
        key = await self._store.stream_keys.get(name)
        return key if key is not None and key.revoked_at is None else None


def _by_kind(changes: Sequence[Change]) -> dict[ChangeKind, list[str]]:
    kinds: dict[ChangeKind, list[str]] = {}
    for change in changes:
        keys = kinds.setdefault(change.kind, [])
        if change.key not in keys:
            keys.append(change.key)
    return kinds
