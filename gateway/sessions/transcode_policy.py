"""How media is treated in one call, how long its encoders are waited for, and how they stand in for each other: as the configuration says,
changed by the call's settings."""

from collections.abc import Callable
from dataclasses import replace

from gateway.access.credentials import Grant
from gateway.config import TranscodeConfig
from gateway.sessions.seat import SeatPolicy
from gateway.sessions.succession import Return
from protocols.media import Codec
from transcode.encoder_table import SOFTWARE
from transcode.plan import Policy, plan
from transcode.settings import SETTINGS

_KEYS = {"policy": "video", "max_bitrate": "max_bitrate_bps"}
"""Keys of the configuration that have another name than their setting."""


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
        treatment, wanted = base.narrowed(grant.settings.transcoding), grant.settings.continuity
        slate, back = policy.slate, wanted.return_to_primary
        if slate is not None:
            slate = replace(slate, wished=grant.identity.picture or wanted.picture, triggers=slate.triggers.narrowed(wanted))
        return replace(
            policy,
            decide=lambda track, want: plan(track, want, treatment),
            linger_s=policy.linger_s if wanted.linger_seconds < 0 else wanted.linger_seconds,
            slate=slate,
            stop_linger_s=policy.stop_linger_s if wanted.stop_linger_seconds < 0 else wanted.stop_linger_seconds,
            return_to_primary=Return(back) if back else policy.return_to_primary,
            revert_after_s=policy.revert_after_s if wanted.revert_after_seconds < 0 else wanted.revert_after_seconds,
        )

    return adapt
