"""The H.264 encoders that there are, and how each is set for live. Sans-IO: the gateway chooses among them, the worker opens them.

x264 works everywhere; one in hardware is used where it is there and has proved itself at start, or where the operator asks for it. All are
set for one picture out for each one in, without B-frames, every key frame an IDR.
"""

from dataclasses import dataclass, field

X264 = "libx264"


@dataclass(frozen=True, slots=True)
class H264Encoder:
    """One of libav's encoders: what pictures it takes, and its own options. They are set beside size, rate, bitrate and GOP. `devices` are
    patterns of files of which there is one where such hardware may be."""

    name: str
    label: str
    pix_fmt: str
    options: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()


_X264 = H264Encoder(
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
)
HARDWARE = (  # in the order of trial
    H264Encoder(
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
    H264Encoder(
        "h264_qsv",
        "Quick Sync",
        "nv12",
        {"preset": "veryfast", "profile": "baseline", "async_depth": "1", "low_delay_brc": "1", "forced_idr": "1"},
        ("/dev/dri/renderD*",),
    ),
    H264Encoder(
        "h264_amf",
        "AMF",
        "nv12",
        {"usage": "ultralowlatency", "quality": "speed", "profile": "constrained_baseline", "rc": "cbr", "forced_idr": "1"},
        ("/dev/dri/renderD*",),
    ),
    H264Encoder("h264_v4l2m2m", "V4L2", "nv12", {"num_output_buffers": "4", "num_capture_buffers": "4"}, ("/dev/video*",)),
)
ENCODERS = {encoder.name: encoder for encoder in (_X264, *HARDWARE)}
