"""What WHIP publishers count, for metrics. Sans-IO."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from protocols.webrtc.receive.receiver import RtpReceiver
from protocols.whip.tracks import Tracks

COUNTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ignored": "Packets of streams that were not agreed on",
        "nacks": "Packets asked for again",
        "repaired": "Packets that came when asked for again",
        "lost": "Packets given up",
        "late": "Packets that came twice or too late",
        "plis": "Key frames asked for",
        "broken": "Frames that could not be put together",
        "oversized": "Frames given up because they had too many packets or bytes, or no end",
        "undecodable": "Frames left out up to the next key frame",
    }
)
"""Name and meaning of each total."""


def counts(admission: RtpReceiver, tracks: Tracks) -> dict[str, int]:
    """Of one publisher, by the names of `COUNTERS`."""
    own = {"ignored": admission.ignored, "nacks": admission.nacks, "broken": tracks.broken, "undecodable": tracks.undecodable}
    totals = admission.totals() | own
    return {name: totals.get(name, 0) for name in COUNTERS}
