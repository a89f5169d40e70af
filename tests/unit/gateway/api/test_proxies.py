"""Whose request it is: the chain of addresses is believed as far back as trusted proxies wrote it."""

from ipaddress import ip_network

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.proxies import ClientsSeen, client_of, forwarded

TRUSTED = [ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("10.0.0.0/8")]


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # a client may write what it likes
        ("127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("::ffff:127.0.0.1", "198.51.100.7", "198.51.100.7"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.7, 10.0.0.3", "198.51.100.7"),
        ("::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", ",", "127.0.0.1"),
        ("127.0.0.1", ",".join(["10.0.0.1"] * 500), "10.0.0.1"),
        ("", "198.51.100.7", ""),
    ],
)
def test_the_chain_is_believed_as_far_as_it_was_written_by_proxies(peer: str, chain: str, client: str) -> None:
    assert client_of(peer, chain, TRUSTED) == client


async def test_handlers_see_the_client_and_the_body_is_still_there() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.match_info['name']} {request.remote} {await request.text()}")

    application = web.Application(middlewares=[forwarded(TRUSTED)])
    application.router.add_post("/{name}", handler)
    async with TestClient(TestServer(application)) as client:
        for headers, remote in (({}, "127.0.0.1"), ({"X-Forwarded-For": "192.0.2.1"}, "192.0.2.1")):
            async with client.post("/x", data="body", headers=headers) as response:
                assert await response.text() == f"x {remote} body"


@pytest.mark.parametrize(
    ("addresses", "warned"),
    [
        (["172.18.0.1"] * 300, 1),
        (["::ffff:10.0.0.9"] * 300, 1),
        (["fd00::9"] * 300, 1),
        (["172.18.0.1"] * 99, 0),
        (["172.18.0.1"] * 99 + ["172.18.0.2"] * 300, 0),
        (["198.51.100.7", *["172.18.0.1"] * 300], 0),
        (["8.8.8.8"] * 300, 0),
        (["127.0.0.1"] * 300, 0),
        ([""] * 300, 0),
    ],
)
def test_all_clients_at_one_private_address_are_a_proxy_that_nobody_told_of(addresses: list[str], warned: int) -> None:
    seen = ClientsSeen()
    assert sum(map(seen.are_one_in_private, addresses)) == warned
