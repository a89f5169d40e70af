"""Handshakes that are begun and left: who waits holds up nobody, who does not answer gets little, and nobody loses their address."""

import asyncio
import time
from contextlib import ExitStack

import pytest

from protocols.errors import Rejected
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.dtls import Certificate, DtlsSession
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from tests.unit.protocols.webrtc.clients import CONTROLLING, USE_CANDIDATE, BarePeer, within

SECOND = 1_000_000_000
STRANGER = "127.0.0.2"


async def drained(bare: BarePeer, seconds: float) -> list[bytes]:
    """What comes in so many seconds."""
    got: list[bytes] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                got.append(await asyncio.get_running_loop().sock_recv(bare.socket, 2048))
    except TimeoutError:
        return got


def dtls(datagrams: list[bytes]) -> list[bytes]:
    return [each for each in datagrams if 19 < each[0] < 64]


async def client_hello(certificate: Certificate) -> bytes:
    """The first flight of another handshake each time."""
    said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def say(datagram: bytes) -> None:
        if not said.done():
            said.set_result(datagram)

    client = DtlsSession(certificate, active=True, send=say)
    attempt = asyncio.create_task(client.handshake([("sha-256", "AA")]))
    hello: bytes = await within(said)
    attempt.cancel()
    await asyncio.wait({attempt})
    return hello


async def test_handshakes_that_wait_hold_up_nobody() -> None:
    """Sixteen of them held all the places for five seconds."""
    async with UdpMux() as mux:
        with ExitStack() as stack, BarePeer(mux) as other:
            certificate = Certificate.generate()
            for _ in range(40):
                stuck = stack.enter_context(BarePeer(mux, certificate, setup="passive", host=STRANGER))
                await stuck.check(USE_CANDIDATE)  # we are the DTLS client, and it never answers
            begun = time.monotonic()
            await other.connect()
            assert time.monotonic() - begun < 2


async def test_one_address_has_few_unfinished_handshakes() -> None:
    limits = Limits(handshakes_per_client=3, handshake=0.4)
    async with UdpMux(limits=limits) as mux:
        with ExitStack() as stack, BarePeer(mux) as other:
            waiting = [stack.enter_context(BarePeer(mux, setup="passive", host=STRANGER)) for _ in range(5)]
            for stuck in waiting:
                await stuck.check(USE_CANDIDATE)
            await other.connect()
            assert mux.stats.handshakes == 3 + 1
            for stuck in waiting:
                await within(stuck.peer.closed.wait())
            assert mux.stats.handshakes == 5 + 1
            assert mux.stats.handshakes_failed == 5
            assert mux._shared is not None
            assert not mux._shared.handshakes._clients


async def test_an_address_that_does_not_answer_gets_three_flights() -> None:
    async with UdpMux("127.0.0.1", limits=Limits(handshake=1.6)) as mux:
        with BarePeer(mux, setup="passive") as victim:
            await victim.check(USE_CANDIDATE)
            assert len(dtls(await drained(victim, 1.5))) == 3


async def test_who_forges_the_source_of_hellos_makes_us_send_three_flights() -> None:
    async with UdpMux("127.0.0.1", limits=Limits(handshake=1.6)) as mux:
        with BarePeer(mux) as victim:
            await victim.check(USE_CANDIDATE)
            for _ in range(30):
                victim.send(await client_hello(victim.certificate))
            flights = dtls(await drained(victim, 1.5))
            assert 1 <= len([each for each in flights if each[0] == 22]) <= 3
            assert sum(map(len, flights)) < 30 * 150  # no more than what was sent in its name


async def test_who_answers_our_check_gets_what_was_held_back() -> None:
    """On a way that loses much; a peer that never answers has only its three flights."""
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux, setup="passive") as bare:
            await bare.check(USE_CANDIDATE)
            while True:  # three flights are lost
                datagram = await bare.receive()
                check = stun.parse(datagram)
                if check is not None and check.type is stun.Type.REQUEST:
                    break
            bare.send(stun.success(check.transaction, "127.0.0.1", mux.port, bare.password.encode()))
            pump = asyncio.create_task(bare._pump())
            fingerprint = bare.peer.transport.fingerprint.split()
            await within(bare.dtls.handshake([(fingerprint[0], fingerprint[1])]))
            await within(bare.peer.connected.wait())
            pump.cancel()
            await asyncio.wait({pump})


async def test_a_connected_peer_keeps_its_address_until_its_consent_is_lost() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare, BarePeer(mux) as thief:
            await bare.connect()
            port = mux._shared
            assert port is not None
            later = time.monotonic_ns() + 14 * SECOND  # its checks are that long ago: others send one every five seconds
            check = thief.request(CONTROLLING, USE_CANDIDATE)
            mux._receive(port, check, [], bare.address, later)
            assert thief.peer.address is None
            assert port.by_address[bare.address] is bare.peer
            bare.peer.close("consent lost")
            await within(bare.peer.closed.wait())
            mux._receive(port, check, [], bare.address, later)
            assert thief.peer.address == bare.address


async def test_an_address_that_was_only_claimed_goes_to_who_comes_later() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as thief, BarePeer(mux) as bare:
            port = mux._shared
            assert port is not None
            mux._receive(port, thief.request(CONTROLLING, USE_CANDIDATE), [], bare.address, time.monotonic_ns() - 6 * SECOND)
            assert port.by_address[bare.address] is thief.peer
            await bare.connect()


async def test_few_unconnected_peers_of_one_address() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with ExitStack() as stack:
            made = [
                stack.enter_context(BarePeer(mux, standing=Standing.ANONYMOUS, client="203.0.113.1"))
                for _ in range(Limits().unconnected_per_client)
            ]
            with pytest.raises(Rejected, match="not connected yet"):
                BarePeer(mux, standing=Standing.ANONYMOUS, client="203.0.113.1")
            stack.enter_context(BarePeer(mux, standing=Standing.PUBLISHER, client="203.0.113.1"))
            await made[0].connect()
            stack.enter_context(BarePeer(mux, standing=Standing.ANONYMOUS, client="203.0.113.1"))


async def test_media_goes_between_the_steps_of_many_handshakes() -> None:
    """In no turn of the loop are there more steps than may be."""
    async with UdpMux("127.0.0.1", limits=Limits(handshakes=2, handshakes_per_client=64)) as mux:
        assert mux._shared is not None
        handshakes, turns = mux._shared.handshakes, [0]
        taken: dict[int, int] = {}

        async def step() -> None:
            await handshakes.turn()
            taken[turns[0]] = taken.get(turns[0], 0) + 1

        steps = [asyncio.create_task(step()) for _ in range(40)]
        while not all(each.done() for each in steps):
            await asyncio.sleep(0)
            turns[0] += 1
        assert sum(taken.values()) == 40
        assert max(taken.values()) <= 2
