"""Seals what must be stored and read again, such as the secrets of API keys, which HS256 needs in clear to verify.

Kept true: AES-256-GCM (NIST SP 800-38D) under a key derived from the gateway's secret by HKDF (RFC 5869), bound to what it belongs to: a
sealed secret copied to another row does not open.
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE: Final = 12
_PURPOSE: Final = b"ingress-gateway api secrets"


class Sealing:
    """Seals and opens with the gateway's secret."""

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(secret))

    def seal(self, value: bytes, belongs_to: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value, belongs_to.encode())

    def unseal(self, sealed: bytes, belongs_to: str) -> bytes | None:
        """None when it was sealed with another secret of the gateway, or for something else."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], belongs_to.encode())
        except (InvalidTag, ValueError):
            return None
