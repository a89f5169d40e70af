"""The image as an operator has it: built from the Dockerfile, run read-only, without capabilities and not as root, and a stream through it.

    sudo .venv/bin/python -m tests.bench.image [--twice]

It needs root, buildah, podman, crun, debootstrap and npm, and neither a daemon nor an image hub: Debian's image is made here by
debootstrap, Node's is that with this machine's node and npm, under the names that the Dockerfile has. `--twice` builds twice and
compares what comes out, layer by layer. Minutes, hence no test.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.access.credentials import Secret, Tokens
from tests.support.encoders import X264_LIVE, ffmpeg, programme
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.viewer import watching

NAME = "ingress-gateway:bench"
BASE = "docker.io/library/debian:12.11-slim"
NODE = "docker.io/library/node:24.4.1-slim"
SUITE = "bookworm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # pip's, where a proxy of this network has its own
FRAMES = 90
# No systemd and no delegated cgroup are needed; --cgroups=disabled and the limits are for machines without CAP_SYS_RESOURCE.
MACHINE = [
    "--cgroups=disabled",
    "--ulimit=nofile=16384:16384",
    "--ulimit=nproc=4096:4096",
    "--no-healthcheck",
    "--network=host",
]
HARDENED = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
LOOK = """
import json, os
status = dict(line.split(":\\t", 1) for line in open("/proc/1/status").read().splitlines())
def writable(path):
    try: open(os.path.join(path, "probe"), "w").close()
    except OSError as error: return error.strerror
    return "writable"
print(json.dumps({"uid": status["Uid"].split()[0], "capabilities": status["CapEff"], "no new privileges": status["NoNewPrivs"],
    **{path: writable(path) for path in ("/", "/tmp", "/opt/gateway", "/etc/gateway", "/var/lib/gateway")}}))
"""


def run(*command: str | Path, **more: Any) -> str:
    done = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return str(done.stdout)


def storage(program: str) -> list[str]:
    return [program, "--storage-driver=vfs"]  # works without overlayfs


def make_bases(folder: Path) -> None:
    """Debian's slim image is what debootstrap makes, without documentation."""
    if all(subprocess.run([*storage("podman"), "image", "exists", name], check=False).returncode == 0 for name in (BASE, NODE)):
        return
    root = folder / "base"
    run("debootstrap", "--variant=minbase", SUITE, root)
    for path in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists", "var/cache/apt/archives"):
        shutil.rmtree(root / path, ignore_errors=True)
    if CERTIFICATES.exists():
        shutil.copy(CERTIFICATES, root / "etc/bench-certificates.pem")
        (root / "etc/pip.conf").write_text("[global]\ncert = /etc/bench-certificates.pem\n")
    import_as(BASE, root)
    node, npm = (Path(shutil.which(program) or sys.exit(f"{program} is missing")).resolve() for program in ("node", "npm"))
    shutil.copy(node, root / "usr/bin/node")
    shutil.copytree(npm.parents[1], root / "usr/lib/npm", symlinks=True)
    (root / "usr/bin/npm").symlink_to(f"../lib/npm/bin/{npm.name}")
    (root / "usr/lib/npm/npmrc").write_text("cafile=/etc/bench-certificates.pem\n" if CERTIFICATES.exists() else "")
    import_as(NODE, root)


def import_as(name: str, root: Path) -> None:
    with subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE) as tar:
        run(*storage("podman"), "import", "-", name, stdin=tar.stdout)


def build(context: Path) -> tuple[float, dict[str, Any]]:
    """Seconds, and what podman knows of the image. Everything anew: vfs copies the whole image for each step that it caches."""
    begun = time.monotonic()
    options = ["--format=docker", "--isolation=chroot", "--pull-never", "--network=host", "--timestamp=0", f"--tag={NAME}"]
    run(*storage("buildah"), "bud", *options, "--file", context / "deploy/Dockerfile", context)
    took = time.monotonic() - begun
    return took, dict(json.loads(run(*storage("podman"), "image", "inspect", NAME))[0])


