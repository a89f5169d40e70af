"""For callbacks that a test does not look at, and for a gateway that goes only when the test says so."""


def unheard(*told: object) -> None:
    """Told anything, does nothing."""


class WayOut:
    """A `gateway.sessions.admission.Closing`."""

    def __init__(self) -> None:
        self.begun = False
