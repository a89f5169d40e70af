"""Real encoders publish to the real listener: ffmpeg 5 and 9, GStreamer's two sinks, an nginx-rtmp relay; over RTMPS and IPv6 too."""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
import pytest

from protocols.errors import Reason, Rejected
from protocols.media import Codec, EncodedPacket, Track, TracksChanged
from protocols.rtmp.listener import RtmpListener
from protocols.rtmp.publisher import RtmpPublisher
from protocols.rtmp.tls import TlsFiles

FFMPEG_5 = "ffmpeg"
FFMPEG_9 = imageio_ffmpeg.get_ffmpeg_exe()
WAIT_S = 40
FRAMES = 60
SOURCES = ["-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=sample_rate=48000", "-t", "2"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", "30", "-pix_fmt", "yuv420p"]
B_FRAMES = ["-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "30", "-pix_fmt", "yuv420p"]
HEVC = ["-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-pix_fmt", "yuv420p"]
AV1 = ["-c:v", "libsvtav1", "-preset", "12", "-g", "30", "-svtav1-params", "lp=1"]
VP9 = ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"]
AAC = ["-c:a", "aac", "-ac", "2"]
TWICE = ["-map", "0:v", "-map", "1:a", "-map", "0:v", "-map", "1:a"]
OPUS = ["-c:a", "libopus", "-ac", "2"]


@dataclass
class Seen:
    publisher: RtmpPublisher
    packets: Counter[int] = field(default_factory=Counter)
    keyframes: int = 0
    tracks: tuple[Track, ...] = ()
    changes: int = 0
    ordered: bool = True

    @property
    def codecs(self) -> set[Codec]:
        return {track.codec for track in self.tracks}

    def track(self, id_: int) -> Track:
        return next(track for track in self.tracks if track.id == id_)


@asynccontextmanager
async def listening(host: str = "127.0.0.1", tls: TlsFiles | None = None) -> AsyncIterator[RtmpListener]:
    async with asyncio.timeout(WAIT_S), RtmpListener(host, 0, tls=tls, tls_port=0, passwords={"bob": "pw"}.get) as listener:
        yield listener


async def run(program: str, *arguments: str) -> tuple[int, str]:
    """Runs a program to its end: its return code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, printed.decode(errors="replace")


async def take(listener: RtmpListener) -> Seen:
    """Accepts the next publisher and takes all of its media."""
    publisher = await anext(aiter(listener))
    await publisher.accept()
    seen, last = Seen(publisher), {0: -1, 1: -1}
    async for item in publisher:
        if isinstance(item, TracksChanged):
            seen.tracks = item.tracks
            seen.changes += 1
        elif isinstance(item, EncodedPacket):
            seen.packets[item.track] += 1
            seen.keyframes += item.keyframe and item.track == 0
            seen.ordered &= item.dts >= last[item.track]
            last[item.track] = item.dts
    await publisher.aclose()
    return seen


async def publish(listener: RtmpListener, program: str, *arguments: str, returns: int = 0) -> Seen:
    async with asyncio.TaskGroup() as tasks:
        taking = tasks.create_task(take(listener))
        code, printed = await run(program, *arguments)
        assert code == returns, printed
    return taking.result()


def ffmpeg(url: str, *arguments: str) -> list[str]:
    return ["-v", "error", *SOURCES, *arguments, "-f", "flv", url]


@pytest.mark.parametrize(
    ("program", "arguments", "codecs"),
    [
        pytest.param(FFMPEG_5, [*H264, *AAC], {Codec.H264, Codec.AAC}, id="5: H.264 and AAC"),
        pytest.param(
            FFMPEG_5, [*B_FRAMES, "-c:a", "libmp3lame", "-ar", "44100"], {Codec.H264, Codec.MP3}, id="5: B-frames and MP3"
        ),
        pytest.param(FFMPEG_9, [*H264, *AAC], {Codec.H264, Codec.AAC}, id="9: H.264 and AAC"),
        pytest.param(FFMPEG_9, [*HEVC, *OPUS], {Codec.HEVC, Codec.OPUS}, id="9: HEVC and Opus"),
        pytest.param(FFMPEG_9, [*AV1, *OPUS], {Codec.AV1, Codec.OPUS}, id="9: AV1 and Opus"),
        pytest.param(FFMPEG_9, [*VP9, "-c:a", "flac"], {Codec.VP9, Codec.FLAC}, id="9: VP9 and FLAC"),
        pytest.param(FFMPEG_9, [*H264, "-c:a", "ac3"], {Codec.H264, Codec.AC3}, id="9: AC-3"),
        pytest.param(FFMPEG_9, [*H264, "-c:a", "eac3"], {Codec.H264, Codec.EAC3}, id="9: E-AC-3"),
        pytest.param(
            FFMPEG_9,
            [*HEVC, *OPUS, "-rtmp_enhanced_codecs", "hvc1,av01,vp09,Opus"],
            {Codec.HEVC, Codec.OPUS},
            id="9: negotiated",
        ),
        pytest.param(
            FFMPEG_9,
            [*H264, *AAC, *TWICE],
            {Codec.H264, Codec.AAC},
            id="9: multitrack",
        ),
    ],
)
async def test_ffmpeg(program: str, arguments: list[str], codecs: set[Codec]) -> None:
    async with listening() as listener:
        url = f"rtmp://127.0.0.1:{listener.port}/live/some-key?user=x"
        seen = await publish(listener, program, *ffmpeg(url, *arguments))
        assert seen.codecs == codecs
        assert (seen.packets[0], seen.track(0).width, seen.track(0).height) == (FRAMES, 320, 180)
        assert seen.packets[1] > 40
        assert seen.track(1).sample_rate in (44100, 48000)
        assert seen.keyframes >= 1
        assert seen.ordered
        assert (seen.publisher.credential.key, seen.publisher.params["user"]) == ("some-key", "x")
        assert seen.publisher.software.startswith("Lavf")
        if "veryfast" in arguments:
            assert seen.track(0).reorder
        if "-map" in arguments:
            assert seen.publisher.stats.packets_ignored >= FRAMES
        assert not any(listener.stats.failures().values())


@pytest.mark.parametrize(("arguments", "track"), [([*H264, "-an"], 0), ([*AAC, "-vn"], 1)])
async def test_one_medium_only(arguments: list[str], track: int) -> None:
    async with listening() as listener:
        seen = await publish(listener, FFMPEG_5, *ffmpeg(f"rtmp://127.0.0.1:{listener.port}/live/key", *arguments))
        assert [one.id for one in seen.tracks] == [track]
        assert set(seen.packets) == {track}


async def test_44100_hz_mono() -> None:
    async with listening() as listener:
        arguments = ffmpeg(f"rtmp://127.0.0.1:{listener.port}/live/key", *H264, "-c:a", "aac", "-ar", "44100", "-ac", "1")
        seen = await publish(listener, FFMPEG_5, *arguments)
        assert (seen.track(1).sample_rate, seen.track(1).channels) == (44100, 1)


async def test_ipv6() -> None:
    async with listening("::1") as listener:
        seen = await publish(listener, FFMPEG_5, *ffmpeg(f"rtmp://[::1]:{listener.port}/live/key", *H264, *AAC))
        assert seen.packets[0] == FRAMES
        assert seen.publisher.remote.startswith("[::1]:")


@pytest.mark.parametrize("program", [FFMPEG_5, FFMPEG_9])
async def test_rtmps(program: str, tmp_path: Path) -> None:
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    options = [
        "req",
        "-x509",
        "-subj",
        "/CN=localhost",
        "-days",
        "2",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]
    assert (await run("openssl", *options, "-keyout", str(files.key), "-out", str(files.certificate)))[0] == 0
    async with listening(tls=files) as listener:
        url = f"rtmps://127.0.0.1:{listener.tls_port}/live/key"
        seen = await publish(listener, program, *ffmpeg(url, *H264, *AAC, "-tls_verify", "0"))
        assert (seen.publisher.protocol, seen.packets[0]) == ("rtmps", FRAMES)


@pytest.mark.parametrize("program", [FFMPEG_5, FFMPEG_9])
async def test_user_and_password(program: str) -> None:
    async with listening() as listener:
        seen = await publish(listener, program, *ffmpeg(f"rtmp://bob:pw@127.0.0.1:{listener.port}/auth/key", *H264, *AAC))
        assert (seen.publisher.credential.user, seen.publisher.credential.key) == ("bob", "key")
        assert seen.publisher.params == {"app": "auth"}
        assert not any(listener.stats.failures().values())


async def test_wrong_password() -> None:
    async with listening() as listener:
        code, printed = await run(FFMPEG_5, *ffmpeg(f"rtmp://bob:guess@127.0.0.1:{listener.port}/auth/key", *H264, *AAC))
        assert code != 0
        assert "username/password" in printed.lower()
        assert listener.stats.auth_failed >= 1


@pytest.mark.parametrize("program", [FFMPEG_5, FFMPEG_9])
async def test_a_refusal_is_shown(program: str) -> None:
    async with listening() as listener, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run(program, *ffmpeg(f"rtmp://127.0.0.1:{listener.port}/live/key", *H264, *AAC)))
        publisher = await anext(aiter(listener))
        await publisher.reject(Rejected(Reason.UNAUTHORIZED, "The stream key has expired."))
        code, printed = await running
        assert code != 0
        assert "Server error: The stream key has expired." in printed


@pytest.mark.parametrize("sink", ["rtmp2sink", "rtmpsink"])
async def test_gstreamer(sink: str) -> None:
    async with listening() as listener:
        pipeline = (
            f"-q videotestsrc num-buffers={FRAMES} ! video/x-raw,width=320,height=180,framerate=30/1 ! x264enc speed-preset=ultrafast ! "
            f"flvmux name=mux streamable=true ! {sink} location=rtmp://127.0.0.1:{listener.port}/live/key?user=x "
            "audiotestsrc num-buffers=90 ! avenc_aac ! mux."
        )
        seen = await publish(listener, "gst-launch-1.0", *pipeline.split())
        assert seen.codecs == {Codec.H264, Codec.AAC}
        assert seen.packets[0] == FRAMES
        assert (seen.publisher.credential.key, seen.publisher.params["user"]) == ("key", "x")


NGINX = """\
load_module {modules}/ngx_rtmp_module.so;
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 64; }}
rtmp {{
    server {{
        listen 127.0.0.1:{port};
        application live {{ live on; push rtmp://127.0.0.1:{target}/live/relayed; }}
    }}
}}
"""


async def test_nginx_relay(tmp_path: Path, unused_tcp_port: int) -> None:
    """nginx-rtmp pushes with `publish` of transaction 0, bare onMetaData, and ends by closing."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert nginx, "nginx-light and libnginx-mod-rtmp are needed"
    async with listening() as listener:
        values = {"modules": "/usr/lib/nginx/modules", "folder": tmp_path, "port": unused_tcp_port, "target": listener.port}
        (tmp_path / "nginx.conf").write_text(NGINX.format(**values))
        relay = await asyncio.create_subprocess_exec(
            nginx, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), stderr=subprocess.DEVNULL
        )
        try:
            await _connectable(unused_tcp_port)
            url = f"rtmp://127.0.0.1:{unused_tcp_port}/live/key"
            # -re: nginx does not keep for its push what came before it was connected
            seen = await publish(listener, FFMPEG_5, "-re", *ffmpeg(url, *H264, *AAC))
            assert seen.codecs == {Codec.H264, Codec.AAC}
            assert seen.packets[0] >= FRAMES // 2
            assert seen.publisher.credential.key == "relayed"
        finally:
            relay.terminate()
            await relay.wait()


async def _connectable(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
