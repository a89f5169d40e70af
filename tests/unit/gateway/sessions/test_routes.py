"""Routes while others stand in for their feeder, and when another has its place."""

from dataclasses import replace
from time import monotonic_ns

from gateway.sessions.routes import Routes, TrackRoute
from protocols.media import Codec, EncodedPacket, Kind, Track
from tests.support.memory import H264, MS, OPUS, MemoryOutput, packet

LARGE, SMALL = replace(H264, layer="f"), replace(H264, id=3, layer="h", width=320, height=180)


class Feeding:
    """A feeder that makes nothing on request."""

    pushed = 0

    def keyframe(self, layer: str) -> bool:
        return False

    def bitrate(self) -> None:
        pass

    def sent(self, packet: EncodedPacket, ready: int, sent: int) -> None:
        pass


class Standing:
    """Gives way to key frames."""

    def __init__(self) -> None:
        self.asked = 0

    def keyframe(self, route: TrackRoute) -> bool:
        self.asked += 1
        return True

    def gives_way(self, route: TrackRoute, packet: EncodedPacket) -> bool:
        if packet.keyframe:
            route.uncover()
        return packet.keyframe


def made(*tracks: Track) -> tuple[Routes, MemoryOutput, Feeding, list[TrackRoute]]:
    """One output that is given these tracks by one feeder."""
    routes, output, feeder = Routes(), MemoryOutput("call", essential=True), Feeding()
    routes.add(output)
    found = [routes.to("call", track, feeder) for track in tracks]
    for route in found:
        route.push(packet(route.track.id, 0, keyframe=True), feeder)
    return routes, output, feeder, found


def test_a_stand_in_answers_for_the_feeder_until_a_key_frame() -> None:
    _, output, feeder, (route,) = made(H264)
    stand_in, sink = Standing(), output.sinks[Kind.VIDEO]
    route.cover(stand_in)
    assert sink.feedback.keyframe()
    assert stand_in.asked == 1
    route.show(packet(1, 100, keyframe=True, data=b"slate"), replace(H264, frame_rate=5.0))
    assert sink.track.frame_rate == 5.0
    route.push(packet(1, 200), feeder)
    route.push(packet(1, 300, keyframe=True), feeder)
    assert [each.data for each in sink.packets] == [b"frame", b"slate", b"frame"]
    assert sink.track == H264


def test_what_is_not_later_than_what_was_shown_is_moved_up_or_left_out() -> None:
    _, output, feeder, found = made(H264, OPUS)
    for route, track in zip(found, (H264, OPUS), strict=True):
        route.cover(Standing())
        route.show(packet(track.id, 500, keyframe=True), track)
        for at in (480, 490, 500, 510):
            route.push(packet(track.id, at, keyframe=at == 480), feeder)
    video, sound = (output.sinks[kind].packets for kind in (Kind.VIDEO, Kind.AUDIO))
    assert [each.dts // 1_000_000 for each in video] == [0, 500, 501, 502, 503, 510]
    assert all(each.pts >= each.dts for each in video)
    assert [each.dts // 1_000_000 for each in sound] == [0, 500, 510]


def test_what_was_gathered_meanwhile_comes_when_it_is_due_until_it_is_in_time_again() -> None:
    _, output, feeder, found = made(H264, OPUS)
    began = monotonic_ns()
    for route, track in zip(found, (H264, OPUS), strict=True):
        route.cover(Standing())
        route.show(packet(track.id, 5000, keyframe=True), track)
        for late in (900, 600, 300, -20, -40):
            passed = (monotonic_ns() - began) // MS
            route.push(packet(track.id, 5000 + passed - late, keyframe=late == 900), feeder)
    video, sound = (output.sinks[kind].packets[2:] for kind in (Kind.VIDEO, Kind.AUDIO))
    assert [each.dts // MS - 5000 - (each.arrival - began) // MS > 10 for each in video] == [False, False, False, True, True]
    assert all(each.dts - 5000 * MS >= each.arrival - began - 60 * MS for each in video), "no time goes back to when it was due"
    assert [each.dts for each in sound] == [each.dts for each in video[3:]], "silence was heard in the place of the others"


async def test_layers_that_are_stood_in_for_end_when_what_takes_their_place_has_begun() -> None:
    routes, output, _, found = made(LARGE, SMALL)
    sinks = [output.layers[Kind.VIDEO, layer] for layer in ("f", "h")]
    for route in found:
        route.cover(Standing())
    another = Feeding()
    alone = routes.to("call", replace(H264, id=9), another)
    routes.keep(Kind.VIDEO, [alone])
    alone.push(packet(9, 100), another)
    assert not any(sink.closed for sink in sinks), "nobody is left without a picture"
    assert (Kind.VIDEO, "") not in output.layers
    alone.push(packet(9, 140, keyframe=True), another)
    assert all(sink.closed for sink in sinks)
    assert len(output.layers[Kind.VIDEO, ""].packets) == 1
    await routes.aclose()
    assert output.left.is_set()


def test_what_is_withheld_ends_at_once_whoever_stands_in() -> None:
    routes, output, feeder, (route,) = made(H264)
    route.cover(Standing())
    routes.keep(Kind.VIDEO, ())
    assert output.sinks[Kind.VIDEO].closed
    route.push(packet(1, 100, keyframe=True), feeder)
    assert len(output.sinks[Kind.VIDEO].packets) == 1


def test_another_codec_is_another_sink_that_begins_with_a_key_frame() -> None:
    routes, output, _, (route,) = made(H264)
    before, another = output.sinks[Kind.VIDEO], Feeding()
    assert routes.to("call", replace(H264, codec=Codec.VP8), another) is route
    assert before.closed
    route.push(packet(1, 100), another)
    route.push(packet(1, 140, keyframe=True), another)
    assert len(output.sinks[Kind.VIDEO].packets) == 1
