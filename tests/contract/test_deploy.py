"""What is in deploy/ fits the gateway of this checkout: ports, probes, commands, environment and metrics are those that there are."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway import VERSION
from gateway.__main__ import command_line
from gateway.config import PREFIX, Config
from gateway.config.sources import load
from gateway.sessions.capacity import Capacity

DEPLOY = Path(__file__).parents[2] / "deploy"
HADOLINT = Path(sys.executable).with_name("hadolint")
SYSTEMD_ANALYZE = shutil.which("systemd-analyze") or "systemd-analyze"
MOST_EXPOSED = 20  # of 100, as systemd-analyze reckons
DEFAULTS = Config()
PORTS = {
    ("http", "TCP"): DEFAULTS.http.port,
    ("rtmp", "TCP"): DEFAULTS.rtmp.port,
    ("webrtc", "UDP"): DEFAULTS.webrtc.port,
    ("srt", "UDP"): DEFAULTS.srt.port,
}


def yaml_of(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def manifests() -> Iterator[dict[str, Any]]:
    for name in yaml_of("kubernetes/kustomization.yaml")["resources"]:
        yield from yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text())


def manifest(kind: str, name: str = "gateway") -> dict[str, Any]:
    (found,) = (each for each in manifests() if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def pod() -> dict[str, Any]:
    return dict(manifest("Deployment")["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return dict(only)


def known_to_the_gateway(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration that the environment makes; a variable that is none of its keys is a `ConfigError`."""
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load()


def dockerfile() -> str:
    return re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())


def instruction(name: str) -> str:
    return str(re.findall(rf"^{name} (.*)$", dockerfile(), re.MULTILINE)[-1])


def test_the_version_is_the_packages() -> None:
    assert tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_image_is_not_root_and_has_every_port_and_a_command_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    exposed = {f"{port}/{protocol.lower()}".removesuffix("/tcp") for (_, protocol), port in PORTS.items()}
    assert set(instruction("EXPOSE").split()) == exposed | {str(DEFAULTS.rtmp.tls_port)}
    uid, gid = instruction("USER").split(":")
    assert uid == gid != "0"
    health = yaml.safe_load(instruction("HEALTHCHECK").partition("CMD ")[2])
    assert health[:3] == ["python", "-m", "gateway"] == yaml.safe_load(instruction("ENTRYPOINT"))
    command_line().parse_args(health[3:])
    command_line().parse_args(yaml.safe_load(instruction("CMD")))
    variables = dict(re.findall(r"(GATEWAY_\w+)=(\S+)", instruction("ENV")))
    config = known_to_the_gateway(variables, monkeypatch)
    assert config.state.directory == instruction("VOLUME")
    assert config.log.format == "json"


def test_what_traces_take_is_what_the_tests_have() -> None:
    def locked(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+==\S+) \\\n((?: +--hash=\S+(?: \\)?\n)+)", path.read_text(), re.MULTILINE))

    traces, deployed = locked(DEPLOY / "requirements-trace.lock"), locked(DEPLOY / "requirements.lock")
    assert any(name.startswith("opentelemetry-sdk==") for name in traces)
    assert traces.items() <= locked(DEPLOY.parent / "tests/requirements.lock").items()
    assert not traces.keys() & deployed.keys()


def test_the_one_command_for_a_plain_machine_is_one_of_the_gateways() -> None:
    (arguments,) = re.findall(r'^exec \.venv/bin/python -m gateway (.*) "\$@"$', (DEPLOY / "up").read_text(), re.MULTILINE)
    assert command_line().parse_args(arguments.split()).check  # the self-test comes first


