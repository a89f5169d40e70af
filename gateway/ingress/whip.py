"""What a streamer pastes into an encoder that speaks WHIP."""

from dataclasses import dataclass

from gateway.access.credentials import Tokens
from gateway.config import Config
from gateway.ingress import IngressKey, words
from gateway.ingress.addresses import host_page, origin, watch_address
from protocols.whip.address import endpoint

OPUS = "-c:a libopus -ar 48000 -ac 2"
OBS_SERVICE = """\
  1. Settings > Stream > Service: WHIP
  2. Server:        {endpoint}
     Bearer Token:  the token above, in one piece"""
KEYFRAMES = "1 s           (after a loss that cannot be repaired the picture waits for the next one)"


@dataclass(frozen=True, slots=True)
class WhipIngress:
    """One user's way into one call over WHIP."""

    call: str
    endpoint: str
    key: str
    watch: str
    page: str  # that publishes from a browser
    expires_at: int  # Unix seconds

    def text(self, obs: bool = False) -> str:
        """Everything, for people; with the exact steps for OBS when asked."""
        paste = [f"  Server:        {self.endpoint}", f"  Bearer token:  {self.key}"]
        heading = words.text(self.call, self.expires_at, paste, self.watch)
        if obs:
            return heading + words.obs_steps(" 30 or later", OBS_SERVICE.format(endpoint=self.endpoint), KEYFRAMES)
        lines = [
            heading,
            "  From a browser, with camera or screen (browsers open cameras only over HTTPS, or on this machine at 127.0.0.1):",
            f"  {self.page}",
            "",
            "  A test picture (ffmpeg 8 or later):",
            f"  {words.TEST_PICTURE} {OPUS} -f whip -authorization '{self.key}' '{self.endpoint}'",
        ]
        return "\n".join(lines) + "\n"


def whip_way(
    config: Config, tokens: Tokens, *, call: str, user: str, ttl_s: int, host: str = "", key: IngressKey | None = None
) -> WhipIngress:
    """The WHIP ingress of `user` in `call`; `host` and `key` as for `rtmp_way`.

    Raises:
        ValueError: the call or user id is none.
    """
    key = key or IngressKey.signed(tokens, user, call, ttl_s)
    return WhipIngress(
        call=call,
        endpoint=endpoint(origin(config, host), call),
        key=key.key,
        watch=watch_address(config, tokens, call=call, ttl_s=ttl_s, host=host),
        page=host_page(config, call=call, key=key.key, host=host),
        expires_at=key.expires_at,
    )
