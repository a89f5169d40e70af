"""Connectivity checks read and written, against aioice's reader and writer."""

import zlib

import pytest
from aioice import stun as reference

from protocols.webrtc.transport import stun

PASSWORD = b"p" * 24
TRANSACTION = bytes(range(12))


def read(data: bytes) -> reference.Message:
    """aioice's reading, which checks the FINGERPRINT; the integrity is checked here."""
    message = reference.parse_message(data)
    assert message.check_message_integrity(PASSWORD)
    return message


def theirs(**attributes: object) -> bytes:
    message = reference.Message(reference.Method.BINDING, reference.Class.REQUEST, TRANSACTION)
    message.attributes["USERNAME"] = "here:there"
    message.attributes["PRIORITY"] = 1853824767
    for name, value in attributes.items():
        message.attributes[name.replace("_", "-")] = value
    message.add_message_integrity(PASSWORD)
    return bytes(message)


def test_a_check_of_aioice_is_read() -> None:
    message = stun.parse(theirs(ICE_CONTROLLING=7, USE_CANDIDATE=None))
    assert message is not None
    assert (message.type, message.transaction, message.ufrag) == (stun.Type.REQUEST, TRANSACTION, b"here")
    assert (message.nominated, message.controlled, message.unknown) == (True, False, ())
    assert message.authentic(PASSWORD)
    assert not message.authentic(b"q" * 24)


def test_the_role_is_read() -> None:
    message = stun.parse(theirs(ICE_CONTROLLED=7))
    assert message is not None
    assert (message.nominated, message.controlled) == (False, True)


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.9", "2001:db8::1", "::ffff:203.0.113.9", "fe80::1%eth0"])
def test_aioice_reads_our_answer(address: str) -> None:
    message = read(stun.success(TRANSACTION, address, 50123, PASSWORD))
    assert message.message_class == reference.Class.RESPONSE
    assert message.attributes["XOR-MAPPED-ADDRESS"] == (address.removeprefix("::ffff:").removesuffix("%eth0"), 50123)


def test_aioice_reads_our_refusals() -> None:
    conflict = read(stun.error(TRANSACTION, stun.ErrorCode.ROLE_CONFLICT, PASSWORD))
    assert conflict.attributes["ERROR-CODE"] == (487, "Role Conflict")
    unknown = stun.error(TRANSACTION, stun.ErrorCode.UNKNOWN_ATTRIBUTE, PASSWORD, [0x7FFE])
    assert b"\x00\x0a\x00\x02\x7f\xfe\x00\x00" in unknown


def test_aioice_reads_our_check_and_we_its_answer() -> None:
    check = read(stun.binding_request(TRANSACTION, b"there:here", PASSWORD))
    assert check.attributes["USERNAME"] == "there:here"
    answer = reference.Message(reference.Method.BINDING, reference.Class.RESPONSE, TRANSACTION)
    answer.attributes["XOR-MAPPED-ADDRESS"] = ("127.0.0.1", 5)
    answer.add_message_integrity(PASSWORD)
    message = stun.parse(bytes(answer))
    assert message is not None
    assert (message.type, message.transaction) == (stun.Type.SUCCESS, TRANSACTION)
    assert message.authentic(PASSWORD)


def test_every_bit_is_covered_and_every_truncation_is_none() -> None:
    good = theirs(ICE_CONTROLLING=7)
    for bit in range(8 * len(good)):
        broken = bytearray(good)
        broken[bit // 8] ^= 1 << bit % 8
        message = stun.parse(bytes(broken))
        assert message is None or not message.authentic(PASSWORD)
    for length in range(len(good)):
        assert stun.parse(good[:length]) is None


def test_what_follows_the_integrity_is_not_believed() -> None:
    """RFC 8489 §14.5: an attacker on the way could append USE-CANDIDATE without knowing the password."""
    signed = theirs()[:-8]
    longer = signed + b"\x00\x25\x00\x00"
    longer = longer[:2] + (len(longer) - 20 + 8).to_bytes(2, "big") + longer[4:]
    longer += b"\x80\x28\x00\x04" + (zlib.crc32(longer) ^ 0x5354554E).to_bytes(4, "big")
    message = stun.parse(longer)
    assert message is not None
    assert message.authentic(PASSWORD)
    assert not message.nominated


def test_a_check_without_fingerprint_or_integrity_is_none() -> None:
    message = reference.Message(reference.Method.BINDING, reference.Class.REQUEST, TRANSACTION)
    message.attributes["USERNAME"] = "here:there"
    assert stun.parse(bytes(message)) is None
    message.add_fingerprint()
    assert stun.parse(bytes(message)) is None


def test_more_attributes_than_a_check_has_are_none() -> None:
    many = stun.binding_request(TRANSACTION, b"here:there", PASSWORD, [(0xC001, b"")] * 100)
    assert stun.parse(many) is None
