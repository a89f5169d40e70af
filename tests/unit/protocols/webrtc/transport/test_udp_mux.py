"""One UDP port for all peers: who gets in, what costs nothing, and how a peer ends alone."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from aiortc.rtp import RtcpRrPacket

from protocols.errors import Rejected
from protocols.webrtc.transport import stun
from protocols.webrtc.transport.dtls import Certificate
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.places import Standing
from protocols.webrtc.transport.udp_mux import UdpMux
from tests.unit.protocols.webrtc.clients import (
    CONTROLLING,
    USE_CANDIDATE,
    BarePeer,
    connected,
    connection_state,
    error_code,
    rsa_certificate,
    within,
)


def receiver_report() -> bytes:
    return bytes(RtcpRrPacket(ssrc=1))


async def arrives(bare: BarePeer) -> int:
    """Send one SRTCP packet and wait until it has come out decrypted."""
    came: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def on_rtcp(packet: bytes, now: int) -> None:
        if not came.done():
            came.set_result(packet)

    bare.peer.on_rtcp = on_rtcp
    bare.send(bare.outbound.protect_rtcp(receiver_report()))
    assert await within(came) == receiver_report()
    return bare.peer.received


async def test_a_full_peer_connects_and_its_end_is_seen_at_once() -> None:
    async with UdpMux("127.0.0.1") as mux:
        async with connected(mux) as (_, peer):
            assert peer.outbound is not None
            assert mux.peers == 1
        await within(peer.closed.wait())
        assert peer.why == "closed by the peer"
        assert mux.peers == 0
        assert peer.address is None
        assert peer.outbound is None


async def test_closing_tells_the_peer_with_close_notify() -> None:
    async with UdpMux("127.0.0.1") as mux, connected(mux) as (connection, peer):
        peer.close("removed by the host")
        await connection_state(connection, "closed")
        await within(peer.closed.wait())
        assert peer.why == "removed by the host"


async def test_leaving_the_port_tells_every_peer() -> None:
    mux = UdpMux("127.0.0.1")
    await mux.__aenter__()
    async with connected(mux) as (first, _), connected(mux) as (second, _):
        await mux.__aexit__(None, None, None)
        await connection_state(first, "closed")
        await connection_state(second, "closed")


async def test_one_peers_end_leaves_the_others() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as first, BarePeer(mux) as second:
            await first.connect()
            await second.connect()
            first.peer.close("killed")
            await within(first.peer.closed.wait())
            assert await arrives(second) == 1


@pytest.mark.parametrize("setup", ["active", "passive"])
@pytest.mark.parametrize("certificate", [Certificate.generate, rsa_certificate])
async def test_peers_of_both_dtls_roles_and_certificates_connect(setup: str, certificate: Callable[[], Certificate]) -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux, certificate(), setup=setup) as bare:
            assert bare.peer.transport.setup == ("passive" if setup == "active" else "active")
            await bare.connect()
            assert await arrives(bare) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_wildcard_port_serves_ipv4_and_ipv6_alike(host: str) -> None:
    async with UdpMux() as mux:
        with BarePeer(mux, host=host) as bare:
            await bare.connect()
            assert await arrives(bare) == 1


async def test_candidates_name_the_external_addresses_ipv4_first() -> None:
    async with UdpMux("127.0.0.1", external_addresses=["2001:db8::7", "203.0.113.7", "203.0.113.8"]) as mux:
        assert [candidate.address for candidate in mux.candidates] == ["203.0.113.7", "203.0.113.8", "2001:db8::7"]
        assert [candidate.priority for candidate in mux.candidates] == sorted(
            (candidate.priority for candidate in mux.candidates), reverse=True
        )
        assert {candidate.port for candidate in mux.candidates} == {mux.port}


def test_an_external_address_that_is_none_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match="not-an-address"):
        UdpMux(external_addresses=["not-an-address"])


async def test_junk_costs_a_counter_and_ends_nothing() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            await bare.connect()
            junk = [
                b"",
                b"\x80",
                bytes(11),
                *(bytes([first]) + bytes(1600) for first in range(128, 192)),
                b"\x10" * 100,
                b"\xff" * 100,
            ]
            handshake = [b"\x16\xfe\xfd" + bytes(60), b"\x15\xfe\xfd" + bytes(30)]  # DTLS from nowhere
            media = [b"\x80\x60" + bytes(60), b"\x80\xc8" + bytes(60)]
            for datagram in junk + handshake + media:
                stranger.sendto(datagram, bare.destination)
            for datagram in junk:  # and from the peer's own address
                bare.send(datagram)
            await bare.check()  # read after all the others
            assert mux.stats.junk == 2 * len(junk)
            assert mux.stats.unknown_source == len(handshake) + len(media)
            assert not bare.peer.closed.is_set()
            await arrives(bare)


async def test_media_that_does_not_verify_is_counted_and_ends_nothing() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            await bare.connect()
            bare.peer.on_rtcp = bare.peer.on_rtp = lambda packet, now: None
            good = bare.outbound.protect_rtcp(receiver_report())
            for datagram in (b"\x80\xc9" + bytes(60), b"\x80\x60" + bytes(60), good[:-1] + bytes([good[-1] ^ 1])):
                bare.send(datagram)
            await arrives(bare)
            assert bare.peer.rejected == 3


async def test_media_on_the_heels_of_the_handshake_is_not_lost() -> None:
    """A DTLS server has its keys first: it sends its last flight and media at once, and ffmpeg's first key frame is there."""
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux, setup="passive") as bare:
            got: list[bytes] = []
            bare.peer.on_rtcp = lambda packet, now: got.append(packet)
            await bare.check(USE_CANDIDATE)
            fingerprint = bare.peer.transport.fingerprint.split()
            pump = asyncio.create_task(bare._pump())
            outbound, _ = await within(bare.dtls.handshake([(fingerprint[0], fingerprint[1])]))
            assert not bare.peer.connected.is_set()
            for _ in range(200):
                bare.send(outbound.protect_rtcp(receiver_report()))
            await within(bare.peer.connected.wait())
            pump.cancel()
            await asyncio.wait({pump})
            assert len(got) >= 128
            assert bare.peer.rejected == 0


