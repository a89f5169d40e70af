"""WHIP endpoints as encoders take them. Sans-IO."""

from urllib.parse import quote


def endpoint(origin: str, call: str) -> str:
    """`origin` is that of the HTTP server."""
    return f"{origin}/whip/{quote(call, safe=':')}"
