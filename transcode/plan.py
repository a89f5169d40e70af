"""What happens to a track on its way into a call: it passes untouched, is transcoded, or is refused, and always with the reason. Sans-IO.

The rule: passing is best (no delay, no loss, no CPU), so a track is transcoded only for a reason that a viewer would see. `plan` is a pure
function of what is known of the track, so it is asked again whenever a fact changes (B-frames appear, the size grows).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from protocols.media import WEBRTC_VIDEO, Codec, Kind, Track
from transcode.adaptation import preset
from transcode.encoder_table import ENCODERS, SOFTWARE, X264
from transcode.ladder import Rung, fit, ladder, start_bitrate
from transcode.settings import SETTINGS, Transcoding


class Label(StrEnum):
    """Why, as a bounded metric label."""

    SAME_CODEC = "same_codec"
    CODEC = "codec"
    VIEWER = "viewer"
    B_FRAMES = "b_frames"
    OPEN_GOP = "open_gop"
    BIT_DEPTH = "bit_depth"
    CHROMA = "chroma"
    INTERLACED = "interlaced"
    SIZE = "size"
    FRAME_RATE = "frame_rate"
    BITRATE = "bitrate"
    CHANNELS = "channels"
    POLICY = "policy"
    MUTED = "muted"
    NOT_SUPPORTED = "not_supported"


@dataclass(frozen=True, slots=True)
class Why:
    label: Label
    text: str  # one sentence for people
    advice: str = ""  # what to change in the encoder, by its name in OBS, and what that saves here; empty where nothing need be


@dataclass(frozen=True, slots=True)
class Want:
    """What an output takes of a track. What is made for it has no reordering, closed groups, 8 bit and 4:2:0."""

    codecs: frozenset[Codec]  # taken as they come
    makes: frozenset[Codec]  # that may be made of what is not: the policy's where it is among them
    carries: frozenset[Codec] = (
        frozenset()
    )  # that pass all the same where there is no room to make another: some viewers miss them
    reorder: bool = False  # B-frames are welcome
    open_groups: bool = False  # and so are open groups of pictures and intra refresh
    bit_depth: int = 8  # at most
    interlaced: bool = False
    unlimited: bool = False  # whatever the policy says of size, rate and bitrate, and of transcoding always
    layers: int = 3  # of one picture, at most
    smaller: bool = False  # beside a picture taken as it comes, the smaller ones that are made of it for others
    idle: bool = False  # nobody is there just now for whom anything need be made
    taker: str = "The call"  # as the reasons name it


@dataclass(frozen=True, slots=True)
class Policy(Transcoding):
    """What a kind of call takes, and whether video may cost CPU. A plain value: a gateway has one, and one for each call that differs.

    A setting that is not given has its standard value; none is unsaid here.
    """

    audio_bitrate: int = 128_000
    encoder: str = X264  # of H.264: one that works here
    missing: frozenset[Codec] = frozenset()  # that cannot be made here: libav was built without their encoder
    pass_bitrate: int = 0  # bit/s above which a video is transcoded though it could pass; 0: it passes with any
    passing: frozenset[Codec] = WEBRTC_VIDEO  # video that may pass where the call takes it

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            object.__setattr__(self, name, getattr(self, name) or setting.standard)

    def narrowed(self, wanted: Transcoding) -> "Policy":
        """For a call that wants this: what it chooses, and its limits where they are narrower; what it does not say stays."""
        said = {name: getattr(wanted, name) for name in SETTINGS if getattr(wanted, name)}
        return replace(self, **{n: min(v, getattr(self, n)) if SETTINGS[n].limit else v for n, v in said.items()})


@dataclass(frozen=True, slots=True)
class AudioTarget:
    """Opus, 48 kHz, stereo, 20 ms (RFC 7587 §4.2: what every browser takes); AAC for HLS, which has no Opus on Apple's players."""

    bitrate: int = 128_000
    codec: Codec = Codec.OPUS


@dataclass(frozen=True, slots=True)
class VideoTarget:
    """Video without reordering, in one layer or more from one decoding. `max_*` outlive a change of the source's size, for which they give
    `width` and `height` of the top layer (0: unknown)."""

    width: int
    height: int
    max_width: int
    max_height: int
    frame_rate: float  # what the source says, within the limit; 0 unknown
    max_frame_rate: float
    bitrate: int  # bit/s of the top layer at the start; the call's feedback moves it
    max_bitrate: int
    encoder: str = X264  # where it fails, x264 goes on
    layers: int = 1  # at most: see `ladder`
    passed: bool = (
        False  # the top layer is the source itself: it is not encoded, and the others have their key frames where it has
    )

    @property
    def codec(self) -> Codec:
        return ENCODERS[self.encoder].codec

    @property
    def encoded(self) -> tuple[Rung, ...]:
        """The layers to encode, the top one first, as planned; those of 720p where the size is not known yet."""
        width, height = (self.width, self.height) if self.width and self.height else (1280, 720)
        return ladder(width, height, self.layers)[self.passed :]


