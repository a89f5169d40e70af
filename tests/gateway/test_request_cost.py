"""What one request may cost, whatever stands in it: compressed bodies, parameters without end, numbers and nesting that no parser likes.
Each is answered by the gateway's own words and costs what its bytes allow; a bomb is not unpacked even to be thrown away.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

import psutil

from tests.support.application import BASE, Application, running_application
from tests.unit.protocols.webrtc.hostile import offers

ROUNDS: Final = 8  # the clock of a process's CPU has steps of 10 ms
DEAREST_S: Final = 0.03  # of CPU for one request of 64 KB, on a machine that does other things too
UNBOUNDED: Final = ("auth.max_failures_per_minute=0", "quotas.requests_per_minute=0", "quotas.lists_per_minute=0")
CALLS: Final = f"{BASE}/calls"
EVENT: Final = f"{BASE}/call/livestream:demo/event".replace(":", "/")
LIVE: Final = "/api/streams"


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    said = {"Host": "here", "Connection": "close", "Content-Length": str(len(body))} | headers
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in said.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def bombs(server: str) -> Mapping[str, bytes]:
    packed = {"gzip": gzip.compress(b"[" * (64 << 20), 9), "deflate": zlib.compress(b" " * (64 << 20), 9)}
    ways = {
        **{f"{kind} for a list": (CALLS, server) for kind in packed},
        **{f"{kind} of a stranger": (CALLS, "nobody") for kind in packed},
        **{f"{kind} for WHIP": ("/whip/livestream:demo", server) for kind in packed},
        **{f"{kind} for nothing": ("/nothing", server) for kind in packed},
        **{f"{kind} for draining": ("/drain", "nobody") for kind in packed},
    }
    return {
        name: request("POST", path, packed[name.split()[0]], Content_Encoding=name.split()[0], Authorization=token)
        for name, (path, token) in ways.items()
    }


def headers(server: str) -> Mapping[str, bytes]:
    def typed(text: str, path: str = CALLS) -> bytes:
        return request("POST", path, b"{}", Content_Type=text, Authorization=server)

    return {
        "parameters of a type": typed("application/json" + ';a="' * 2000),
        "continued parameters": typed("application/json" + ";a*0*=" * 1100),
        "parameters of an offer's": typed("application/sdp" + ';a="' * 2000, "/whip/livestream:demo"),
        "parameters of a change's": request("PATCH", "/whep/livestream:demo/x", Content_Type="a/b" + ';a="' * 2000),
        "entity tags": request("GET", "/", If_None_Match='"a",' * 2000 + '"'),
        "weak entity tags": request("GET", "/", If_None_Match="W/" * 4000),
        "proxies": request("GET", LIVE, X_Forwarded_For="1," * 4000),
        "cookies": request("GET", LIVE, Cookie="a=b;" * 2000),
        "kinds of answer": request("POST", "/whep/livestream:demo", b"v=0", Content_Type="application/sdp", Accept=",;" * 4000),
        "a query": request("GET", f"{LIVE}?{'a=b&' * 2000}"),
        "a path": request("GET", "/hls/" + "%2f" * 2600),
    }


def bodies(server: str) -> Mapping[str, bytes]:
    def sent(body: bytes, path: str = CALLS) -> bytes:
        return request("POST", path, body, Content_Type="application/json", Authorization=server)

    def custom(text: str) -> bytes:
        return sent(f'{{"user_id": "a", "custom": {{"a": {text}}}}}'.encode(), EVENT)

    members: Any = {"$in": [f"a{number}" for number in range(100)]}
    return {
        "a list nested deep": sent(b'{"filter_conditions":{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}}"),
        "objects nested deep": sent(b'{"filter_conditions":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}"),
        "open lists": sent(b"[" * 65_000),
        "custom data nested deep": custom("[" * 190 + "]" * 190),
        "a long number": sent(b'{"limit":' + b"9" * 60_000 + b"}"),
        "a long number in custom data": custom("9" * 5000),
        "no number": custom("NaN"),
        "infinity": custom("1e999"),
        "half a character": custom('"\\ud800"'),
        "fields that there are not": sent(b"{" + b",".join(b'"f%d":1' % each for each in range(6000)) + b"}"),
        "fields that nearly are": sent(b"{" + b",".join(b'"filter_condition%d":1' % each for each in range(2500)) + b"}"),
        "a long field": sent(b'{"' + b"a" * 60_000 + b'":1}'),
        "sort orders": sent(json.dumps({"sort": [{"field": "created_at", "direction": 2}] * 1400}).encode()),
        "conditions": sent(json.dumps({"filter_conditions": {"$or": [{"members": members}] * 40}}).encode()),
        "a time": sent(b'{"filter_conditions":{"created_at":"' + b"9" * 60_000 + b'"}}'),
        "a cursor": sent(b'{"next":"' + b"A" * 1024 + b'"}'),
    }


def without_a_key() -> Mapping[str, bytes]:
    """The largest offers that there are, of somebody who may not publish."""
    path = "/whip/livestream:demo"
    return {
        f"an offer without a key: {name}": request(
            "POST", path, body, Content_Type="application/sdp", Authorization="Bearer none"
        )
        for name, body in offers().items()
    }


async def answered(application: Application, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", application.gateway.ports["http"])
    writer.write(sent)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_no_request_costs_more_than_its_bytes_allow() -> None:
    async with running_application(*UNBOUNDED) as application:
        demo = {"data": {"created_by_id": "john", "members": [{"user_id": "john", "role": "host"}]}}
        await application.ok("POST", "/call/livestream/demo", demo)
        process = psutil.Process(application.gateway.pid)
        server = application.token()
        dear = {}
        for name, sent in {**bombs(server), **headers(server), **bodies(server), **without_a_key()}.items():
            held, before = process.memory_info().rss, sum(process.cpu_times()[:2])
            for _ in range(ROUNDS):
                answer = await answered(application, sent)
                assert answer.startswith(b"HTTP/1.1 "), name
                assert not answer.startswith(b"HTTP/1.1 500"), (name, answer)
            cost = (sum(process.cpu_times()[:2]) - before) / ROUNDS
            grown = process.memory_info().rss - held
            if cost > DEAREST_S or grown > 16 << 20:
                dear[name] = f"{cost:.3f} s, {grown >> 20} MiB"
        assert not dear
        assert not [entry for entry in application.gateway.log if entry["level"] in ("error", "raw")]
