"""What metrics are made of: the last minute of a histogram, ends of certificates, dropped datagrams, and CPU by treatment."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.node.host import Certificates, udp_drops
from gateway.sessions.diagnostics import Concern, findings
from gateway.sessions.pacer import LiveEdgePolicy
from gateway.sessions.seat import Seat, SeatPolicy
from gateway.sessions.seat_state import SeatState
from gateway.sessions.socket_watch import WatchPolicy
from gateway.sessions.stream_figures import FIGURES, Figure, spread
from gateway.telemetry.latency import Histogram, Window
from protocols.media import Kind, Lack, LeftOut
from tests.support.memory import EnoughRoom, MemoryCall, MemoryPublisher
from transcode.host.pool import Workers
from transcode.plan import Policy, plan

MS = 1_000_000
S = 1_000_000_000
NOW = datetime(2030, 1, 1, tzinfo=UTC)

UDP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  300: 00000000:1FFD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1001 2 0000000000000000 7
  301: 0100007F:2328 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1002 2 0000000000000000 30
  302: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1003 2 0000000000000000 999
"""
UDP6 = """\
  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode ref pointer drops
  303: 00000000000000000000000000000000:2328 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 1004 2 0000000000000000 12
"""


def test_a_window_tells_of_the_last_minute_only() -> None:
    histogram, window = Histogram(), Window()
    for second in range(120):
        histogram.observe(150 * MS if second < 40 else 4 * MS)
        recent = window.recent(histogram, second * S)
    assert histogram.quantile(0.95) == pytest.approx(195, rel=0.05)
    assert (recent.quantile(0.99) or 0) <= 5
    assert 60 <= recent.count <= 70


def test_a_window_is_empty_when_nothing_comes_any_more() -> None:
    histogram, window = Histogram(), Window()
    histogram.observe(MS)
    assert window.recent(histogram, 0).count == 1
    for second in range(0, 200, 15):
        recent = window.recent(histogram, second * S)
    assert recent.quantile(0.5) is None


def test_a_window_that_is_seldom_asked_tells_of_the_time_since() -> None:
    histogram, window = Histogram(), Window()
    for hour in range(4):
        for _ in range(100):
            histogram.observe(MS)
        assert window.recent(histogram, hour * 3600 * S).count == (100 if hour != 1 else 200)


def test_datagrams_dropped_at_our_ports_are_added_up_over_both_families(tmp_path: Path) -> None:
    (tmp_path / "udp").write_text(UDP)
    (tmp_path / "udp6").write_text(UDP6)
    tables = (str(tmp_path / "udp"), str(tmp_path / "udp6"), str(tmp_path / "missing"))
    assert udp_drops({0x1FFD: "webrtc", 0x2328: "srt"}, tables) == {"webrtc": 7, "srt": 42}
    assert udp_drops({1: "webrtc"}, tables) == {}


def test_the_end_of_a_certificate_is_told_and_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "chain.pem"
    file.write_bytes(certificate(days=90) + certificate(days=30))
    certificates = Certificates({"http": str(file), "rtmps": ""})
    assert list(certificates.remaining(NOW.timestamp)) == [("http", 30 * 86400)]
    file.write_bytes(certificate(days=-1))
    assert list(certificates.remaining(NOW.timestamp)) == [("http", -86400)]
    file.unlink()
    assert list(certificates.remaining(NOW.timestamp)) == [("http", -86400)]


def test_a_file_without_a_certificate_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "nothing.pem"
    file.write_text("nothing")
    assert list(Certificates({"http": str(file)}).remaining(NOW.timestamp)) == []


async def test_figures_of_streams_are_spread_by_protocol_and_only_live_ones_count() -> None:
    figure = Figure("frame_rate", "…", lambda session: float(session.user_id), FIGURES[0].shown + FIGURES[1].shown)
    sessions = [session(user) for user in ("25", "30", "60", "0", "5")]
    sessions[-1].state = SeatState.SLATE
    found = {(protocol, statistic): value for protocol, statistic, value in spread(figure, sessions)}
    assert found == {("rtmp", "lowest"): 25, ("rtmp", "median"): 30, ("rtmp", "highest"): 60}


async def test_what_is_not_well_with_a_stream_is_told_with_its_name() -> None:
    absent = session("ada")
    absent.state, absent.why_ended = SeatState.SLATE, "the encoder ended the stream"
    (finding,) = findings(absent, 0)
    assert (finding.concern, "the encoder ended the stream" in finding.text) == (Concern.ENCODER_GONE, True)
    assert list(findings(session("eve"), 0)) == []


async def test_what_is_left_out_is_a_finding_with_its_number() -> None:
    seat = session("ada")
    assert isinstance(seat.publisher, MemoryPublisher)
    seat.publisher.stats.packets_unreadable = 3
    seat.left_out += [
        LeftOut(Lack.CODEC, Kind.VIDEO, "The video is VP6."),
        LeftOut(Lack.TRACK, Kind.AUDIO, "Track 1 is left out."),
        LeftOut(Lack.NO_HEADER, Kind.AUDIO, "There is no header."),
        LeftOut(Lack.UNREADABLE, None, "A part cannot be read."),
    ]
    assert [(finding.concern.value, finding.text) for finding in findings(seat, 0)] == [
        ("codec_not_taken", "The video is VP6."),
        ("track_left_out", "Track 1 is left out."),
        ("no_header", "There is no header."),
        ("unreadable", "A part cannot be read. 3 so far."),
    ]
    assert {each.value for each in Lack} <= {each.value for each in Concern}


def session(user: str) -> Seat:
    """A live one without media."""
    policy = SeatPolicy(
        decide=lambda track, want: plan(track, want, Policy()),
        live_edge=LiveEdgePolicy(),
        watch=WatchPolicy(),
        linger_s=0,
        max_bitrate=0,
        on_retired=lambda protocol, totals: None,
        room=EnoughRoom(),
        on_change=lambda seat, change: None,
    )
    made = Seat(MemoryPublisher(), user, "livestream:demo", [MemoryCall()], Workers(), policy)
    made.state = SeatState.LIVE
    return made


def certificate(days: int) -> bytes:
    """PEM of one that ends that many days after `NOW`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(NOW - timedelta(days=100)).not_valid_after(NOW + timedelta(days=days))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
