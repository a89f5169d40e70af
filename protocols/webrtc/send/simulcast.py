"""Which layer of each picture one viewer gets: no more than its tiles show, and than its way carries. Sans-IO.

The rule: a picture is shown in the smallest layer that fills its tile. When the way carries less than what is sent, all pictures together
go down to what it carries, at once; a picture goes up again a step at a time, the smallest first, each time that nothing was wrong for a
while, and ever more rarely where that was too much. (The estimate cannot tell what more would be carried: it sees only what is sent.)
What is kept true: nothing changes but at a sign of the viewer, of its way, or of the layers themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STRAINED_NS = 500_000_000
"""A way that carries too little for this long: the key frame of one moment is no reason to go down."""
RAISE_NS = 4_000_000_000
"""Without strain before a picture goes up; doubled by each time that it was too much, up to:"""
LONGEST_RAISE_NS = 64_000_000_000

TOLERANCE = 0.95
"""Of what is sent, a way that carries this carries it: the two are measured over other seconds."""


@dataclass(frozen=True, slots=True)
class Layer:
    name: str
    width: int
    height: int
    bitrate: int  # bit/s on the way, as measured

    @property
    def area(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Wish:
    """What a viewer asks for one picture. 0 and empty: nothing in particular."""

    layer: str = ""  # this one, while there is one of the name
    width: int = 0  # of the tile in its own pixels: the smallest layer that fills it
    height: int = 0
    max_width: int = 0  # no layer larger than this
    max_height: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """One video that is shown: its layers, the largest first and at least one, and which of them is sent."""

    layers: tuple[Layer, ...]
    shown: str | None
    wish: Wish = Wish()

    @property
    def wanted(self) -> int:
        """Which layer the wish is for, if the way carries it."""
        return _wanted(self.layers, self.wish)

    @property
    def bitrate(self) -> int:
        """Of what is sent."""
        return next((layer.bitrate for layer in self.layers if layer.name == self.shown), 0)


class LayerChoice:
    """Of one viewer. Ask `choose` a few times a second, and whenever a picture or a wish changes."""

    def __init__(self) -> None:
        self._caps: dict[int, int] = {}  # the largest area that a picture may have, by its number
        self._strained: int | None = None  # since when the way carries too little
        self._good: int | None = None  # since when nothing is wrong
        self._wait = RAISE_NS
        self._raised = False  # and whether that was too much is not known yet

    def choose(
        self, pictures: Mapping[int, Picture], carried: int | None, now: int, patience: int = STRAINED_NS
    ) -> dict[int, str]:
        """The name of the layer for each picture, which keeps its number. `carried`: what the way has for pictures, in bit/s; None: nothing
        is known. `patience`: for how long it is too little before they go down (ns)."""
        sent = sum(picture.bitrate for picture in pictures.values())
        if carried is not None and carried < sent * TOLERANCE:
            self._note_strain(pictures, carried, now, patience)
        else:
            self._note_rest(pictures, now)
        return {number: picture.layers[self._level(number, picture)].name for number, picture in pictures.items()}

    def _level(self, number: int, picture: Picture) -> int:
        level, cap = picture.wanted, self._caps.get(number)
        last = len(picture.layers) - 1
        while cap is not None and level < last and picture.layers[level].area > cap:
            level += 1
        return level

    def _note_strain(self, pictures: Mapping[int, Picture], carried: int, now: int, patience: int) -> None:
        self._good = None
        if self._strained is None:
            self._strained = now
        if now - self._strained < patience:
            return
        self._strained = None  # what is sent from now on is given its time
        if self._raised:
            self._raised, self._wait = False, min(2 * self._wait, LONGEST_RAISE_NS)
        levels = {number: self._level(number, picture) for number, picture in pictures.items()}
        for number, level in _fitting(pictures, levels, carried).items():
            picture = pictures[number]
            if level > picture.wanted:
                self._caps[number] = picture.layers[level].area

    def _note_rest(self, pictures: Mapping[int, Picture], now: int) -> None:
        self._strained = None
        if self._good is None:
            self._good = now
        if now - self._good < self._wait or not self._caps:
            return
        self._good = now
        if self._raised:
            self._raised, self._wait = False, RAISE_NS
        self._raise(pictures)

    def _raise(self, pictures: Mapping[int, Picture]) -> None:
        """Let the picture with the smallest cap go up by a layer; a cap that holds nothing down is none."""
        levels = {number: self._level(number, picture) for number, picture in pictures.items()}
        held = {number: level for number, level in levels.items() if level > pictures[number].wanted}
        self._caps = {number: self._caps[number] for number in held}
        if held:
            number = min(held, key=self._caps.__getitem__)
            self._caps[number] = pictures[number].layers[held[number] - 1].area
            self._raised = True


def _wanted(layers: Sequence[Layer], wish: Wish) -> int:
    for index, layer in enumerate(layers):
        if layer.name == wish.layer != "":
            return index
    last = len(layers) - 1
    largest = next((index for index, layer in enumerate(layers) if _within(layer, wish)), last)
    filling = [index for index, layer in enumerate(layers) if index >= largest and _fills(layer, wish)]
    return filling[-1] if filling else largest


def _within(layer: Layer, wish: Wish) -> bool:
    return (not wish.max_width or layer.width <= wish.max_width) and (not wish.max_height or layer.height <= wish.max_height)


def _fills(layer: Layer, wish: Wish) -> bool:
    """Whether the tile, which shows the whole picture, need not stretch it."""
    if not wish.width and not wish.height:
        return False
    return (0 < wish.width <= layer.width) or (0 < wish.height <= layer.height)


def _fitting(pictures: Mapping[int, Picture], most: Mapping[int, int], carried: int) -> dict[int, int]:
    """Levels whose bitrates fit, none above `most`: all begin at the smallest and go up in turn while there is room."""
    levels = {number: len(picture.layers) - 1 for number, picture in pictures.items()}
    room = carried - sum(picture.layers[-1].bitrate for picture in pictures.values())
    rising = True
    while rising:
        rising = False
        for number, picture in pictures.items():
            level = levels[number]
            if level <= most[number]:
                continue
            cost = picture.layers[level - 1].bitrate - picture.layers[level].bitrate
            if cost <= room:
                levels[number], room, rising = level - 1, room - cost, True
    return levels
