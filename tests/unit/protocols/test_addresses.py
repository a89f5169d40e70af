"""What addresses mean, also in disguise: their client, their host, whether they are of the public internet."""

from ipaddress import ip_network

import pytest

from protocols.addresses import client_network, host_of, is_public, is_within, unmapped


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("239.1.2.3", False),
        ("::", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff0e::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),  # Teredo, whose client is 127.0.0.1
        ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", True),  # whose client is 8.8.8.8
        ("2001:0:7f00:1:8000:63bf:f7f7:f7f7", False),  # and whose server is 127.0.0.1
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::7f00:1", False),  # the local NAT64
        ("64:ff9b:1::808:808", False),
        ("2002:808:808::1", True),
        ("2002:a9fe:a9fe::1", False),
        ("2002:c000:201::", False),
        ("::ffff:169.254.169.254", False),
        ("::ffff:0:7f00:1", False),  # IPv4-translated
        ("::8.8.8.8", False),  # IPv4-compatible
        ("fec0::1", False),
        ("3fff::1", False),
        ("3fff:1000::1", True),
        ("5f00::1", False),
        ("100::1", False),
        ("100:0:0:1::1", False),
        ("2001:2::1", False),
        ("2001:1::1", False),
        ("2001:20::1", False),
        ("2001:db8::1", False),
        ("2001:4860:4860::8888", True),
        ("2620:4f:8000::1", True),
        ("4000::1", False),
        ("192.0.0.9", False),
        ("192.0.0.170", False),
        ("192.88.99.1", False),
        ("192.31.196.1", True),
        ("192.0.2.1", False),
        ("198.19.255.255", False),
        ("198.20.0.1", True),
        ("172.15.255.255", True),
        ("172.32.0.1", True),
        ("203.0.113.9", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_which_addresses_are_public(host: str, public: bool) -> None:
    assert is_public(host) is public


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::"),
        ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_ipv6_client_has_a_whole_network(host: str, client: str) -> None:
    assert client_network(host) == client


def test_a_mapped_address_is_the_ipv4_address_that_it_stands_for() -> None:
    assert str(unmapped("::ffff:192.0.2.1")) == str(unmapped(b"\xc0\x00\x02\x01")) == "192.0.2.1"
    assert str(unmapped("2001:db8::1")) == "2001:db8::1"
    with pytest.raises(ValueError, match="does not appear"):
        unmapped("example.org")


@pytest.mark.parametrize(
    ("remote", "host"),
    [("192.0.2.1:80", "192.0.2.1"), ("[2001:db8::1]:80", "2001:db8::1"), ("2001:db8::1", "2001:db8::1"), ("x", "x"), ("", "")],
)
def test_the_host_of_a_remote_address(remote: str, host: str) -> None:
    assert host_of(remote) == host


@pytest.mark.parametrize(
    ("host", "within"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("2001:db8::1", True), ("11.1.2.3", False), ("::1", False), ("", False)],
)
def test_an_address_is_in_a_network_be_it_mapped_or_not(host: str, within: bool) -> None:
    assert is_within(host, [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]) is within