async def test_a_flood_of_forged_checks_moves_nothing() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            await bare.connect()
            address = bare.peer.address
            wrong_password = bare.request(CONTROLLING, USE_CANDIDATE, password="x" * 32)
            nobody = stun.binding_request(bytes(12), b"nobody:here", b"y" * 22, [USE_CANDIDATE])
            broken = bytearray(bare.request(CONTROLLING, USE_CANDIDATE))
            broken[-1] ^= 1  # FINGERPRINT
            for _ in range(100):
                for datagram in (wrong_password, nobody, bytes(broken)):
                    stranger.sendto(datagram, bare.destination)
            await bare.check()  # read after all the others
            assert (mux.stats.forged, mux.stats.junk) == (200, 100)
            assert bare.peer.address == address
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):  # not one answer to what nobody signed
                stranger.recv(2048)
            await arrives(bare)


async def test_the_answer_to_a_check_names_where_it_came_from() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            response = await bare.check()
            port = int.from_bytes(response[26:28], "big") ^ 0x2112
            host = bytes(a ^ b for a, b in zip(response[28:32], b"\x21\x12\xa4\x42", strict=True))
            assert (response[:2], socket.inet_ntoa(host), port) == (b"\x01\x01", *bare.address)
            message = stun.parse(response)
            assert message is not None
            assert message.authentic(bare.peer.transport.ice.password.encode())


async def test_a_peer_that_believes_itself_controlled_hears_of_the_conflict() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            bare.send(bare.request((stun.Attribute.ICE_CONTROLLED, bytes(8)), USE_CANDIDATE))
            assert error_code(await bare.receive()) == 487
            assert bare.peer.address is None


async def test_an_attribute_that_must_be_understood_is_refused() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            bare.send(bare.request((0x7FFE, b"ab"), USE_CANDIDATE))
            response = await bare.receive()
            assert error_code(response) == 420
            assert b"\x00\x0a\x00\x02\x7f\xfe" in response
            assert bare.peer.address is None
            assert (await bare.check((0xC057, bytes(4)), USE_CANDIDATE))[:2] == b"\x01\x01"  # may be ignored


async def test_a_connected_peer_may_move_once_it_has_answered_from_there() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            await bare.connect()
            before = bare.peer.address
            bare.move()
            await bare.check(USE_CANDIDATE)
            challenge = stun.parse(await bare.receive())
            assert challenge is not None
            assert challenge.ufrag.decode() == bare.ufrag
            assert challenge.authentic(bare.password.encode())
            assert bare.peer.address == before  # the source of a check can be forged

            bare.send(stun.success(challenge.transaction, "127.0.0.1", mux.port, b"not the password"))
            bare.send(stun.success(bytes(12), "127.0.0.1", mux.port, bare.password.encode()))
            bare.send(stun.success(challenge.transaction, "127.0.0.1", mux.port, bare.password.encode()))
            await arrives(bare)
            assert bare.peer.address == bare.address
            assert mux.stats.forged == 2


async def test_a_check_that_nominates_nothing_does_not_move_a_peer() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            await bare.connect()
            before = bare.peer.address
            bare.move()
            await bare.check()
            assert await arrives(bare) == 1  # media is taken from there, and sent to where it was
            assert bare.peer.address == before


async def test_no_peer_takes_the_address_of_another_that_is_alive() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare, BarePeer(mux) as thief:
            await bare.connect()
            bare.send(thief.request(CONTROLLING, USE_CANDIDATE))  # as if the thief had forged the source
            await bare.receive()
            assert thief.peer.address is None
            assert await arrives(bare) == 1


