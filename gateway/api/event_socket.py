"""Events over one WebSocket for each client: `GET /api/v2/video/connect`, then JSON messages (`socket_messages`) in both directions.

The token comes in `Authorization`, or in the first message from browsers, which can set no headers; never in the address, which
ends up in logs. The client subscribes to calls that it may read; it may send reactions and custom events where its call grants
that.

Kept true: what a client is told is what it may know now (`gateway.model.events.EventAudience`), and it is asked again after
everything that may change that. A message has `MAX_MESSAGE` bytes, a connection `MAX_SUBSCRIPTIONS` calls and `MESSAGE_RATE`
messages a second, pings among them, a user `MAX_PER_USER` connections. A client that does not read is closed (4008) when
`MAX_UNSENT` bytes wait for it, and reads the call's state when it comes back; one that has vanished is found out by pings
within a minute.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from time import monotonic_ns, time
from typing import Any, Final, assert_never

from aiohttp import WSMsgType, hdrs, web
from pydantic import ValidationError

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity
from gateway.access.rights_cache import NotInMemory
from gateway.api.framework.errors import KINDS, ApiError, answer
from gateway.api.framework.request_credentials import identity_of
from gateway.api.schemas.parts import FieldError
from gateway.api.schemas.socket_messages import (
    MESSAGES,
    Authenticate,
    Close,
    Message,
    Ping,
    React,
    Send,
    Subscribe,
    Unsubscribe,
)
from gateway.events.fanout import EVERY_CALL, EventFanout, text_frame
from gateway.events.interactions import Interactions, InteractionSender
from gateway.model.events import AUDIENCE, EventAudience
from gateway.model.permissions import Capability, Role
from gateway.store.store import Store
from protocols.errors import Reason, Rejected
from protocols.rate_limit import TokenBucket

MAX_MESSAGE: Final = 16 * 1024  # bytes
MAX_UNSENT: Final = 128 * 1024  # bytes
MAX_SUBSCRIPTIONS: Final = 32
MAX_PER_USER: Final = 20
MAX_CONNECTIONS: Final = 5000
MESSAGE_RATE: Final = 20.0  # a second
MESSAGE_BURST: Final = 60.0
MAX_FAULTS: Final = 10
LONGEST_S: Final = 86400.0 * 30  # of a connection whose token has no end


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a connection may take, all in seconds."""

    hello_s: float = 10.0  # until it has said who it is
    ping_s: float = 25.0  # without a word from it, until it is sent a ping; it has half of that for the answer
    close_s: float = 2.0  # for its answer when it is closed


class Sockets:
    """The route and the open connections."""

    def __init__(
        self,
        authorizer: Authorizer,
        store: Store,
        broadcast: EventFanout,
        interactions: Interactions,
        *,
        origins: Collection[str] = ("*",),
        max_connections: int = MAX_CONNECTIONS,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        """`origins`: web origins whose pages may connect, besides our own."""
        self.authorizer = authorizer
        self.store = store
        self.broadcast = broadcast
        self.interactions = interactions
        self.open: set[SocketClient] = set()
        self.users: Counter[str] = Counter()  # connections by user id
        self.opened = 0
        self.closed: Counter[str] = Counter()  # by the reason that was ours, in lower case; "client" for theirs
        self.timeouts = timeouts
        self._origins = frozenset(origins)
        self._max_connections = max_connections

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/v2/video/connect", self._connect)]

    def close(self) -> None:
        """Every client is told to come back later."""
        for connection in self.open:
            connection.end(Close.GOING_AWAY)

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        try:
            identity = self._examined(request)
        except Rejected as refusal:
            return answer(ApiError.of(refusal))
        except ApiError as error:
            return answer(error)
        return await self._serve(request, identity)

    def _examined(self, request: web.Request) -> Identity | None:
        """Who asks, before there is a connection; None where the first message is to tell. Raises `ApiError` and `Rejected`."""
        key = request.headers.get(hdrs.SEC_WEBSOCKET_KEY, "")
        if not (key.isascii() and web.WebSocketResponse().can_prepare(request).ok):
            raise Rejected(Reason.BAD_REQUEST, "this is a WebSocket: ask for it with Upgrade: websocket (RFC 6455)")
        origin = request.headers.get("Origin")
        if origin is not None and not self._origins & {"*", origin} and origin.partition("://")[2] != request.host:
            raise Rejected(Reason.FORBIDDEN, "pages of this origin may not connect: see http.cors_origins")
        if len(self.open) >= self._max_connections:
            raise Rejected(Reason.OVERLOADED, "the gateway has no room for another connection: try again later")
        return identity_of(request, self.authorizer) if request.headers.get("Authorization", "").strip() else None

    async def _serve(self, request: web.Request, identity: Identity | None) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            timeout=self.timeouts.close_s,
            heartbeat=self.timeouts.ping_s,
            max_msg_size=MAX_MESSAGE,
            compress=False,
            autoping=False,  # they are counted, too: `_next_text`
        )
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = SocketClient(self, socket, request.transport, request.remote or "", identity)
        self.open.add(connection)
        self.opened += 1
        try:
            await connection.run()
        finally:
            connection.leave()
            self.open.discard(connection)
            self.closed[connection.ended.name.lower() if connection.ended else "client"] += 1
        return socket


