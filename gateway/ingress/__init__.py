"""What a streamer pastes into an encoder: addresses, keys and commands for one user of one call, as text, a file a protocol.

Kept true: what is printed works as it stands: addresses carry their ports, commands their quotes, and a call that is not public gets
its watch link with a token in the fragment (which browsers never send to a server).
"""

from typing import Protocol


class Way(Protocol):
    """One user's way into one call."""

    def text(self, obs: bool = False) -> str:
        """Everything, for people; with the exact steps for OBS when asked."""
