"""What a route of the API is: a line of a table that says everything about it (method, path, who may, what it takes, what it answers).

The dispatcher does what the line says, the OpenAPI document tells it, and neither knows more: a route cannot be without a rule, and the
document cannot be about another API.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from gateway.access.credentials import Identity
from gateway.api.framework.call_access import CallAccess
from gateway.api.framework.errors import ApiError
from gateway.api.schemas.answers import ApiAnswer
from gateway.api.schemas.parts import CALL_PATTERN, KEY_PATTERN, TYPE_PATTERN, USER_PATTERN, Request
from gateway.model.permissions import Capability

if TYPE_CHECKING:
    from gateway.api.framework.services import Services

B = TypeVar("B", bound=Request)

BASE: Final = "/api/v2/video"
PARAMETERS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "type": (TYPE_PATTERN, "The call's type, such as livestream."),
        "id": (CALL_PATTERN, "The call's name within its type."),
        "name": (TYPE_PATTERN, "The name of a call type."),
        "user_id": (USER_PATTERN, "A user."),
        "key": (KEY_PATTERN, "The name of a stream key."),
    }
)
"""The parts of paths: pattern and meaning."""


class Scope(Enum):
    """Who may, where it is not about one call: by a token that is not narrowed to calls."""

    SERVER = "a server token, or the token of a user whose role is admin"
    USER = "a server token or a user's token"


Needs = Capability | Scope


@dataclass(frozen=True, slots=True)
class ApiRequest(Generic[B]):
    """One request, understood and allowed."""

    identity: Identity  # who asks
    trusted: bool  # an application's server or administrator, narrowed to nothing
    path: Mapping[str, str]
    body: B
    origin: str  # by which the client reached this gateway, such as http://example.org:8080
    remote: str
    now: datetime
    in_call: CallAccess | None = None
    cursor: str | None = None  # of a list in pages, where that goes on

    @property
    def access(self) -> CallAccess:
        """The call of the path; only routes about a call that must exist have one."""
        if self.in_call is None:
            raise RuntimeError("this route is not about a call that there is")
        return self.in_call

    @property
    def cid(self) -> str:
        return f"{self.path['type']}:{self.path['id']}"

    def speaking_for(self, user_id: str | None) -> str:
        """Who does it: the user whose token it is, or whom a server names. Empty: somebody anonymous. Raises `ApiError` (400, 403)."""
        if self.identity.server:
            if user_id is None:
                raise ApiError(400, "user_id: say for which user, because the token names none")
            return user_id
        if user_id is not None and user_id != self.identity.user_id:
            raise ApiError(403, "you can do this only as yourself: leave out user_id")
        return self.identity.user_id


@dataclass(frozen=True, slots=True)
class Route(Generic[B]):
    """One line of the table. Where it needs a capability, its path names the call, which must exist unless `makes_call`."""

    method: str
    path: str  # below `BASE`
    name: str  # operationId
    summary: str
    needs: Needs
    takes: type[B] | None
    gives: type[ApiAnswer]
    answer: "Callable[[Services, ApiRequest[B]], Awaitable[ApiAnswer]]" = field(repr=False)
    makes: bool = False  # it may make what it is about: 201
    makes_call: bool = False  # and that is the call
    pages: bool = False  # a list in memory, in pages (`paging.page`): `?next=` is the cursor of an earlier answer
    refuses: frozenset[int] = frozenset()  # statuses beyond those that any route of its kind has

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name in PARAMETERS if f"{{{name}}}" in self.path)

    @property
    def call_capability(self) -> Capability | None:
        """What the caller must be allowed in the call of the path; None: the route is not about a call that there is."""
        return self.needs if isinstance(self.needs, Capability) and not self.makes_call else None

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status that the answer can have, but for a defect of ours."""
        possible = {200, 400, 401, 403, 408, 429, 503} | self.refuses
        possible |= {201} if self.makes else set()
        possible |= {404} if self.call_capability else set()
        possible |= {413, 415} if self.takes is not None else set()
        return tuple(sorted(possible))


AnyRoute = Route[Any]
