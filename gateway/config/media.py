"""What is done with media on its way: transcoding, HLS, and what comes late."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr

from gateway.config.values import Items, Name, Section, table
from gateway.model.records import MAX_TRIGGER_S
from transcode.settings import SETTINGS, MadeCodec, Treatment


def _setting(name: str, description: str) -> Any:
    """The key for a setting of transcoding, which is declared there."""
    setting = SETTINGS[name]
    return Field(default=setting.standard, ge=setting.least, le=setting.most, description=description)


class TranscodeConfig(Section):
    """What happens to media that the call cannot take as it is."""

    video: Treatment = _setting(
        "policy",
        '"auto": passed through where the call takes it; "always": transcoded; "never": refused where it cannot pass.',
    )
    accept: Items[Literal["vp8", "vp9", "av1"]] = Field(
        default=("vp8", "vp9", "av1"),
        description="Video codecs that may pass through beside H.264: as long as all viewers of the call take them. For one who does not, "
        "the stream becomes H.264 for all.",
    )
    pass_again_s: float = Field(
        default=30,
        ge=0,
        le=3600,
        description="Time from when the last viewer without a codec has gone until that codec passes again, and from when the last of all "
        "has gone until nothing is transcoded for viewers any more, in seconds.",
    )
    codec: MadeCodec = _setting(
        "codec",
        f"{SETTINGS['codec'].meaning} VP8 costs about 2.4 times the CPU of H.264, AV1 4.5 times, and has one layer.",
    )
    encoder: Literal["auto", "hardware", "libx264", "h264_nvenc", "h264_qsv", "h264_amf", "h264_v4l2m2m"] = Field(
        default="auto",
        description='The H.264 encoder. "auto": the first of NVENC, Quick Sync, AMF and V4L2 whose device is here and that works, else '
        'x264; "hardware": all of them are tried, device or not; or one by name. Each is tried at start with a real picture.',
    )
    max_width: int = _setting("max_width", "Widest picture; larger ones are scaled down.")
    max_height: int = _setting(
        "max_height", "Highest picture; larger ones are scaled down. A portrait one is measured on its side."
    )
    max_frame_rate: float = _setting("max_frame_rate", "Most frames per second.")
    max_bitrate_bps: int = _setting(
        "max_bitrate", "Most that a transcoded video has, in bits per second; it starts at what its size needs."
    )
    pass_bitrate_bps: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000,
        description="A video that stays above this many bits per second is transcoded though it could pass; 0: it passes with any.",
    )
    layers: int = _setting(
        "layers",
        "How many sizes one video is offered in, each half of the one above, so that a viewer gets the one for its tile and "
        "its network; fewer where the video is small. 1 by default: a video that passes costs no CPU then, and the layers below it cost a "
        "third of a core at 1080p30. They are the first to go where the CPU does not suffice.",
    )
    workers_max: int = Field(
        default=32,
        ge=1,
        le=1000,
        description="Worker processes at once: one for each session whose pictures are transcoded, and one for the sound of several.",
    )
    sound_sessions: int = Field(
        default=16,
        ge=1,
        le=16,
        description="Most sessions whose sound is transcoded in one worker. More take less CPU and memory; with 1 no codec that is taken "
        "over is in reach of the sound of others.",
    )
    memory_mib: int = Field(default=1024, ge=128, le=65536, description="Most memory of one worker, in MiB.")
    memory_all_mib: int = Field(
        default=0,
        ge=0,
        le=1 << 20,
        description="Most memory of all workers together, in MiB: above it the largest is ended, and none is started; 0: half of what the "
        "machine or its container has.",
    )
    sandbox: Literal["preferred", "required"] = Field(
        default="preferred",
        description="Workers can open no file, connect nowhere and start nothing. Where the kernel or libseccomp does not hold that, "
        '"preferred" warns at the start, "required" does not start.',
    )
    nice: int = Field(
        default=5,
        ge=0,
        le=19,
        description="Niceness of the workers: the packets of the gateway go before them. Those of sound have 5 less: each is of many "
        "sessions.",
    )
    audio_bitrate_bps: int = Field(default=128_000, ge=16_000, le=510_000, description="Opus, in bits per second.")


class HlsConfig(Section):
    """Calls watched without WebRTC: HLS, which every device plays and any CDN carries, at 2 to 7 s of delay."""

    enabled: bool = Field(default=True, description="Calls can be watched as HLS once the API starts that for them.")
    auto: bool = Field(default=False, description="Every call is, as soon as somebody publishes into it.")
    segment_s: float = Field(
        default=2.0,
        ge=1,
        le=10,
        description="Segments have at least about this length, in seconds, and end at key frames: an encoder should give them as often.",
    )
    window_s: float = Field(
        default=24.0, ge=6, le=86_400, description="How much a playlist lists, in seconds: so far back may players go."
    )
    memory_mib: int = Field(default=64, ge=8, le=4096, description="Most memory of one stream, in MiB; the oldest go first.")
    storage: str = Field(
        default="",
        description="Where segments are kept besides: file:///folder, or s3://bucket/prefix; empty: in memory alone.",
    )
    storage_options: Annotated[Mapping[Name, SecretStr], BeforeValidator(table)] = Field(
        default_factory=dict,
        max_length=32,
        description="What the bucket takes beyond the usual AWS_… variables: "
        '{ endpoint = "https://…", region = "…", access_key_id = "…", secret_access_key = "…" }.',
    )
    base_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="What playlist addresses begin with where that is not this machine: https://cdn.example.org.",
    )
    link_ttl_s: int = Field(
        default=86_400,
        ge=3600,
        le=31_536_000,
        description="How long the address of a playlist is good where the call is not open to everybody, in seconds; it ends sooner with "
        "the call, and one that a user asked for when they are taken out.",
    )


class LiveEdgeConfig(Section):
    """Live means that late is worse than lost."""

    ahead_ms: int = Field(
        default=100, ge=0, le=5000, description="Media may run this far ahead of real time before it is held, in milliseconds."
    )
    hold_ms: int = Field(
        default=1000, ge=100, le=10_000, description="Most media held back from a source that runs ahead, in milliseconds."
    )
    late_ms: int = Field(
        default=700,
        ge=50,
        le=10_000,
        description="Media later than this is dropped, up to the next key frame, in milliseconds.",
    )


def _trigger(which: str) -> Any:
    words = f"Viewers are shown a slate, too, in place of an encoder {which}; 0: never."
    return Field(default=0.0, ge=0, le=MAX_TRIGGER_S, description=words)


class SlateConfig(Section):
    """What viewers are shown while a live encoder is silent or away."""

    enabled: bool = Field(
        default=True,
        description="Silence and a picture are made meanwhile, of the size and codec of the stream; else viewers keep its last picture.",
    )
    folder: str = Field(
        default="",
        description="Folder with pictures (PNG or JPEG of 4 MiB at most) and clips (MP4 of 1 to 10 s and 7 MiB at most, shown over and "
        "over, five pictures a second, without their sound), 32 files of which 8 are clips; a call may wish one by its name. Read and "
        "tried at the start. Empty: there are none.",
    )
    picture: str = Field(
        default="",
        description="Name of the picture or clip in the folder that is shown; empty: a card with the name of the call.",
    )
    black_s: float = _trigger("whose picture is black for so many seconds")
    frozen_s: float = _trigger("whose picture stands still for so many seconds")
    silent_s: float = _trigger("whose sound is silent for so many seconds, or stops")
    silent_dbfs: float = Field(default=-60.0, ge=-110, le=-10, description="Sound below this is silence, in dBFS.")
    low_bitrate_bps: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000,
        description="Viewers are shown a slate, too, in place of an encoder that sends less than so many bits per second; 0: never.",
    )
    low_bitrate_s: float = Field(default=5.0, ge=1, le=3600, description="How long it has to send less, in seconds.")
