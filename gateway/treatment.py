"""How media is treated in one call: as the configuration says, narrowed by the call's settings and by what its publisher may send."""

from collections.abc import Callable
from dataclasses import replace

from gateway.access import Capability
from gateway.auth import Grant
from gateway.session import SessionPolicy
from gateway.store.records import Transcoding
from protocols.media import Codec, Kind, Track
from transcode.plan import Decision, Label, Policy, Refuse, Why, plan

_MAY_NOT = {
    Kind.VIDEO: Why(
        Label.POLICY,
        "This publisher may send audio only into this call.",
        "Ask the call's host to make you a host, or send audio only.",
    ),
    Kind.AUDIO: Why(
        Label.POLICY, "This publisher may send video only into this call.", "Ask the call's host, or send video only."
    ),
}
_NEEDED = {Kind.VIDEO: Capability.SEND_VIDEO, Kind.AUDIO: Capability.SEND_AUDIO}


def adapted(base: Policy) -> Callable[[SessionPolicy, Grant], SessionPolicy]:
    """Gives a session's policy for the call that it is in. `base` is the configuration's."""

    def adapt(policy: SessionPolicy, grant: Grant) -> SessionPolicy:
        treatment = narrowed(base, grant.settings.transcoding)

        def decide(track: Track, accepts: frozenset[Codec]) -> Decision:
            if _NEEDED[track.kind] not in grant.sends:
                return Refuse(_MAY_NOT[track.kind])
            return plan(track, accepts, treatment)

        return replace(policy, decide=decide)

    return adapt


def narrowed(base: Policy, wanted: Transcoding) -> Policy:
    """A call may ask for less than the gateway allows, never for more; what it does not name stays."""
    return replace(
        base,
        video=wanted.policy or base.video,
        max_width=min(wanted.max_width or base.max_width, base.max_width),
        max_height=min(wanted.max_height or base.max_height, base.max_height),
        max_frame_rate=min(wanted.max_frame_rate or base.max_frame_rate, base.max_frame_rate),
        max_bitrate=min(wanted.max_bitrate or base.max_bitrate, base.max_bitrate),
    )
