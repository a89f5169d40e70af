"""Decoded sound of any rate and channels as stereo of 48 kHz and 16 bits. Worker side: imports libav.

Keeps true: each voice is as loud as it is to who hears the source's own channels. The front keeps its level, and centre and surround go to
both sides at -3 dB (ITU-R BS.775-3, table 2), however many channels there are: libav's own mixdown to integers turns all of it down until
the sum of everything at full scale fits, and speech with it by 8 dB. Here a limiter that looks ahead turns down only what is too loud, and
as long as it is. Mono is as loud as it was, on both sides. LFE is left out.
"""

from collections.abc import Iterator, Sequence

from av import AudioFrame
from av.error import BlockingIOError, EOFError
from av.filter import Graph

from transcode.worker.encoders import OPUS_RATE

# -1 dB leaves room for what an encoder adds to the peaks (EBU R 128). 10 ms to turn down and 300 ms to come back leave 50 Hz a sine. Its
# samples keep their places (`latency`), and are given 10 ms later.
_LIMITER = ("alimiter", "limit=0.891:attack=10:release=300:level=0:latency=1")
_BOTH_SIDES = ("pan", "stereo|c0=c0|c1=c0")


class StereoMix:
    """Frames of the rate, layout and sample format of the first; raises `FFmpegError` for channels that libav cannot place."""

    def __init__(self, first: AudioFrame, rate: int = OPUS_RATE, form: str = "s16") -> None:
        """`form` is the sample format of what comes out, and `rate` its rate."""
        before: dict[int, Sequence[tuple[str, str]]] = {1: (_BOTH_SIDES,), 2: ()}
        mixing = before.get(first.layout.nb_channels, (_stereo(rate, "dbl"), _LIMITER))
        chain = (*mixing, _stereo(rate, form))
        self._graph = Graph()
        source = self._graph.add_abuffer(sample_rate=first.sample_rate, format=first.format.name, layout=first.layout.name)
        nodes = [source, *(self._graph.add(name, arguments) for name, arguments in chain), self._graph.add("abuffersink")]
        self._graph.link_nodes(*nodes).configure()

    def mix(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        """What can be given now; None: what is left, after which there is no more."""
        self._graph.push(frame)
        while True:
            try:
                mixed = self._graph.pull()
            except (BlockingIOError, EOFError):
                return
            assert isinstance(mixed, AudioFrame)
            yield mixed


def _stereo(rate: int, form: str) -> tuple[str, str]:
    return "aformat", f"channel_layouts=stereo:sample_rates={rate}:sample_fmts={form}"
