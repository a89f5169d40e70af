import pytest

from protocols.errors import Rejected
from protocols.srt.caller import Retry, is_public
from protocols.srt.source_url import parse_source


def test_an_address_with_everything() -> None:
    source = parse_source(
        "srt://example.org:9000?streamid=%23!::r=cam,m=request&passphrase=correct+horse&latency=250&pbkeylen=32"
    )
    assert (source.host, source.port, source.stream_id) == ("example.org", 9000, "#!::r=cam,m=request")
    assert (source.access.passphrase, source.access.latency_ms, source.key_bytes) == ("correct+horse", 250, 32)


def test_a_stream_id_may_stand_unquoted() -> None:
    source = parse_source("srt://[2001:db8::1]:9000?streamid=#!::r=a/b,m=request&latency=80")
    assert (source.host, source.stream_id, source.access.latency_ms) == ("2001:db8::1", "#!::r=a/b,m=request", 80)
    assert str(source) == "srt://[2001:db8::1]:9000"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org:9000",
        "srt://example.org",
        "srt://:9000",
        "srt://example.org:99999",
        "srt://example.org:9000?mode=listener",
        "srt://example.org:9000?passphrase=secret",
        "srt://example.org:9000?secret=secret",
        "srt://example.org:9000?latency=secret",
        "srt://example.org:9000?pbkeylen=7",
        "srt://example.org:9000?streamid=" + "secret" * 100,
    ],
)
def test_what_is_not_an_address_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_source(url)
    assert "secret" not in str(refusal.value)


def test_no_secret_is_shown() -> None:
    source = parse_source("srt://example.org:9000?streamid=hidden&passphrase=hidden-hidden")
    assert "hidden" not in repr(source) + str(source)


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
    ],
)
def test_which_addresses_are_public(host: str, public: bool) -> None:
    assert is_public(host) is public


def test_waits_grow_and_are_bounded() -> None:
    retry = Retry(1, 30)
    for failures, most in ((0, 1), (1, 2), (4, 16), (5, 30), (1000, 30)):
        assert 0.75 * most <= retry.wait_s(failures) <= most
