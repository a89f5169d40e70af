"""What happens to a track on its way into a call: it passes untouched, is transcoded, or is refused, and always with the reason. Sans-IO.

The rule: passing is best (no delay, no loss, no CPU), so a track is transcoded only for a reason that a viewer would see. `plan` is a pure
function of what is known of the track, so it is asked again whenever a fact changes (B-frames appear, the size grows).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from protocols.media import Codec, Kind, Track
from transcode.h264 import X264


class Label(StrEnum):
    """Why, as a bounded metric label."""

    SAME_CODEC = "same_codec"
    CODEC = "codec"
    B_FRAMES = "b_frames"
    OPEN_GOP = "open_gop"
    BIT_DEPTH = "bit_depth"
    CHROMA = "chroma"
    INTERLACED = "interlaced"
    SIZE = "size"
    FRAME_RATE = "frame_rate"
    CHANNELS = "channels"
    POLICY = "policy"
    NOT_SUPPORTED = "not_supported"


@dataclass(frozen=True, slots=True)
class Why:
    label: Label
    text: str  # one sentence for people
    advice: str = ""  # what to change in the encoder, by its name in OBS, and what that saves here; empty where nothing need be


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's limits of what goes into a call, and whether video may cost CPU."""

    video: Literal["auto", "never", "always"] = "auto"  # transcode: where needed, never (refuse instead), even where not needed
    max_width: int = 1920  # of the long edge if it is the larger limit: a portrait picture is held to the turned box
    max_height: int = 1080
    max_frame_rate: float = 60.0
    max_bitrate: int = 6_000_000  # bit/s of a transcoded video
    audio_bitrate: int = 128_000
    encoder: str = X264  # one that works here


@dataclass(frozen=True, slots=True)
class AudioTarget:
    """Opus, 48 kHz, stereo, 20 ms (RFC 7587 §4.2: what every browser takes)."""

    bitrate: int = 128_000


@dataclass(frozen=True, slots=True)
class VideoTarget:
    """H.264 without reordering. `max_*` outlive a change of the source's size, for which they give `width` and `height` (0: unknown)."""

    width: int
    height: int
    max_width: int
    max_height: int
    frame_rate: float  # what the source says, within the limit; 0 unknown
    max_frame_rate: float
    bitrate: int  # bit/s at the start; the call's feedback moves it
    max_bitrate: int
    encoder: str = X264  # where it fails, x264 goes on


@dataclass(frozen=True, slots=True)
class Passthrough:
    why: Why


@dataclass(frozen=True, slots=True)
class Transcode:
    why: Why
    target: AudioTarget | VideoTarget

    @property
    def codec(self) -> Codec:
        return Codec.OPUS if isinstance(self.target, AudioTarget) else Codec.H264


@dataclass(frozen=True, slots=True)
class Refuse:
    why: Why


Decision = Passthrough | Transcode | Refuse

_START_BITRATES: tuple[tuple[int, int], ...] = (  # (pixels up to, bit/s at up to 40 frames a second)
    (320 * 240, 350_000),
    (640 * 360, 800_000),
    (960 * 540, 1_400_000),
    (1280 * 720, 2_500_000),
    (1920 * 1080, 4_500_000),
    (2560 * 1440, 8_000_000),
)
_BITRATE_BEYOND = 14_000_000
_FAST_MOTION_FACTOR = 1.4  # above 40 frames a second: frames that differ less cost less than twice
_SUPERFAST_PIXELS = 1920 * 1080  # from here veryfast would take most of a core at 30 frames a second (measured 0.99)


def start_bitrate(width: int, height: int, frame_rate: float) -> int:
    """The bit/s at which a picture of this size starts; for an unknown size that of 720p."""
    pixels = width * height or 1280 * 720
    bitrate = next((rate for limit, rate in _START_BITRATES if pixels <= limit), _BITRATE_BEYOND)
    return round(bitrate * _FAST_MOTION_FACTOR) if frame_rate > 40 else bitrate


def preset(width: int, height: int) -> str:
    """The x264 preset for a picture of this size."""
    return "superfast" if width * height >= _SUPERFAST_PIXELS else "veryfast"


