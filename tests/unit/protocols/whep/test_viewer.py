"""Who is shown in which slot, with real senders and sources and a peer that never needs to connect."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from protocols.errors import ProtocolError
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc import rtcp
from protocols.webrtc.sdp import answer
from protocols.webrtc.sdp import description as sdp
from protocols.webrtc.send.simulcast import Wish
from protocols.webrtc.send.source import Source, call_at_on
from protocols.webrtc.send.target import UNBOUND
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep import layer
from protocols.whep.viewer import Viewer
from tests.unit.protocols.webrtc.clients import USE_CANDIDATE, BarePeer, within
from tests.unit.protocols.webrtc.loopback import SECOND, access_unit, source_of

HEAD = "v=0\na=group:BUNDLE 0 1 2 3\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 AA\na=rtcp-mux\na=recvonly\n"
VIDEO = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:{}\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n"
VP8 = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:{}\na=rtpmap:96 VP8/90000\n"
H265 = "m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:{}\na=rtpmap:96 H265/90000\n"
AUDIO = "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=mid:{}\na=rtpmap:111 opus/48000/2\n"


@pytest.fixture
async def mux() -> AsyncIterator[UdpMux]:
    async with UdpMux("127.0.0.1") as open_mux:
        yield open_mux


def viewer_of(mux: UdpMux, *sections: str) -> Viewer:
    text = HEAD + "".join(section.format(mid) for mid, section in enumerate(sections))
    offer = sdp.parse_offer(text.encode())
    return Viewer(mux.add(offer), answer.sending(offer, "cname"), without="me")


def sources(*codecs: Codec) -> dict[Kind, tuple[Source, ...]]:
    call_at = call_at_on(asyncio.get_running_loop())
    return {codec.kind: (source_of(Track(1, codec), call_at, lambda now: (now, now)),) for codec in codecs}


def shown(viewer: Viewer) -> list[object]:
    state = viewer.describe()
    assert isinstance(state["slots"], list)
    return [*(slot["participant"] for slot in state["slots"]), state["waiting"]]


async def test_a_participant_keeps_its_slot_and_others_wait_in_order(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO, VIDEO, AUDIO)
    for name in ("a", "b", "c", "d", "e"):
        viewer.show(name, name, sources(Codec.H264, Codec.OPUS))
    assert shown(viewer) == ["a", "b", 3]
    viewer.show("a", "a", sources(Codec.OPUS))
    viewer.show("d", "d again", sources(Codec.OPUS))
    assert shown(viewer) == ["a", "b", 3]
    viewer.hide("c")
    viewer.hide("a")
    assert shown(viewer) == ["d", "b", 1]
    viewer.hide("nobody")
    viewer.hide("e")
    viewer.hide("b")
    assert shown(viewer) == ["d", None, 0]


async def test_who_publishes_is_not_shown_himself(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO)
    viewer.show("me", "me", sources(Codec.H264, Codec.OPUS))
    assert shown(viewer) == [None, 0]
    viewer.show("a", "a", sources(Codec.H264))
    viewer.hide("me")
    assert shown(viewer) == ["a", 0]


async def test_senders_follow_the_sources_and_only_what_changed_is_touched(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO)
    video, audio = viewer.senders
    first = sources(Codec.H264, Codec.OPUS)
    viewer.show("a", "a", first)
    assert (video.source, audio.source) == (first[Kind.VIDEO][0], first[Kind.AUDIO][0])
    assert first[Kind.VIDEO][0].receivers == (video,)
    later = sources(Codec.H264) | {Kind.AUDIO: first[Kind.AUDIO]}
    viewer.show("a", "a", later)
    assert (video.source, audio.source) == (later[Kind.VIDEO][0], first[Kind.AUDIO][0])
    assert first[Kind.VIDEO][0].receivers == ()
    viewer.show("a", "a", {Kind.AUDIO: first[Kind.AUDIO]})
    assert (video.source, audio.source) == (None, first[Kind.AUDIO][0])
    viewer.hide("a")
    assert audio.source is None
    assert first[Kind.AUDIO][0].receivers == ()


async def test_a_slot_whose_video_was_refused_has_its_sound(mux: UdpMux) -> None:
    viewer = viewer_of(mux, H265, AUDIO)
    viewer.show("a", "Anna", sources(Codec.H264, Codec.OPUS))
    assert viewer.describe()["slots"] == [
        {
            "slot": 0,
            "video_mid": None,
            "audio_mid": "1",
            "participant": "a",
            "name": "Anna",
            "video": False,
            "audio": True,
            "muted_video": False,
            "muted_audio": False,
            "unplayable": None,
            "layer": None,
            "width": None,
            "height": None,
        }
    ]


async def test_who_watches_is_told_what_a_participant_is_muted_of(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VP8, AUDIO)
    shown: list[tuple[object, object]] = []
    for muted in (frozenset({Kind.VIDEO}), frozenset({Kind.AUDIO}), frozenset[Kind]()):
        viewer.show("a", "Anna", sources(Codec.VP8, Codec.OPUS), muted)
        slots: Any = viewer.describe()["slots"]
        shown += [(slot["muted_video"], slot["muted_audio"]) for slot in slots]
    assert shown == [(True, False), (False, True), (False, False)]


def unplayable(viewer: Viewer) -> list[object]:
    state = viewer.describe()
    assert isinstance(state["slots"], list)
    return [(slot["video"], slot["unplayable"]) for slot in state["slots"]]


async def test_a_codec_that_a_line_does_not_take_is_never_sent_and_is_named(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VP8, AUDIO)
    video, audio = viewer.senders
    media = sources(Codec.H264, Codec.OPUS)
    viewer.show("a", "a", media)
    assert (video.source, audio.source) == (None, media[Kind.AUDIO][0])
    assert unplayable(viewer) == [(False, "h264")]
    changed = sources(Codec.VP8) | {Kind.AUDIO: media[Kind.AUDIO]}
    viewer.show("a", "a", changed)
    assert (video.source, audio.source) == (changed[Kind.VIDEO][0], media[Kind.AUDIO][0])
    assert unplayable(viewer) == [(True, None)]
    viewer.show("a", "a", media)
    assert video.source is None
    assert unplayable(viewer) == [(False, "h264")]
    viewer.show("a", "a", {Kind.AUDIO: media[Kind.AUDIO]})
    assert unplayable(viewer) == [(False, None)]
    viewer.hide("a")
    assert unplayable(viewer) == [(False, None)]


async def test_what_a_viewer_takes_is_what_all_its_pictures_may_come_in(mux: UdpMux) -> None:
    both = VIDEO + "a=rtpmap:97 VP8/90000\n"
    every = {Codec.H264, Codec.VP8, Codec.VP9, Codec.AV1}
    assert viewer_of(mux, both, AUDIO).takes == {Codec.H264, Codec.VP8}
    assert viewer_of(mux, both, VP8, AUDIO).takes == {Codec.VP8}
    assert viewer_of(mux, VIDEO, VP8).takes == set()
    assert viewer_of(mux, AUDIO).takes == every


async def test_videos_and_sounds_pair_by_their_own_order(mux: UdpMux) -> None:
    viewer = viewer_of(mux, AUDIO, AUDIO, VIDEO, VIDEO)
    state = viewer.describe()
    assert isinstance(state["slots"], list)
    assert [(slot["video_mid"], slot["audio_mid"]) for slot in state["slots"]] == [("2", "0"), ("3", "1")]


async def test_those_who_wait_are_bounded(mux: UdpMux) -> None:
    viewer = viewer_of(mux, AUDIO)
    for number in range(1000):
        viewer.show(str(number), "", {})
    assert shown(viewer) == ["0", 256]


async def test_the_end_of_the_peer_detaches_everything(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO)
    media = sources(Codec.H264, Codec.OPUS)
    viewer.show("a", "a", media)
    running = asyncio.create_task(viewer.run())
    with viewer.watching() as changed:
        assert changed is not None
        viewer.peer.close("over")
        await within(running)
        assert changed.is_set()
    assert not media[Kind.VIDEO][0].receivers
    assert not media[Kind.AUDIO][0].receivers


async def test_watchers_are_bounded_and_give_their_place_back(mux: UdpMux) -> None:
    viewer = viewer_of(mux, AUDIO)
    for _ in range(10):
        with viewer.watching() as one, viewer.watching() as two, viewer.watching() as three, viewer.watching() as four:
            assert None not in (one, two, three, four)
            with viewer.watching() as five:
                assert five is None


async def test_what_was_published_before_the_peer_connected_reaches_it_when_it_does(mux: UdpMux) -> None:
    with BarePeer(mux) as bare:
        offer = bare.offer()
        viewer = Viewer(bare.peer, answer.sending(offer, "cname"))
        running = asyncio.create_task(viewer.run())
        media = sources(Codec.OPUS)
        viewer.show("a", "a", media)
        now = time.monotonic_ns()
        media[Kind.AUDIO][0].push(EncodedPacket(0, 0, 0, True, b"early", now, now), now)
        await bare.check(USE_CANDIDATE)
        await bare.connect()
        media[Kind.AUDIO][0].push(EncodedPacket(0, 20_000_000, 20_000_000, True, b"live", now, now), time.monotonic_ns())
        packets = set[str]()
        while not {"rtp", "rtcp"} <= packets:
            datagram = await bare.receive()
            if datagram[0] >> 6 == 2:
                rtcp = 192 <= datagram[1] <= 223
                packets.add("rtcp" if rtcp else "rtp")
                plain = bare.inbound.unprotect_rtcp(datagram) if rtcp else bare.inbound.unprotect(datagram)
                assert rtcp or plain.endswith(b"live")
        bare.peer.close()
        await within(running)


async def test_a_defect_in_reporting_ends_only_this_viewer(mux: UdpMux) -> None:
    clock = iter([(0, 0)])  # enough for the report before the first packet, and for none after it
    source = source_of(Track(1, Codec.OPUS), call_at_on(asyncio.get_running_loop()), lambda now: next(clock))
    with BarePeer(mux) as bare, BarePeer(mux) as other:
        viewer = Viewer(bare.peer, answer.sending(bare.offer(), "cname"))
        viewer.show("a", "a", {Kind.AUDIO: (source,)})
        running = asyncio.create_task(viewer.run())
        await other.connect()
        await bare.connect()
        now = time.monotonic_ns()
        source.push(EncodedPacket(0, 0, 0, True, b"live", now, now), now)
        await asyncio.wait({running}, timeout=10)
        assert running.done()
        assert running.exception() is not None
        await within(bare.peer.closed.wait())
        assert not other.peer.closed.is_set()


def layered() -> dict[Kind, tuple[Source, ...]]:
    call_at = call_at_on(asyncio.get_running_loop())
    clock = lambda now: (now, now)  # noqa: E731
    tracks = [Track(1, Codec.H264, layer=name, width=16 * n, height=9 * n) for name, n in (("h", 80), ("m", 40), ("l", 20))]
    return {Kind.VIDEO: tuple(source_of(track, call_at, clock) for track in tracks)} | sources(Codec.OPUS)


def layers(viewer: Viewer) -> list[object]:
    state = viewer.describe()
    assert isinstance(state["slots"], list)
    return [slot["layer"] for slot in state["slots"]]


async def test_each_picture_is_shown_in_the_layer_that_its_tile_needs(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO, VIDEO, AUDIO)
    assert viewer.wish("2", Wish(height=360)) == []  # before anybody is there
    viewer.show("a", "a", layered())
    viewer.show("b", "b", layered())
    assert layers(viewer) == ["h", "m"]
    assert viewer.wish(None, Wish(height=90)) == ["h", "m", "l"]
    assert layers(viewer) == ["l", "m"]
    assert viewer.wish("0", Wish()) is not None
    assert layers(viewer) == ["h", "m"]
    assert viewer.wish("1", Wish()) is None  # a sound
    assert viewer.wish("4", Wish()) is None
    assert viewer.layers().keys() == {"0", "2"}


async def test_whoever_looks_is_told_of_another_layer_also_before_the_viewer_is_connected(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO)
    viewer.show("a", "a", layered())
    with viewer.watching() as changed:
        assert changed is not None
        viewer.wish(None, Wish(height=90))
        assert changed.is_set()
        assert layers(viewer) == ["l"]
        changed.clear()
        viewer.wish(None, Wish(height=90))
        assert not changed.is_set(), "it is so already"


async def test_a_layer_that_ends_is_replaced_at_once_and_its_wish_comes_true_when_it_is_back(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO)
    media = layered()
    viewer.show("a", "a", media)
    audio = viewer.senders[1].source
    viewer.show("a", "a", media | {Kind.VIDEO: media[Kind.VIDEO][1:]})
    assert layers(viewer) == ["m"]
    assert media[Kind.VIDEO][0].receivers == ()
    viewer.show("a", "a", media)
    assert layers(viewer) == ["h"]
    assert viewer.senders[1].source is audio
    viewer.hide("a")
    assert layers(viewer) == [None]
    assert viewer.layers() == {}


class Adapting:
    """A video and a sound of one participant, in simulated time, and what the video's encoder is told of the viewers' ways."""

    def __init__(self, layer: str = "", **facts: Any) -> None:
        self.now = time.monotonic_ns()
        self.told: list[int] = []
        call_at = call_at_on(asyncio.get_running_loop())
        size: dict[str, Any] = {"width": 1280, "height": 720}
        track = Track(1, Codec.H264, layer=layer, **(size | facts))
        self.video = source_of(track, call_at, lambda now: (now, now), on_bitrate=self.told.append)
        self.audio = source_of(Track(2, Codec.OPUS), call_at, lambda now: (now, now), on_bitrate=self.told.append)
        self.media = {Kind.VIDEO: (self.video,), Kind.AUDIO: (self.audio,)}

    def live(self, seconds: int, viewers: Mapping[Viewer, int] = MappingProxyType({}), frame_bytes: int = 10_000) -> None:
        """30 frames a second and 128 kbit/s of sound; each viewer says four times a second what its way carries, in bit/s."""
        for number in range(30 * seconds):
            self.now += SECOND // 30
            unit = access_unit(number % 30 == 0, frame_bytes)
            self.video.push(EncodedPacket(1, self.now, self.now, number % 30 == 0, unit, self.now, self.now), self.now)
            self.audio.push(EncodedPacket(2, self.now, self.now, True, bytes(500), self.now, self.now), self.now)
            if number % 8 == 0:
                for viewer, carried in viewers.items():
                    on_rtcp = viewer.peer.on_rtcp
                    assert on_rtcp is not None
                    on_rtcp(rtcp.estimated_bitrate(1, carried, []), self.now)


async def test_the_encoder_is_told_what_a_narrow_way_has_for_it_and_when_that_is_over(mux: UdpMux) -> None:
    viewer, wide = viewer_of(mux, VIDEO, AUDIO), viewer_of(mux, VIDEO, AUDIO)
    stream = Adapting()
    for each in (viewer, wide):
        each.show("a", "a", stream.media)
    stream.live(5, {viewer: 4_000_000, wide: 4_000_000})
    assert stream.told == []
    stream.live(3, {viewer: 600_000, wide: 4_000_000})
    assert 400_000 < stream.told[-1] < 600_000 - 120_000  # less the sound, and less the headers
    viewer.hide("a")
    stream.live(1, {wide: 4_000_000})
    assert stream.told[-1] == UNBOUND


async def test_a_still_scene_holds_nothing_down(mux: UdpMux) -> None:
    viewer, stream = viewer_of(mux, VIDEO, AUDIO), Adapting()
    viewer.show("a", "a", stream.media)
    stream.live(5, {viewer: 500_000}, frame_bytes=1000)
    assert stream.told == []


async def test_a_layer_is_told_nothing_while_there_is_a_smaller_one(mux: UdpMux) -> None:
    viewer = viewer_of(mux, VIDEO, AUDIO)
    large, small = Adapting("h"), Adapting("l", width=640, height=360)
    viewer.show("a", "a", {Kind.VIDEO: (large.video, small.video), Kind.AUDIO: (large.audio,)})
    small.live(1, frame_bytes=1000)
    large.live(5, {viewer: 600_000})
    assert large.told == []
    assert [source.track.layer for source in (large.video, small.video) if viewer.senders[0] in source.receivers] == ["l"]


@pytest.mark.parametrize(
    ("body", "media", "wish"),
    [
        (b"{}", None, Wish()),
        (b'{"mediaId":"2","rid":"h"}', "2", Wish(layer="h")),
        (b'{"mediaId":2,"encodingId":"h","spatialLayerId":1}', "2", Wish(layer="h")),
        (b'{"maxWidth":640,"maxHeight":360.5,"width":320,"height":180}', None, Wish("", 320, 180, 640, 360)),
    ],
)
def test_a_request_for_a_layer_is_read(body: bytes, media: str | None, wish: Wish) -> None:
    assert layer.parse(body) == layer.LayerRequest(media, wish)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 4000,
        b'{"mediaId":[]}',
        b'{"rid":{}}',
        b'{"width":"1"}',
        b'{"height":-1}',
        b'{"maxHeight":NaN}',
        b'{"maxWidth":1e9}',
        b'{"width":true}',
    ],
)
def test_a_broken_request_for_a_layer_is_told_in_words(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        layer.parse(body)
