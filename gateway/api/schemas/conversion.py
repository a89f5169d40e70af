"""Records as the API shows them, and what clients send as records."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from gateway.api.schemas.answers import CallTypeResponse, MemberResponse, StreamKeyResponse, UserResponse
from gateway.api.schemas.requests import MemberRequest, UserRequest
from gateway.model.records import CallType, Member, StreamKey, User


@dataclass(frozen=True, slots=True)
class People:
    """Users by id; one who is not stored any more is shown by id alone."""

    known: Mapping[str, User]

    def user(self, user_id: str, since: datetime) -> UserResponse:
        return user(self.known.get(user_id) or User(user_id, since, since))

    def members(self, members: Iterable[Member]) -> list[MemberResponse]:
        return [self.member(each) for each in members]

    def member(self, member: Member) -> MemberResponse:
        return MemberResponse(
            user_id=member.user_id,
            user=self.user(member.user_id, member.created_at),
            role=member.role,
            custom=dict(member.custom),
            created_at=member.created_at,
            updated_at=member.updated_at,
        )


def user(record: User) -> UserResponse:
    return UserResponse(**_shown(record))


def call_type(record: CallType) -> CallTypeResponse:
    return CallTypeResponse(
        name=record.name,
        grants={role: sorted(held) for role, held in record.grants.items()},
        settings=record.settings,
        built_in=record.built_in,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def stream_key(record: StreamKey) -> StreamKeyResponse:
    return StreamKeyResponse(**_shown(record))


def _shown(record: User | StreamKey) -> dict[str, Any]:
    """By whose API key it came about is for the gateway alone."""
    return {name: value for name, value in asdict(record).items() if name != "api_key"}


def stored_user(given: UserRequest, now: datetime, api_key: str) -> User:
    """`api_key`: by which the role is given."""
    return User(given.id, now, now, given.role, given.name, given.image, given.custom, api_key)


def stored_member(cid: str, given: MemberRequest, now: datetime, api_key: str) -> Member:
    """`api_key`: by which the role is given."""
    return Member(cid, given.user_id, now, now, given.role, given.custom, api_key)
