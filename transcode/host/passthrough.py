"""The stage of a track that needs nothing: every packet goes to the call as it came. Keeps true: no copy, no delay, no state."""

from protocols.media import EncodedPacket, Track
from transcode.stage import Sink


class PassthroughStage:
    """A `Stage` that hands on what it gets."""

    def __init__(self, track: Track, sink: Sink) -> None:
        self._track = track
        self._sink = sink

    @property
    def tracks(self) -> tuple[Track, ...]:
        return (self._track,)

    def process(self, packet: EncodedPacket) -> None:
        self._sink(packet)

    def reconfigure(self, track: Track) -> None:
        self._track = track

    def request_keyframe(self, layer: str = "") -> bool:
        return False  # only the source can make one

    @property
    def starved(self) -> bool:
        return False  # the pacer knows what was dropped

    def set_bitrate(self, bits_per_second: int) -> None:
        """Nothing: the source's bitrate is the source's."""

    async def aclose(self) -> None:
        """Nothing is held."""
