"""Which of a publisher's tracks an output is given. Sans-IO.

The rule: one sound and one picture. A picture that comes in several layers goes in all of them that pass as they are; where none passes
the largest that is not silent is transcoded alone (or refused, and its reason is the one that is told), because a worker makes better
layers of one picture than a decoder for each. Below a layer of the publisher's own none are made.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from protocols.media import Kind, Track
from transcode.plan import Decision, Passthrough

Selected = tuple[Track, Decision]


def select(tracks: Sequence[Track], decide: Callable[[Track], Decision | None], silent: Collection[int] = ()) -> list[Selected]:
    """The tracks to take, each with what happens to it; None for a track: it is not wanted. `tracks` have each layer of the first picture,
    the largest first; `silent` are the ids of layers from which nothing comes just now."""
    selected = [(track, decision) for track in _first(tracks, Kind.AUDIO) if (decision := decide(track)) is not None]
    layers = [(track, _alone(track, decision)) for track in _picture(tracks) if (decision := decide(track)) is not None]
    passing = [each for each in layers if isinstance(each[1], Passthrough)]
    heard = [each for each in layers if each[0].id not in silent]
    return selected + (passing or (heard or layers)[:1])


def _alone(track: Track, decision: Decision) -> Decision:
    return replace(decision, below=None) if track.layer and isinstance(decision, Passthrough) else decision


def _first(tracks: Sequence[Track], kind: Kind) -> list[Track]:
    return [track for track in tracks if track.kind is kind][:1]


def _picture(tracks: Sequence[Track]) -> list[Track]:
    """The layers of the first picture; a name that comes twice is of another picture."""
    first = _first(tracks, Kind.VIDEO)
    if not first or not first[0].layer:
        return first
    layers: dict[str, Track] = {}
    for track in tracks:
        if track.kind is Kind.VIDEO and track.layer:
            layers.setdefault(track.layer, track)
    return list(layers.values())
