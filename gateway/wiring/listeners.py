"""All that encoders come by: one line for each protocol."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from gateway.wiring.protocol import IngressProtocol, ListenerNeeds, Listening
from gateway.wiring.rtmp import RTMP
from gateway.wiring.srt import SRT
from gateway.wiring.whip import WHIP

PROTOCOLS: Final[Sequence[IngressProtocol]] = (
    RTMP,
    WHIP,
    SRT,
)

_ALWAYS_TOLD: Final = ("rtmp", "rtmps", "srt")  # 0 where it is not listened on


@asynccontextmanager
async def listeners(protocols: Sequence[IngressProtocol], needs: ListenerNeeds) -> AsyncIterator[Sequence[Listening]]:
    """Those that the configuration wants, in the order of `protocols`."""
    async with AsyncExitStack() as stack:
        yield [each for protocol in protocols for each in await stack.enter_async_context(protocol.listening(needs))]


def ports(listening: Sequence[Listening]) -> dict[str, int]:
    """The ports that are really bound (a configured port 0 is any free one), the main one of each name."""
    bound = dict.fromkeys(_ALWAYS_TOLD, 0)
    for each in listening:
        for port in reversed(each.listener.ports):
            bound[port.name] = port.number
    return bound
