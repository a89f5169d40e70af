"""Where the caller stands in a call that there is."""

from dataclasses import dataclass

from gateway.access.credentials import Identity
from gateway.model.permissions import Capability
from gateway.model.records import Call, CallType, Settings


@dataclass(frozen=True, slots=True)
class CallAccess:
    """`capabilities` are all that the caller may do in it now; `inside`: the call is not closed to them, all of it is theirs to see."""

    call: Call
    call_type: CallType
    capabilities: frozenset[Capability]
    identity: Identity  # the caller's
    inside: bool

    @property
    def settings(self) -> Settings:
        return self.call.settings(self.call_type)
