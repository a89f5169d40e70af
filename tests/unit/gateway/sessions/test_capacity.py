"""What streams cost is learned from those that are live, and one that does not fit is refused with the figures."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.node.cpu import available_cores, available_memory
from gateway.outputs.hls.seat_output import HlsSeatOutput
from gateway.sessions.capacity import (
    SETTLING_NS,
    Capacity,
    CostKind,
    Demand,
    OutputCost,
    Seen,
    VideoCost,
    demand,
    kind_of_video,
    spare,
)
from protocols.errors import Reason, Rejected
from protocols.media import Codec, Track
from tests.support.memory import as_a_call
from transcode.plan import Policy, cores, plan
from transcode.settings import MadeCodec

S = 1_000_000_000
ACCEPTS = frozenset({Codec.H264, Codec.OPUS})
FULL_HD = Demand(video=(VideoCost(1920, 1080, 30.0),))
NOTHING = Demand()
HLS = HlsSeatOutput.overhead
_PERIOD = "cpu,cpuacct/docker/x/cpu.cfs_period_us"


class Gateway:
    """Streams that use the cores that they are said to use, sampled every two seconds."""

    def __init__(self, have: float = 2.0, reserve: float = 0.1, enforced: bool = True) -> None:
        self.capacity = Capacity(have, reserve, enforced)
        self.streams: dict[str, tuple[Demand, float]] = {}
        self.economised: set[str] = set()
        self.loop = 0.0  # cores
        self.viewers = 0
        self._now = self._loop_cpu = 0
        self._cpu: dict[str, int] = {}

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds // 2)):
            self._now += 2 * S
            self._loop_cpu += int(self.loop * 2 * S)
            for name, (_, used) in self.streams.items():
                self._cpu[name] = self._cpu.get(name, 0) + int(used * 2 * S)
            self.capacity.sample(
                self._now,
                loop_cpu_ns=self._loop_cpu,
                process_cpu_ns=self._loop_cpu,
                streams={
                    n: Seen(d, self._cpu[n], n in self.economised, optional=bool(d.outputs))
                    for n, (d, _) in self.streams.items()
                },
                viewers=self.viewers,
            )

    def come(self, name: str, wanted: Demand, used: float) -> None:
        self.capacity.admit(name, wanted)
        self.streams[name] = wanted, used

    def refusal(self, wanted: Demand) -> str:
        """Why another such stream is refused; empty when it is let in."""
        try:
            self.capacity.admit("another", wanted)
        except Rejected as refusal:
            return refusal.detail if refusal.reason is Reason.OVERLOADED else f"wrongly {refusal.reason}"
        return ""

    @property
    def costs(self) -> dict[str, float]:
        return dict(self.capacity.costs())


H264 = Track(id=0, codec=Codec.H264, width=1280, height=720, frame_rate=25.0, reorder=0)
OPUS = Track(id=1, codec=Codec.OPUS, sample_rate=48000, channels=2)
AAC = Track(id=1, codec=Codec.AAC, sample_rate=48000, channels=2)
HEVC = Track(id=0, codec=Codec.HEVC, width=3840, height=2160, frame_rate=25.0)


@pytest.mark.parametrize(
    ("tracks", "wanted"),
    [
        ((H264, OPUS), Demand()),
        ((H264, AAC), Demand(audio=1)),
        ((HEVC, AAC), Demand(audio=1, video=(VideoCost(1920, 1080, 25.0),))),  # it is the size that comes out which costs
        ((), Demand()),
    ],
)
def test_what_a_stream_asks_for_is_what_the_plan_makes_anew(tracks: tuple[Track, ...], wanted: Demand) -> None:
    assert demand(plan(track, as_a_call(ACCEPTS), Policy()) for track in tracks) == wanted
    assert wanted.transcodes is (wanted != Demand())


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ((320, 240), CostKind.VIDEO_360P),
        ((640, 360), CostKind.VIDEO_360P),
        ((540, 960), CostKind.VIDEO_540P),
        ((1280, 720), CostKind.VIDEO_720P),
        ((0, 0), CostKind.VIDEO_720P),
        ((1080, 1920), CostKind.VIDEO_1080P),
        ((2560, 1440), CostKind.VIDEO_LARGER),
    ],
)
def test_kinds_of_video_by_size(size: tuple[int, int], kind: CostKind) -> None:
    assert kind_of_video(*size) is kind


@pytest.mark.parametrize(
    ("kind", "wanted", "used"),
    [
        ("audio", Demand(audio=1), 0.05),
        ("audio", Demand(audio=2), 0.10),
        ("video_1080p", FULL_HD, 0.8),
        ("video_1080p", FULL_HD, 0.2),
        ("video_720p", Demand(video=(VideoCost(1280, 720, 30.0),)), 0.6),
    ],
)
def test_costs_are_learned_from_what_workers_use(kind: str, wanted: Demand, used: float) -> None:
    gateway = Gateway(have=16)
    gateway.come("one", wanted, used)
    gateway.run(90)
    assert gateway.costs[kind] == pytest.approx(used / max(wanted.audio, 1), rel=0.05)
    assert gateway.capacity.cost(wanted) == pytest.approx(used, rel=0.05)


def test_sound_beside_a_picture_is_not_charged_to_the_picture() -> None:
    gateway = Gateway(have=16)
    gateway.come("sound", Demand(audio=1), 0.1)
    gateway.run(90)
    gateway.come("both", Demand(audio=1, video=FULL_HD.video), 0.6)
    gateway.run(90)
    assert gateway.costs["video_1080p"] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    ("viewers", "learned"),
    [(1, 0.06), (50, 0.02)],  # with many viewers it is they who cost; what was thought before stays
)
def test_what_a_stream_costs_the_event_loop(viewers: int, learned: float) -> None:
    gateway = Gateway()
    gateway.come("one", NOTHING, 0.0)
    gateway.loop, gateway.viewers = 0.06, viewers
    gateway.run(90)
    assert gateway.costs["stream"] == pytest.approx(learned, rel=0.05)


def test_a_transcode_that_does_not_fit_is_refused_with_the_figures_while_what_passes_is_let_in() -> None:
    gateway = Gateway(have=2, reserve=0.1)
    for name in ("one", "two", "three"):
        gateway.come(name, FULL_HD, 0.5)
    gateway.run(60)
    why = gateway.refusal(FULL_HD)
    assert "overloaded" in why
    assert "about 0.50 of a CPU core, and 0.30 of 1.8 are free" in why
    assert "without B-frames" in why
    assert not gateway.refusal(Demand(audio=1))
    assert not gateway.refusal(NOTHING)


def test_streams_that_come_together_are_not_all_let_in_before_the_first_is_measured() -> None:
    gateway = Gateway(have=2, reserve=0.1)
    fit = int(1.8 / cores(*FULL_HD.video[0]))
    for index in range(fit):
        gateway.capacity.admit(f"stream {index}", FULL_HD)
    assert "overloaded" in gateway.refusal(FULL_HD)
    gateway.run(2)  # none of them came into being
    assert not gateway.refusal(FULL_HD)


def test_the_first_transcode_is_let_in_whatever_it_costs() -> None:
    gateway = Gateway(have=0.5)
    gateway.come("passes", NOTHING, 0.0)
    gateway.run(20)
    gateway.come("large", Demand(video=(VideoCost(3840, 2160, 60.0),)), 0.4)
    assert "overloaded" in gateway.refusal(Demand(audio=1))


def test_an_encoder_that_comes_back_is_not_refused_for_what_it_used_itself() -> None:
    gateway = Gateway(have=1, reserve=0)
    gateway.come("one", FULL_HD, 0.4)
    gateway.come("two", FULL_HD, 0.4)
    gateway.run(30)
    assert "overloaded" in gateway.refusal(FULL_HD)
    gateway.capacity.admit("two", FULL_HD)


@pytest.mark.parametrize(("loop", "refused"), [(0.3, False), (0.95, True)])
def test_what_passes_is_held_against_the_one_core_of_the_event_loop(loop: float, refused: bool) -> None:
    gateway = Gateway(have=64)
    gateway.come("one", NOTHING, 0.0)
    gateway.loop = loop
    gateway.run(30)
    assert ("what they may have" in gateway.refusal(NOTHING)) is refused
    assert (gateway.capacity.pressure > 1) is refused


def test_a_stream_in_economy_teaches_nothing_and_is_reckoned_with_at_full_price() -> None:
    gateway = Gateway(have=2, reserve=0)
    gateway.economised = {"one"}
    gateway.come("one", FULL_HD, 0.2)
    gateway.run(60)
    full = cores(*FULL_HD.video[0])
    assert gateway.costs["video_1080p"] == pytest.approx(full)
    assert gateway.capacity.workers_used == pytest.approx(full)


def test_layers_that_can_be_shed_make_room() -> None:
    capacity = Capacity(1, 0)
    layers = Demand(video=(VideoCost(1280, 720, 30.0), VideoCost(640, 360, 30.0)))
    for now in range(0, 30 * S, 2 * S):
        seen = Seen(layers, now * 9 // 10, spare=0.3)
        capacity.sample(now, loop_cpu_ns=0, process_cpu_ns=0, streams={"one": seen}, viewers=0)
    assert capacity.pressure == pytest.approx(0.9)
    wanted = Demand(video=(VideoCost(640, 360, 30.0),))
    assert 0.1 - capacity.cost(wanted) < 0.05
    capacity.admit("two", wanted)
    with pytest.raises(Rejected):
        capacity.admit("three", FULL_HD)


def test_a_measurement_that_cannot_be_of_the_kind_spoils_little() -> None:
    gateway = Gateway(have=16)
    gateway.come("one", FULL_HD, 12.0)
    gateway.run(120)
    assert gateway.costs["video_1080p"] <= 5.01 * cores(*FULL_HD.video[0])


def test_a_restarted_worker_begins_anew() -> None:
    capacity = Capacity(2, 0)
    for now, cpu in ((0, 0), (2 * S, S), (4 * S, 0), (6 * S, S // 2)):
        capacity.sample(now, loop_cpu_ns=0, process_cpu_ns=0, streams={"one": Seen(Demand(audio=1), cpu)}, viewers=0)
    assert capacity.workers_used == pytest.approx(0.25)


def test_measuring_only_refuses_nobody() -> None:
    gateway = Gateway(have=0.1, enforced=False)
    for name in ("one", "two", "three"):
        gateway.come(name, FULL_HD, 0.5)
    gateway.run(SETTLING_NS / S + 4)
    assert not gateway.refusal(FULL_HD)
    assert gateway.capacity.pressure > 10


@pytest.mark.parametrize(
    ("own", "files", "most"),
    [
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),  # inside a container
        ("0::/system/gateway", {"system/cpu.max": "25000 100000", "system/gateway/cpu.max": "max 100000"}, 0.25),
        ("4:cpu,cpuacct:/docker/x", {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "50000", _PERIOD: "100000"}, 0.5),
        ("4:cpu,cpuacct:/docker/x", {"cpu,cpuacct/docker/x/cpu.cfs_quota_us": "-1", _PERIOD: "100000"}, None),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("0::/", {}, None),
    ],
)
def test_cores_are_those_that_the_cgroup_grants(tmp_path: Path, own: str, files: dict[str, str], most: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert available_cores(own=tmp_path / "own", root=tmp_path) == (most or len(os.sched_getaffinity(0)))
    assert available_cores(3, own=tmp_path / "own", root=tmp_path) == 3


@pytest.mark.parametrize(
    ("own", "files", "most"),
    [
        ("0::/a/b", {"a/memory.max": "1048576", "a/b/memory.max": "max"}, 1 << 20),
        ("7:memory:/docker/x", {"memory/docker/x/memory.limit_in_bytes": "2097152"}, 2 << 20),
        ("0::/a", {"a/memory.max": "max"}, None),
        ("0::/a", {}, None),
    ],
)
def test_memory_is_what_the_cgroup_grants(tmp_path: Path, own: str, files: dict[str, str], most: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available_memory(own=tmp_path / "own", root=tmp_path) == (most or machine)


@pytest.mark.parametrize(("codec", "parts"), [("vp8", 2), ("av1", 3)])
def test_another_codec_costs_more(codec: MadeCodec, parts: int) -> None:
    want = as_a_call(ACCEPTS | {Codec(codec)})
    (h264, other) = (plan(replace(H264, reorder=1), want, policy) for policy in (Policy(), Policy(codec=codec)))
    capacity = Capacity(2.0, 0.1)
    assert capacity.cost(demand([other])) > parts * capacity.cost(demand([h264]))


def test_layers_cost_more_and_what_they_cost_can_be_spared() -> None:
    layers = Policy(layers=3)
    (one, three) = (plan(replace(H264, reorder=1), as_a_call(ACCEPTS), policy) for policy in (Policy(), layers))
    passed = plan(H264, as_a_call(ACCEPTS), layers)
    capacity = Capacity(4, 0)
    assert capacity.cost(demand([three])) > 1.2 * capacity.cost(demand([one]))
    assert spare([one]) == 0
    assert 0.5 * capacity.cost(demand([three])) < spare([three]) < capacity.cost(demand([three]))
    assert demand([passed]) == Demand(), "it is let in as what passes, and may lose its layers"
    assert 0 < spare([passed]) < spare([three])


def test_it_is_strained_by_what_is_measured_and_not_by_what_was_planned() -> None:
    busy, idle = Capacity(1, 0), Capacity(1, 0)
    for now in range(0, 20 * S, 2 * S):
        for capacity, part in ((busy, 1.1), (idle, 0.2)):
            streams = {
                "one": Seen(FULL_HD, int(now * part), economised=True),
                "two": Seen(FULL_HD, 0),
                "three": Seen(FULL_HD, 0),
            }
            capacity.sample(now, loop_cpu_ns=0, process_cpu_ns=0, streams=streams, viewers=0)
    assert (busy.strained, idle.strained) == (True, False)


def test_hls_is_counted_learned_and_never_in_the_way_of_a_stream() -> None:
    gateway = Gateway(have=1, reserve=0)
    gateway.come("one", NOTHING, 0.0)
    gateway.capacity.admit_optional("one HLS", HLS)
    gateway.streams["one HLS"] = HLS, 0.06
    gateway.loop = 0.05
    gateway.run(90)
    assert gateway.costs["hls"] == pytest.approx(0.06, rel=0.05)
    assert gateway.costs["stream"] == pytest.approx(0.05, rel=0.05), "its HLS is no stream"
    assert gateway.capacity.workers_used == pytest.approx(0.06, rel=0.05)
    gateway.streams["one HLS"] = HLS.plus(FULL_HD), 0.6
    gateway.run(60)
    with pytest.raises(Rejected, match=r"HLS takes about 0\.[0-9]+ of a CPU core here, and 0\.[0-9]+ of 1\.0") as refusal:
        gateway.capacity.admit_optional("two HLS", HLS.plus(FULL_HD))
    assert refusal.value.reason is Reason.OVERLOADED
    gateway.capacity.admit("two", FULL_HD)  # no other stream is transcoded, and HLS is no stream
    with pytest.raises(Rejected):
        gateway.capacity.check_optional("three HLS", HLS)
    Capacity(0.01, 0, enforced=False).admit_optional("any", HLS.plus(FULL_HD))


def test_an_output_is_learned_and_refused_by_its_own_name() -> None:
    gateway = Gateway(have=1, reserve=0)
    recording = Demand(outputs=(OutputCost("recorder", "a recording"),))
    gateway.come("one", NOTHING, 0.0)
    gateway.capacity.admit_optional("one optional", recording)
    gateway.streams["one optional"] = recording, 0.12
    gateway.run(90)
    assert gateway.costs["recorder"] == pytest.approx(0.12, rel=0.05)
    known = gateway.costs["recorder"]
    gateway.capacity.admit_optional("one optional", recording.plus(HLS))
    gateway.streams["one optional"] = recording.plus(HLS), 0.9
    gateway.run(60)
    assert (gateway.costs["recorder"], gateway.costs["hls"]) == (known, 0.03), "of two nobody knows which it was"
    with pytest.raises(Rejected, match=r"a recording takes about 0\.12 of a CPU core"):
        gateway.capacity.check_optional("two optional", recording)
    with pytest.raises(Rejected, match=r"a recording with HLS takes about 0\.27 of a CPU core"):
        gateway.capacity.check_optional("two optional", recording.plus(HLS).plus(recording))
