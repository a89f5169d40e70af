"""What a streamer pastes into an encoder: addresses, keys and commands for one user of one call, as text.

Kept true: what is printed works as it stands: addresses carry their ports, commands their quotes, and a call that is not public gets
its watch link with a token in the fragment (which browsers never send to a server).
"""

import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import quote

from gateway.auth import HOST, VIEWER, Tokens
from gateway.config import Config

TEST_PICTURE = (
    "ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -re -f lavfi -i sine=frequency=440:sample_rate=48000 "
    "-c:v libx264 -preset veryfast -tune zerolatency -bf 0 -g 60 -pix_fmt yuv420p -b:v 2500k -c:a aac -b:a 128k -f flv"
)

OBS_STEPS = """\
In OBS Studio
  1. Settings > Stream > Service: Custom...
  2. Server:      {server}
     Stream Key:  the key above, in one piece
  3. Settings > Output > Output Mode: Advanced > Streaming, encoder x264 (or a hardware one):
       Rate Control       CBR, 2500 to 6000 Kbps
       Keyframe Interval  2 s           (0 = auto is up to 10 s: who joins would wait for the next one)
       Tune               zerolatency   (the encoder holds no frames back)
       x264 Options       bframes=0     (hardware encoders: Max B-frames 0)
     WebRTC has no B-frames: with them your picture is decoded and encoded once more, which costs quality, delay
     and processor time. Without them it reaches the viewers untouched.
  4. Settings > Audio > Sample Rate: 48 kHz
  5. Start Streaming
"""


TEST_PICTURE_WHIP = (
    "ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -re -f lavfi -i sine=frequency=440:sample_rate=48000 "
    "-c:v libx264 -preset veryfast -tune zerolatency -bf 0 -g 60 -pix_fmt yuv420p -b:v 2500k -c:a libopus -ar 48000 -ac 2 -f whip"
)

OBS_STEPS_WHIP = """\
In OBS Studio 30 or later
  1. Settings > Stream > Service: WHIP
  2. Server:        {endpoint}
     Bearer Token:  the token above, in one piece
  3. Settings > Output > Output Mode: Advanced > Streaming, encoder x264 (or a hardware one):
       Rate Control       CBR, 2500 to 6000 Kbps
       Keyframe Interval  1 s           (after a loss that cannot be repaired the picture waits for the next one)
       Tune               zerolatency
  4. Settings > Audio > Sample Rate: 48 kHz
  5. Start Streaming
"""


class Way(Protocol):
    """One user's way into one call."""

    def text(self, obs: bool = False) -> str: ...


