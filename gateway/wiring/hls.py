"""HLS as the configuration wants it."""

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity
from gateway.config import Config
from gateway.config.sources import ConfigError, ConfigProblem
from gateway.ingress.addresses import origin
from gateway.model.permissions import Capability
from gateway.outputs.hls.broadcasts import HlsBroadcasts
from gateway.outputs.hls.policy import HlsPolicy
from gateway.outputs.hls.routes import HlsRoutes
from gateway.outputs.hls.signed_urls import SignedUrls
from gateway.store.calls import NoSuchCall
from gateway.wiring.output import MediaOutput, OutputNeeds

if TYPE_CHECKING:
    from gateway.outputs.hls.archive import Archive


def hls(needs: OutputNeeds) -> MediaOutput | None:
    """None where it is off. Raises `ConfigError` for a storage that cannot be used."""
    config, authorizer = needs.config, needs.authorizer
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
        needs.secret,
        is_open=lambda cid: authorizer.may(Identity(), cid, Capability.JOIN_CALL),
        admit=lambda cid: authorizer.watch(cid, None),
        ttl_s=config.hls.link_ttl_s,
        is_over=authorizer.is_over,
        still=partial(_still, authorizer),
    )
    base_url = config.hls.base_url.rstrip("/") or origin(config, "", needs.http_port)
    archive = _archive(config)
    broadcasts = HlsBroadcasts(policy, needs.capacity, links, base_url, archive)
    routes = HlsRoutes(broadcasts, authorizer.watch, config.http.cors_origins).routes()
    return MediaOutput(broadcasts, routes, {"HLS archive": archive.run} if archive is not None else {}, broadcasts, broadcasts)


async def _still(authorizer: Authorizer, cid: str, whose: str) -> None:
    """Raises `Rejected` where they may not watch any more. Of a deleted call nobody is asked: whether its end is shown says `is_over`."""
    with suppress(NoSuchCall):
        await authorizer.still_watches(Identity.of_watching(whose, cid), cid)


def _archive(config: Config) -> "Archive | None":
    if not config.hls.storage:
        return None
    from gateway.outputs.hls.archive import Archive  # with what speaks to buckets: 4 MB

    options = {name: value.get_secret_value() for name, value in config.hls.storage_options.items()}
    try:
        return Archive(config.hls.storage, options)
    except ValueError as error:
        raise ConfigError([ConfigProblem("hls.storage", "the configuration", config.hls.storage, str(error))]) from None