def test_only_what_the_image_is_made_of_goes_to_its_builder() -> None:
    let_in = {line[1:] for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {path for words in re.findall(r"^COPY (?!--from)(.*)$", dockerfile(), re.MULTILINE) for path in words.split()[:-1]}
    assert let_in == copied
    assert all((DEPLOY.parent / path).exists() for path in let_in)


def test_compose_brings_up_a_gateway_with_all_its_ports_and_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    services = yaml_of("compose.yaml")["services"]
    gateway = services["gateway"]
    assert gateway["read_only"]
    assert gateway["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in gateway["security_opt"]
    published = {port.rpartition(":")[2] for port in gateway["ports"]}
    assert published == set(instruction("EXPOSE").split())
    environment = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in gateway["environment"].items()}
    config = known_to_the_gateway(environment, monkeypatch)
    assert int(gateway["stop_grace_period"].removesuffix("s")) >= config.shutdown.drain_s + 5
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        for mounted in (volume.split(":")[0] for volume in service["volumes"] if volume.startswith(".")):
            assert (DEPLOY / mounted).exists(), mounted
    assert all("127.0.0.1" in port for name in ("prometheus", "grafana") for port in services[name]["ports"])


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of both compose files; what the second adds to a service of the first is not one of its own."""
    for name in ("compose.yaml", "tls/compose.yaml"):
        yield from ((name, each) for name, each in yaml_of(name)["services"].items() if "image" in each)


@pytest.mark.parametrize(("name", "service"), list(services()))
def test_no_service_gains_rights_or_takes_the_whole_machine(name: str, service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) in ([], ["NET_BIND_SERVICE"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert 0 < service["pids_limit"] <= 4096
    assert re.search(r"\d+[mg]\b", service["mem_limit"])
    assert service.get("read_only") or name == "grafana"


def test_what_is_built_on_is_named_by_exact_version_or_digest() -> None:
    images = [each["image"] for name, each in services() if name != "gateway"]
    images += re.findall(r"^ARG (?:BASE|NODE)=(\S+)$", dockerfile(), re.MULTILINE)
    assert len(images) == 5
    assert all(re.search(r"@sha256:[0-9a-f]{64}$|:v?\d+\.\d+(\.\d+)?(-slim)?$", image) for image in images), images


def test_kubernetes_manifests_are_as_the_schemas_of_kubernetes_say() -> None:
    for each in manifests():
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_kubernetes_knows_the_ports_of_the_gateway() -> None:
    assert {(port["name"], port["protocol"]): port["containerPort"] for port in container()["ports"]} == PORTS
    for service in (manifest("Service", "media"), manifest("Service")):
        for port in service["spec"]["ports"]:
            assert (port["targetPort"], port["protocol"]) in PORTS
    assert [port["name"] for port in manifest("Service", "media")["spec"]["ports"] if port["name"] == "webrtc"] == ["webrtc"]
    let_in = manifest("NetworkPolicy")["spec"]["ingress"][0]["ports"]
    assert {(port["port"], port["protocol"]) for port in let_in} == set(PORTS)


def test_kubernetes_selects_the_pods_of_the_deployment() -> None:
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        manifest("Deployment")["spec"]["selector"]["matchLabels"],
        manifest("Service", "media")["spec"]["selector"],
        manifest("Service")["spec"]["selector"],
        manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        manifest("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector and selector.items() <= labels.items() for selector in selectors)
    target = manifest("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "gateway")
    assert "replicas" not in manifest("Deployment")["spec"]  # each apply would undo what the autoscaler did


def test_the_pod_is_within_the_restricted_pod_security_standard() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, control by control."""
    whole, only = pod(), container()
    security = whole["securityContext"] | only["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"]["type"] == "RuntimeDefault"
    assert security["readOnlyRootFilesystem"] is True  # more than the standard asks
    assert not security.keys() & {"privileged", "procMount", "sysctls", "seLinuxOptions", "appArmorProfile"}
    assert not whole.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"}
    assert not any("hostPort" in port for port in only["ports"])
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    assert all(volume.keys() - {"name"} <= allowed for volume in whole["volumes"])
    assert f"{security['runAsUser']}:{security['runAsGroup']}" == instruction("USER")


def test_kubernetes_asks_what_the_gateway_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only = container()
    probes = {name: only[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    served = (DEPLOY.parent / "gateway/api/health.py").read_text()
    assert all(f'web.get("{probe["path"]}"' in served and probe["port"] == "http" for probe in probes.values())
    assert probes["readinessProbe"]["path"] == "/readyz"
    stopping = only["lifecycle"]["preStop"]["exec"]["command"]
    assert stopping[:3] == ["python", "-m", "gateway"]
    wait = command_line().parse_args(stopping[3:]).wait
    assert 0 < wait <= pod()["terminationGracePeriodSeconds"] - 10
    assert pod()["enableServiceLinks"] is False
    environment = {each["name"]: "x" * 32 for each in only["env"] if "URL" not in each["name"]}
    environment |= {each["name"]: "postgresql+asyncpg://u:p@db/gateway" for each in only["env"] if "URL" in each["name"]}
    known_to_the_gateway(environment, monkeypatch)
    mounted = {mount["name"]: mount["mountPath"] for mount in only["volumeMounts"]}
    assert mounted == {"state": instruction("VOLUME"), "configuration": instruction("WORKDIR")}
    file = tmp_path / "gateway.toml"
    file.write_text(manifest("ConfigMap")["data"]["gateway.toml"])
    load(file)


def test_pods_are_added_by_a_metric_that_the_gateway_has() -> None:
    (metric,) = manifest("HorizontalPodAutoscaler")["spec"]["metrics"]
    source = (DEPLOY.parent / "gateway/api/metrics.py").read_text()
    name = metric["pods"]["metric"]["name"]
    assert f'"{name.removeprefix("ingress_")}"' in source
    target = metric["pods"]["target"]["averageValue"]
    assert target.endswith("m")
    assert 0 < int(target[:-1]) < 1000  # below the pressure at which streams are refused
    assert Capacity(1, 0).pressure == 0


def test_the_unit_is_understood_by_systemd_and_exposes_little(tmp_path: Path) -> None:
    text = (DEPLOY / "gateway.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, *arguments = command.split()
    command_line().parse_args(arguments[2:])
    unit = tmp_path / "gateway.service"
    unit.write_text(text.replace(program, sys.executable))
    done = subprocess.run([SYSTEMD_ANALYZE, "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    security = [SYSTEMD_ANALYZE, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", str(unit)]
    done = subprocess.run(security, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    assert not re.search(r"^MemoryDenyWriteExecute=", text, re.MULTILINE)  # libsrt's callbacks are memory made executable


def test_the_ports_that_systemd_keeps_open_are_those_of_the_gateway(tmp_path: Path) -> None:
    text = (DEPLOY / "gateway.socket").read_text()
    (tmp_path / "gateway.socket").write_text(text)
    service = (DEPLOY / "gateway.service").read_text()
    (program,) = re.findall(r"^ExecStart=(\S+)", service, re.MULTILINE)
    (tmp_path / "gateway.service").write_text(service.replace(program, sys.executable))
    done = subprocess.run([SYSTEMD_ANALYZE, "verify", tmp_path / "gateway.socket"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    config = Config()
    opened = {int(port) for port in re.findall(r"^(?:# )?ListenStream=(\d+)$", text, re.MULTILINE)}
    assert opened == {config.http.port, config.rtmp.port, config.rtmp.tls_port}
    assert f"# ListenStream={config.rtmp.tls_port}" in text, "where there is no certificate nobody would answer there"


def test_the_unit_stops_the_workers_after_the_gateway_and_waits_for_its_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = (DEPLOY / "gateway.service").read_text()
    config = known_to_the_gateway(dict(re.findall(r"(GATEWAY_\w+)=(\S+)", unit.replace("# GATEWAY", ""))), monkeypatch)
    assert "KillMode=mixed" in unit
    (limit,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(limit) >= config.shutdown.drain_s + 5


def test_the_gateway_believes_the_proxy_in_front_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = known_to_the_gateway(yaml_of("tls/compose.yaml")["services"]["gateway"]["environment"], monkeypatch)
    assert any(ip_address("172.18.0.2") in network for network in config.http.trusted_proxies)


def test_the_gateway_believes_the_ingress_of_its_cluster(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(manifest("ConfigMap")["data"]["gateway.toml"])
    trusted = load(file).http.trusted_proxies
    assert any(ip_address("10.244.1.7") in network for network in trusted)
    assert not any(ip_address("203.0.113.7") in network for network in trusted)


@pytest.mark.parametrize("proxy", ["tls/Caddyfile", "tls/nginx.conf"])
def test_a_proxy_waits_for_nobody_for_long_and_does_not_say_what_it_is(proxy: str) -> None:
    text = (DEPLOY / proxy).read_text()
    bounds = ("read_header 10s", "idle 30s", "max_size 256KB", "-Server")
    theirs = (
        "client_header_timeout 10s",
        "keepalive_timeout 30s",
        "client_max_body_size 256k",
        "server_tokens off",
        "limit_conn",
    )
    assert all(each in text for each in (bounds if proxy.endswith("Caddyfile") else theirs))


def test_nginx_understands_its_file(tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=here"]
    subprocess.run([*make, "-keyout", tmp_path / "key.pem", "-out", tmp_path / "chain.pem"], check=True, capture_output=True)
    text = re.sub(r"(ssl_certificate\S* )\S+/(\S+);", rf"\1{tmp_path}/\2;", (DEPLOY / "tls/nginx.conf").read_text())
    text = text.replace("fullchain.pem", "chain.pem").replace("privkey.pem", "key.pem")
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{ access_log off;\n{text}\n}}")
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin") or "nginx"
    done = subprocess.run([nginx, "-t", "-c", whole], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("proxy", ["tls/Caddyfile", "tls/nginx.conf"])
def test_a_proxy_keeps_to_itself_what_is_the_operators(proxy: str) -> None:
    text = (DEPLOY / proxy).read_text()
    assert {"/metrics", "/drain"} <= set(re.findall(r"/\w+", text))
    assert "X-Forwarded-For" in text  # by which the gateway tells a proxy on this machine from the operator
