"""What the API works with: the store, who may do what, who is here, and those that it tells; and how a call looks in an answer.

Kept true: who may is decided by `gateway.access.authorizer` alone; nothing shown of a call is a credential, and who may not block does not
see who is blocked, nor who may not come in who is in it; of a call in backstage others see its state and its start alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity, Tokens
from gateway.access.rights_cache import RightsCache
from gateway.api.framework.broadcasts import Broadcasts
from gateway.api.framework.call_access import CallAccess
from gateway.api.framework.encoder_addresses import EncoderAddresses
from gateway.api.framework.errors import ApiError
from gateway.api.framework.quotas import Quotas
from gateway.api.schemas.answers import (
    AddressResponse,
    CallResponse,
    EgressResponse,
    HlsEgressResponse,
    IngressResponse,
    ParticipantResponse,
    SessionResponse,
)
from gateway.api.schemas.conversion import People
from gateway.events.interactions import Interactions
from gateway.model.events import Bus, EventType, event_of
from gateway.model.permissions import Capability
from gateway.model.records import Call, CallType
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat
from gateway.store.database import StoreUnavailable
from gateway.store.store import Store
from protocols.errors import Rejected
from protocols.media import Kind


@dataclass(frozen=True, slots=True)
class Services:
    store: Store
    rights_cache: RightsCache
    authorizer: Authorizer
    registry: Registry
    bus: Bus
    interactions: Interactions
    broadcasts: Broadcasts
    ingress: EncoderAddresses
    quotas: Quotas
    tokens: Tokens

    # Who stands where

    def call_type(self, name: str) -> CallType:
        """Raises `ApiError` (404)."""
        kind = self.rights_cache.call_types.get(name)
        if kind is None:
            raise ApiError(404, f"there is no call type {name}: make it with POST /calltypes")
        return kind

    async def access(self, identity: Identity, cid: str, capability: Capability) -> CallAccess:
        """Where somebody stands who may do this there. Raises `Rejected`, `ApiError` (404)."""
        known = await self.rights_cache.find(cid)
        await self.authorizer.admit(identity, cid, capability)
        if known is None:
            raise ApiError(404, f"there is no call {cid}: create it with POST /call/{cid.replace(':', '/')}")
        return CallAccess(
            known.call,
            self.call_type(known.call.type),
            self.authorizer.capabilities(identity, cid),
            identity,
            self.authorizer.inside(identity, cid),
        )

    async def access_if(self, identity: Identity, cid: str, capability: Capability) -> CallAccess | None:
        """As `access`; None for who may not, and where there is no call."""
        try:
            return await self.access(identity, cid, capability)
        except StoreUnavailable:
            raise
        except (Rejected, ApiError):
            return None

    # Who is there

    def seats(self, cid: str) -> list[Seat]:
        return [seat for (of, _), seat in self.registry.seats.items() if of == cid]

    async def people(self, ids: Iterable[str]) -> People:
        return People(await self.store.users.get(set(ids) - {""}))

    # What is shown

    def shown(self, access: CallAccess, people: People, origin: str) -> CallResponse:
        """`origin` is how the client reached the gateway; `people` has the creator."""
        call, may_watch = access.call, Capability.JOIN_CALL in access.capabilities
        playlist = self.broadcasts.playlist_url(call.cid, access.identity) if may_watch else ""
        addresses = self.ingress.addresses(call.cid, origin)
        if not access.inside:
            addresses = dict.fromkeys(addresses, "")
        return CallResponse(
            cid=call.cid,
            type=call.type,
            id=call.id,
            created_by=people.user(call.created_by_id, call.created_at) if access.inside else None,
            created_at=call.created_at,
            updated_at=call.updated_at,
            starts_at=call.starts_at,
            ended_at=call.ended_at,
            backstage=call.backstage,
            live=call.live,
            custom=dict(call.custom) if access.inside else {},
            settings=access.settings if access.inside else None,
            blocked_user_ids=list(call.blocked_user_ids) if Capability.BLOCK_USERS in access.capabilities else [],
            ingress=IngressResponse.model_validate({name: AddressResponse(address=each) for name, each in addresses.items()}),
            egress=EgressResponse(broadcasting=call.broadcasting, hls=HlsEgressResponse(playlist_url=playlist)),
            session=self._session(call, seen=may_watch),
        )

    def _session(self, call: Call, *, seen: bool) -> SessionResponse:
        present = self.registry.calls.get(call.cid) if seen else None
        return SessionResponse(
            live_started_at=call.live_started_at,
            live_ended_at=call.live_ended_at,
            participants=[
                ParticipantResponse(
                    user_id=each.user_id,
                    protocol=each.protocol,
                    joined_at=each.started_at,
                    muted_audio=Kind.AUDIO in each.muted,
                    muted_video=Kind.VIDEO in each.muted,
                )
                for each in (self.seats(call.cid) if seen else ())
                if each.joined
            ],
            viewers=len(present.viewers) if present is not None else 0,
        )

    # Who is told

    def tell(self, kind: EventType, cid: str, **payload: Any) -> None:
        self.bus.publish(kind, cid, payload)

    def tell_call(self, kind: EventType, call: Call, **payload: Any) -> None:
        self.tell(kind, call.cid, call=event_of(call), **payload)
