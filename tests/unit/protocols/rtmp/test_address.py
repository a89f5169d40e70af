"""Server and stream key as people type them, by what their encoders make of it: the app and the publish name."""

import pytest

from protocols.rtmp.address import NO_KEY
from protocols.rtmp.events import Broken
from protocols.rtmp.limits import RtmpLimits
from protocols.rtmp.session import ServerSession, SessionPhase
from tests.unit.protocols.rtmp.peer import Run, opening, run

KEY = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoiaiJ9.c2ln-_"
CALL = {"call": "livestream:show"}


@pytest.mark.parametrize(
    ("app", "name", "params"),
    [
        ("live", KEY, {}),
        ("live", f"{KEY}?call=livestream:show", CALL),
        ("live?call=livestream:show", KEY, CALL),
        # the whole address as the server, and nothing, `live`, or the key once more as the stream key
        (f"live/{KEY}", "", {}),
        (f"live/{KEY}", " ", {}),
        (f"live/{KEY}", "live", {}),
        (f"live/{KEY}", KEY, {}),
        (f"live/{KEY}/", "", {}),
        (f"live//{KEY}", "", {}),
        (f"live/{KEY}?call=livestream:show", "", CALL),
        (f"live?call=livestream:show/{KEY}", "", CALL),
        # the key in place of the app
        (KEY, "", {}),
        (KEY, "live", {}),
        (f"/{KEY}/", "", {}),
        (f"{KEY}/live", "", {}),
        (f'"{KEY}"', "", {}),
        # a path or an address in the field for the key
        ("live", f"/{KEY}", {}),
        ("live", f"//{KEY}/", {}),
        ("live", f"live/{KEY}", {}),
        ("", f"live/{KEY}", {}),
        ("live", f"rtmp://host/live/{KEY}", {}),
        ("live", f"rtmps://[::1]:1936/live/{KEY}?call=livestream:show", CALL),
        ("live", f"rtmp://host:1935/live?call=livestream:show/{KEY}", CALL),
        # what copying brings along
        ("live", f"  {KEY}\r\n", {}),
        ("live", f'"{KEY}"', {}),
        ("live", f"\u201c{KEY}\u201d", {}),
        ("live", f"<{KEY}>", {}),
        ("live", f"'{KEY}?call=livestream:show'\n", CALL),
        ("live\n", KEY, {}),
        # percent encoding
        ("live", KEY.replace(".", "%2E"), {}),
        ("live", f"{KEY}%0A", {}),
        (f"live/{KEY.replace('.', '%2e')}", "", {}),
    ],
)
def test_a_key_is_found_where_it_was_typed(app: str, name: str, params: dict[str, str]) -> None:
    request = run(opening(name, app)).request()
    assert request.credential.key == KEY
    assert {key: value for key, value in request.params.items() if key != "app"} == params


@pytest.mark.parametrize(
    ("app", "name"), [("live", ""), ("live", " \n"), ("live", "/"), ("", ""), ("live", "rtmp://host/"), ("live/", '""')]
)
def test_without_a_key_the_encoder_is_told_what_to_paste(app: str, name: str) -> None:
    session = ServerSession(RtmpLimits())
    fed, wanted = Run(session), opening(name, app)
    events = []
    space = session.space()
    space[: len(wanted)] = wanted
    events = session.received(len(wanted), 0)
    broken = events[-1]
    assert isinstance(broken, Broken)
    assert broken.told
    assert session.stage is SessionPhase.OVER
    fed.output += session.take_output()
    name_said, _, _, status = fed.commands()[-1]
    assert name_said == "onStatus"
    assert isinstance(status, dict)
    assert (status["level"], status["code"], status["description"]) == ("error", "NetStream.Publish.Denied", NO_KEY)
