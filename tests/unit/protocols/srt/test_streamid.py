import pytest

from protocols.errors import Reason, Rejected
from protocols.srt.streamid import parse_stream_id


@pytest.mark.parametrize(
    ("text", "resource", "user", "session", "key"),
    [
        ("#!::r=live/cam1,m=publish,u=alice", "live/cam1", "alice", "", "alice"),
        ("#!::m=publish,r=cam,s=token", "cam", "", "token", "token"),
        ("#!::r=cam,m=publish,t=stream,h=example.org", "cam", "", "", "cam"),
        ("%23!::r=cam,m=publish", "cam", "", "", "cam"),
        ("%23%21%3A%3Ar=cam,m=publish", "cam", "", "", "cam"),
        ("#!::r=live/café,m=publish,", "live/café", "", "", "live/café"),
        ("publish:cam1", "cam1", "", "", "cam1"),
        ("publish:live/cam1:bob:secret", "live/cam1", "bob", "", "secret"),
        ("eyJhbGciOi.eyJ1c2Vy.c2ln-_", "eyJhbGciOi.eyJ1c2Vy.c2ln-_", "", "", "eyJhbGciOi.eyJ1c2Vy.c2ln-_"),
        ("livestream:demo", "livestream:demo", "", "", "livestream:demo"),
    ],
)
def test_forms_that_publish(text: str, resource: str, user: str, session: str, key: str) -> None:
    stream = parse_stream_id(text.encode())
    assert (stream.mode, stream.resource, stream.user, stream.session, stream.key) == ("publish", resource, user, session, key)


NAME = "livestream~demo~john@example.org~1795982330"


@pytest.mark.parametrize(
    "text",
    [
        f"/{NAME}",
        f"//{NAME}/",
        f"live/{NAME}",
        f"publish/{NAME}",
        f"publish:{NAME}",
        f"publish:live/{NAME}",
        f" {NAME}\n",
        f'"{NAME}"',
        f"\u201c{NAME}\u201d\r\n",
        f"<{NAME}>",
        NAME.replace("~", "%7E"),
        f"live%2F{NAME}%0A",
        f"streamid={NAME}",
        f"srt://host:9000?streamid={NAME}",
        f"srt://host:9000?mode=caller&streamid=%23!::m=publish,u={NAME}&latency=200000",
        f"srt://[::1]:9000?streamid=live%2F{NAME}",
        f"srt://host:9000/live/{NAME}",
        f'"#!::m=publish,u={NAME}"\n',
        f"#!::m=publish,r=live/{NAME}",
        f"#!::m=publish,r=/{NAME}",
        f"#!:: m=publish , u={NAME} ",
        f"#!::m=publish,u={NAME.replace('~', '%7e')}",
        f"#!::m=publish,s={NAME}\n",
    ],
)
def test_a_key_that_was_typed_nearly_right_is_found(text: str) -> None:
    stream = parse_stream_id(text.encode())
    assert (stream.mode, stream.key) == ("publish", NAME)
    assert stream.beside.get("call") is None


def test_a_comma_in_a_value_belongs_to_it() -> None:
    stream = parse_stream_id(b"#!::u=john,m=publish,bmd_name=Hall 2, left,,x=1")
    assert (stream.user, stream.mode, stream.params) == ("john", "publish", {"bmd_name": "Hall 2, left", "x": "1"})
    assert parse_stream_id(b"#!::m=publish,r=cam 1,2").resource == "cam 1,2"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.NOT_FOUND),
        (b"publish:", Reason.NOT_FOUND),
        (b"#!::m=publish", Reason.NOT_FOUND),
        (b"#!::r=cam", Reason.METHOD_NOT_ALLOWED),
        (b"#!::r=cam,m=request", Reason.METHOD_NOT_ALLOWED),
        (b"#!::r=cam,m=bidirectional", Reason.METHOD_NOT_ALLOWED),
        (b"read:cam", Reason.METHOD_NOT_ALLOWED),
        (b"#!::r=cam,m=publish,t=file", Reason.UNSUPPORTED_MEDIA),
        (b"#!:{r=cam,m=publish}", Reason.BAD_REQUEST),
        (b"#!r=cam", Reason.BAD_REQUEST),
        (b"#!::r,m=publish", Reason.BAD_REQUEST),
        (b"#!::r=a,r=b,m=publish", Reason.BAD_REQUEST),
        (b"cam\n1", Reason.BAD_REQUEST),
        (b"cam\xff", Reason.BAD_REQUEST),
        (b"x" * 513, Reason.BAD_REQUEST),
        (b"#!::r=cam,m=publish," + b",".join(b"k%d=v" % n for n in range(40)), Reason.BAD_REQUEST),
    ],
)
def test_refusals_name_their_reason(raw: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refusal:
        parse_stream_id(raw)
    assert refusal.value.reason is reason
    assert reason.srt_code == {429: 1402, 503: 1402}.get(reason.status, 1000 + reason.status)


def test_the_longest_stream_id_is_taken() -> None:
    assert parse_stream_id(b"x" * 512).key == "x" * 512


def test_params_are_kept_beside_the_key() -> None:
    assert parse_stream_id(b"key?call=livestream:demo&user=host").params == {"call": "livestream:demo", "user": "host"}
    assert parse_stream_id(b"#!::s=t,m=publish,bmd_name=Cam 1").params == {"bmd_name": "Cam 1"}
    assert parse_stream_id(b"publish:path:user:pass:a=1").params == {"a": "1"}


def test_nothing_secret_is_shown() -> None:
    assert "secret" not in repr(parse_stream_id(b"#!::s=secret,m=publish"))
    with pytest.raises(Rejected) as refusal:
        parse_stream_id(b"#!::s=secret,s=secret,m=publish")
    assert "secret" not in str(refusal.value)
