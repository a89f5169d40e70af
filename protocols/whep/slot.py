"""Where one viewer is shown one participant: a sender for each kind that the viewer's offer has here, and what it asks for its tile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from protocols.media import Codec, Kind
from protocols.webrtc.send.sender import Sender
from protocols.webrtc.send.simulcast import Layer, Picture, Wish
from protocols.webrtc.send.source import Source

BESIDE_SOUND_MS = 70
"""From when a picture came to the viewer until it is shown, at least, where there is sound beside it. Browsers begin with more of a buffer
for sound (NetEQ: 50 to 70 ms) than for pictures (10), and take ten seconds and more to let the picture wait for it by so much of their own
accord. Measured in Chromium; a picture without sound waits for nothing."""


@dataclass(frozen=True, slots=True)
class ShownParticipant:
    id: str
    name: str
    sources: Mapping[Kind, Sequence[Source]]  # of each kind the layers, the largest first
    muted: frozenset[Kind] = frozenset()  # what nobody is given of them


@dataclass(slots=True)
class Slot:
    """What it shows of the participant is decided by the viewer, which asks for `picture` and says which layer to `show_layer`."""

    number: int
    senders: dict[Kind, Sender] = field(default_factory=dict)
    participant: ShownParticipant | None = None
    wish: Wish = field(default_factory=Wish)
    video_line: int | None = None  # the index of the video's m-line

    def sources(self, kind: Kind) -> Sequence[Source]:
        """Those that may be sent here: of codecs that the m-line takes."""
        if self.participant is None or kind not in self.senders:
            return ()
        formats = self.senders[kind].parameters.formats
        return [source for source in self.participant.sources.get(kind, ()) if source.track.codec in formats]

    @property
    def unplayable(self) -> Codec | None:
        """The codec of a video for which there is an m-line, and which that does not take in any layer."""
        if self.participant is None or Kind.VIDEO not in self.senders or self.sources(Kind.VIDEO):
            return None
        return next((source.track.codec for source in self.participant.sources.get(Kind.VIDEO, ())), None)

    def show(self, participant: ShownParticipant | None, now: int) -> None:
        """The sound goes on with this participant at once; a picture that there is no more stops."""
        self.participant = participant
        if Kind.VIDEO in self.senders:
            self.senders[Kind.VIDEO].stream.delay(BESIDE_SOUND_MS if self.sources(Kind.AUDIO) else 0)
        for kind, sender in self.senders.items():
            sources = self.sources(kind)
            if not sources:
                sender.detach()
            elif kind is Kind.AUDIO and sender.source is not sources[0]:
                sender.attach(sources[0], now)

    def picture(self) -> Picture | None:
        """Its video, if it shows any."""
        sources = self.sources(Kind.VIDEO)
        if not sources:
            return None
        present = self.senders[Kind.VIDEO].source
        return Picture(
            layers=tuple(_layer(source) for source in sources),
            shown=present.track.layer if present is not None and present in sources else None,
            wish=self.wish,
        )

    def show_layer(self, name: str, now: int) -> bool:
        """Whether another one is shown at once; else it is so already, or from the layer's next key frame on."""
        sources, sender = self.sources(Kind.VIDEO), self.senders[Kind.VIDEO]
        former = sender.source
        source = next(source for source in sources if source.track.layer == name)
        if sender.source in sources:
            sender.turn(source, now)
        else:  # it shows nothing yet, or somebody else, or what has ended
            sender.attach(source, now)
        return sender.source is not former

    def describe(self) -> dict[str, object]:
        mids = {kind: sender.parameters.mid for kind, sender in self.senders.items()}
        shown, video = self.participant, self.senders.get(Kind.VIDEO)
        present = video.source.track if video is not None and video.source is not None else None
        return {
            "slot": self.number,
            "video_mid": mids.get(Kind.VIDEO),
            "audio_mid": mids.get(Kind.AUDIO),
            "participant": shown.id if shown else None,
            "name": shown.name if shown else None,
            "video": bool(self.sources(Kind.VIDEO)),
            "audio": bool(self.sources(Kind.AUDIO)),
            "muted_video": shown is not None and Kind.VIDEO in shown.muted,
            "muted_audio": shown is not None and Kind.AUDIO in shown.muted,
            "unplayable": self.unplayable,
            "layer": present.layer if present else None,
            "width": present.width if present else None,
            "height": present.height if present else None,
        }


def _layer(source: Source) -> Layer:
    return Layer(source.track.layer, source.track.width, source.track.height, source.bitrate)
