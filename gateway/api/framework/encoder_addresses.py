"""Where encoders send to, as answers say it: on the host by which the client reached the API, since encoders reach that too."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from protocols.publisher import ReachedBy

ALWAYS_SHOWN: Final = ("rtmp", "rtmps", "srt", "whip")  # empty where the gateway does not take it
_HOST: Final = re.compile(r"[a-z]+://(\[[^]]*\]|[^:/]*)")


class Addressed(Protocol):
    """Who knows where encoders send to (`protocols.publisher.Listener`)."""

    def addresses(self, call: str, by: ReachedBy) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class EncoderAddresses:
    """Of all that listens."""

    listeners: Iterable[Addressed]

    def addresses(self, cid: str, origin: str) -> Mapping[str, str]:
        """By name; `origin` is how the client reached the gateway over HTTP."""
        found = _HOST.match(origin)
        by = ReachedBy(found[1] if found else "", origin)
        addresses = dict.fromkeys(ALWAYS_SHOWN, "")
        for listener in self.listeners:
            addresses.update(listener.addresses(cid, by))
        return addresses
