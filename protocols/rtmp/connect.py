"""The answer to `connect`: to a client that speaks Enhanced RTMP (v2) also what we take beyond RTMP 1.0. Sans-IO."""

from protocols.rtmp.amf0 import Value
from protocols.rtmp.flv import AUDIO_FOURCC, VIDEO_FOURCC

# Flags of capsEx and of the FourCC info maps (Enhanced RTMP v2, "Enhancing NetConnection connect command")
_CAPABILITIES = 2 | 4 | 8  # multitrack, ModEx, nanosecond offset
_CAN_DECODE_AND_FORWARD = 1 | 4


def connect_accepted(facts: dict[str, Value]) -> Value:
    info: dict[str, Value] = {
        "level": "status",
        "code": "NetConnection.Connect.Success",
        "description": "Connection succeeded.",
        "objectEncoding": 0.0,
    }
    if "fourCcList" in facts or "capsEx" in facts:
        video: dict[str, Value] = {fourcc.decode(): float(_CAN_DECODE_AND_FORWARD) for fourcc in VIDEO_FOURCC}
        audio: dict[str, Value] = {fourcc.decode(): float(_CAN_DECODE_AND_FORWARD) for fourcc in AUDIO_FOURCC}
        info["fourCcList"] = [*video, *audio]
        info["capsEx"] = float(_CAPABILITIES)
        info["videoFourCcInfoMap"], info["audioFourCcInfoMap"] = video, audio
    return info


def connect_rejected(description: str) -> Value:
    return {"level": "error", "code": "NetConnection.Connect.Rejected", "description": description}