class SocketClient:
    """One client; an outlet of the broadcast (`gateway.events.fanout.Outlet`)."""

    def __init__(
        self,
        sockets: Sockets,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        remote: str,
        identity: Identity | None,
    ) -> None:
        self.ended: Close | None = None  # why we close it
        self._sockets = sockets
        self._socket = socket
        self._transport = transport
        self._remote = remote
        self._identity = identity
        self._me = InteractionSender("", "", Role.ANONYMOUS, remote)
        self._calls: set[str] = set()
        self._rate = TokenBucket(MESSAGE_RATE, MESSAGE_BURST)
        self._reading: asyncio.Timeout | None = None

    async def run(self) -> None:
        """From the first message to the end, whoever ends it."""
        try:
            async with asyncio.timeout(self._sockets.timeouts.hello_s) as self._reading:
                if await self._greeted():
                    seconds = self._identity.expires_at - time() if self._identity and self._identity.expires_at else LONGEST_S
                    self._reading.reschedule(asyncio.get_running_loop().time() + seconds)
                    while (text := await self._next_text()) is not None:
                        await self._take(text)
        except Rejected:  # the store does not answer
            self.end(Close.TRY_LATER)
        except TimeoutError:
            if self.ended is None:
                self.ended = Close.EXPIRED if self._identity else Close.UNAUTHENTICATED
        finally:
            self._reading = None
        if self.ended is not None and not self._socket.closed:
            await self._close(self.ended)

    def end(self, why: Close) -> None:
        """Close it, from wherever."""
        if self.ended is None:
            self.ended = why
            if self._reading is not None and not self._reading.expired():
                self._reading.reschedule(0)

    def leave(self) -> None:
        """Nothing is told any more."""
        for cid in self._calls:
            self._sockets.broadcast.remove(self, cid)
        self._calls.clear()
        if self._me.id:
            self._sockets.users[self._me.id] -= 1
            if not self._sockets.users[self._me.id]:
                del self._sockets.users[self._me.id]

    def write(self, frames: bytes) -> None:
        """Whole frames beside those of aiohttp, which also writes each at once: nothing can come in between."""
        if self.ended is not None or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self.end(Close.TOO_SLOW)
        else:
            self._transport.write(frames)

    def reconsider(self, cid: str) -> EventAudience | None:
        try:
            return self._audience(cid)
        except Rejected as refusal:
            why = refusal.detail
        except NotInMemory:
            why = "the gateway has too many calls to follow this one: subscribe again"
        self._calls.discard(cid)
        self._tell("subscription.ended", cid=cid, message=why)
        return None

    async def _next_text(self) -> str | None:
        """None: there is none any more. Pings are answered here and counted as what a client says: each costs as much."""
        while self.ended is None:
            message = await self._socket.receive()
            match message.type:
                case WSMsgType.TEXT:
                    return str(message.data)
                case WSMsgType.BINARY:
                    self.end(Close.NOT_TEXT)
                case WSMsgType.PING | WSMsgType.PONG if not self._rate.take(monotonic_ns()):
                    self.end(Close.TOO_MANY)
                case WSMsgType.PING:
                    await self._socket.pong(message.data)
                case WSMsgType.PONG:
                    pass
                case _:  # closed; too long, no answer to a ping: aiohttp has closed it
                    return None
        return None

    async def _close(self, why: Close) -> None:
        code, words = why.value
        try:
            async with asyncio.timeout(self._sockets.timeouts.close_s):
                await self._socket.close(code=code, message=words.encode())
        except (TimeoutError, ConnectionError):
            pass
        if why is Close.TOO_SLOW:
            self._transport.abort()  # else what it does not read would be kept for it

    async def _greeted(self) -> bool:
        """Knows who it is; False where it has gone or is not let in."""
        first = Authenticate(type="authenticate")
        if self._identity is None:
            text = await self._next_text()
            if text is None:
                return False
            try:
                said = MESSAGES.validate_json(text)
                if not isinstance(said, Authenticate):
                    raise Rejected(Reason.UNAUTHORIZED, Close.UNAUTHENTICATED.value[1])
                first = said
                self._identity = self._sockets.authorizer.identify(first.token, api_key=first.api_key, address=self._remote)
            except (ValidationError, Rejected) as error:
                self._refuse(error, first.id)
                self.end(Close.UNAUTHENTICATED)
                return False
        return await self._welcomed(self._identity, first.id)

    async def _welcomed(self, identity: Identity, reply_to: str | None) -> bool:
        sender = await self._sender(identity.user_id) if identity.user_id else self._me
        if sender.id and self._sockets.users[sender.id] >= MAX_PER_USER:
            self.end(Close.TOO_MANY)
            return False
        self._me = sender
        self._sockets.users[sender.id] += bool(sender.id)
        ping_seconds = self._sockets.timeouts.ping_s
        self._tell("connection.ok", reply_to, user=sender.as_json(), server=identity.server, ping_seconds=ping_seconds)
        return True

    async def _take(self, text: str) -> None:
        if not self._rate.take(monotonic_ns()):
            self.end(Close.TOO_MANY)
            return
        message: Message | None = None
        try:
            message = MESSAGES.validate_json(text)
            await self._do(message)
        except (ValidationError, Rejected) as error:
            self._refuse(error, message.id if message is not None else None)

    async def _do(self, message: Message) -> None:
        match message:
            case Subscribe():
                await self._subscribe(message.cid, message.id)
            case Unsubscribe():
                self._calls.discard(message.cid)
                self._sockets.broadcast.remove(self, message.cid)
                self._tell("unsubscribed", message.id, cid=message.cid)
            case React(reaction=reaction):
                sender = await self._allowed(message.cid, Capability.CREATE_REACTION, message.user_id)
                event = self._sockets.interactions.react(
                    message.cid, sender, reaction.type, reaction.emoji_code, reaction.custom
                )
                self._tell("sent", message.id, event_id=event.id)
            case Send():
                sender = await self._allowed(message.cid, Capability.SEND_EVENT, message.user_id)
                event = self._sockets.interactions.send(message.cid, sender, message.custom)
                self._tell("sent", message.id, event_id=event.id)
            case Ping():
                self._tell("pong", message.id)
            case Authenticate():
                raise Rejected(Reason.CONFLICT, "you are known already: open another connection for another token")
            case _:
                assert_never(message)

    async def _subscribe(self, cid: str, reply_to: str | None) -> None:
        identity = self._known()
        if cid not in self._calls and len(self._calls) >= MAX_SUBSCRIPTIONS:
            raise Rejected(Reason.TOO_MANY_REQUESTS, f"a connection may have {MAX_SUBSCRIPTIONS} calls: unsubscribe from one")
        if cid == EVERY_CALL:
            capabilities = frozenset(Capability)
        else:
            await self._sockets.authorizer.admit(identity, cid, Capability.READ_CALL)
            capabilities = self._sockets.authorizer.capabilities(identity, cid)
        audience = self._audience(cid)
        self._calls.add(cid)
        self._sockets.broadcast.add(self, cid, audience)
        recent = [each for each in self._sockets.broadcast.recent.of(cid) if AUDIENCE[each.type] <= audience]
        told = [each.told(audience) for each in recent]
        self._tell("subscribed", reply_to, told, cid=cid, own_capabilities=sorted(capabilities))

    def _audience(self, cid: str) -> EventAudience:
        """Raises `Rejected` where it may not read the call; `EVERY_CALL`, where it may not all."""
        identity, authorizer = self._known(), self._sockets.authorizer
        if cid == EVERY_CALL:
            if (refusal := authorizer.authenticator.withdrawn(identity)) is not None:
                raise refusal
            if not (identity.server and identity.unrestricted):
                raise Rejected(Reason.FORBIDDEN, "every call: that takes a server token that is not narrowed to calls")
            return EventAudience.HOSTS
        authorizer.judge(identity, cid, Capability.READ_CALL)
        if identity.server or authorizer.may(identity, cid, Capability.SEND_VIDEO):
            return EventAudience.HOSTS
        return EventAudience.PRESENT if authorizer.may(identity, cid, Capability.JOIN_CALL) else EventAudience.READERS

    async def _allowed(self, cid: str, capability: Capability, user_id: str | None) -> InteractionSender:
        """Who sends, being allowed to. Raises `Rejected`."""
        identity = self._known()
        await self._sockets.authorizer.admit(identity, cid, capability)
        if identity.server:
            if user_id is None:
                raise Rejected(Reason.BAD_REQUEST, "user_id: say for which user, because the token names none")
            return await self._sender(user_id)
        if user_id is not None and user_id != identity.user_id:
            raise Rejected(Reason.FORBIDDEN, "you can do this only as yourself: leave out user_id")
        return replace(self._me, role=self._sockets.authorizer.role(identity)) if identity.user_id else self._me

    async def _sender(self, user_id: str) -> InteractionSender:
        user = (await self._sockets.store.users.get([user_id])).get(user_id)
        return InteractionSender(user_id, user.name if user else "", user.role if user else Role.USER, self._remote)

    def _known(self) -> Identity:
        assert self._identity is not None
        return self._identity

    def _refuse(self, error: ValidationError | Rejected, reply_to: str | None) -> None:
        refusal = ApiError.of(error) if isinstance(error, Rejected) else _unreadable(error)
        details = [each.model_dump() for each in refusal.details]
        code = KINDS[refusal.status].code
        self._tell("error", reply_to, code=code, status=refusal.status, message=refusal.message, details=details)

    def _tell(self, kind: str, reply_to: str | None = None, recent: Sequence[str] = (), **fields: Any) -> None:
        form = {"type": kind} | ({"reply_to": reply_to} if reply_to is not None else {}) | fields
        text = json.dumps(form, separators=(",", ":"))
        if recent:
            text = f'{text[:-1]},"recent":[{",".join(recent)}]}}'  # they are JSON already
        self.write(text_frame(text))


def _unreadable(error: ValidationError) -> ApiError:
    """What is wrong with a message, without repeating it; the first part of each place is the message's type."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[:MAX_FAULTS]
    faults = [FieldError(field=".".join(str(part)[:64] for part in each["loc"][1:]), message=each["msg"]) for each in found]
    return ApiError(400, f"{faults[0].field}: {faults[0].message}".removeprefix(": "), faults)
