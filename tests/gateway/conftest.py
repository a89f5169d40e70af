"""The gateway that tests share."""

from tests.support.shared import gateway, own

__all__ = ["gateway", "own"]
