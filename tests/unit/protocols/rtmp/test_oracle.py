"""pyrtmp as a second opinion on the captures where it is right: the same messages with the same bytes."""

import asyncio

import pytest
from pyrtmp import StreamClosedException
from pyrtmp.session_manager import SessionManager

from tests.unit.protocols.rtmp.peer import SERVER_HANDSHAKE_BYTES, capture, read_messages


class Nowhere:
    """pyrtmp's writer: it only reads here."""


async def by_pyrtmp(data: bytes) -> list[tuple[int, bytes]]:
    """(type, payload) of each message."""
    reader = asyncio.StreamReader(limit=1 << 24)
    reader.feed_data(data)
    reader.feed_eof()
    session = SessionManager(reader=reader, writer=Nowhere())
    messages: list[tuple[int, bytes]] = []
    try:
        async for chunk in session.read_chunks_from_stream():
            messages.append((chunk.msg_type_id, bytes(chunk.payload)))
            if chunk.msg_type_id == 1:
                session.reader_chunk_size = int.from_bytes(chunk.payload, "big")
    except StreamClosedException:
        pass
    return messages


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("ff51_h264_aac", 94, 143), ("ff9_h264_aac", 94, 143), ("obs_h264_aac", 94, 143), ("gst_librtmp_rtmpsink", 92, 142)],
)
async def test_same_messages_as_pyrtmp(name: str, video: int, audio: int) -> None:
    data = capture(name)[SERVER_HANDSHAKE_BYTES:]
    ours = [(message.type, bytes(message.payload)) for message in read_messages(data)]
    theirs = await by_pyrtmp(data)
    kinds = [kind for kind, _ in ours]
    assert (kinds.count(9), kinds.count(8)) == (video, audio)
    if name == "obs_h264_aac":
        # Its last video message has a negative delta, of which pyrtmp takes the extended timestamp for payload and loses its way.
        ours, theirs = ours[:200], theirs[:200]
    assert theirs == ours
