"""The video encoders that there are, and how each is set for live. Sans-IO: the gateway chooses among them, the worker opens them.

x264 works everywhere; one in hardware is used where it is there and has proved itself at start, or where the operator asks for it. All are
set for one picture out for each one in, without B-frames, every key frame a picture at which a viewer can start.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from protocols.media import Codec

X264 = "libx264"
VPX = "libvpx"
SVT_AV1 = "libsvtav1"
EFFORTS = ("veryfast", "superfast", "ultrafast")
"""How much CPU a picture may cost, the most first, in the words of x264."""


@dataclass(frozen=True, slots=True)
class VideoEncoder:
    """One of libav's encoders: what pictures it takes, and its own options. They are set beside size, rate, bitrate and GOP. `devices` are
    patterns of files of which there is one where such hardware may be; `efforts` are the options for each of `EFFORTS`."""

    name: str
    label: str
    pix_fmt: str
    options: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    codec: Codec = Codec.H264
    efforts: Mapping[str, dict[str, str]] = field(default_factory=dict)


_X264 = VideoEncoder(
    X264,
    "x264",
    "yuv420p",
    {
        "tune": "zerolatency",
        "profile": "baseline",
        "forced-idr": "1",
        "sc_threshold": "0",  # a scene cut is no reason for a key frame: it would burst
        "aud": "0",
        "a53cc": "0",
    },
    efforts={effort: {"preset": effort} for effort in EFFORTS},
)
_VPX = VideoEncoder(
    VPX,
    "libvpx",
    "yuv420p",
    {"deadline": "realtime", "lag-in-frames": "0", "static-thresh": "0", "max-intra-rate": "300"},
    codec=Codec.VP8,
    efforts={effort: {"cpu-used": speed} for effort, speed in zip(EFFORTS, ("6", "10", "14"), strict=True)},
)
_SVT_AV1 = VideoEncoder(
    SVT_AV1,
    "SVT-AV1",
    "yuv420p",
    # low delay, constant bitrate; on one thread (lp=1) 1080p30 would not keep up (measured)
    {"svtav1-params": "pred-struct=1:lookahead=0:rc=2:scd=0:lp=2:force-key-frames=1"},
    codec=Codec.AV1,
    # 10 costs half as much again as 11 and does not keep up at 720p30; 12 and 13 cost hardly less (measured)
    efforts={effort: {"preset": preset} for effort, preset in zip(EFFORTS, ("11", "11", "12"), strict=True)},
)
HARDWARE = (  # in the order of trial
    VideoEncoder(
        "h264_nvenc",
        "NVENC",
        "yuv420p",
        {
            "preset": "p2",
            "tune": "ull",
            "profile": "baseline",
            "rc": "cbr",
            "zerolatency": "1",
            "delay": "0",
            "forced-idr": "1",
            "no-scenecut": "1",
        },
        ("/dev/nvidia[0-9]*", "/dev/dxg"),
    ),
    VideoEncoder(
        "h264_qsv",
        "Quick Sync",
        "nv12",
        {"preset": "veryfast", "profile": "baseline", "async_depth": "1", "low_delay_brc": "1", "forced_idr": "1"},
        ("/dev/dri/renderD*",),
    ),
    VideoEncoder(
        "h264_amf",
        "AMF",
        "nv12",
        {"usage": "ultralowlatency", "quality": "speed", "profile": "constrained_baseline", "rc": "cbr", "forced_idr": "1"},
        ("/dev/dri/renderD*",),
    ),
    VideoEncoder("h264_v4l2m2m", "V4L2", "nv12", {"num_output_buffers": "4", "num_capture_buffers": "4"}, ("/dev/video*",)),
)
ENCODERS = {encoder.name: encoder for encoder in (_X264, _VPX, _SVT_AV1, *HARDWARE)}
SOFTWARE = {Codec.VP8: VPX, Codec.AV1: SVT_AV1}
"""The encoders of the codecs beside H.264, which are the same everywhere."""
