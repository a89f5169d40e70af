"""The UDP port of WebRTC as the configuration wants it: viewers and WHIP share it."""

from gateway.config import Config
from protocols.webrtc.transport.peer import Limits
from protocols.webrtc.transport.udp_mux import UdpMux


def udp_mux(config: Config) -> UdpMux:
    return UdpMux(
        config.webrtc.host,
        config.webrtc.port,
        external_addresses=[str(address) for address in config.webrtc.external_addresses],
        limits=Limits(peers=config.webrtc.max_viewers, connect=config.webrtc.connect_timeout_s),
    )
