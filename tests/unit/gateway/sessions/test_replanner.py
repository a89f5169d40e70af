"""What is made for whom: tracks, outputs' wants, policy and room in; stages with their reasons out."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gateway.outputs.hls.seat_output import HlsSeatOutput, wanted
from gateway.sessions.capacity import Demand, VideoCost
from gateway.sessions.output import Want
from gateway.sessions.replanner import NO_ROOM_NS, OPTIONAL_NO_ROOM_NS, Plan, Replanner
from protocols.errors import Reason, Rejected
from protocols.media import WEBRTC_VIDEO, Codec, Track
from tests.support.memory import OPUS, MemoryCall, MemoryOutput
from transcode.plan import Decision, Policy, Transcode, VideoTarget, plan

SECOND = 1_000_000_000
HEVC = Track(1, Codec.HEVC, width=1280, height=720, frame_rate=30.0, reorder=2)
VP8 = Track(1, Codec.VP8, width=1280, height=720, frame_rate=30.0)
H264 = Track(1, Codec.H264, width=1280, height=720, frame_rate=30.0, reorder=0)
AAC = Track(2, Codec.AAC, sample_rate=48_000, channels=2, extradata=b"\x11\x90")
HLS = HlsSeatOutput.overhead


class Hls(MemoryOutput):
    """Wants what HLS players take."""

    overhead = HLS

    def __init__(self) -> None:
        super().__init__("hls")

    def wants(self, track: Track) -> Want | None:
        return wanted(track)


class Room:
    """Has this much, and remembers what it was asked for."""

    def __init__(self, *, essential: bool = True, optional: bool = True) -> None:
        self.essential, self.optional = essential, optional
        self.asked: list[Sequence[Decision]] = []
        self.asked_optional: list[Demand] = []

    def admit(self, plans: Sequence[Sequence[Decision]]) -> None:
        self.asked.extend(plans)
        if not self.essential:
            raise Rejected(Reason.OVERLOADED, "the gateway is overloaded")

    def admit_optional(self, wanted: Demand) -> None:
        self.asked_optional.append(wanted)
        if not self.optional:
            raise Rejected(Reason.OVERLOADED, "the gateway is overloaded")


def replanner(room: Room, policy: Policy | None = None) -> Replanner:
    return Replanner(lambda track, want: plan(track, want, policy or Policy()), room)


def made(it: Plan) -> dict[str, list[str]]:
    """Who takes of each form."""
    return {form: [taker.output for taker in stage.takers] for (_, form), stage in it.stages.items()}


def takes_all(name: str = "recorder") -> MemoryOutput:
    """An output that takes everything as it comes."""
    output = MemoryOutput(name)
    output.accepts, output.reorder = frozenset(Codec), True
    return output


def test_each_output_gets_its_form_and_nothing_is_made_that_nobody_takes() -> None:
    call, recorder = MemoryCall(), takes_all()
    it = replanner(Room()).replan((HEVC,), [call, recorder], 0)
    assert made(it) == {"h264": ["call"], "passthrough": ["recorder"]}
    assert all(stage.decision.why.text.endswith(".") for stage in it.stages.values())
    assert made(replanner(Room()).replan((HEVC,), [recorder], 0)) == {"passthrough": ["recorder"]}
    assert made(replanner(Room()).replan((HEVC,), [], 0)) == {}


def test_outputs_with_the_same_target_share_one_stage() -> None:
    call, one, two = MemoryCall(), MemoryOutput("one"), MemoryOutput("two")
    room = Room()
    it = replanner(room).replan((HEVC, AAC), [one, call, two], 0)
    assert made(it) == {"h264": ["call", "one", "two"], "opus": ["call", "one", "two"]}
    assert all(stage.essential for stage in it.stages.values())
    assert room.asked_optional == [], "what the call has made costs the others nothing"


def test_an_optional_output_may_share_with_another_and_what_they_cost_is_asked_for() -> None:
    room = Room()
    it = replanner(room).replan((HEVC,), [MemoryOutput("one"), MemoryOutput("two")], 0)
    assert made(it) == {"h264": ["one", "two"]}
    assert it.optional == Demand(video=(VideoCost(1280, 720, 30.0),))
    assert not it.transcodes


def test_hls_takes_the_source_with_its_b_frames_and_the_smaller_layers_that_are_made_for_the_call() -> None:
    it = replanner(Room(), Policy(layers=3)).replan((replace(H264, reorder=2), AAC), [MemoryCall(), Hls()], 0)
    assert made(it) == {"h264": ["call", "hls"], "opus": ["call"], "passthrough": ["hls"]}
    smaller = {taker.output: taker.smaller for taker in it.stages[1, "h264"].takers}
    assert smaller == {"call": False, "hls": True}
    assert it.optional == HLS


def test_what_passes_to_viewers_is_made_h264_and_aac_for_hls_alone() -> None:
    it = replanner(Room()).replan((VP8, OPUS), [vp8_call(), Hls()], 0)
    assert {form: (stage.essential, [taker.output for taker in stage.takers]) for (_, form), stage in it.stages.items()} == {
        "passthrough": (True, ["call"]),
        "h264": (False, ["hls"]),
        "aac": (False, ["hls"]),
    }
    target = it.stages[1, "h264"].decision
    assert isinstance(target, Transcode)
    assert isinstance(target.target, VideoTarget)
    assert target.target.layers == 1


def vp8_call(*without: Codec) -> MemoryCall:
    call = MemoryCall()
    call.carries = WEBRTC_VIDEO | {Codec.OPUS}
    call.accepts = call.carries - set(without)
    return call


def test_where_there_is_no_room_for_what_viewers_miss_the_stream_passes_and_is_tried_again() -> None:
    call, room = vp8_call(Codec.VP8), Room(essential=False)
    it = replanner(room)
    first = it.replan((VP8,), [call], 5 * SECOND)
    assert made(first) == {"passthrough": ["call"]}
    assert first.kept == "vp8 passes though a viewer's player does not take it: the gateway is overloaded"
    assert first.again == 5 * SECOND + NO_ROOM_NS
    room.essential = True
    assert made(it.replan((VP8,), [call], 6 * SECOND)) == {"passthrough": ["call"]}, "not yet"
    assert len(room.asked) == 1
    later = it.replan((VP8,), [call], first.again)
    assert made(later) == {"h264": ["call"]}
    assert later.for_viewers
    assert (later.kept, later.again) == ("", None)
    it.replan((VP8,), [call], first.again + 1)
    assert len(room.asked) == 2, "what is let in is not asked for again"


def test_an_optional_output_without_room_gets_nothing_costs_the_others_nothing_and_is_tried_again() -> None:
    room = Room(optional=False)
    it = replanner(room)
    first = it.replan((VP8,), [vp8_call(), Hls()], 5 * SECOND)
    assert made(first) == {"passthrough": ["call"]}
    assert list(first.refused) == ["hls"]
    assert first.again == 5 * SECOND + OPTIONAL_NO_ROOM_NS
    again = it.replan((VP8,), [vp8_call(), Hls()], 6 * SECOND)
    assert (made(again), dict(again.refused)) == ({"passthrough": ["call"]}, {}), "told once"
    room.optional = True
    assert "h264" in made(it.replan((VP8,), [vp8_call(), Hls()], first.again))


def test_a_publisher_for_whose_form_there_is_no_room_is_let_in_where_another_plan_fits() -> None:
    room = Room()
    replanner(room).admit((VP8,), [vp8_call(Codec.VP8)])
    assert [[type(decision).__name__ for decision in plan] for plan in room.asked] == [["Transcode"], ["Passthrough"]]
    room.essential = False
    with pytest.raises(Rejected):
        replanner(room).admit((VP8,), [vp8_call(Codec.VP8)])


def test_the_cost_of_an_output_is_what_it_adds() -> None:
    it = replanner(Room())
    assert it.cost_of(Hls(), (H264, AAC), [MemoryCall()]) == HLS
    assert it.cost_of(Hls(), (VP8,), [vp8_call()]) == Demand(video=(VideoCost(1280, 720, 30.0),)).plus(HLS)
    assert it.cost_of(Hls(), (replace(VP8, id=1),), [MemoryCall()]) == HLS, "the call has it made"


def test_a_layer_that_is_silent_is_not_the_one_that_is_made() -> None:
    large, small = replace(VP8, layer="f"), replace(VP8, id=2, layer="h", width=640, height=360)
    it = replanner(Room())
    assert (1, "h264") in it.replan((large, small), [MemoryCall()], 0).stages
    assert (2, "h264") in it.replan((large, small), [MemoryCall()], 0, silent={1}).stages
