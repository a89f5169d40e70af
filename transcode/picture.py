"""Decoded pictures on their way to the encoder: made to fit it, and their rate. Worker side: imports libav.

Keeps true: what need not be converted is not, and the time of no picture is changed.
"""

from collections.abc import Iterator

from av import VideoFrame
from av.filter import Graph

from transcode.economy import effort
from transcode.encoders import NANOSECOND
from transcode.plan import VideoTarget, fit

_SECOND = 1_000_000_000
_RATE_WINDOW = 2 * _SECOND  # the real frame rate is measured over this


class FrameRate:
    """The frame rate: the announced one until the pictures show another."""

    def __init__(self, nominal: float) -> None:
        self.measured = nominal
        self._since: int | None = None
        self._count = 0

    def measure(self, pts: int) -> None:
        """Count a picture. `measured` stays while the rate wanders by less than a tenth."""
        if self._since is None or not 0 <= pts - self._since <= 2 * _RATE_WINDOW:  # the first, or across a gap or jump
            self._since, self._count = pts, 0
            return
        self._count += 1
        elapsed = pts - self._since
        if elapsed < _RATE_WINDOW:
            return
        rate = self._count * _SECOND / elapsed
        self._since, self._count = pts, 0
        if abs(rate - self.measured) > 0.1 * self.measured:
            self.measured = max(1.0, rate)


class Picture:
    """Makes pictures fit the encoder: 8-bit 4:2:0, progressive, within the size limits."""

    def __init__(self, interlaced: bool, target: VideoTarget, level: int = 0, pix_fmt: str = "yuv420p") -> None:
        """`level`: how many steps below the plan, of which the last make the picture smaller; `pix_fmt`: of 4:2:0, as the encoder wants."""
        self.level = level
        self.pix_fmt = pix_fmt
        self._interlaced = interlaced
        self._limits = (target.max_width, target.max_height)
        self._form: tuple[int, int, str, int, int, bool, int, str] | None = None
        self._graph: Graph | None = None

    def convert(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """The same picture, or what the filters give for it: one, or none yet."""
        # a flag on one picture is enough: from then on all go through the deinterlacer, which leaves progressive ones alone
        self._interlaced = self._interlaced or frame.interlaced_frame
        form = (
            frame.width,
            frame.height,
            frame.format.name,
            frame.colorspace,
            frame.color_range,
            self._interlaced,
            self.level,
            self.pix_fmt,
        )
        if form != self._form:
            yield from self.flush()
            self._form = form
            self._graph = self._build(frame)
        if self._graph is None:
            yield frame
            return
        self._graph.push(frame)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[VideoFrame]:
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull(self._graph)
        self._graph = self._form = None

    def _build(self, frame: VideoFrame) -> Graph | None:
        width, height = fit(frame.width, frame.height, *self._limits)
        scale = effort(self.level, width, height).scale
        if scale < 1:
            width, height = fit(width, height, round(width * scale), round(height * scale))
        if (width, height, self.pix_fmt, False) == (frame.width, frame.height, frame.format.name, self._interlaced):
            return None
        graph = Graph()
        graph.threads = 1
        source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={NANOSECOND}"
        chain = [graph.add("buffer", f"{source}:colorspace={frame.colorspace}:range={frame.color_range}")]
        if self._interlaced:
            chain.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
        flags = "area" if width * 2 <= frame.width else "bicubic"
        chain.append(graph.add("scale", f"w={width}:h={height}:flags={flags}:out_range=tv"))
        chain.append(graph.add("format", f"pix_fmts={self.pix_fmt}"))
        chain.append(graph.add("buffersink"))
        graph.link_nodes(*chain).configure()
        return graph

    @staticmethod
    def _pull(graph: Graph) -> Iterator[VideoFrame]:
        while True:
            try:
                picture = graph.vpull()
            except (BlockingIOError, EOFError):  # AVERROR(EAGAIN): the filter holds the picture until the next
                return
            base = picture.time_base
            if picture.pts is not None and base is not None and base != NANOSECOND:  # bwdif halves the time base
                picture.pts = round(picture.pts * base / NANOSECOND)
                picture.time_base = NANOSECOND
            yield picture
