import pytest

from protocols.errors import Rejected
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