async def test_ice_restart_keeps_the_session_and_retires_the_old_credentials() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            await bare.connect()
            old = bare.request(CONTROLLING, USE_CANDIDATE)
            bare.ufrag, bare.password = "restarted", "p" * 24
            bare.peer.restart(bare.offer().ice)
            bare.send(old)
            assert (await bare.receive())[:2] == b"\x01\x01"  # until the new ones are used
            assert (await bare.check(USE_CANDIDATE))[:2] == b"\x01\x01"
            bare.send(old)
            await arrives(bare)
            assert mux.stats.forged == 1
            assert not bare.peer.closed.is_set()


async def test_silence_ends_a_peer_and_checks_keep_it() -> None:
    async with UdpMux("127.0.0.1", limits=Limits(consent=0.4)) as mux:
        with BarePeer(mux) as bare, BarePeer(mux) as silent:
            await silent.connect()
            await bare.connect()
            while not silent.peer.closed.is_set():
                await bare.check(USE_CANDIDATE)
            assert silent.peer.why == "consent lost"
            assert not bare.peer.closed.is_set()
            await within(bare.peer.closed.wait())
            assert mux.stats.consent_lost == 2


class CountingLoop(asyncio.SelectorEventLoop):
    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()  # type: ignore[misc]


def test_peers_that_never_connect_cost_nothing_and_are_dropped() -> None:
    async def run(loop: CountingLoop) -> None:
        async with UdpMux("127.0.0.1", limits=Limits(connect=0.5, peers=60)) as mux:
            checked = [BarePeer(mux) for _ in range(20)]
            silent = [BarePeer(mux) for _ in range(40)]
            with pytest.raises(Rejected):
                BarePeer(mux)
            for bare in checked:
                await bare.check(USE_CANDIDATE)
            before = loop.turns
            for bare in checked + silent:
                await within(bare.peer.closed.wait())
                bare.socket.close()
            assert {bare.peer.why for bare in checked + silent} == {"never connected"}
            assert mux.stats.never_connected == 60
            assert mux.peers == 0
            assert loop.turns - before < 8 * 60  # a few turns for each, however long they are waited for

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        runner.run(run(loop))


async def test_a_stuck_handshake_holds_its_place_only_for_a_while() -> None:
    async with UdpMux("127.0.0.1", limits=Limits(handshakes=1, handshake=0.3)) as mux:
        with BarePeer(mux, setup="passive") as stuck, BarePeer(mux) as waiting:
            await stuck.check(USE_CANDIDATE)  # we are the DTLS client, and it never answers
            await stuck.receive()
            await waiting.connect()
            await within(stuck.peer.closed.wait())
            assert stuck.peer.why == "the DTLS handshake took too long"
            assert mux.stats.handshakes_failed == 1


async def test_one_client_may_have_only_so_many_peers() -> None:
    async with UdpMux("127.0.0.1", limits=Limits(peers_per_client=2)) as mux:
        with BarePeer(mux) as bare:
            offer = bare.offer()
            first = mux.add(offer, mux.take("2001:db8::1", Standing.ANONYMOUS))
            mux.add(offer, mux.take("2001:db8::2", Standing.ANONYMOUS))
            with pytest.raises(Rejected):
                mux.add(offer, mux.take("2001:db8::3", Standing.ANONYMOUS))  # the same /64
            mux.add(offer, mux.take("203.0.113.1", Standing.ANONYMOUS))
            first.close()
            await within(first.closed.wait())
            mux.add(offer, mux.take("2001:db8::3", Standing.ANONYMOUS))


async def test_a_peer_has_a_bounded_number_of_addresses() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with BarePeer(mux) as bare:
            await bare.connect()
            original = bare.socket
            extra = []
            for _ in range(40):
                bare.socket = bare._open()
                extra.append(bare.socket)
                await bare.check()
            for each in extra:
                each.close()
            bare.socket = original
            assert await arrives(bare) == 1
            assert len(bare.peer._addresses) == 16


async def test_reading_is_bounded_for_each_turn_of_the_loop() -> None:
    async with UdpMux("127.0.0.1") as mux:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for _ in range(200):
                stranger.sendto(b"junk" * 10, ("127.0.0.1", mux.port))
            seen = set()
            for _ in range(1000):
                before = mux.stats.received
                await asyncio.sleep(0)
                seen.add(mux.stats.received - before)
            assert mux.stats.received == 200
            assert max(seen) <= 64


@pytest.mark.parametrize("local", ["127.0.0.2", "127.0.0.3"])
async def test_what_we_send_comes_from_the_address_that_was_asked(local: str) -> None:
    async with UdpMux() as mux:
        with BarePeer(mux) as bare:
            bare.destination = (local, mux.port)
            bare.send(bare.request(CONTROLLING, USE_CANDIDATE))
            loop = asyncio.get_running_loop()
            answer, source = await within(loop.sock_recvfrom(bare.socket, 2048))
            assert answer[:2] == b"\x01\x01"  # a success
            assert source == (local, mux.port)
            assert bare.peer.address is not None
            bare.peer.egress.send(memoryview(bytes(3000)), 1000, bare.peer.address)
            media = [await within(loop.sock_recvfrom(bare.socket, 2048)) for _ in range(3)]
            assert [(len(data), source) for data, source in media] == [(1000, (local, mux.port))] * 3
