"""What a streamer pastes into an encoder that speaks SRT: address, stream id and passphrase for one user of one call, as text.

Kept true: the stream id is plain letters, figures and `~`, so it needs no quoting in any address; the latency stands in each tool's own
unit, which is the microsecond for ffmpeg and OBS and the millisecond for libsrt's and GStreamer's.
"""

from dataclasses import dataclass

from gateway.access.credentials import Tokens
from gateway.config import Config
from gateway.ingress import IngressKey, words
from gateway.ingress.addresses import bracketed, reachable, watch_address
from protocols.srt.address import server

GSTREAMER = (
    "gst-launch-1.0 mpegtsmux name=m alignment=7 ! srtsink uri={server} mode=caller streamid={stream_id} passphrase={passphrase} "
    "pbkeylen=16 latency={latency_ms} videotestsrc is-live=true ! video/x-raw,format=I420 ! "  # else it chooses 4:4:4, which cannot pass
    "x264enc tune=zerolatency key-int-max=60 ! h264parse config-interval=-1 ! m. audiotestsrc is-live=true ! avenc_aac ! aacparse ! m."
)

OBS_SERVICE = """\
  1. Settings > Stream > Service: Custom...
  2. Server:      {server}?latency={latency_us}   (microseconds)
     Stream Key:  the stream id above
     Use authentication: yes; Username: empty; Password: the passphrase above"""


@dataclass(frozen=True, slots=True)
class SrtIngress:
    """One user's way into one call over SRT."""

    call: str
    server: str
    stream_id: str
    passphrase: str
    latency_ms: int
    watch: str
    expires_at: int  # Unix seconds

    @property
    def _query(self) -> str:
        return f"streamid={self.stream_id}&passphrase={self.passphrase}&pbkeylen=16"

    @property
    def test_picture(self) -> str:
        """An ffmpeg command."""
        address = f"{self.server}?{self._query}&latency={1000 * self.latency_ms}"
        # Else it keeps sound back until it has a third of a second of it
        return f"{words.TEST_PICTURE} {words.AAC} -f mpegts -muxdelay 0 '{address}'"

    def text(self, obs: bool = False) -> str:
        """Everything, for people; with the exact steps for OBS when asked."""
        ms = self.latency_ms
        paste = [
            f"  Server:      {self.server}   (mode: caller)",
            f"  Stream id:   {self.stream_id}",
            f"               #!::m=publish,u={self.stream_id}   (the same, for encoders that want this form)",
            f"  Passphrase:  {self.passphrase}   (AES, any length of key)",
            f"  Latency:     {ms} ms   (at least 3 round trips to this machine)",
        ]
        heading = words.text(self.call, self.expires_at, paste, self.watch)
        names = {"server": self.server, "stream_id": self.stream_id, "passphrase": self.passphrase}
        if obs:
            return heading + words.obs_steps("", OBS_SERVICE.format(**names, latency_us=1000 * ms), "2 s", words.B_FRAMES)
        lines = [
            heading,
            "  A test picture with ffmpeg (latency in microseconds):",
            f"  {self.test_picture}",
            "",
            "  One with GStreamer (milliseconds):",
            f"  {GSTREAMER.format(**names, latency_ms=ms)}",
            "",
            "  A transport stream that is there already, as UDP (milliseconds):",
            f"  srt-live-transmit udp://127.0.0.1:5000 '{self.server}?{self._query}&latency={ms}'",
        ]
        return "\n".join(lines) + "\n"


def srt_way(
    config: Config, tokens: Tokens, *, call: str, user: str, ttl_s: int, host: str = "", key: IngressKey | None = None
) -> SrtIngress:
    """The SRT ingress of `user` in `call`; `host` is what the encoder reaches this machine by (found out when empty), `key` one
    that was made already.

    Raises:
        ValueError: the call or user id is none.
    """
    key = key or IngressKey.signed(tokens, user, call, ttl_s)
    return SrtIngress(
        call=call,
        server=server(bracketed(host or reachable(config, config.srt.host)), config.srt.port),
        stream_id=key.user,
        passphrase=key.password,
        latency_ms=config.srt.latency_ms,
        watch=watch_address(config, tokens, call=call, ttl_s=ttl_s, host=host),
        expires_at=key.expires_at,
    )
