"""Decoded pictures on their way to the encoders: made to fit each layer, and their rate. Worker side: imports libav.

Keeps true: what need not be converted is not; each size is scaled once, from the next larger one; the time of no picture is changed.
"""

from collections.abc import Iterator

from av import VideoFrame
from av.filter import Graph

from transcode.adaptation import AS_PLANNED, Effort
from transcode.ladder import Rung, fit, ladder
from transcode.plan import VideoTarget
from transcode.worker.encoders import NANOSECOND

_SECOND = 1_000_000_000
_RATE_WINDOW = 2 * _SECOND  # the real frame rate is measured over this

Layers = list[tuple[Rung, VideoFrame]]
"""One picture in the size of each layer that is encoded, the top one first."""


class FrameRate:
    """The frame rate: the announced one until the pictures show another."""

    def __init__(self, nominal: float) -> None:
        self.measured = nominal
        self._since: int | None = None
        self._last = 0
        self._count = 0

    def measure(self, pts: int) -> None:
        """Count a picture. `measured` stays while the rate wanders by less than a tenth."""
        step, self._last = pts - self._last, pts
        if self._since is None or not 0 <= step <= _SECOND:  # the first, or across a gap or jump
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


class Pictures:
    """Makes pictures fit the encoders: 8-bit 4:2:0, progressive, within the size limits, one for each layer."""

    def __init__(self, interlaced: bool, target: VideoTarget, pix_fmt: str) -> None:
        """`pix_fmt`: of 4:2:0, as the encoders want."""
        self.effort: Effort = AS_PLANNED
        self.pix_fmt = pix_fmt
        self._interlaced = interlaced
        self._target = target
        self._form: tuple[int | str | bool | Effort, ...] | None = None
        self._rungs: tuple[Rung, ...] = ()
        self._top: Graph | None = (
            None  # to the size and format of the top layer that is encoded; None: the picture is so already
        )
        self._below: list[Graph] = []  # from each layer to the one below it

    def reopen(self, interlaced: bool) -> None:
        """The source has changed."""
        self._interlaced = interlaced

    def convert(self, frame: VideoFrame) -> Iterator[Layers]:
        """The picture in all layers; none yet where the deinterlacer waits for the next one."""
        # a flag on one picture is enough: from then on all go through the deinterlacer, which leaves progressive ones alone
        self._interlaced = self._interlaced or frame.interlaced_frame
        look = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        form = (*look, self._interlaced, self.effort, self.pix_fmt)
        if form != self._form:
            yield from self.flush()
            self._form = form
            self._build(frame)
        if not self._rungs:
            return
        if self._top is None:
            yield self._layers(frame)
            return
        self._top.push(frame)
        for picture in _pull(self._top):
            yield self._layers(picture)

    def flush(self) -> Iterator[Layers]:
        if self._top is not None:
            self._top.push(None)
            for picture in _pull(self._top):
                yield self._layers(picture)
        self._top = self._form = None

    def _layers(self, picture: VideoFrame) -> Layers:
        pictures = [picture]
        for graph in self._below:
            graph.push(pictures[-1])
            pictures.append(graph.vpull())
        return list(zip(self._rungs, pictures, strict=True))

    def _build(self, frame: VideoFrame) -> None:
        width, height = fit(frame.width, frame.height, self._target.max_width, self._target.max_height)
        if (scale := self.effort.scale) < 1:
            width, height = fit(width, height, round(width * scale), round(height * scale))
        rungs = ladder(width, height, self._target.layers)[self._target.passed :]
        if (shed := self.effort.shed) and not self._target.passed:
            shed = min(shed, len(rungs) - 1)
        self._rungs = rungs[shed:]
        self._top, self._below = None, []
        if not self._rungs:
            return
        self._below = [_scaler(above, below, self.pix_fmt) for above, below in zip(self._rungs, self._rungs[1:], strict=False)]
        top = self._rungs[0]
        as_it_is = (frame.width, frame.height, frame.format.name, self._interlaced)
        if (top.width, top.height, self.pix_fmt, False) != as_it_is:
            self._top = self._first(frame, top)

    def _first(self, frame: VideoFrame, top: Rung) -> Graph:
        source = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base={NANOSECOND}"
        filters = [("buffer", f"{source}:colorspace={frame.colorspace}:range={frame.color_range}")]
        if self._interlaced:
            filters.append(("bwdif", "mode=send_frame:deint=interlaced"))
        flags = "area" if top.width * 2 <= frame.width else "bicubic"
        filters.append(("scale", f"w={top.width}:h={top.height}:flags={flags}:out_range=tv"))
        filters.append(("format", f"pix_fmts={self.pix_fmt}"))
        return _graph(filters)


def _scaler(above: Rung, below: Rung, pix_fmt: str) -> Graph:
    source = f"video_size={above.width}x{above.height}:pix_fmt={pix_fmt}:time_base={NANOSECOND}"
    # at half the size swscale's bilinear weighs all pixels, and costs two thirds of area and half of bicubic (measured at 1080p)
    return _graph([("buffer", source), ("scale", f"w={below.width}:h={below.height}:flags=bilinear")])


def _graph(filters: list[tuple[str, str]]) -> Graph:
    graph = Graph()
    graph.threads = 1
    chain = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(*chain, graph.add("buffersink")).configure()
    return graph


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