@dataclass(frozen=True, slots=True)
class Passthrough:
    """`below`: the layers that are encoded beside it; `up_to`: bit/s above which the plan is to be asked again (0: never)."""

    why: Why
    below: VideoTarget | None = None
    up_to: int = 0


@dataclass(frozen=True, slots=True)
class Transcode:
    why: Why
    target: AudioTarget | VideoTarget

    @property
    def codec(self) -> Codec:
        return self.target.codec


@dataclass(frozen=True, slots=True)
class Refuse:
    why: Why


Decision = Passthrough | Transcode | Refuse


def same_treatment(one: Decision, other: Decision) -> bool:
    """Whether the stage made for one decision may go on with the other."""
    match one, other:
        case Passthrough(), Passthrough():
            return (one.below is None) == (other.below is None)
        case Transcode(), Transcode():
            return one.codec is other.codec
    return type(one) is type(other)


_DECODING = 0.25e-8  # cores for a pixel a second
_ENCODING = {"superfast": 0.48e-8, "veryfast": 1.02e-8}  # (measured: with decoding 0.45 core at 1080p30, 0.35 at 720p30)
_DEARER = {Codec.VP8: 2.4, Codec.AV1: 4.5}  # than x264 at the same effort (measured at 720p and 1080p)
_ENCODING_MS = 15  # of delay that decoding and encoding add, at the median (measured at 1080p30)
_ONE_LAYER = frozenset({Codec.AV1})  # one of 720p takes most of a core already (measured)


def cores(width: int, height: int, frame_rate: float, layers: int = 1, codec: Codec = Codec.H264) -> float:
    """About what transcoding to this size and the layers below it costs; for an unknown size that of 720p."""
    width, height = (width, height) if width and height else (1280, 720)
    rate = frame_rate or 30.0
    return width * height * rate * _DECODING + sum(_encoding(rung, rate, codec) for rung in ladder(width, height, layers))


def spare_cores(target: VideoTarget) -> float:
    """About how much of that is for layers that may be left out."""
    rungs = target.encoded if target.passed else target.encoded[:-1]
    return sum(_encoding(rung, target.frame_rate or 30.0, target.codec) for rung in rungs)


def _encoding(rung: Rung, frame_rate: float, codec: Codec) -> float:
    return rung.width * rung.height * frame_rate * _ENCODING[preset(rung.width, rung.height)] * _DEARER.get(codec, 1.0)


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """One reason for which video cannot pass."""

    label: Label
    stands: Callable[[Track, Want, Policy], bool]
    text: Callable[[Track, Policy], str]
    advice: Callable[[Policy], str]


def _too_large(track: Track, policy: Policy) -> bool:
    limits = sorted((policy.max_width, policy.max_height))
    edges = sorted((track.width, track.height))
    return edges[0] > limits[0] or edges[1] > limits[1]


