"""HLS as the configuration wants it."""

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity
from gateway.config import Config
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.ingress.addresses import origin
from gateway.model.permissions import Capability
from gateway.outputs.hls.archive import Archive
from gateway.outputs.hls.broadcasts import HlsBroadcasts
from gateway.outputs.hls.policy import HlsPolicy
from gateway.outputs.hls.signed_urls import SignedUrls
from gateway.sessions.capacity import Capacity


def hls_broadcasts(
    config: Config, http_port: int, secret: bytes, capacity: Capacity, authorizer: Authorizer
) -> HlsBroadcasts | None:
    """None where it is off. `secret` signs addresses, `http_port` is the bound one. Raises `ConfigError` for a storage that cannot be
    used."""
    if not config.hls.enabled:
        return None
    policy = HlsPolicy(
        segment=int(config.hls.segment_s * 1e9),
        window=int(config.hls.window_s * 1e9),
        memory=config.hls.memory_mib << 20,
        audio_bitrate=config.transcode.audio_bitrate_bps,
        auto=config.hls.auto,
    )
    links = SignedUrls(
        secret,
        is_open=lambda cid: authorizer.may(Identity(), cid, Capability.JOIN_CALL),
        admit=lambda cid: authorizer.watch(cid, None),
        ttl_s=config.hls.link_ttl_s,
        is_over=authorizer.is_over,
        taken_out=authorizer.taken_out,
    )
    base_url = config.hls.base_url.rstrip("/") or origin(config, "", http_port)
    return HlsBroadcasts(policy, capacity, links, base_url, _archive(config))


def _archive(config: Config) -> Archive | None:
    if not config.hls.storage:
        return None
    options = {name: value.get_secret_value() for name, value in config.hls.storage_options.items()}
    try:
        return Archive(config.hls.storage, options)
    except ValueError as error:
        raise ConfigError([ConfigProblem("hls.storage", "the configuration", config.hls.storage, str(error))]) from None
