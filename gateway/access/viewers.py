"""Who watches: each admitted viewer of a call, with whom it belongs to, so that it can be sent out again.

Kept true: `admit` alone decides; until the viewer comes its answer may have changed, so that it is asked once more then.
"""

from collections.abc import Awaitable, Callable

from gateway.access.credentials import Identity
from protocols.errors import Rejected
from protocols.whep.fanout import CallViewer
from protocols.whep.viewer import ViewerAdmission

Admit = Callable[[str, str | None, str], Awaitable[Identity]]
"""(call, token, address) -> who it is; raises `Rejected` for those who may not watch."""


class AdmittedViewer:
    """One admitted viewer of a call (a `protocols.whep.viewer.Admitted`). The call is looked up when the viewer comes and not
    when they were admitted: in between the call may have ended and begun anew, and who never comes leaves none behind."""

    def __init__(self, viewers_admitted: "Viewers", cid: str, identity: Identity) -> None:
        self.cid = cid
        self.identity = identity
        self._viewers_admitted = viewers_admitted
        self._call: ViewerAdmission | None = None
        self._viewer: CallViewer | None = None

    @property
    def known(self) -> bool:
        return not self.identity.anonymous

    @property
    def user(self) -> str:
        return f"{self.identity.api_key} {self.identity.user_id}" if self.identity.user_id else ""

    def add_viewer(self, viewer: CallViewer) -> None:
        self._viewer = viewer
        self._call = self._viewers_admitted.came(self)
        self._call.add_viewer(viewer)

    def remove_viewer(self, viewer: CallViewer) -> None:
        if self._call is not None:
            self._call.remove_viewer(viewer)
            self._viewers_admitted.left(self)

    def send_out(self, why: str) -> None:
        """The viewer has to go."""
        if self._viewer is not None:
            self._viewer.close(why)


class Viewers:
    """What the WHEP resource serves (`protocols.whep.viewer.Program`): the calls that the caller may watch, made when the first comes.

    `still` is asked when an admitted viewer comes; raises `Rejected`. `on_change` is told of each call that somebody comes into
    or leaves; it must not raise.
    """

    def __init__(
        self,
        find: Callable[[str], ViewerAdmission],
        admit: Admit,
        still: Callable[[Identity, str], None],
        on_change: Callable[[str], None],
    ) -> None:
        self.admitted: set[AdmittedViewer] = set()  # those who have come
        self._find = find
        self._admit = admit
        self._still = still
        self._on_change = on_change

    async def admit(self, call: str, token: str | None, address: str = "") -> AdmittedViewer:
        return AdmittedViewer(self, call, await self._admit(call, token, address))

    def came(self, viewer: AdmittedViewer) -> ViewerAdmission:
        """The call that a viewer comes into."""
        call = self._find(viewer.cid)
        self.admitted.add(viewer)
        self._on_change(viewer.cid)
        try:
            self._still(viewer.identity, viewer.cid)
        except Rejected as refusal:
            viewer.send_out(refusal.detail)
        return call

    def left(self, viewer: AdmittedViewer) -> None:
        if viewer in self.admitted:
            self.admitted.discard(viewer)
            self._on_change(viewer.cid)
