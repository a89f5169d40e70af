"""What a call takes as viewers come and go."""

import pytest

from gateway.outputs.embedded.codec_negotiation import CARRIES, CodecNegotiation
from protocols.media import Codec

H264, VP8, VP9, AV1 = Codec.H264, Codec.VP8, Codec.VP9, Codec.AV1
CHROMIUM = frozenset({H264, VP8, VP9, AV1})
AIORTC = frozenset({H264, VP8})
SAFARI = frozenset({H264})
NO_H264 = frozenset({VP8})
S = 1_000_000_000
PATIENCE = 30 * S

Steps = list[tuple[int, list[frozenset[Codec]], str]]
"""At so many seconds these viewers are there; the video that the call takes then."""


@pytest.mark.parametrize(
    "steps",
    [
        [(0, [], "h264 vp8 vp9 av1")],
        [(0, [CHROMIUM, CHROMIUM], "h264 vp8 vp9 av1")],
        [(0, [CHROMIUM, AIORTC], "h264 vp8"), (1, [CHROMIUM, AIORTC, SAFARI], "h264")],
        [(0, [NO_H264], "h264 vp8")],
        [(0, [SAFARI], "h264"), (10, [], "h264"), (39, [], "h264"), (40, [], "h264 vp8 vp9 av1")],
        # a part comes back while another is still missed
        [(0, [SAFARI], "h264"), (10, [AIORTC], "h264"), (40, [AIORTC], "h264 vp8"), (99, [AIORTC], "h264 vp8")],
        # who comes in the meantime begins the wait anew
        [(0, [SAFARI], "h264"), (10, [], "h264"), (35, [SAFARI], "h264"), (36, [], "h264"), (65, [], "h264"), (66, [], "h264 vp8 vp9 av1")],
        # who comes and goes without being missed anything does not
        [(0, [SAFARI], "h264"), (10, [], "h264"), (35, [CHROMIUM], "h264"), (36, [], "h264"), (40, [], "h264 vp8 vp9 av1")],
    ],
    ids=["nobody", "all take all", "the common part", "h264 always", "goes", "partly", "comes again", "others come"],
)  # fmt: skip
def test_a_call_takes_what_all_viewers_take_and_takes_it_again_after_a_while(steps: Steps) -> None:
    codec_negotiation = CodecNegotiation(PATIENCE)
    for seconds, viewers, video in steps:
        codec_negotiation.see(viewers, seconds * S)
        assert codec_negotiation.accepts(seconds * S) == {*map(Codec, video.split()), Codec.OPUS}, seconds


def test_the_next_change_by_time_alone_is_known() -> None:
    codec_negotiation = CodecNegotiation(PATIENCE)
    assert codec_negotiation.due(0) is None
    codec_negotiation.see([SAFARI], 0)
    assert codec_negotiation.due(5 * S) is None, "as long as somebody is without it"
    codec_negotiation.see([AIORTC], 10 * S)
    codec_negotiation.see([], 20 * S)
    assert [codec_negotiation.due(at * S) for at in (20, 40, 50)] == [40 * S, 50 * S, None]
    assert [len(CARRIES) - len(codec_negotiation.accepts(at * S)) for at in (39, 40, 49, 50)] == [3, 2, 2, 0]
