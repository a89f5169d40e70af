"""The embedded call: who is in it, and when it is made and forgotten."""

import asyncio

import pytest

from gateway.access.credentials import Identity
from gateway.access.viewers import Viewers
from gateway.outputs.embedded.call import EmbeddedCall
from gateway.sessions.registry import Registry
from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Kind, Track
from protocols.webrtc.sdp import answer
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.viewer import Viewer
from tests.unit.protocols.webrtc.clients import BarePeer

CALL = "livestream:demo"
VIDEO = frozenset({Codec.H264, Codec.VP8, Codec.VP9, Codec.AV1})


def registry() -> Registry:
    calls = Registry(lambda cid: EmbeddedCall(cid, max_participants=1, on_empty=lambda name: calls.release_call(name)))
    return calls


async def anybody(call: str, token: str | None, address: str) -> Identity:
    return Identity()


async def test_a_viewer_who_was_admitted_and_never_comes_leaves_no_call_behind() -> None:
    calls = registry()
    await Viewers(calls.call, anybody).admit(CALL, None)
    assert not calls.calls


async def test_a_viewer_comes_into_the_call_that_there_is_then_and_not_into_one_that_ended_since() -> None:
    calls = registry()
    program = Viewers(calls.call, anybody)
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as one, BarePeer(mux) as two:
            first, second = (Viewer(bare.peer, answer.sending(bare.offer(), "cname")) for bare in (one, two))
            leaving = await program.admit(CALL, None)
            leaving.add_viewer(first)
            coming = await program.admit(CALL, None)
            leaving.remove_viewer(first)  # the last one: the call is forgotten
            assert not calls.calls
            participant = await calls.call(CALL).join("host")
            coming.add_viewer(second)
            assert participant.viewers == 1


async def test_a_full_call_refuses_another_participant() -> None:
    call = registry().call(CALL)
    await call.join("host")
    with pytest.raises(Rejected) as refusal:
        await call.join("guest")
    assert refusal.value.reason is Reason.OVERLOADED


async def test_who_is_muted_is_not_sent_and_comes_back_with_a_key_frame() -> None:
    participant = await registry().call(CALL).join("host")
    asked: list[str] = []
    track = Track(1, Codec.H264)
    publication = participant.publish(track, lambda: bool(asked.append("key frame")) or True, lambda *sent: None)

    def push(n: int, *, keyframe: bool = False) -> int:
        data = b"\0\0\0\1\x65picture" if keyframe else b"\0\0\0\1\x41picture"
        publication.push(EncodedPacket(1, n * 33_000_000, n * 33_000_000, keyframe, data, 0, 0))
        return publication.source.frames

    assert push(0, keyframe=True) == 1
    participant.mute(frozenset({Kind.VIDEO}))
    assert push(1) == push(2, keyframe=True) == 1
    participant.unmute(frozenset({Kind.VIDEO}))
    assert asked == ["key frame"]
    assert push(3) == 1
    assert push(4, keyframe=True) == 2


async def test_participants_are_told_when_a_viewer_without_a_codec_comes_and_a_while_after_it_has_gone() -> None:
    call = EmbeddedCall(CALL, max_participants=1, on_empty=lambda cid: None, patience_s=0.05)
    participant = await call.join("host")
    told: list[frozenset[Codec]] = []
    news = asyncio.Event()

    def changed() -> None:
        told.append(participant.accepts)
        news.set()

    participant.on_accepts(changed)
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as one, BarePeer(mux) as two, BarePeer(mux) as three:
            every, sound, h264 = (Viewer(bare.peer, answer.sending(bare.offer(), "cname")) for bare in (one, two, three))
            every.takes, sound.takes, h264.takes = VIDEO, VIDEO, frozenset({Codec.H264})
            call.add_viewer(every)
            call.add_viewer(sound)
            assert told == []
            call.add_viewer(h264)
            assert told == [{Codec.H264, Codec.OPUS}]
            assert call.carries == VIDEO | {Codec.OPUS}
            call.remove_viewer(h264)
            assert len(told) == 1, "not at once"
            news.clear()
            async with asyncio.timeout(10):
                await news.wait()
            assert told[1:] == [call.carries]
            three.peer.close("its right was taken away as it came")
            call.add_viewer(h264)
            assert len(told) == 2


async def test_another_codec_is_another_publication_to_which_viewers_are_moved() -> None:
    participant = await registry().call(CALL).join("host")
    first = participant.publish(Track(1, Codec.VP8), lambda: False, lambda *sent: None)
    second = participant.publish(Track(1, Codec.H264), lambda: False, lambda *sent: None)
    assert participant.sources[Kind.VIDEO] == (second.source,)
    first.close()  # late, by who no longer publishes it
    assert participant.sources[Kind.VIDEO] == (second.source,)