_SEND_H264 = "Send H.264 (OBS: Settings > Output > Streaming > Video Encoder: one of H.264; ffmpeg: -c:v libx264)."
_OBSTACLES = (
    _Obstacle(
        Label.BIT_DEPTH,
        lambda track, want, _: track.bit_depth > want.bit_depth,
        lambda track, _: f"Browsers do not play {track.bit_depth}-bit video everywhere.",
        lambda _: (
            "Send 8 bit (OBS: Settings > Advanced > Color Format: NV12; ffmpeg: -pix_fmt yuv420p; GStreamer, before its encoder: "
            "video/x-raw,format=I420)."
        ),
    ),
    _Obstacle(
        Label.CHROMA,
        lambda track, _, __: track.chroma not in ("4:2:0", ""),
        lambda track, _: f"Browsers do not decode {track.chroma} chroma in a call.",
        lambda _: (
            "Send 4:2:0 (OBS: Settings > Advanced > Color Format: NV12; ffmpeg: -pix_fmt yuv420p; GStreamer, before its encoder: "
            "video/x-raw,format=I420)."
        ),
    ),
    _Obstacle(
        Label.INTERLACED,
        lambda track, want, _: track.interlaced and not want.interlaced,
        lambda track, _: "The video is interlaced, which WebRTC cannot show.",
        lambda _: "Send progressive video (OBS: right click on the source > Deinterlacing; ffmpeg: -vf bwdif).",
    ),
    _Obstacle(
        Label.B_FRAMES,
        lambda track, want, _: bool(track.reorder) and not want.reorder,  # None: it does not say, and most such do not reorder
        lambda track, _: "The video has B-frames, whose reordering WebRTC cannot carry.",
        lambda _: (
            "Turn off B-frames (OBS: Settings > Output > Streaming: x264 Tune zerolatency, other encoders Max B-frames 0; "
            "ffmpeg: -bf 0)."
        ),
    ),
    _Obstacle(
        Label.OPEN_GOP,
        lambda track, want, _: track.open_gop and not want.open_groups,
        lambda track, _: "The video has open groups of pictures or intra refresh: no browser can start at its key frames.",
        lambda _: "Turn off open GOP and intra refresh (OBS: x264 Options open-gop=0 intra-refresh=0; ffmpeg: -flags +cgop).",
    ),
    _Obstacle(
        Label.SIZE,
        lambda track, want, policy: not want.unlimited and _too_large(track, policy),
        lambda track, policy: f"{track.width}x{track.height} is larger than the call's {policy.max_width}x{policy.max_height}.",
        lambda policy: (
            f"Send a smaller picture (OBS: Settings > Video > Output (Scaled) Resolution: "
            f"{policy.max_width}x{policy.max_height})."
        ),
    ),
    _Obstacle(
        Label.FRAME_RATE,
        lambda track, want, policy: (
            not want.unlimited and track.frame_rate > policy.max_frame_rate * 1.02
        ),  # measured, so it wanders
        lambda track, policy: f"{track.frame_rate:.0f} frames a second are more than the call's {policy.max_frame_rate:.0f}.",
        lambda policy: f"Send fewer frames a second (OBS: Settings > Video > Common FPS Values: {policy.max_frame_rate:.0f}).",
    ),
    _Obstacle(
        Label.BITRATE,
        lambda track, want, policy: not want.unlimited and 0 < policy.pass_bitrate < track.bitrate,
        lambda track, policy: (
            f"{_mbps(track.bitrate)} are more than the {_mbps(policy.pass_bitrate)} that viewers get of this call."
        ),
        lambda policy: f"Lower the bitrate (OBS: Settings > Output > Streaming > Bitrate: {policy.pass_bitrate // 1000} Kbps).",
    ),
)


def plan(track: Track, want: Want, policy: Policy) -> Decision:
    """Decide one track's way to an output that wants it so."""
    return _plan_video(track, want, policy) if track.kind is Kind.VIDEO else _plan_audio(track, want, policy)


def _plan_video(track: Track, want: Want, policy: Policy) -> Decision:
    why = _why_not_pass(track, want, policy)
    made = _made(want, policy)
    if why is None and (policy.policy != "always" or want.unlimited):
        untouched = Why(Label.SAME_CODEC, f"{want.taker} takes {track.codec.label} as it comes.")
        return Passthrough(untouched, _below(track, made, want, policy), 0 if want.unlimited else policy.pass_bitrate)
    if made not in want.makes:
        unknown = f"{want.taker} does not take {made.label}, to which video is transcoded."
        return Refuse(why or Why(Label.NOT_SUPPORTED, unknown))
    if why is not None and policy.policy == "never":
        return Refuse(replace(why, text=f"{why.text} This gateway does not transcode video (transcode.video = never)."))
    target = _video_target(track, made, want, policy)
    if why is None:
        why = Why(Label.POLICY, "This gateway transcodes all video (transcode.video = always).")
    elif policy.policy == "always":  # nothing that the streamer changes would spare it
        why = replace(why, advice="")
    else:
        why = replace(why, advice=f"{why.advice} {_saving(track, target)}")
    return Transcode(replace(why, text=why.text + _otherwise_than_wished(made, target, want, policy)), target)


def _made(want: Want, policy: Policy) -> Codec:
    """What video is transcoded to."""
    wished = Codec(policy.codec)
    return wished if wished in want.makes - policy.missing else Codec.H264