def fit(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """The largest size of the same shape within the limits, even on both edges (4:2:0), never larger than the source.

    The limits turn with the picture: a phone held upright sends 1080x1920 and keeps it within 1920x1080.
    """
    if (height > width) != (max_height > max_width):
        max_width, max_height = max_height, max_width
    scale = min(1.0, max_width / width, max_height / height) if width and height else 1.0
    return max(2, int(width * scale + 0.001) // 2 * 2), max(2, int(height * scale + 0.001) // 2 * 2)


_CORES_PER_PIXEL = {
    "superfast": 0.73e-8,
    "veryfast": 1.27e-8,
}  # decoded and encoded (measured: 0.45 core at 1080p30, 0.35 at 720p30)
_ENCODING_MS = 30  # of delay that decoding and encoding add (measured at 1080p30)


def cores(width: int, height: int, frame_rate: float) -> float:
    """About what transcoding to this size costs; for an unknown size that of 720p."""
    width, height = (width, height) if width and height else (1280, 720)
    return width * height * (frame_rate or 30.0) * _CORES_PER_PIXEL[preset(width, height)]


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """One reason for which video cannot pass."""

    label: Label
    stands: Callable[[Track, Policy], bool]
    text: Callable[[Track, Policy], str]
    advice: Callable[[Policy], str]


def _too_large(track: Track, policy: Policy) -> bool:
    limits = sorted((policy.max_width, policy.max_height))
    edges = sorted((track.width, track.height))
    return edges[0] > limits[0] or edges[1] > limits[1]


_OBSTACLES = (
    _Obstacle(
        Label.BIT_DEPTH,
        lambda track, _: track.bit_depth > 8,
        lambda track, _: f"Browsers do not play {track.bit_depth}-bit video everywhere.",
        lambda _: "Send 8 bit (OBS: Settings > Advanced > Color Format: NV12; ffmpeg: -pix_fmt yuv420p).",
    ),
    _Obstacle(
        Label.CHROMA,
        lambda track, _: track.chroma not in ("4:2:0", ""),
        lambda track, _: f"Browsers do not decode {track.chroma} chroma in a call.",
        lambda _: "Send 4:2:0 (OBS: Settings > Advanced > Color Format: NV12; ffmpeg: -pix_fmt yuv420p).",
    ),
    _Obstacle(
        Label.INTERLACED,
        lambda track, _: track.interlaced,
        lambda track, _: "The video is interlaced, which WebRTC cannot show.",
        lambda _: "Send progressive video (OBS: right click on the source > Deinterlacing; ffmpeg: -vf bwdif).",
    ),
    _Obstacle(
        Label.B_FRAMES,
        lambda track, _: bool(track.reorder),  # None: the stream does not say, and most such encoders do not reorder
        lambda track, _: "The video has B-frames, whose reordering WebRTC cannot carry.",
        lambda _: (
            "Turn off B-frames (OBS: Settings > Output > Streaming: x264 Tune zerolatency, other encoders Max B-frames 0; "
            "ffmpeg: -bf 0)."
        ),
    ),
    _Obstacle(
        Label.OPEN_GOP,
        lambda track, _: track.open_gop,
        lambda track, _: "The video has open groups of pictures or intra refresh: no browser can start at its key frames.",
        lambda _: "Turn off open GOP and intra refresh (OBS: x264 Options open-gop=0 intra-refresh=0; ffmpeg: -flags +cgop).",
    ),
    _Obstacle(
        Label.SIZE,
        _too_large,
        lambda track, policy: f"{track.width}x{track.height} is larger than the call's {policy.max_width}x{policy.max_height}.",
        lambda policy: (
            f"Send a smaller picture (OBS: Settings > Video > Output (Scaled) Resolution: "
            f"{policy.max_width}x{policy.max_height})."
        ),
    ),
    _Obstacle(
        Label.FRAME_RATE,
        lambda track, policy: track.frame_rate > policy.max_frame_rate * 1.02,  # measured rates wander a little
        lambda track, policy: f"{track.frame_rate:.0f} frames a second are more than the call's {policy.max_frame_rate:.0f}.",
        lambda policy: f"Send fewer frames a second (OBS: Settings > Video > Common FPS Values: {policy.max_frame_rate:.0f}).",
    ),
)


def plan(track: Track, accepts: frozenset[Codec], policy: Policy) -> Decision:
    """Decide one track's way into a call that takes the codecs `accepts`."""
    return _plan_video(track, accepts, policy) if track.kind is Kind.VIDEO else _plan_audio(track, accepts, policy)


def _plan_video(track: Track, accepts: frozenset[Codec], policy: Policy) -> Decision:
    why = _why_not_pass(track, accepts, policy)
    if policy.video != "always" and why is None:
        return Passthrough(Why(Label.SAME_CODEC, f"The call takes {_name(track.codec)} as it comes."))
    if Codec.H264 not in accepts:
        return Refuse(why or Why(Label.NOT_SUPPORTED, "The call does not take H.264, to which video is transcoded."))
    if why is not None and policy.video == "never":
        return Refuse(replace(why, text=f"{why.text} This gateway does not transcode video (transcode.video = never)."))
    target = _video_target(track, policy)
    if why is None:
        return Transcode(Why(Label.POLICY, "This gateway transcodes all video (transcode.video = always)."), target)
    if policy.video == "always":  # nothing that the streamer changes would spare it
        return Transcode(replace(why, advice=""), target)
    return Transcode(replace(why, advice=f"{why.advice} {_saving(track, target)}"), target)


def _why_not_pass(track: Track, accepts: frozenset[Codec], policy: Policy) -> Why | None:
    if track.codec not in accepts:
        return Why(
            Label.CODEC,
            f"The call does not take {_name(track.codec)}.",
            "Send H.264 (OBS: Settings > Output > Streaming > Video Encoder: one of H.264; ffmpeg: -c:v libx264).",
        )
    for obstacle in _OBSTACLES:
        if obstacle.stands(track, policy):
            return Why(obstacle.label, obstacle.text(track, policy), obstacle.advice(policy))
    return None


def _saving(track: Track, target: VideoTarget) -> str:
    """What the streamer's change would spare: the time in which pictures wait for their order and are made anew, and the CPU."""
    ordering = (track.reorder or 0) * 1000 / (track.frame_rate or 30.0)
    share = cores(target.width, target.height, target.frame_rate)
    return f"That saves about {round(ordering + _ENCODING_MS, -1):.0f} ms of delay and {share:.1f} of a CPU core here."


def _video_target(track: Track, policy: Policy) -> VideoTarget:
    width = height = 0
    if track.width and track.height:
        width, height = fit(track.width, track.height, policy.max_width, policy.max_height)
    frame_rate = min(track.frame_rate, policy.max_frame_rate)
    return VideoTarget(
        width=width,
        height=height,
        max_width=policy.max_width,
        max_height=policy.max_height,
        frame_rate=frame_rate,
        max_frame_rate=policy.max_frame_rate,
        bitrate=min(start_bitrate(width, height, frame_rate), policy.max_bitrate),
        max_bitrate=policy.max_bitrate,
        encoder=policy.encoder,
    )


def _plan_audio(track: Track, accepts: frozenset[Codec], policy: Policy) -> Decision:
    surround = track.codec is Codec.OPUS and _is_surround(track)
    if track.codec in accepts and not surround:
        return Passthrough(Why(Label.SAME_CODEC, f"The call takes {_name(track.codec)} as it comes."))
    if Codec.OPUS not in accepts:
        return Refuse(Why(Label.NOT_SUPPORTED, "The call does not take Opus, to which audio is transcoded."))
    target = AudioTarget(policy.audio_bitrate)
    if surround:
        return Transcode(
            Why(Label.CHANNELS, "WebRTC carries Opus in mono or stereo.", "Send stereo to spare the transcoding."), target
        )
    return Transcode(Why(Label.CODEC, f"Browsers do not take {_name(track.codec)} in a call; it becomes Opus."), target)


def _is_surround(track: Track) -> bool:
    # RFC 7845 §5.1: byte 9 of the OpusHead counts the channels, byte 18 is the mapping family (0: mono or stereo, RTP's only one)
    head = track.extradata
    return track.channels > 2 or (len(head) >= 19 and (head[9] > 2 or head[18] != 0))


def _name(codec: Codec) -> str:
    return _NAMES.get(codec, codec.value.upper())


_NAMES = {Codec.H264: "H.264", Codec.OPUS: "Opus", Codec.AC3: "AC-3", Codec.EAC3: "E-AC-3"}
