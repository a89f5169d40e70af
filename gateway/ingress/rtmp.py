"""What a streamer pastes into an encoder that speaks RTMP."""

from dataclasses import dataclass

from gateway.access.credentials import Tokens
from gateway.config import Config
from gateway.ingress import IngressKey, words
from gateway.ingress.addresses import bracketed, reachable, watch_address
from protocols.rtmp.address import server

OBS_SERVICE = """\
  1. Settings > Stream > Service: Custom...
  2. Server:      {server}
     Stream Key:  the key above, in one piece"""
KEYFRAMES = "2 s           (0 = auto is up to 10 s: who joins would wait for the next one)"


@dataclass(frozen=True, slots=True)
class RtmpIngress:
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
        paste = [
            f"  Server:      {self.server}",
            *([f"               {self.secure_server}   (encrypted)"] if self.secure_server else []),
            f"  Stream key:  {self.key}",
        ]
        heading = words.text(self.call, self.expires_at, paste, self.watch)
        if obs:
            service = OBS_SERVICE.format(server=self.secure_server or self.server)
            return heading + words.obs_steps("", service, KEYFRAMES, words.B_FRAMES)
        lines = [
            heading,
            "  For encoders that ask for a user and a password:",
            f"  Server:      {self.password_server}      Stream key: live",
            f"  User:        {self.user}",
            f"  Password:    {self.password}",
            "",
            "  A test picture:",
            f"  {words.TEST_PICTURE} {words.AAC} -f flv '{self.server}/{self.key}'",
        ]
        return "\n".join(lines) + "\n"


def rtmp_way(
    config: Config, tokens: Tokens, *, call: str, user: str, ttl_s: int, host: str = "", key: IngressKey | None = None
) -> RtmpIngress:
    """The RTMP ingress of `user` in `call`; `host` is what the encoder reaches this machine by (found out when empty), `key` one
    that was made already.

    Raises:
        ValueError: the call or user id is none.
    """
    key = key or IngressKey.signed(tokens, user, call, ttl_s)
    rtmp_host = bracketed(host or reachable(config, config.rtmp.host))
    return RtmpIngress(
        call=call,
        server=server(rtmp_host, config.rtmp.port),
        secure_server=server(rtmp_host, config.rtmp.tls_port, secure=True)
        if config.rtmp.certificate and config.rtmp.tls_port
        else "",
        password_server=server(rtmp_host, config.rtmp.port, app=config.rtmp.auth_app),
        key=key.key,
        user=key.user,
        password=key.password,
        watch=watch_address(config, tokens, call=call, ttl_s=ttl_s, host=host),
        expires_at=key.expires_at,
    )
