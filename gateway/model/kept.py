"""What outlives the process of a live seat, so that its encoder, wherever it comes back, goes on as the same participant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gateway.model.records import Json


@dataclass(frozen=True, slots=True)
class KeptSeat:
    """One seat as it was at `written_at`. `session` is its id, `media` its media time in ns, `grace_s` for how long it is kept without an
    encoder, counted from `since`; `outputs` has by an output's name what that goes on with."""

    call_cid: str
    user_id: str
    session: str
    protocol: str
    started_at: datetime
    media: int
    reconnects: int
    grace_s: float
    written_at: datetime
    since: datetime
    node: str = ""  # the gateway that has it; empty: none, it is anybody's to go on with
    epoch: int = 0  # which run of that gateway wrote it: one of before writes no more
    outputs: Mapping[str, Json] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Call and user: there is one seat of each user in a call."""
        return self.call_cid, self.user_id
