"""The embedded call: who is in it, and when it is made and forgotten."""

import asyncio

import pytest

from gateway.access.credentials import Identity
from gateway.access.viewers import Viewers
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.outputs.embedded.codec_negotiation import CARRIES
from gateway.sessions.registry import Registry
from protocols.errors import Reason, Rejected
from protocols.media import Codec, Kind, Track
from protocols.webrtc.sdp import answer
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.viewer import Viewer
from tests.support.memory import NoFeedback, SeatOf
from tests.support.unheard import unheard
from tests.unit.protocols.webrtc.clients import BarePeer

CALL = "livestream:demo"
VIDEO = frozenset({Codec.H264, Codec.VP8, Codec.VP9, Codec.AV1})


def registry() -> Registry:
    return Registry(lambda cid, on_empty: EmbeddedCall(cid, max_participants=1, on_empty=on_empty))


async def anybody(call: str, token: str | None, address: str) -> Identity:
    return Identity()


async def test_a_viewer_who_was_admitted_and_never_comes_leaves_no_call_behind() -> None:
    calls = registry()
    await Viewers(calls.call, anybody, unheard, unheard).admit(CALL, None)
    assert not calls.calls


async def test_a_viewer_comes_into_the_call_that_there_is_then_and_not_into_one_that_ended_since() -> None:
    calls = registry()
    program = Viewers(calls.call, anybody, unheard, unheard)
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as one, BarePeer(mux) as two:
            first, second = (Viewer(bare.peer, answer.sending(bare.offer(), "cname")) for bare in (one, two))
            leaving = await program.admit(CALL, None)
            leaving.add_viewer(first)
            coming = await program.admit(CALL, None)
            leaving.remove_viewer(first)  # the last one: the call is forgotten
            assert not calls.calls
            await calls.call(CALL).join(SeatOf("host"), lambda: None)
            coming.add_viewer(second)
            assert calls.viewers(CALL) == 1


async def test_a_full_call_refuses_another_participant() -> None:
    call = registry().call(CALL)
    await call.join(SeatOf("host"), lambda: None)
    with pytest.raises(Rejected) as refusal:
        await call.join(SeatOf("guest"), lambda: None)
    assert refusal.value.reason is Reason.OVERLOADED


async def test_who_watches_is_shown_a_muted_participant_without_media() -> None:
    call = registry().call(CALL)
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as one, BarePeer(mux) as two:
            before, later = (Viewer(bare.peer, answer.sending(bare.offer(), "cname")) for bare in (one, two))
            call.add_viewer(before)
            seat = SeatOf("host", muted=frozenset({Kind.AUDIO}))
            participant = await call.join(seat, lambda: None)
            call.add_viewer(later)
            assert [slot_of(viewer) for viewer in (before, later)] == [("host", False, True)] * 2
            seat.muted = frozenset()
            participant.publish(Track(2, Codec.OPUS), NoFeedback())
            assert [slot_of(viewer) for viewer in (before, later)] == [("host", True, False)] * 2


def slot_of(viewer: Viewer) -> tuple[object, object, object]:
    """Whom its first slot shows, whether with sound, and whether that is muted."""
    slots = viewer.describe()["slots"]
    assert isinstance(slots, list)
    return slots[0]["participant"], slots[0]["audio"], slots[0]["muted_audio"]


async def test_participants_are_told_when_a_viewer_without_a_codec_comes_and_a_while_after_it_has_gone() -> None:
    call = EmbeddedCall(CALL, max_participants=1, on_empty=lambda cid: None, patience_s=0.05)
    told: list[frozenset[Codec]] = []
    news = asyncio.Event()

    def changed() -> None:
        told.append(participant.wants(Track(1, Codec.VP8)).codecs)
        news.set()

    participant = await call.join(SeatOf("host"), changed)
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as one, BarePeer(mux) as two, BarePeer(mux) as three:
            every, sound, h264 = (Viewer(bare.peer, answer.sending(bare.offer(), "cname")) for bare in (one, two, three))
            every.takes, sound.takes, h264.takes = VIDEO, VIDEO, frozenset({Codec.H264})
            call.add_viewer(every)
            assert told == [CARRIES], "the first who is there"
            call.add_viewer(sound)
            assert len(told) == 1
            told.clear()
            call.add_viewer(h264)
            assert told == [{Codec.H264, Codec.OPUS}]
            assert VIDEO | {Codec.OPUS} == CARRIES
            call.remove_viewer(h264)
            assert len(told) == 1, "not at once"
            news.clear()
            async with asyncio.timeout(10):
                await news.wait()
            assert told[1:] == [CARRIES]
            three.peer.close("its right was taken away as it came")
            call.add_viewer(h264)
            assert len(told) == 2


async def test_a_while_after_the_last_viewer_has_gone_nothing_need_be_made_and_at_once_when_the_next_comes_it_must() -> None:
    call = EmbeddedCall(CALL, max_participants=1, on_empty=lambda cid: None, patience_s=0.05)
    changed = asyncio.Event()
    participant = await call.join(SeatOf("host"), changed.set)
    track = Track(1, Codec.HEVC)
    assert participant.wants(track).idle
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            viewer = Viewer(bare.peer, answer.sending(bare.offer(), "cname"))
            call.add_viewer(viewer)
            assert changed.is_set()
            assert not participant.wants(track).idle
            changed.clear()
            call.remove_viewer(viewer)
            assert not participant.wants(track).idle, "whoever comes again finds it running"
            async with asyncio.timeout(10):
                await changed.wait()
            assert participant.wants(track).idle


async def test_another_codec_is_another_publication_to_which_viewers_are_moved() -> None:
    call = EmbeddedCall(CALL, max_participants=1, on_empty=lambda cid: None)
    participant = await call.join(SeatOf("host"), lambda: None)
    first = participant.publish(Track(1, Codec.VP8), NoFeedback())
    second = participant.publish(Track(1, Codec.H264), NoFeedback())
    assert participant.sources[Kind.VIDEO] == (second.source,)
    first.close()  # late, by who no longer publishes it
    assert participant.sources[Kind.VIDEO] == (second.source,)
