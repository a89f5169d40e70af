"""STUN as an ICE-lite agent needs it: read binding requests and successes, write both (RFC 8489, RFC 8445 §7). Sans-IO.

What is kept true: a datagram that is not a well-formed binding message with MESSAGE-INTEGRITY and FINGERPRINT is `None`, never an
exception, and costs no HMAC; nothing of a message is to be believed before `authentic` says so.
"""

import hmac
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from protocols.addresses import unmapped

MAGIC_COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_FINGERPRINT_XOR = 0x5354554E  # RFC 8489 §14.7
_INTEGRITY_SIZE = 4 + 20
_FINGERPRINT_SIZE = 4 + 4
_MAX_ATTRIBUTES = 32
_BINDING_ERROR = 0x0111


class Type(IntEnum):
    """The messages that are read."""

    REQUEST = 0x0001
    SUCCESS = 0x0101


class Attribute(IntEnum):
    """The attributes that we understand (RFC 8489 §18.3, RFC 8445 §16.1)."""

    MAPPED_ADDRESS = 0x0001
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    REALM = 0x0014
    NONCE = 0x0015
    XOR_MAPPED_ADDRESS = 0x0020
    PRIORITY = 0x0024
    USE_CANDIDATE = 0x0025
    FINGERPRINT = 0x8028
    ICE_CONTROLLED = 0x8029
    ICE_CONTROLLING = 0x802A


_TYPES = {int(each): each for each in Type}
_UNDERSTOOD = frozenset(int(attribute) for attribute in Attribute)


class ErrorCode(IntEnum):
    """RFC 8489 §14.8 and RFC 8445 §7.3.1.1."""

    UNKNOWN_ATTRIBUTE = 420
    ROLE_CONFLICT = 487


_REASONS = {ErrorCode.UNKNOWN_ATTRIBUTE: b"Unknown Attribute", ErrorCode.ROLE_CONFLICT: b"Role Conflict"}


@dataclass(frozen=True, slots=True)
class Binding:
    """One connectivity check or its success. `ufrag` is the receiver's half of a request's USERNAME: it says whose password to try."""

    type: Type
    transaction: bytes
    ufrag: bytes
    nominated: bool
    controlled: bool  # the sender believes itself controlled, as an ICE-lite agent always is
    unknown: tuple[int, ...]  # comprehension-required attributes that we do not understand
    signed: bytes
    integrity: bytes

    def authentic(self, password: bytes) -> bool:
        return hmac.compare_digest(hmac.digest(password, self.signed, "sha1"), self.integrity)


def parse(data: bytes) -> Binding | None:
    """Read a connectivity check or its success; None for everything else."""
    size = len(data)
    if size < _HEADER.size + _INTEGRITY_SIZE + _FINGERPRINT_SIZE:
        return None
    message, length, cookie, transaction = _HEADER.unpack_from(data)
    if message not in _TYPES or cookie != MAGIC_COOKIE or length != size - _HEADER.size or length % 4:
        return None
    # RFC 8489 §14.7: FINGERPRINT is the last attribute; RFC 8445 §7.1 demands it.
    body = size - _FINGERPRINT_SIZE
    if data[body : body + 4] != b"\x80\x28\x00\x04":
        return None
    if zlib.crc32(data[:body]) ^ _FINGERPRINT_XOR != int.from_bytes(data[body + 4 :], "big"):
        return None
    return _read_attributes(data, _TYPES[message], transaction, body)


def _read_attributes(data: bytes, message: Type, transaction: bytes, end: int) -> Binding | None:
    ufrag = b""
    nominated = controlled = False
    unknown: list[int] = []
    position = _HEADER.size
    for _ in range(_MAX_ATTRIBUTES):
        if position + 4 > end:
            return None
        kind, length = _ATTRIBUTE.unpack_from(data, position)
        value = position + 4
        if value + length > end:
            return None
        if kind == Attribute.MESSAGE_INTEGRITY:
            # RFC 8489 §14.5: what follows is not covered and is ignored, except FINGERPRINT; the length signed ends with this attribute.
            if length != 20:
                return None
            signed = b"".join((data[:2], (value + length - _HEADER.size).to_bytes(2, "big"), data[4:position]))
            return Binding(message, transaction, ufrag, nominated, controlled, tuple(unknown), signed, data[value : value + 20])
        if kind == Attribute.USERNAME:
            ufrag = data[value : value + length].partition(b":")[0]
        elif kind == Attribute.USE_CANDIDATE:
            nominated = True
        elif kind == Attribute.ICE_CONTROLLED:
            controlled = True
        elif kind < 0x8000 and kind not in _UNDERSTOOD:
            unknown.append(kind)
        position = value + (length + 3 & ~3)
    return None


def success(transaction: bytes, address: str, port: int, password: bytes) -> bytes:
    """The answer to a check that came from `address` (textual, an IPv4-mapped one is written as IPv4)."""
    parsed = unmapped(address)
    # RFC 8489 §14.2: IPv4 is masked with the cookie, IPv6 with cookie and transaction.
    family, mask = (1, MAGIC_COOKIE) if parsed.version == 4 else (2, MAGIC_COOKIE << 96 | int.from_bytes(transaction, "big"))
    packed = (int(parsed) ^ mask).to_bytes(parsed.max_prefixlen // 8, "big")
    value = struct.pack("!BBH", 0, family, port ^ MAGIC_COOKIE >> 16) + packed
    return _message(Type.SUCCESS, transaction, [(Attribute.XOR_MAPPED_ADDRESS, value)], password)


def error(transaction: bytes, code: ErrorCode, password: bytes, unknown: Sequence[int] = ()) -> bytes:
    """A refusal of an authentic request; `unknown` names the attributes for 420."""
    attributes = [(Attribute.ERROR_CODE, struct.pack("!HBB", 0, code // 100, code % 100) + _REASONS[code])]
    if unknown:
        attributes.append((Attribute.UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(unknown)}H", *unknown)))
    return _message(_BINDING_ERROR, transaction, attributes, password)


def binding_request(
    transaction: bytes, username: bytes, password: bytes, attributes: Sequence[tuple[int, bytes]] = ()
) -> bytes:
    """A connectivity check, signed with the receiver's password."""
    return _message(Type.REQUEST, transaction, [(Attribute.USERNAME, username), *attributes], password)


def _message(kind: int, transaction: bytes, attributes: Sequence[tuple[int, bytes]], password: bytes) -> bytes:
    body = b"".join(_ATTRIBUTE.pack(name, len(value)) + value + bytes(-len(value) % 4) for name, value in attributes)
    signed = _HEADER.pack(kind, len(body) + _INTEGRITY_SIZE, MAGIC_COOKIE, transaction) + body
    integrity = _ATTRIBUTE.pack(Attribute.MESSAGE_INTEGRITY, 20) + hmac.digest(password, signed, "sha1")
    whole = _HEADER.pack(kind, len(body) + _INTEGRITY_SIZE + _FINGERPRINT_SIZE, MAGIC_COOKIE, transaction) + body + integrity
    return whole + _ATTRIBUTE.pack(Attribute.FINGERPRINT, 4) + struct.pack("!I", zlib.crc32(whole) ^ _FINGERPRINT_XOR)
