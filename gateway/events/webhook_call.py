"""One call of a webhook's receiver: a signed HTTP POST, and what its outcome means.

Signatures are those of Standard Webhooks (https://www.standardwebhooks.com): `webhook-id`, `webhook-timestamp` (Unix seconds of this
attempt) and `webhook-signature`, `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.

Kept true: redirects are not followed; a receiver in a private network is called only where that is allowed; address and secret are in no
text that this file gives.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from gateway.events.outgoing_http import connector, is_private

_NO_FAULT_OF_THE_EVENT: Final = frozenset({401, 403, 404, 408, 425, 429})
"""4xx that say something of the receiver or of us, and nothing of this event (RFC 9110, RFC 8470): it is tried on."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where to, and what with. `types`: the events that it is told; empty: all."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    types: frozenset[str] = frozenset()
    allow_private: bool = False
    timeout_s: float = 10.0

    def session(self, connections: int) -> aiohttp.ClientSession:
        """What `call` takes; at most so many connections at once."""
        return aiohttp.ClientSession(
            connector=connector(self.allow_private, connections),
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            auto_decompress=False,
            trust_env=False,
        )


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """Why a call failed: the metric's label, words, and whether it is about this one event."""

    kind: str  # timeout, unreachable, private, error, refused
    words: str
    of_event: bool = False


async def call(
    http: aiohttp.ClientSession, receiver: Receiver, event_id: str, body: bytes, now_s: int
) -> DeliveryFailure | None:
    """None when the receiver has taken it."""
    headers = signed(signing_key(receiver.secret), event_id, now_s, body)
    try:
        async with http.post(receiver.url, data=body, headers=headers, allow_redirects=False) as response:
            status = response.status
    except TimeoutError:
        return DeliveryFailure("timeout", f"it did not answer within {receiver.timeout_s:g} s")
    except (aiohttp.ClientError, OSError) as error:
        if is_private(error):
            return DeliveryFailure("private", "its address is not of the public internet: see webhooks.allow_private")
        return DeliveryFailure(
            "unreachable", f"it cannot be reached ({type(error).__name__})"
        )  # the rest of its text may hold the address
    if 200 <= status < 300:
        return None
    of_event = 400 <= status < 500 and status not in _NO_FAULT_OF_THE_EVENT
    return DeliveryFailure("refused" if of_event else "error", f"it answered with {status}", of_event)


def signing_key(secret: str) -> bytes:
    """The bytes of a secret: text, or `whsec_` and base64 as Standard Webhooks has it."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signed(key: bytes, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request."""
    digest = hmac.digest(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
