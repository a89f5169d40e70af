"""What the tests of a module share."""

from tests.support.shared import chromium, gateway, own, studio

__all__ = ["chromium", "gateway", "own", "studio"]
