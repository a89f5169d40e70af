"""How media is treated in one call: as the configuration says, narrowed by the call's settings and by what its publisher may send."""

from collections.abc import Callable
from dataclasses import replace

from gateway.access.credentials import Grant
from gateway.config import TranscodeConfig
from gateway.model.permissions import Capability
from gateway.sessions.seat import SeatPolicy
from protocols.media import Codec, Kind, Track
from transcode.encoder_table import SOFTWARE
from transcode.plan import Decision, Label, Policy, Refuse, Want, Why, plan
from transcode.settings import SETTINGS

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
_KEYS = {"policy": "video", "max_bitrate": "max_bitrate_bps"}
"""Keys of the configuration that have another name than their setting."""
_NEEDED = {Kind.VIDEO: Capability.SEND_VIDEO, Kind.AUDIO: Capability.SEND_AUDIO}


def configured(wanted: TranscodeConfig, encoder: str, built_in: frozenset[str]) -> Policy:
    """The configuration's. `encoder` is that of H.264; `built_in` are the names of all that there are."""
    return Policy(
        **{name: getattr(wanted, _KEYS.get(name, name)) for name in SETTINGS},
        audio_bitrate=wanted.audio_bitrate_bps,
        encoder=encoder,
        missing=frozenset(codec for codec, name in SOFTWARE.items() if name not in built_in),
        pass_bitrate=wanted.pass_bitrate_bps,
        passing=frozenset(map(Codec, wanted.accept)) | {Codec.H264},
    )


def adapted(base: Policy) -> Callable[[SeatPolicy, Grant], SeatPolicy]:
    """Gives a seat's policy for the call that it is in. `base` is the configuration's."""

    def adapt(policy: SeatPolicy, grant: Grant) -> SeatPolicy:
        treatment = base.narrowed(grant.settings.transcoding)

        def decide(track: Track, want: Want) -> Decision:
            if _NEEDED[track.kind] not in grant.sends:
                return Refuse(_MAY_NOT[track.kind])
            return plan(track, want, treatment)

        return replace(policy, decide=decide)

    return adapt