@dataclass(frozen=True, slots=True)
class Whip:
    """One user's way into one call over WHIP."""

    call: str
    endpoint: str
    key: str
    watch: str
    expires_at: int  # Unix seconds

    def text(self, obs: bool = False) -> str:
        """Everything, for people; with the exact steps for OBS when asked."""
        until = datetime.fromtimestamp(self.expires_at, UTC)
        lines = [
            f"Stream into {self.call}, until {until:%Y-%m-%d %H:%M} UTC",
            "",
            f"  Server:        {self.endpoint}",
            f"  Bearer token:  {self.key}",
            "",
            f"  Watch:         {self.watch}",
            "",
        ]
        if obs:
            return "\n".join(lines) + "\n" + OBS_STEPS_WHIP.format(endpoint=self.endpoint)
        lines += [
            "  A test picture (ffmpeg 8 or later):",
            f"  {TEST_PICTURE_WHIP} -authorization '{self.key}' '{self.endpoint}'",
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Rtmp:
    """One user's way into one call over RTMP."""

    call: str
    server: str
    secure_server: str  # empty: no RTMPS
    password_server: str
    key: str
    user: str
    password: str
    watch: str
    expires_at: int  # Unix seconds

    def text(self, obs: bool = False) -> str:
        """Everything, for people; with the exact steps for OBS when asked."""
        until = datetime.fromtimestamp(self.expires_at, UTC)
        lines = [
            f"Stream into {self.call}, until {until:%Y-%m-%d %H:%M} UTC",
            "",
            f"  Server:      {self.server}",
            *([f"               {self.secure_server}   (encrypted)"] if self.secure_server else []),
            f"  Stream key:  {self.key}",
            "",
            f"  Watch:       {self.watch}",
            "",
        ]
        if obs:
            return "\n".join(lines) + "\n" + OBS_STEPS.format(server=self.secure_server or self.server)
        lines += [
            "  For encoders that ask for a user and a password:",
            f"  Server:      {self.password_server}      Stream key: live",
            f"  User:        {self.user}",
            f"  Password:    {self.password}",
            "",
            "  A test picture:",
            f"  {TEST_PICTURE} '{self.server}/{self.key}'",
        ]
        return "\n".join(lines) + "\n"


def rtmp(config: Config, tokens: Tokens, *, call: str, user: str, ttl_s: int, host: str = "") -> Rtmp:
    """The RTMP ingress of `user` in `call`; `host` is what the encoder reaches this machine by (found out when empty).

    Raises:
        ValueError: the call or user id is none.
    """
    key = tokens.issue(user, [call], ttl_s, HOST)
    name = tokens.user_name(user, call, ttl_s)
    rtmp_host = bracketed(host or reachable(config, config.rtmp.host))
    plain = f"rtmp://{rtmp_host}:{config.rtmp.port}"
    return Rtmp(
        call=call,
        server=f"{plain}/live",
        secure_server=f"rtmps://{rtmp_host}:{config.rtmp.tls_port}/live"
        if config.rtmp.certificate and config.rtmp.tls_port
        else "",
        password_server=f"{plain}/{config.rtmp.auth_app}",
        key=key,
        user=name,
        password=tokens.password(name) or "",
        watch=watch_address(config, tokens, call=call, ttl_s=ttl_s, host=host),
        expires_at=int(name.rpartition("~")[2]),
    )


def whip(config: Config, tokens: Tokens, *, call: str, user: str, ttl_s: int, host: str = "") -> Whip:
    """The WHIP ingress of `user` in `call`; `host` as for `rtmp`.

    Raises:
        ValueError: the call or user id is none.
    """
    return Whip(
        call=call,
        endpoint=f"{_origin(config, host)}/whip/{quote(call, safe=':')}",
        key=tokens.issue(user, [call], ttl_s, HOST),
        watch=watch_address(config, tokens, call=call, ttl_s=ttl_s, host=host),
        expires_at=int(tokens.user_name(user, call, ttl_s).rpartition("~")[2]),
    )


def watch_address(config: Config, tokens: Tokens, *, call: str, ttl_s: int, host: str = "") -> str:
    """The address of the watch page; a call that is not public gets a viewer's token in the fragment."""
    fragment = "" if call in config.calls.public else f"#token={tokens.issue(VIEWER, [call], ttl_s, VIEWER)}"
    return f"{_origin(config, host)}/watch/{quote(call, safe=':')}{fragment}"


def _origin(config: Config, host: str) -> str:
    """Where pages, WHIP and WHEP are."""
    scheme = "https" if config.http.certificate else "http"
    return f"{scheme}://{bracketed(host or reachable(config, config.http.host))}:{config.http.port}"


def reachable(config: Config, listening: str) -> str:
    """An address others reach this machine by: the one listened on, the configured external one, else that of the default route."""
    if listening and not _is_unspecified(listening):
        return listening
    if config.webrtc.external_addresses:
        return str(config.webrtc.external_addresses[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(
                ("192.0.2.1", 9)
            )  # RFC 5737 TEST-NET-1: connecting a UDP socket sends nothing, it only picks the route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def bracketed(host: str) -> str:
    """IPv6 addresses in brackets (RFC 3986 §3.2.2)."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _is_unspecified(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False
