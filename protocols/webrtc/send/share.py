"""How one viewer's way is shared among the pictures that it is sent, where it carries less than all of them together. Sans-IO.

The rule: a picture that has a smaller layer goes over to that (`simulcast.LayerChoice`); one in its smallest layer is to make do with its
share. What is lacking each gives in proportion to what it has; what is spare each may use as much of as the others, which evens them out.
What is kept true: a way binds nobody until it was seen to carry less than was sent, because an estimate knows nothing of what was never
tried; and from then on until it carries as much as was too much then.
"""

from collections.abc import Mapping

from protocols.webrtc.send.simulcast import STRAINED_NS, TOLERANCE, Picture


class WayShares:
    """Of one viewer. Ask `of` a few times a second."""

    def __init__(self) -> None:
        self._strained: int | None = None  # since when the way carries too little
        self._too_much: int | None = None  # bit/s that were sent when it had for too long

    def of(
        self, pictures: Mapping[int, Picture], carried: int | None, now: int, patience: int = STRAINED_NS
    ) -> dict[int, int | None]:
        """What each picture may have, in bit/s, by its number; None: whatever it has. `carried`: what the way has for pictures, in bit/s;
        None: nothing is known. `patience`: how long a way carries too little before it binds (ns)."""
        sent = sum(picture.bitrate for picture in pictures.values())
        if carried is None or not sent or not self._narrow(sent, carried, now, patience):
            return dict.fromkeys(pictures)
        spare = max(0, carried - sent) // len(pictures)
        kept = min(1.0, carried / sent)
        return {
            number: int(picture.bitrate * kept) + spare if picture.shown == picture.layers[-1].name else None
            for number, picture in pictures.items()
        }

    def _narrow(self, sent: int, carried: int, now: int, patience: int) -> bool:
        if self._too_much is not None:
            if carried >= self._too_much:
                self._too_much = None
        elif carried >= sent * TOLERANCE:
            self._strained = None
        else:
            if self._strained is None:
                self._strained = now
            if now - self._strained >= patience:
                self._strained, self._too_much = None, sent
        return self._too_much is not None