@asynccontextmanager
async def running(settings: Sequence[str]) -> AsyncIterator[tuple[GatewayProcess, str]]:
    """The container and its name, with free ports."""
    name = f"gateway-bench-{secrets.token_hex(4)}"
    secret = secrets.token_hex(32)
    ports = {f"GATEWAY_{section}__PORT": "0" for section in ("HTTP", "RTMP", "SRT", "WEBRTC")}
    variables = [f"--env={key}={value}" for key, value in {**ports, "GATEWAY_AUTH__SECRET": secret}.items()]
    volume = f"--volume={name}:/var/lib/gateway"
    container = [*storage("podman"), "run", "--rm", f"--name={name}", *MACHINE, *HARDENED, *variables, volume, NAME, *settings]
    # crun wants cgroup2 where systemd has it: in a mount namespace of its own, so that nothing of this machine changes
    script = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", "sh", "-c", script, "sh", *container, stderr=subprocess.PIPE, limit=1 << 20
    )
    assert process.stderr is not None
    gateway = GatewayProcess(process, Tokens(Secret(secret.encode())), {}, state="")
    try:
        async with asyncio.timeout(60):
            async for line in process.stderr:
                entry: dict[str, Any] = json.loads(line) if line.startswith(b"{") else {"message": line.decode()}
                gateway.log.append(entry)
                if entry["message"] == "ready":
                    gateway.ports.update({port: entry[port] for port in ("http", "rtmp", "srt", "webrtc")})
                    break
        assert gateway.ports, gateway.log
        yield gateway, name
    finally:
        run(*storage("podman"), "stop", "--time=10", "--ignore", name)
        with contextlib.suppress(ProcessLookupError):
            await process.communicate()
        run(*storage("podman"), "volume", "rm", name)


async def play() -> None:
    """A stream through the container, and what the container says of itself."""
    begun = time.monotonic()
    async with running(["run", "--set", "calls.linger_s=0"]) as (gateway, name):
        print(f"ready after {time.monotonic() - begun:.1f} s")
        inside = [*storage("podman"), "exec", name, "python"]
        for what, answer in json.loads(await asyncio.to_thread(run, *inside, "-c", LOOK)).items():
            print(f"  {what}: {answer}")
        port = f"http.port={gateway.ports['http']}"
        print(" ", (await asyncio.to_thread(run, *inside, "-m", "gateway", "live", "--set", port)).strip())
        print(await asyncio.to_thread(run, "sh", "-c", f"{' '.join(inside)} -m gateway check --set {port} 2>&1"))
        for title, codec in (("passing through", X264_LIVE), ("transcoded", ("-c:v", "libx264", "-bf", "2", "-g", "60"))):
            async with watching(gateway.url("/whep/livestream:demo")) as viewer:
                async with ffmpeg(*programme(), *codec, "-c:a", "aac", "-f", "flv", gateway.rtmp()):
                    await viewer.until(frames=FRAMES, audio=FRAMES, timeout=30)
            print(f"{title}: {len(viewer.numbers)} pictures in order: {viewer.in_order}, tone {viewer.frequency:.0f} Hz")
        stopping = time.monotonic()
    print(f"stopped by SIGTERM in {time.monotonic() - stopping:.1f} s with {gateway.process.returncode}")


def main() -> None:
    if os.getuid():
        sys.exit("This takes root: containers are run with what this machine has.")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder, "context")
        context.mkdir()
        run("sh", "-c", f"git -C {ROOT} archive HEAD | tar -x -C {context}")
        make_bases(Path(folder))
        took, image = build(context)
        print(f"built in {took:.0f} s: {image['Size'] / 1e6:.0f} MB, user {image['User']}, {image['Healthcheck']['Test']}")
        if "--twice" in sys.argv:
            _, again = build(context)
            same = [a == b for a, b in zip(image["RootFS"]["Layers"], again["RootFS"]["Layers"], strict=True)]
            print(f"built again: {sum(same)} of {len(same)} layers are the same")  # the image's id holds the ids of its stages
        asyncio.run(play())


if __name__ == "__main__":
    main()
