"""Which SRT callers may publish: both forms of a stream id, each refusal with its reason, and nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.access import stream_keys
from gateway.access.credentials import Secret, Tokens
from gateway.access.srt_authorizer import SrtAuthorizer
from gateway.model.records import StreamKey
from gateway.sessions.admission import Admission
from gateway.sessions.registry import Registry
from gateway.store.store import Store
from gateway.telemetry.tracing import untraced
from protocols.errors import Reason, Rejected
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
        self.clock = 100 * SECOND
        self.way_out = WayOut()
        registry = Registry(lambda cid, on_empty: MemoryCall())  # type: ignore[arg-type,return-value]
        self.admission = Admission(
            registry,
            it.authorizer,
            Workers(),
            (),
            max_sessions=room,
            on_conflict="take_over",
            closing=self.way_out,
            adapt=lambda policy, grant: policy,
            fits=unheard,
            on_refused=unheard,
            trace=untraced,
        )
        self.access = SrtAuthorizer(
            it.authorizer.authenticator.password,
            it.authorizer.prepare,
            self.admission.examine,
            lambda refusal, host: self.told.append((refusal.reason, host)),
            lambda: self.clock,
        )

    async def passphrase(self, text: str) -> str | None:
        """What a caller with this stream id needs."""
        return (await self.access(parse_stream_id(text.encode()), "192.0.2.1")).passphrase

    async def refusal(self, text: str) -> int:
        with pytest.raises(Rejected) as caught:
            await self.passphrase(text)
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
async def test_a_user_name_needs_its_password_as_the_passphrase_and_a_key_none(gate: Gate, form: str) -> None:
    name = gate.tokens.user_name("host", DEMO, HOUR)
    assert await gate.passphrase(form.format(name)) == gate.tokens.password(name) is not None
    assert await gate.passphrase(form.format(gate.tokens.issue("host", [DEMO], HOUR))) is None


async def test_the_passphrase_proves_the_user_wherever_the_name_stands(gate: Gate) -> None:
    name = gate.tokens.user_name("host", DEMO, HOUR)
    for text in (name, f"#!::m=publish,u={name}", f"#!::r={name},m=publish"):
        access = await gate.access(parse_stream_id(text.encode()), "192.0.2.1")
        assert access.user == name


async def test_each_refusal_has_its_reason(gate: Gate) -> None:
    key = gate.tokens.issue("host", [DEMO], HOUR)
    name = gate.tokens.user_name("host", DEMO, HOUR)
    assert await gate.refusal("cam1") == 1404
    assert await gate.refusal("#!::r=live/cam1,m=publish,u=alice") == 1404
    assert await gate.refusal(f"{key}?call=livestream:other") == 1403
    assert await gate.refusal(f"#!::r=livestream:other,m=publish,u={name}") == 1403
    assert await gate.refusal(key[:-10]) == 1401
    assert await gate.refusal(Tokens(Secret(b"x" * 32), now=lambda: gate.it.now).issue("host", [DEMO], HOUR)) == 1401
    gate.it.now += 2 * HOUR
    assert await gate.refusal(key) == 1401
    assert await gate.refusal(name) == 1401


async def test_what_is_not_in_memory_is_looked_up(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    async with ruling(url) as it, Store.open(url) as elsewhere:  # nothing follows the store here
        gate = Gate(it)
        await it.call(DEMO, host="host")
        name = stream_keys.new_name(SECRET.value)
        key = stream_keys.whole(SECRET.value, name)
        for text in (key, f"#!::m=publish,u={name}"):
            assert await gate.refusal(text) == 1401, "there is none"
        await elsewhere.stream_keys.add(StreamKey(name, DEMO, "host", "host", it.time))
        assert await gate.passphrase(key) is None
        assert await gate.passphrase(name) == stream_keys.password(SECRET.value, name)
        assert await gate.refusal(key[:-1] + ("a" if key[-1] != "a" else "b")) == 1401


async def test_no_room_and_shutting_down_are_overload(it: Ruling) -> None:
    full = Gate(it, room=0)
    assert await full.refusal(full.tokens.user_name("host", DEMO, HOUR)) == 1402
    ending = Gate(it)
    ending.way_out.begun = True
    assert await ending.refusal(ending.tokens.user_name("host", DEMO, HOUR)) == 1402


async def test_a_storm_of_refusals_is_told_once(gate: Gate) -> None:
    for _ in range(50):
        await gate.refusal("cam1")
    assert gate.told == [(Reason.NOT_FOUND, "192.0.2.1")]
