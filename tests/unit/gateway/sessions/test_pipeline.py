"""One encoder's way into a call: decisions, their revision in mid-stream, and what is counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from time import monotonic_ns

import pytest

from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.pipeline import Pipeline
from gateway.sessions.replanner import Room
from gateway.sessions.routes import Routes
from gateway.sessions.transcoders import SpareWorker
from gateway.telemetry.latency import Step
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind
from tests.support.arriving import ORIGIN, Arriving
from tests.support.memory import H264, MS, OPUS, EnoughRoom, MemoryCall, MemoryOutput, MemoryPublisher, MemorySink, packet
from tests.unit.transcode.media import pictures, see, tone
from transcode.host.pool import Workers
from transcode.limits import WorkerLimits
from transcode.plan import Policy, plan

UNHURRIED = LiveEdgePolicy(free=60_000_000_000, late=60_000_000_000)  # media of seconds may come at once

PATIENT = WorkerLimits(video_queue=60_000, audio_queue=60_000, close=20.0)


def routes_to(*outputs: MemoryOutput) -> Routes:
    routes = Routes()
    for output in outputs:
        routes.add(output)
    return routes


def made(
    publisher: MemoryPublisher,
    routes: Routes,
    workers: Workers | None = None,
    policy: Policy | None = None,
    room: Room | None = None,
    *,
    live_edge: LiveEdgePolicy = UNHURRIED,
    max_bitrate: int = 0,
    fail: Callable[[str], None] = lambda why: None,
) -> tuple[Pipeline, SpareWorker]:
    workers = workers or Workers()
    spare = SpareWorker(workers, "seat", lambda: it.staging.lost_spare())
    it = Pipeline(
        publisher,
        routes,
        workers,
        spare,
        decide=lambda track, want: plan(track, want, policy or Policy()),
        room=room or EnoughRoom(),
        live_edge=live_edge,
        max_bitrate=max_bitrate,
        origin=0,
        fail=fail,
        on_lack=lambda item: None,
    )
    for output in routes.outputs.values():
        assert isinstance(output, MemoryOutput)
        output.changed = it.staging.replan
    return it, spare


@asynccontextmanager
async def pipeline(
    publisher: MemoryPublisher,
    outputs: MemoryOutput | Routes,
    workers: Workers | None = None,
    policy: Policy | None = None,
    room: Room | None = None,
) -> AsyncIterator[Pipeline]:
    failures: list[str] = []
    routes = outputs if isinstance(outputs, Routes) else routes_to(outputs)
    it, spare = made(publisher, routes, workers, policy, room, fail=failures.append)
    try:
        yield it
        assert failures == []
    finally:
        await it.aclose()
        await spare.aclose()


async def test_b_frames_that_no_header_announced_are_found_and_no_picture_is_lost_or_out_of_order() -> None:
    track, packets = pictures(options={"bf": "2", "b_strategy": "0"}, gop=15)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((replace(track, reorder=None),))
        for each in packets:
            await it.push(each)
        track_pipeline = it.track_pipelines[track.id]
        assert track_pipeline.decision.why.label == "b_frames"
        assert track_pipeline.track.reorder == 1
        await it.aclose()  # the stages give what they hold
    sent = call.sinks[Kind.VIDEO].packets
    times = [each.pts for each in sent]
    assert times == sorted(set(times))
    assert len(sent) >= len(packets) - 2, "the first and the first P were sent before the first B showed what they are"
    assert len(see(sent[2:])) == len(sent) - 2
    modes = {(mode, reason): n for (kind, mode, reason), n in it.totals.treatments.items()}
    assert modes == {("passthrough", "same_codec"): 1, ("transcode", "b_frames"): 1}


async def test_intra_refresh_that_shows_in_mid_stream_is_decoded_from_the_start_and_no_picture_is_lost() -> None:
    track, packets = pictures(options={"bf": "0", "x264-params": "intra-refresh=1"})
    track = replace(track, reorder=0)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((track,))
        for number, each in enumerate(packets):
            if number == 30:  # the first recovery point: no decoder could show a picture from here on for another second
                await it.change((replace(track, open_gop=True),))
            await it.push(each)
        assert it.track_pipelines[track.id].decision.why.label == "open_gop"
        await it.aclose()
    sent = call.sinks[Kind.VIDEO].packets
    assert [each.pts for each in sent] == [each.pts for each in packets]
    assert sent[30].keyframe


async def test_without_b_frames_the_watch_ends_and_all_passes() -> None:
    track, packets = pictures(options={"bf": "0"}, seconds=6, rate=10)
    call = MemoryCall()
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((replace(track, reorder=None),))
        for each in packets:
            await it.push(each)
        assert it.track_pipelines[track.id].track.reorder == 0
    assert [each.data for each in call.sinks[Kind.VIDEO].packets] == [each.data for each in packets]


async def test_a_track_that_ends_is_unpublished_and_one_that_comes_late_is_published() -> None:
    call = MemoryCall()
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((H264,))
        assert set(call.sinks) == {Kind.VIDEO}
        await it.change((H264, OPUS))
        assert set(call.sinks) == {Kind.VIDEO, Kind.AUDIO}
        await it.change((OPUS,))
        assert call.sinks[Kind.VIDEO].closed
        assert not call.sinks[Kind.AUDIO].closed


async def test_new_facts_of_a_passing_track_keep_its_sink() -> None:
    call = MemoryCall()
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((H264,))
        before = call.sinks[Kind.VIDEO]
        await it.change((replace(H264, width=320, height=240),))
        assert call.sinks[Kind.VIDEO] is before
        assert before.track.width == 320


async def test_a_track_that_the_call_cannot_have_is_refused_with_its_reason_and_the_other_goes_on() -> None:
    call = MemoryCall()
    call.accepts = call.carries = frozenset({Codec.OPUS})
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((H264, OPUS))
        await it.push(packet(1, 0, keyframe=True))
        await it.push(packet(2, 0))
        assert it.track_pipelines[1].mode == "refuse"
        assert set(call.sinks) == {Kind.AUDIO}
        assert len(call.sinks[Kind.AUDIO].packets) == 1


async def test_sound_keeps_its_time_through_the_worker_and_the_delay_is_measured() -> None:
    track, packets = tone(Codec.AAC, seconds=1.0)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((track,))
        for each in packets:
            await it.push(each)
        await call.sinks[Kind.AUDIO].until(45)
        delays = it.totals.delays[Kind.AUDIO]
        assert delays.steps[Step.TRANSCODE].count >= 45
        assert it.totals.packets[Kind.AUDIO] == len(packets)
    assert call.sinks[Kind.AUDIO].track.codec is Codec.OPUS
    steps = {b.pts - a.pts for a, b in zip(call.sinks[Kind.AUDIO].packets, call.sinks[Kind.AUDIO].packets[1:], strict=False)}
    assert steps == {20_000_000}


@pytest.mark.parametrize("answers", [True, False])
async def test_requests_for_a_key_frame_go_to_the_encoder_once_in_half_a_second(answers: bool) -> None:
    publisher, call = MemoryPublisher(answers_keyframes=answers), MemoryCall()
    async with pipeline(publisher, call) as it:
        await it.change((H264,))
        sink = call.sinks[Kind.VIDEO]
        assert [sink.feedback.keyframe() for _ in range(3)] == [answers] * 3
        assert publisher.keyframe_requests == (1 if answers else 3)


async def test_a_stream_above_the_limit_is_ended_with_the_figures_and_the_setting_to_change() -> None:
    publisher, call, failures = MemoryPublisher(), MemoryCall(), list[str]()
    it, _ = made(publisher, routes_to(call), max_bitrate=1_000_000, fail=failures.append)
    await it.change((H264,))
    for n in range(70):  # 2 Mbit/s for seven seconds
        await it.push(packet(1, n * 100, keyframe=n == 0, data=bytes(25_000))._replace(arrival=n * 100_000_000))
    await it.aclose()
    assert len(call.sinks[Kind.VIDEO].packets) >= 40
    assert "2.0 Mbit/s" in failures[0]
    assert "lower the encoder's bitrate" in failures[0]


async def test_a_file_pushed_faster_than_real_time_is_held_and_the_encoder_is_made_to_wait() -> None:
    publisher, call = MemoryPublisher(), MemoryCall()
    it, _ = made(publisher, routes_to(call), live_edge=LiveEdgePolicy())
    await it.change((H264,))

    async def feed() -> None:
        for n in range(50):  # two seconds of media
            await it.push(packet(1, n * 40, keyframe=n == 0))

    feeding = asyncio.create_task(feed())
    video = call.sinks[Kind.VIDEO]
    await video.until(1)
    assert publisher.paused
    assert not feeding.done()
    assert len(video.packets) < 10
    await video.until(50)
    await feeding
    assert not publisher.paused
    assert it.gather().dropped.total() == 0
    await it.aclose()


async def test_what_waits_for_the_other_medium_is_given_at_the_end() -> None:
    call = MemoryCall()
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((H264, OPUS))
        earlier = monotonic_ns() - 10_000_000_000 - ORIGIN
        source = [
            each._replace(begun=each.begun + earlier, arrival=each.arrival + earlier)
            for _, each in Arriving(spurt=340 * MS).packets(4_000 * MS)
        ]
        for each in source:
            await it.push(each)
        sent = call.sinks[Kind.VIDEO].packets
        pictures = [each.dts for each in source if each.track == H264.id]
        assert len(sent) < len(pictures)
        await it.aclose()
        assert [each.dts for each in sent] == pictures


async def test_the_queue_counts_only_what_the_pacer_holds() -> None:
    call = MemoryCall()
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((H264,))
        late = packet(1, 0, keyframe=True)
        await it.push(late._replace(begun=late.begun - 50_000_000, arrival=late.arrival - 50_000_000))  # 50 ms in the parser
        steps = it.totals.delays[Kind.VIDEO].steps
        assert steps[Step.DEMUX].total >= 50_000_000
        assert steps[Step.QUEUE].count == 1
        assert steps[Step.QUEUE].total < 10_000_000


HIGH, LOW = replace(H264, id=11, layer="h"), replace(H264, id=12, layer="l", width=320, height=180)


async def test_each_layer_passes_by_itself_and_requests_for_key_frames_go_to_its_own_encoder() -> None:
    publisher, call = MemoryPublisher(answers_keyframes=True), MemoryCall()
    async with pipeline(publisher, call) as it:
        await it.change((HIGH, LOW, OPUS))
        for track in (HIGH, LOW):
            await it.push(packet(track.id, 0, keyframe=True)._replace(layer=track.layer))
        high, low = call.layers[Kind.VIDEO, "h"], call.layers[Kind.VIDEO, "l"]
        assert [[each.layer for each in sink.packets] for sink in (high, low)] == [["h"], ["l"]]
        assert low.feedback.keyframe()
        assert low.feedback.keyframe()
        assert high.feedback.keyframe()
        assert publisher.asked_layers == ["l", "h"]


async def test_a_layer_that_ends_is_unpublished_and_the_others_go_on() -> None:
    call = MemoryCall()
    async with pipeline(MemoryPublisher(), call) as it:
        await it.change((HIGH, LOW))
        await it.change((LOW,))
        assert call.layers[Kind.VIDEO, "h"].closed
        assert not call.layers[Kind.VIDEO, "l"].closed
        await it.change((HIGH, LOW))
        assert not call.layers[Kind.VIDEO, "h"].closed


async def test_a_layer_that_takes_over_in_mid_group_is_asked_for_a_key_frame() -> None:
    publisher, call = MemoryPublisher(answers_keyframes=True), MemoryCall()
    async with pipeline(publisher, call) as it:
        await it.change((HIGH, LOW))
        await it.push(packet(HIGH.id, 0, keyframe=True)._replace(layer="h"))
        assert publisher.asked_layers == []
        for at in (0, 33, 66):
            await it.push(packet(LOW.id, at)._replace(layer="l"))
        await it.push(packet(LOW.id, 100, keyframe=True)._replace(layer="l"))
        await it.push(packet(LOW.id, 133)._replace(layer="l"))
    assert publisher.asked_layers == ["l"]


async def test_a_larger_layer_takes_the_place_of_the_transcoded_one_without_a_pause_for_viewers() -> None:
    track, _ = pictures(Codec.VP8, seconds=0.2)
    high, low = replace(track, layer="h"), replace(track, id=track.id + 1, layer="l", width=160, height=90)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((low,))
        sink = call.sinks[Kind.VIDEO]
        await it.change((high, low))
        assert set(it.track_pipelines) == {high.id}
        assert call.sinks[Kind.VIDEO] is sink
        assert not sink.closed


async def test_layers_of_an_earlier_encoder_end_when_the_next_has_others() -> None:
    call = MemoryCall()
    routes = routes_to(call)
    async with pipeline(MemoryPublisher(), routes) as it:
        await it.change((HIGH, LOW, OPUS))
    sound = call.sinks[Kind.AUDIO]
    async with pipeline(MemoryPublisher(), routes) as it:
        await it.change((H264,))
        assert call.layers[Kind.VIDEO, "h"].closed
        assert call.layers[Kind.VIDEO, "l"].closed
        assert not call.layers[Kind.VIDEO, ""].closed
        assert not sound.closed, "its track may come later"


async def test_of_layers_that_cannot_pass_the_largest_alone_reaches_a_worker() -> None:
    track, pushed = pictures(Codec.VP8, seconds=1.0)
    high, low = replace(track, layer="h"), replace(track, id=track.id + 1, layer="l", width=160, height=90)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((high, low))
        for each in pushed:
            await it.push(each._replace(layer="h"))
            await it.push(each._replace(track=low.id, layer="l"))
        assert set(it.track_pipelines) == {high.id}
        await it.aclose()
    assert set(call.layers) == {(Kind.VIDEO, "")}
    assert len(call.sinks[Kind.VIDEO].packets) == len(pushed)


def layers(call: MemoryCall) -> dict[str, list[EncodedPacket]]:
    return {layer: sink.packets for (_, layer), sink in call.layers.items() if not sink.closed}


async def test_a_video_that_passes_has_smaller_layers_beside_it_with_its_key_frames() -> None:
    track, packets = pictures(size=(640, 480), gop=15)
    track = replace(track, reorder=0)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers, Policy(layers=3)) as it:
        await it.change((track,))
        for each in packets:
            await it.push(each)
        await it.aclose()
    assert [each.data for each in layers(call)["f"]] == [each.data for each in packets]
    assert {each.layer for each in layers(call)["h"]} == {"h"}
    assert [(each.pts, each.keyframe) for each in layers(call)["h"]] == [(each.pts, each.keyframe) for each in packets]
    assert {(frame.width, frame.height) for frame in see(layers(call)["h"])} == {(320, 240)}
    assert not call.layers[Kind.VIDEO, "f"].feedback.keyframe(), "only the source can make one"
    assert list(it.totals.treatments) == [(Kind.VIDEO, "passthrough", "same_codec")]


async def test_vp8_that_passes_has_layers_of_vp8_below_it_where_the_call_makes_vp8() -> None:
    track, packets = pictures(Codec.VP8, size=(640, 480), gop=15)
    call = Audience()
    policy = Policy(layers=2, codec="vp8")
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers, policy) as it:
        await it.change((track,))
        for each in packets:
            await it.push(each)
        await it.aclose()
    assert [each.data for each in layers(call)["f"]] == [each.data for each in packets]
    assert [(each.pts, each.keyframe) for each in layers(call)["h"]] == [(each.pts, each.keyframe) for each in packets]
    assert {(frame.width, frame.height) for frame in see(layers(call)["h"], Codec.VP8)} == {(320, 240)}


async def test_where_no_worker_can_be_had_a_video_passes_without_layers(caplog: pytest.LogCaptureFixture) -> None:
    track, packets = pictures(size=(640, 480))
    call = MemoryCall()
    async with (
        Workers(replace(PATIENT, workers=0)) as workers,
        pipeline(MemoryPublisher(), call, workers, Policy(layers=3)) as it,
    ):
        await it.change((replace(track, reorder=0),))
        for each in packets:
            await it.push(each)
    assert list(layers(call)) == [""]
    assert len(layers(call)[""]) == len(packets)
    assert "no layers below the video" in caplog.text


async def test_layers_make_room_for_others_from_the_top_and_what_passes_stays() -> None:
    track, packets = pictures(size=(960, 720), gop=15)
    call = MemoryCall()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers, Policy(layers=3)) as it:
        await it.change((replace(track, reorder=0),))
        assert set(layers(call)) == {"f", "h", "q"}
        assert it.shed()
        assert it.shed()
        assert not it.shed()
        for each in packets:
            await it.push(each)
        await it.aclose()
        assert set(layers(call)) == {"f"}
        assert it.gather().worker_lowered == 2
    assert len(layers(call)["f"]) == len(packets)


async def test_a_video_that_stays_above_the_bitrate_that_may_pass_is_transcoded_from_its_next_key_frame_on() -> None:
    track, packets = pictures(size=(320, 240), seconds=8, noise=30, options={"b": "3M", "preset": "ultrafast", "bf": "0"})
    track = replace(track, reorder=0)
    call = MemoryCall()
    policy = Policy(pass_bitrate=600_000)
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers, policy) as it:
        await it.change((track,))
        for each in packets:
            await it.push(each)
        await it.change((track,))  # the publisher tells the same once more: it still knows nothing of its bitrate
        track_pipeline = it.track_pipelines[track.id]
        assert (track_pipeline.mode, track_pipeline.decision.why.label) == ("transcode", "bitrate")
        assert "600 Kbps" in track_pipeline.decision.why.advice
        await it.aclose()
    sent = layers(call)[""]
    assert [each.pts for each in sent] == [each.pts for each in packets]
    passed = next(number for number, (a, b) in enumerate(zip(sent, packets, strict=True)) if a.data != b.data)
    assert passed % 30 == 0
    assert sent[passed].keyframe
    bits = sum(len(each.data) for each in sent[-60:]) * 8 / 2
    assert bits < 900_000


class Audience(MemoryCall):
    """A call whose viewers take other codecs from time to time."""

    def __init__(self) -> None:
        super().__init__()
        self.accepts = self.carries = frozenset({Codec.H264, Codec.VP8, Codec.OPUS})

    def take(self, *codecs: Codec) -> None:
        self.accepts = frozenset(codecs)
        self.changed()


def codecs(sinks: list[MemorySink]) -> list[Codec]:
    return [sink.track.codec for sink in sinks]


async def test_a_viewer_without_the_codec_makes_the_stream_h264_from_its_next_key_frame_on_and_it_passes_again_after_it() -> (
    None
):
    track, packets = pictures(Codec.VP8, seconds=2, gop=15)
    call, publisher = Audience(), MemoryPublisher(answers_keyframes=True)
    async with Workers(PATIENT) as workers, pipeline(publisher, call, workers) as it:
        await it.change((track,))
        for number, each in enumerate(packets):
            if number == 10:
                call.take(Codec.H264, Codec.OPUS)
            if number == 35:
                call.take(Codec.H264, Codec.VP8, Codec.OPUS)
            await it.push(each)
        await it.aclose()
    passed, made, again = call.all
    assert codecs(call.all) == [Codec.VP8, Codec.H264, Codec.VP8]
    assert [each.data for each in passed.packets + again.packets] == [each.data for each in packets[:15] + packets[45:]]
    assert [each.pts for each in made.packets] == [each.pts for each in packets[15:45]]
    assert made.packets[0].keyframe
    assert len(see(made.packets)) == 30
    assert publisher.keyframe_requests
    assert {(mode, reason): n for (_, mode, reason), n in it.totals.treatments.items()} == {
        ("passthrough", "same_codec"): 2,
        ("transcode", "viewer"): 1,
    }


async def test_a_source_that_makes_no_key_frame_on_request_becomes_h264_in_mid_group() -> None:
    track, packets = pictures(Codec.VP8, seconds=4, gop=120)
    call, publisher = Audience(), MemoryPublisher()
    async with Workers(PATIENT) as workers, pipeline(publisher, call, workers) as it:
        await it.change((track,))
        for number, each in enumerate(packets):
            if number == 100:
                call.take(Codec.H264, Codec.OPUS)
            await it.push(each)
        await it.aclose()
    passed, made = call.all
    assert [each.data for each in passed.packets] == [each.data for each in packets[:100]]
    assert [each.pts for each in made.packets] == [each.pts for each in packets[100:]]
    assert made.packets[0].keyframe
    assert len(see(made.packets)) == len(packets) - 100


async def test_a_group_that_is_too_long_to_be_kept_is_not_decoded_and_the_next_key_frame_is() -> None:
    track, packets = pictures(Codec.VP8, seconds=8, rate=10, gop=70)
    call = Audience()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((track,))
        for number, each in enumerate(packets):
            if number == 60:
                call.take(Codec.H264, Codec.OPUS)
            await it.push(each)
        await it.aclose()
    passed, made = call.all
    assert (len(passed.packets), len(made.packets)) == (70, 10)


async def test_what_viewers_take_does_not_matter_to_a_stream_that_is_h264() -> None:
    call, publisher = Audience(), MemoryPublisher(answers_keyframes=True)
    async with pipeline(publisher, call) as it:
        await it.change((H264,))
        await it.push(packet(1, 0, keyframe=True))
        call.take(Codec.H264, Codec.OPUS)
        await it.push(packet(1, 33))
        await it.push(packet(1, 66, keyframe=True))
        assert len(call.all) == 1
    assert publisher.keyframe_requests == 0
    assert sum(it.totals.treatments.values()) == 1


class NoRoom(EnoughRoom):
    def admit(self, *_: object) -> None:
        raise Rejected(Reason.OVERLOADED, "the gateway is overloaded")

    def admit_optional(self, *_: object) -> None:
        raise Rejected(Reason.OVERLOADED, "the gateway is overloaded")


@pytest.mark.parametrize("cause", ["capacity", "workers", "policy"])
@pytest.mark.parametrize("from_the_start", [False, True])
async def test_where_there_is_no_room_the_stream_goes_on_as_it_is_and_that_is_said_once(
    cause: str, from_the_start: bool, caplog: pytest.LogCaptureFixture
) -> None:
    track, packets = pictures(Codec.VP8, seconds=2, gop=5)
    call = Audience()
    if from_the_start:
        call.take(Codec.H264, Codec.OPUS)
    limits = replace(PATIENT, workers=0 if cause == "workers" else 1)
    room = NoRoom() if cause == "capacity" else None
    policy = Policy(policy="never") if cause == "policy" else Policy()
    async with Workers(limits) as workers, pipeline(MemoryPublisher(), call, workers, policy, room) as it:
        await it.change((track,))
        for number, each in enumerate(packets):
            if number == 10:
                call.take(Codec.H264, Codec.OPUS)
            await it.push(each)
    assert codecs(call.all) == [Codec.VP8]
    assert [each.data for each in call.all[0].packets] == [each.data for each in packets]
    assert caplog.text.count("vp8 passes though a viewer's player does not take it") == 1


async def test_layers_of_the_publisher_give_way_to_one_that_is_made_and_come_back() -> None:
    track, packets = pictures(Codec.VP8, seconds=2, gop=15)
    high, low = replace(track, layer="h"), replace(track, id=track.id + 1, layer="l", width=160, height=90)
    call, publisher = Audience(), MemoryPublisher(answers_keyframes=True)
    async with Workers(PATIENT) as workers, pipeline(publisher, call, workers) as it:
        await it.change((high, low))
        for number, each in enumerate(packets):
            if number == 10:
                call.take(Codec.H264, Codec.OPUS)
            if number == 35:
                call.take(Codec.H264, Codec.VP8, Codec.OPUS)
            await it.push(each._replace(track=low.id, layer="l"))  # its key frame comes first and changes nothing
            await it.push(each._replace(layer="h"))
        await it.aclose()
    assert [(each.track.layer, each.track.codec, len(each.packets)) for each in call.all] == [
        ("h", Codec.VP8, 15),
        ("l", Codec.VP8, 16),
        ("", Codec.H264, 30),
        ("h", Codec.VP8, 15),
        ("l", Codec.VP8, 0),  # it has had its key frame: another is asked for
    ]
    assert publisher.asked_layers[:2] == ["h", "l"]


async def test_a_viewer_without_the_codec_that_is_made_gets_all_h264() -> None:
    track, packets = pictures(options={"bf": "2", "b_strategy": "0"}, gop=15)
    call = Audience()
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers, Policy(codec="vp8")) as it:
        await it.change((replace(track, reorder=2),))
        for number, each in enumerate(packets):
            if number == 20:
                call.take(Codec.H264, Codec.OPUS)
            await it.push(each)
        await it.aclose()
    vp8, h264 = call.all
    assert codecs(call.all) == [Codec.VP8, Codec.H264]
    times = [each.pts for each in vp8.packets + h264.packets]
    assert times == sorted(set(times))
    assert len(times) >= len(packets) - 2, "what was sent before may have overtaken B-frames that are still to come"
    assert len(vp8.packets) <= 21, "in mid-group"
    assert h264.packets[0].keyframe


async def test_while_nobody_watches_nothing_is_made_and_the_first_viewer_is_shown_what_comes_then() -> None:
    track, packets = pictures(options={"bf": "2", "b_strategy": "0"}, gop=15, seconds=2)
    call = MemoryCall()
    call.idle = True
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers) as it:
        await it.change((replace(track, reorder=2),))
        for number, each in enumerate(packets):
            if number == 40:
                assert (it.track_pipelines[track.id].mode, workers.count, call.all) == ("transcode", 0, [])
                call.idle = False
                call.changed()
            await it.push(each)
        await it.aclose()
    sent = call.sinks[Kind.VIDEO].packets
    begun = packets[0].dts  # where the seat's media time is 0
    newest = max(each.pts for each in packets[:40])
    expected = sorted(each.pts - begun for each in packets if each.pts > newest)
    assert [round(each.pts / MS) for each in sent] == [round(pts / MS) for pts in expected], "no burst of what is past"
    assert sent[0].keyframe
    assert len(see(sent)) == len(sent)
    assert sum(it.totals.treatments.values()) == 1


async def test_layers_below_a_picture_that_passes_are_made_once_somebody_watches() -> None:
    track, packets = pictures(size=(640, 480), gop=15)
    call = MemoryCall()
    call.idle = True
    async with Workers(PATIENT) as workers, pipeline(MemoryPublisher(), call, workers, Policy(layers=2)) as it:
        await it.change((replace(track, reorder=0),))
        for number, each in enumerate(packets):
            if number == 10:
                assert (workers.count, set(layers(call))) == (0, {"f"})
                call.idle = False
                call.changed()
            await it.push(each)
        await it.aclose()
    assert [each.data for each in layers(call)["f"]] == [each.data for each in packets], "what passes goes on"
    assert [each.pts for each in layers(call)["h"]] == [each.pts for each in packets[15:]]
