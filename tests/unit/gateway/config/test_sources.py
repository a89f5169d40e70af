"""Four sources, one configuration; every mistake is told with its place and what is allowed."""

import os
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.config import PREFIX, AuthConfig, Config, sources
from gateway.config.sources import ConfigError, load

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text)
    return file


def problems(file: Path | None = None, *sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(file, sets)
    return [str(problem) for problem in caught.value.problems]


def test_each_source_wins_over_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "[rtmp]\nport = 1\ntls_port = 2\nauth_app = 'secret'\n")
    monkeypatch.setenv("GATEWAY_RTMP__PORT", "10")
    monkeypatch.setenv("gateway_rtmp__tls_port", "20")
    rtmp = load(file, ["rtmp.port=100"]).rtmp
    assert (rtmp.port, rtmp.tls_port, rtmp.auth_app, rtmp.max_connections) == (100, 20, "secret", Config().rtmp.max_connections)


@pytest.mark.parametrize("text", ["1.2.3.4, 2001:db8::1", '["1.2.3.4", "2001:db8::1"]'])
def test_lists_are_written_with_commas_or_as_in_toml(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ["1.2.3.4", "2001:db8::1"]
    assert list(map(str, load(None, [f"webrtc.external_addresses={text}"]).webrtc.external_addresses)) == expected
    monkeypatch.setenv("GATEWAY_WEBRTC__EXTERNAL_ADDRESSES", text)
    assert list(map(str, load().webrtc.external_addresses)) == expected


def test_an_unknown_key_names_its_source_and_the_nearest_known_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_WEBRTC__MAX_VIEWER", "1")
    monkeypatch.setenv("GATEWAY_ZZZ", "1")
    file = write(tmp_path, "port = 1\n[htpp]\nport = 1\n")
    assert problems(file, "rtpm.port=1") == [
        "rtpm.port (from --set rtpm.port): unknown key; did you mean rtmp.port?",
        "webrtc.max_viewer (from GATEWAY_WEBRTC__MAX_VIEWER): unknown key; did you mean webrtc.max_viewers?",
        "zzz (from GATEWAY_ZZZ): unknown key",
        "port (from gateway.toml): unknown key; did you mean srt.port?",
        "htpp.port (from gateway.toml): unknown key; did you mean http.port?",
    ]


def test_every_wrong_value_is_told_at_once_with_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_RTMP__PORT", "70000")
    file = write(tmp_path, '[transcode]\nvideo = "maybe"\n[calls]\npublic = ["livestream:ok", "nonsense"]\n')
    port, call, video = problems(file)
    assert port.startswith('rtmp.port = "70000" (from GATEWAY_RTMP__PORT): should be less than or equal to 65535')
    assert video.startswith("transcode.video = \"maybe\" (from gateway.toml): should be 'auto', 'always' or 'never'")
    assert call.startswith('calls.public = ["livestream:ok", "nonsense"] (from gateway.toml)')
    assert "livestream:demo" in call


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a = [", "cannot be read"), ("\xff", "cannot be read"), (None, "no such file")],
)
def test_a_file_that_cannot_be_read(text: str | None, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    if text is not None:
        file.write_bytes(text.encode("latin-1"))
    assert expected in problems(file)[0]


def test_a_set_without_a_value() -> None:
    assert problems(None, "rtmp.port") == ["rtmp.port (from --set): write key=value, e.g. rtmp.port=1936"]


def test_certificate_and_key_belong_together() -> None:
    assert "certificate and key belong together" in problems(None, "rtmp.certificate=a.pem")[0]


def test_missing_certificate_files_are_told(tmp_path: Path) -> None:
    there = tmp_path / "key.pem"
    there.touch()
    files = {"http.certificate": f"{tmp_path}/none.pem", "http.key": str(there), "rtmp.key": ""}
    assert [problem.key for problem in sources.check(files)] == ["http.certificate"]


def test_a_secret_is_never_shown() -> None:
    secret = "s3cret" * 8
    config = load(None, [f"auth.secret={secret}"])
    assert config.auth.secret.get_secret_value() == secret
    assert 'secret = "***"' in sources.render(config)
    assert secret not in sources.render(config) + repr(config) + str(config.model_dump())
    short = problems(None, "auth.secret=hunter2")[0]
    assert short.startswith('auth.secret = "***" (from --set auth.secret): is too short')
    assert "hunter2" not in short


def test_the_shipped_file_is_the_defaults() -> None:
    shipped = ROOT / "deploy" / "gateway.toml"
    assert shipped.read_text() == sources.render(Config()), (
        "write it with: gateway print-config --defaults > deploy/gateway.toml"
    )
    assert load(shipped) == Config()


def test_what_is_printed_reads_back_the_same(tmp_path: Path) -> None:
    config = load(
        None, ["rtmp.port=0", "calls.linger_s=2.5", "webrtc.external_addresses=::1", "calls.public=", 'http.host=a"b']
    )
    assert load(write(tmp_path, sources.render(config))) == config


def test_every_key_is_documented_and_frozen() -> None:
    for name, section in Config():
        assert type(section).model_config["frozen"], name
        for key, field in type(section).model_fields.items():
            assert field.description, f"{name}.{key}"


def test_the_environment_leaves_the_defaults_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_RTMP__PORT", "1")
    assert Config().rtmp.port == 1935
    assert AuthConfig().secret == SecretStr("")


def test_tables_come_from_every_source_and_their_secrets_are_shown_by_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, '[srt]\nenabled = true\n[srt.sources.cam]\nurl = "srt://a:1"\ncall = "l:d"\nuser = "cam"\n')
    srt = load(file, ['srt.ports={"9001": "hidden-key"}']).srt
    assert (srt.enabled, srt.sources["cam"].call, srt.ports[9001].get_secret_value()) == ("true", "l:d", "hidden-key")
    for name, value in (("URL", "srt://b:2?passphrase=hidden-phrase"), ("CALL", "l:d"), ("USER", "cam")):
        monkeypatch.setenv(f"GATEWAY_SRT__SOURCES__CAM__{name}", value)
    config = load(file, ['srt.ports={"9001": "hidden-key"}'])
    assert config.srt.sources["cam"].url.get_secret_value().startswith("srt://b:2")
    assert "hidden" not in sources.render(config) + repr(config)


def test_a_wrong_entry_of_a_table_is_named_without_its_secret(tmp_path: Path) -> None:
    file = write(
        tmp_path, '[srt.ports]\nhidden-key = "9001"\n[srt.sources.cam]\nurl = "srt://a:1?passphrase=hidden"\ncall = "l"\n'
    )
    told = problems(file, "srt.host=localhost")
    assert [problem.split(" ")[0] for problem in told] == [
        "srt.host",
        "srt.ports",
        "srt.sources.cam.url",
        "srt.sources.cam.call",
        "srt.sources.cam.user",
    ]
    assert "hidden" not in str(told)
    assert all("from gateway.toml" in problem for problem in told[1:])


@pytest.mark.parametrize(
    "text", ['{ 9001 = "hidden-key" }', '{9001="hidden-key"}', '{"9001": "hidden-key"}', "{ 9001 = 'hidden-key' }"]
)
def test_a_table_is_taken_as_its_help_shows_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(None, [f"srt.ports={text}"]).srt.ports[9001].get_secret_value() == "hidden-key"
    monkeypatch.setenv("GATEWAY_SRT__PORTS", text)
    assert load(None).srt.ports[9001].get_secret_value() == "hidden-key"


@pytest.mark.parametrize("text", ["9001=hidden-key", "{ 9001 = hidden-key }", "", "hidden-key", "[hidden-key"])
def test_what_is_no_table_is_refused_with_the_way_to_write_one_and_without_its_secret(text: str) -> None:
    (told,) = problems(None, f"srt.ports={text}")
    assert 'write { name = "value" }' in told
    assert '{ 9001 = "…" }' in told
    assert "hidden" not in told
