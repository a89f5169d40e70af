"""Which SRT callers may publish: both forms of a stream id, each refusal with its reason, and nobody else."""

from collections.abc import AsyncIterator

import pytest

from gateway.access import stream_keys
from gateway.access.credentials import Secret, Tokens
from gateway.access.srt_authorizer import SrtAuthorizer
from gateway.model.records import StreamKey
from gateway.sessions.admission import Admission
from gateway.sessions.registry import Registry
from gateway.telemetry.tracing import untraced
from protocols.errors import Reason, Rejected
from protocols.publisher import Credential
from protocols.rate_limit import SECOND
from protocols.srt.streamid import parse_stream_id
from tests.support.authorizer import SECRET, Ruling, ruling
from tests.support.memory import MemoryCall
from tests.support.unheard import WayOut, unheard
from transcode.host.pool import Workers

DEMO = "livestream:demo"
HOUR = 3600


class Gate:
    """An access with the real authority and the real reception behind it, its clock and its room to be set."""

    def __init__(self, it: Ruling, room: int = 10) -> None:
        self.it = it
        self.tokens = it.tokens
        self.told: list[tuple[Reason, str]] = []
        self.looked_up: list[Credential] = []
        self.clock = 100 * SECOND
        self.way_out = WayOut()
        registry = Registry(lambda cid, on_empty: MemoryCall())  # type: ignore[arg-type,return-value]
        self.admission = Admission(
            registry,
            it.authorizer,
            Workers(),
            (),
            max_sessions=room,
            take_over=True,
            closing=self.way_out,
            adapt=lambda policy, grant: policy,
            fits=unheard,
            on_refused=unheard,
            trace=untraced,
        )
        self.access = SrtAuthorizer(
            it.authorizer.authenticator.password,
            self.admission.examine,
            lambda refusal, host: self.told.append((refusal.reason, host)),
            lambda credential, call: self.looked_up.append(credential),
            lambda: self.clock,
        )

    def __call__(self, text: str) -> str | None:
        """The passphrase that a caller with this stream id needs."""
        return self.access(parse_stream_id(text.encode()), "192.0.2.1").passphrase

    def refusal(self, text: str) -> int:
        with pytest.raises(Rejected) as caught:
            self(text)
        assert text not in caught.value.detail
        return caught.value.reason.srt_code


@pytest.fixture
async def it() -> AsyncIterator[Ruling]:
    async with ruling() as made:
        yield made


@pytest.fixture
def gate(it: Ruling) -> Gate:
    return Gate(it)


@pytest.mark.parametrize(
    "form", ["{}", "publish:{}", "#!::m=publish,u={}", "#!::r=livestream:demo,m=publish,u={}", "#!::m=publish,s={}"]
)
def test_a_user_name_needs_its_password_as_the_passphrase_and_a_key_none(gate: Gate, form: str) -> None:
    name = gate.tokens.user_name("host", DEMO, HOUR)
    assert gate(form.format(name)) == gate.tokens.password(name) is not None
    assert gate(form.format(gate.tokens.issue("host", [DEMO], HOUR))) is None


def test_the_passphrase_proves_the_user_wherever_the_name_stands(gate: Gate) -> None:
    name = gate.tokens.user_name("host", DEMO, HOUR)
    for text in (name, f"#!::m=publish,u={name}", f"#!::r={name},m=publish"):
        access = gate.access(parse_stream_id(text.encode()), "192.0.2.1")
        assert access.user == name


def test_each_refusal_has_its_reason(gate: Gate) -> None:
    key = gate.tokens.issue("host", [DEMO], HOUR)
    name = gate.tokens.user_name("host", DEMO, HOUR)
    assert gate.refusal("cam1") == 1404
    assert gate.refusal("#!::r=live/cam1,m=publish,u=alice") == 1404
    assert gate.refusal(f"{key}?call=livestream:other") == 1403
    assert gate.refusal(f"#!::r=livestream:other,m=publish,u={name}") == 1403
    assert gate.refusal(key[:-10]) == 1401
    assert gate.refusal(Tokens(Secret(b"x" * 32), now=lambda: gate.it.now).issue("host", [DEMO], HOUR)) == 1401
    gate.it.now += 2 * HOUR
    assert gate.refusal(key) == 1401
    assert gate.refusal(name) == 1401


async def test_a_key_that_may_have_been_made_elsewhere_a_moment_ago_is_looked_up_while_the_caller_comes_again(
    gate: Gate,
) -> None:
    await gate.it.call(DEMO)
    name = stream_keys.new_name(SECRET.value)
    key = stream_keys.whole(SECRET.value, name)
    for text in (key, f"#!::m=publish,u={name}"):
        gate.looked_up.clear()
        gate.clock += 60 * SECOND
        assert [gate.refusal(text), gate.refusal(text)] == [1402, 1402], "come again"
        assert len(gate.looked_up) == 1
        gate.clock += 2 * SECOND
        assert [gate.refusal(text), gate.refusal(text)] == [1401, 1401], "it was looked up, and there is none"
        assert len(gate.looked_up) == 1
    await gate.it.store.stream_keys.add(StreamKey(name, DEMO, "host", "host", gate.it.time))
    assert gate(key) is None
    assert gate.refusal(key[:-1] + ("a" if key[-1] != "a" else "b")) == 1401
    assert len(gate.looked_up) == 1


def test_no_room_and_shutting_down_are_overload(it: Ruling) -> None:
    full = Gate(it, room=0)
    assert full.refusal(full.tokens.user_name("host", DEMO, HOUR)) == 1402
    ending = Gate(it)
    ending.way_out.begun = True
    assert ending.refusal(ending.tokens.user_name("host", DEMO, HOUR)) == 1402


def test_a_storm_of_refusals_is_told_once(gate: Gate) -> None:
    for _ in range(50):
        gate.refusal("cam1")
    assert gate.told == [(Reason.NOT_FOUND, "192.0.2.1")]
