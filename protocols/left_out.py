"""What of a stream is left out, told once for each thing, and counted. Sans-IO."""

from protocols.media import Kind, Lack, LeftOut

_MOST = 16  # things that are told of one stream: their names come from the peer

_ADVICE = {
    Kind.VIDEO: "choose H.264 in the encoder (OBS: Settings > Output > Streaming > Video Encoder; ffmpeg: -c:v libx264)",
    Kind.AUDIO: "choose AAC in the encoder (ffmpeg: -c:a aac)",
}
_NAMES = {Kind.VIDEO: "video", Kind.AUDIO: "sound", None: "metadata or commands"}


class LeftOutParts:
    """Whoever tells of it takes what is new with `take`."""

    def __init__(self) -> None:
        self.unreadable = 0
        """Messages, and parts of them, that could not be read."""
        self.pending: list[LeftOut] = []
        """What is to be told and has not been."""
        self._told: set[tuple[Lack, Kind | None, str]] = set()

    def take(self) -> list[LeftOut]:
        """What is pending, which counts as told then."""
        pending, self.pending = self.pending, []
        return pending

    def codec(self, kind: Kind, name: str) -> None:
        """A codec that is not taken."""
        self._tell(Lack.CODEC, kind, f"The {_NAMES[kind]} is {name}, which is not taken: {_ADVICE[kind]}.", name)

    def track(self, kind: Kind, number: int) -> None:
        """One more track of a kind."""
        name = _NAMES[kind]
        text = f"The encoder sends more than one {name}: track {number} is left out, since a stream has one {name} here."
        self._tell(Lack.TRACK, kind, text, str(number))

    def header(self, kind: Kind, codec: str, missing: str) -> None:
        """Nothing can be made of the frames that come."""
        text = f"Nothing of the {_NAMES[kind]} can be taken yet: it is {codec} without {missing}."
        self._tell(Lack.NO_HEADER, kind, f"{text} Restart the encoder; if that does not help, {_ADVICE[kind]}.")

    def broken(self, kind: Kind | None, why: str) -> None:
        """A message that could not be read, or a part of it."""
        self.unreadable += 1
        text = f"A part of the {_NAMES[kind]} cannot be read and is left out ({why}): if viewers miss anything, update the encoder."
        self._tell(Lack.UNREADABLE, kind, text)

    def _tell(self, lack: Lack, kind: Kind | None, text: str, name: str = "") -> None:
        if len(self._told) < _MOST and (lack, kind, name) not in self._told:
            self._told.add((lack, kind, name))
            self.pending.append(LeftOut(lack, kind, text))
