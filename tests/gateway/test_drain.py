"""A gateway that is sent home takes nobody new, and loses no stream that is live before it ends or the limit is reached."""

import asyncio
import signal
import stat
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from tests.peers.srt_peers import caller
from tests.peers.test_whip_junk import OFFER, SDP
from tests.support import gateway_forks
from tests.support.application import running_application
from tests.support.delivery import assert_shown, dropped
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import GatewayProcess, running_gateway
from tests.support.publishing import AAC, PROTOCOLS, Pasted, publishing
from tests.support.viewer import Viewer, watching

SIZE, RATE = (320, 240), 15
SMALL = (*programme(*SIZE, RATE), *X264_LIVE)


def call(protocol: str) -> str:
    return f"livestream:{protocol}"


async def post(gateway: GatewayProcess, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.post(gateway.url(path), headers=headers) as response:
        return response.status, await response.text()


async def command(gateway: GatewayProcess, *words: str) -> tuple[int, str]:
    """`gateway` on this machine's command line, with the configuration of the one that runs."""
    there = (f"state.directory={gateway.state}", f"http.port={0 if words[0] == 'drain' else gateway.ports['http']}")
    process = await gateway_forks.start(*words, *(part for each in there for part in ("--set", each)), environment={})
    output = await process.stdout.read()
    return await process.wait(), output.decode()


def mode_of(file: Path) -> int | None:
    """Of a file that there is."""
    return stat.S_IMODE(file.stat().st_mode) if file.exists() else None


async def refused_in_their_own_words(gateway: GatewayProcess) -> None:
    """An encoder of each protocol that comes now."""
    async with ffmpeg(*SMALL, "-f", "flv", gateway.rtmp(user="late")) as encoding:
        assert encoding.stderr is not None
        assert "shutting down" in (await encoding.stderr.read()).decode()
    async with caller(gateway.ports["srt"], gateway.key(user="late")) as (_, said):
        assert said == {"reject": 1402}
    headers = {**SDP, "Authorization": f"Bearer {gateway.key(user='late')}"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(gateway.url("/whip/livestream:demo"), data=OFFER, headers=headers) as answer,
    ):
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert "shutting down" in (await answer.json())["detail"]


async def test_no_live_stream_is_lost_and_the_process_ends_after_the_last_one() -> None:
    public = "calls.public=" + ",".join(map(call, (*PROTOCOLS, "demo")))
    async with running_gateway("shutdown.drain_s=120", "calls.linger_s=1", public) as gateway, AsyncExitStack() as viewers:
        seen: dict[str, Viewer] = {}
        async with AsyncExitStack() as encoders:
            for protocol in PROTOCOLS:
                pasted = Pasted.of_gateway(gateway, call(protocol))
                await encoders.enter_async_context(publishing(protocol, pasted, size=SIZE, rate=RATE))
            for protocol in PROTOCOLS:
                watch = watching(gateway.url(f"/whep/{call(protocol)}"))
                seen[protocol] = await viewers.enter_async_context(watch)
            for viewer in seen.values():
                await viewer.until(frames=15, audio=15)
            first = {protocol: viewer.numbers[-1] for protocol, viewer in seen.items()}
            gateway.process.terminate()
            assert (await gateway.logged("draining"))["streams"] == 3
            assert (await gateway.text("/readyz")).startswith("draining: 3 streams")
            assert await gateway.text("/livez") == "ok\n"
            await refused_in_their_own_words(gateway)
            async with watching(gateway.url(f"/whep/{call('rtmp')}")) as late:  # viewers of what is live still come in
                await late.until(frames=5)
            for protocol, viewer in seen.items():
                await viewer.until_number(first[protocol] + 45, timeout=30)
                assert_shown(viewer.numbers, first[protocol], viewer.numbers[-1], await dropped(gateway, viewer))
            assert gateway.process.returncode is None
            assert not [entry for entry in gateway.log if entry["message"] == "ended"]
        async with asyncio.timeout(60):  # the encoders have stopped: nothing is waited for any longer
            assert await gateway.process.wait() == 0
    assert all("shutting down" not in entry["why"] for entry in gateway.log if entry["message"] == "ended")


async def test_whom_the_limit_finds_is_told_and_a_second_signal_waits_for_nobody() -> None:
    for drain_s, signals in ((1, 1), (600, 2)):
        async with running_gateway(f"shutdown.drain_s={drain_s}", secret="drain" * 8) as gateway:
            async with ffmpeg(*SMALL, *AAC, "-f", "flv", gateway.rtmp()) as encoding:
                await gateway.stream()
                gateway.process.terminate()
                if signals == 2:
                    await gateway.logged("draining")
                    gateway.process.terminate()
                async with asyncio.timeout(60):
                    assert await gateway.process.wait() == 0
                    assert await encoding.wait() != 0
        (ended,) = (entry for entry in gateway.log if entry["message"] == "ended")
        assert "shutting down" in ended["why"]


async def test_who_may_open_the_operators_socket_may_ask_for_a_drain_and_nobody_else() -> None:
    async with running_gateway("calls.linger_s=0") as gateway:
        status, text = await post(gateway, "/drain")
        assert status == 403, "an address is no credential, not even this machine's"
        assert "gateway drain" in text
        assert await gateway.text("/readyz") == "ready\n"
        file = Path(gateway.state, "gateway-0.sock")
        assert mode_of(file) == 0o600
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(file))) as http:
            async with http.post("http://gateway/drain?wait_s=-1") as wrong, http.get("http://gateway/metrics") as other:
                assert (wrong.status, other.status) == (400, 404)
        async with ffmpeg(*SMALL, *AAC, "-f", "flv", gateway.rtmp()):
            await gateway.stream()
            assert await command(gateway, "drain") == (0, "The gateway takes no new streams; 1 are left.\n")
            assert (await gateway.text("/readyz")).startswith("draining: 1")
            waiting = asyncio.create_task(command(gateway, "drain", "--wait", "60s"))  # as a container's preStop does
            await gateway.stream()
        assert await waiting == (0, "The gateway takes no new streams; 0 are left.\n")
        assert await command(gateway, "live") == (0, "The gateway is well.\n")
    assert mode_of(file) is None
    code, said = await command(gateway, "live")
    assert (code, "Connection refused" in said) == (1, True)


async def test_a_state_directory_may_have_a_long_name_and_the_socket_of_a_gateway_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    async with running_gateway(f"state.directory={folder}", expect_exit=-signal.SIGKILL) as killed:
        killed.process.kill()
        await killed.process.wait()
    async with running_gateway(f"state.directory={folder}") as gateway:
        assert await command(gateway, "drain") == (0, "The gateway takes no new streams; 0 are left.\n")


async def test_from_elsewhere_it_takes_a_servers_token_for_all_calls() -> None:
    async with running_application() as application:
        path = f"/drain?api_key={application.api_key}"
        tokens = {"a user": application.token("host"), "one call": application.token(call_cids=["livestream:demo"])}
        for whose, token in tokens.items():
            assert (await post(application.gateway, path, Authorization=f"Bearer {token}"))[0] == 403, whose
        assert (await post(application.gateway, path, Authorization="Bearer nonsense"))[0] == 401
        assert await application.gateway.text("/readyz") == "ready\n"
        status, _ = await post(application.gateway, path, Authorization=f"Bearer {application.token()}")
        assert status == 200
        assert (await application.gateway.text("/readyz")).startswith("draining")
