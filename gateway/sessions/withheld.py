"""What of a seat's media is given to nobody, and why: its user may not send it, or it is muted in its call."""

from collections.abc import Collection, Mapping
from typing import Final

from protocols.media import Kind
from transcode.plan import Label, Why

_MUTED: Final[Mapping[Kind, Why]] = {
    Kind.VIDEO: Why(Label.MUTED, "This video is muted in its call.", "Ask the call's host to unmute it."),
    Kind.AUDIO: Why(Label.MUTED, "This audio is muted in its call.", "Ask the call's host to unmute it."),
}
_BARRED: Final[Mapping[Kind, Why]] = {
    Kind.VIDEO: Why(
        Label.POLICY,
        "This publisher may send audio only into this call.",
        "Ask the call's host to make you a host, or send audio only.",
    ),
    Kind.AUDIO: Why(
        Label.POLICY, "This publisher may send video only into this call.", "Ask the call's host, or send video only."
    ),
}


def why_withheld(kind: Kind, muted: Collection[Kind], barred: Collection[Kind]) -> Why | None:
    """None: it is not."""
    if kind in barred:
        return _BARRED[kind]
    return _MUTED[kind] if kind in muted else None
