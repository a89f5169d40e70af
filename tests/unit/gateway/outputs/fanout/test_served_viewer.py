"""What a fan-out process tells the gateway of one viewer, over a socket that the gateway may be slow to read."""

import asyncio
import socket

from gateway.outputs.fanout import messages
from gateway.outputs.fanout.messages import FanoutMessage
from gateway.outputs.fanout.process import ServedViewer
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from protocols.whep.fanout import ViewerOffer
from protocols.whep.local_fanout import LocalFanout
from tests.support.unheard import unheard
from transcode.host.pipe import Pipe
from transcode.messages import MessageReader, pack

OFFER = (
    b"v=0\na=group:BUNDLE 0\na=ice-ufrag:abcd\na=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 AA\na=rtcp-mux\na=recvonly\n"
    b"m=video 9 UDP/TLS/RTP/SAVPF 96\na=mid:0\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n"
)
BACKLOG = 4 << 20


async def read(pipe: Pipe, theirs: socket.socket) -> list[str]:
    """The states among all that waits."""
    reader, states = MessageReader(), list[str]()
    while True:
        try:
            count = theirs.recv_into(reader.room())
        except BlockingIOError:
            if not pipe.backlog:
                return states
            await asyncio.sleep(0)  # the other end writes on
            continue
        frames = (frame for frame in reader.received(count) if frame.kind == FanoutMessage.STATE)
        states += [messages.read_state(frame.body).slots for frame in frames]


async def test_a_gateway_that_was_slow_to_read_is_told_the_newest_state_once_it_reads() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setblocking(False)
        async with UdpMux("127.0.0.1") as mux:
            pipe = Pipe(ours, unheard, unheard)
            connection = LocalFanout(mux).connect(ViewerOffer(OFFER), mux.take("", Standing.ANONYMOUS))
            viewer = ServedViewer(3, connection, pipe)
            viewer.begin(viewer.tell())
            pipe.write(pack(FanoutMessage.FIGURES, body=bytes(BACKLOG)))
            for name in ("first", "second"):
                await asyncio.sleep(0)
                connection.viewer.show(name, name, {})
                connection.viewer.hide("first")
            await asyncio.sleep(0)
            viewer.tell_untold()
            assert await read(pipe, theirs) == []
            viewer.tell_untold()
            viewer.tell_untold()
            (state,) = await read(pipe, theirs)
            assert "second" in state
            connection.viewer.close("")
            pipe.close()
