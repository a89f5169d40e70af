"""Pictures that stand, made of hostile streams: there is one or none, and neither it nor what is read for it takes long."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

from protocols.bitstream.stills import StillPictures
from protocols.media import Codec, Track
from tests.fuzz.cost import Atom, Receive, check, rounds
from tests.fuzz.subjects import annexb, h264_dear_sps, h264_pps, h264_sps, hevc_dear_sps, hevc_sps
from tests.fuzz.test_bitstream import mutate
from tests.unit.protocols.bitstream.samples import FOLDER, access_units, parameter_sets

SETS: dict[Codec, Sequence[Atom]] = {Codec.H264: (h264_sps, h264_dear_sps, h264_pps), Codec.HEVC: (hevc_sps, hevc_dear_sps)}


class Standing:
    """A stream's parameter sets, then its access units; between any two of them a picture is wanted."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.made = self.wanted = 0

    def __call__(self) -> Receive:
        stills: list[StillPictures] = []
        self.made = self.wanted = 0

        def receive(data: bytes) -> Iterator[None]:
            if not stills:
                stills.append(StillPictures(Track(1, self._codec, extradata=data)))
                yield
                return
            stills[0].note(data, self.wanted)
            yield
            self.wanted += 1
            self.made += bool(stills[0].repeat(self.wanted))
            yield

        return receive


def sources() -> list[tuple[Codec, bytes, list[bytes]]]:
    """(codec, parameter sets, access units) of real streams."""
    codecs = {".h264": Codec.H264, ".hevc": Codec.HEVC}
    paths = [path for path in sorted(FOLDER.iterdir()) if path.suffix in codecs]
    return [(codecs[path.suffix], annexb(*parameter_sets(path.name)), list(access_units(path.name))[:6]) for path in paths]


def test_they_are_made_of_mutated_streams_or_not_at_all(seconds: float, seed: int) -> None:
    random = Random(seed)
    streams = sources()
    made = wanted = 0
    for number in rounds(seconds):
        codec, sets, units = random.choice(streams)
        hostile: Callable[[bytes], bytes] = partial(mutate, random=random)
        if random.random() < 0.2:
            sets = annexb(*(random.choice(SETS[codec])(random.randrange(1 << 16)) for _ in range(random.randint(1, 20)))) + sets
        pieces = [piece if random.random() < 0.5 else hostile(piece) for piece in (sets, *units)]
        standing = Standing(codec)
        check(standing, pieces, f"{codec}: {[piece[:2000].hex() for piece in pieces]}", memory=number % 64 == 0)
        made += standing.made
        wanted += standing.wanted
    assert 0 < made < wanted  # the mutations are neither harmless nor all absurd