def _otherwise_than_wished(made: Codec, target: VideoTarget, want: Want, policy: Policy) -> str:
    """Where something else is made than the policy says, why: a sentence more."""
    if want.unlimited:
        return ""
    wished = Codec(policy.codec)
    if made is not wished:
        cause = "there is no encoder here" if wished in policy.missing else "a viewer's player does not take it"
        return f" It becomes H.264 and not {wished.label}: {cause}."
    if policy.layers > target.layers and made in _ONE_LAYER:
        return f" It has one layer, since more of {made.label} cost too much."
    return ""


def _below(track: Track, made: Codec, want: Want, policy: Policy) -> VideoTarget | None:
    """The layers beside a video that passes: smaller ones of the same codec, where it is large enough for that and CPU may be spent."""
    if policy.policy == "never" or track.codec is not made or track.layer:
        return None
    target = replace(_video_target(track, made, want, policy), passed=True)
    return target if target.layers > 1 and track.width and track.height and target.encoded else None


def _why_not_pass(track: Track, want: Want, policy: Policy) -> Why | None:
    name = track.codec.label
    if track.codec not in want.codecs:
        if track.codec in want.carries:
            return Why(Label.VIEWER, f"A viewer's player does not take {name}.", _SEND_H264)
        return Why(Label.CODEC, f"{want.taker} does not take {name}.", _SEND_H264)
    if not want.unlimited and track.codec in WEBRTC_VIDEO - policy.passing:
        return Why(Label.POLICY, f"{name} does not pass into this call (transcode.accept).", _SEND_H264)
    for obstacle in _OBSTACLES:
        if obstacle.stands(track, want, policy):
            return Why(obstacle.label, obstacle.text(track, policy), obstacle.advice(policy))
    return None


def _saving(track: Track, target: VideoTarget) -> str:
    """What the streamer's change would spare: the time in which pictures wait for their order and are made anew, and the CPU."""
    ordering = (track.reorder or 0) * 1000 / (track.frame_rate or 30.0)
    share = cores(target.width, target.height, target.frame_rate, target.layers, target.codec)
    return f"That saves about {round(ordering + _ENCODING_MS, -1):.0f} ms of delay and {share:.1f} of a CPU core here."


def _video_target(track: Track, made: Codec, want: Want, policy: Policy) -> VideoTarget:
    width = height = 0
    if track.width and track.height:
        width, height = fit(track.width, track.height, policy.max_width, policy.max_height)
    frame_rate = min(track.frame_rate, policy.max_frame_rate)
    max_bitrate = min(policy.max_bitrate, policy.pass_bitrate or policy.max_bitrate)
    return VideoTarget(
        width=width,
        height=height,
        max_width=policy.max_width,
        max_height=policy.max_height,
        frame_rate=frame_rate,
        max_frame_rate=policy.max_frame_rate,
        bitrate=min(start_bitrate(width, height, frame_rate), max_bitrate),
        max_bitrate=max_bitrate,
        encoder=SOFTWARE.get(made, policy.encoder),
        layers=1 if track.layer or made in _ONE_LAYER else min(policy.layers, want.layers),
    )


def _plan_audio(track: Track, want: Want, policy: Policy) -> Decision:
    surround = track.codec is Codec.OPUS and _is_surround(track)
    if track.codec in want.codecs and not surround:
        return Passthrough(Why(Label.SAME_CODEC, f"{want.taker} takes {track.codec.label} as it comes."))
    made = next((codec for codec in (Codec.OPUS, Codec.AAC) if codec in want.makes), None)
    if made is None:
        return Refuse(Why(Label.NOT_SUPPORTED, f"{want.taker} does not take Opus, to which audio is transcoded."))
    target = AudioTarget(policy.audio_bitrate, made)
    if surround and made is Codec.OPUS:
        return Transcode(
            Why(Label.CHANNELS, "WebRTC carries Opus in mono or stereo.", "Send stereo to spare the transcoding."), target
        )
    if made is Codec.OPUS:
        return Transcode(Why(Label.CODEC, f"Browsers do not take {track.codec.label} in a call; it becomes Opus."), target)
    return Transcode(Why(Label.CODEC, f"{want.taker} does not take this {track.codec.label}; it becomes {made.label}."), target)


def _is_surround(track: Track) -> bool:
    # RFC 7845 §5.1: byte 9 of the OpusHead counts the channels, byte 18 is the mapping family (0: mono or stereo, RTP's only one)
    head = track.extradata
    return track.channels > 2 or (len(head) >= 19 and (head[9] > 2 or head[18] != 0))


def _mbps(bits_per_second: int) -> str:
    return f"{bits_per_second / 1e6:.1f} Mbit/s"
