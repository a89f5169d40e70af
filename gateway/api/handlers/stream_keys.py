"""Short stream keys for encoders: made, listed and revoked; the key itself is told once, to whoever makes it."""

from datetime import timedelta

from gateway.access import stream_keys
from gateway.api.framework.encoder_addresses import ALWAYS_SHOWN
from gateway.api.framework.errors import ApiError
from gateway.api.framework.paging import fitting
from gateway.api.framework.route import ApiRequest
from gateway.api.framework.services import Services
from gateway.api.schemas import conversion
from gateway.api.schemas.answers import (
    CreatedStreamKeyResponse,
    EmptyResponse,
    RtmpWay,
    ServerAndKey,
    SrtWay,
    StreamKeysResponse,
    WhipWay,
)
from gateway.api.schemas.requests import EmptyRequest, StreamKeyRequest
from gateway.model.permissions import Capability
from gateway.model.records import StreamKey


async def create(services: Services, request: ApiRequest[StreamKeyRequest]) -> CreatedStreamKeyResponse:
    body, me = request.body, request.identity.user_id
    user_id = body.user_id if body.user_id is not None else request.speaking_for(None)
    if not user_id:
        raise ApiError(401, "a stream key is a user's: come with a token")
    if user_id != me:
        services.authorizer.judge(request.identity, request.cid, Capability.CREATE_STREAM_KEY)
    lasts = timedelta(seconds=body.expires_in_seconds) if body.expires_in_seconds is not None else None
    key = StreamKey(
        name=stream_keys.new_name(services.tokens.secret.value),
        call_cid=request.cid,
        user_id=user_id,
        created_by_id=me,
        created_at=request.now,
        expires_at=request.now + lasts if lasts is not None else None,
        picture=body.picture,
        api_key=request.identity.api_key,
        rank=body.rank,
        on_conflict=body.on_conflict,
    )
    await services.store.users.ensure([user_id], request.now)
    await services.store.stream_keys.add(key)
    return _created(services, request, key)


def _created(services: Services, request: ApiRequest[StreamKeyRequest], key: StreamKey) -> CreatedStreamKeyResponse:
    secret = services.tokens.secret.value
    whole, passphrase = stream_keys.whole(secret, key.name), stream_keys.password(secret, key.name)
    where = services.ingress.addresses(request.cid, request.origin)
    query = f"streamid={key.name}&passphrase={passphrase}&pbkeylen=16"
    ways: dict[str, object] = {
        name: ServerAndKey(server=server, stream_key=whole) for name, server in where.items() if name not in ALWAYS_SHOWN
    }
    ways["rtmp"] = RtmpWay(server=where["rtmp"], stream_key=whole)
    ways["srt"] = SrtWay(
        server=where["srt"],
        stream_id=key.name,
        passphrase=passphrase,
        address=f"{where['srt']}?{query}" if where["srt"] else "",
    )
    ways["whip"] = WhipWay(server=where["whip"], bearer_token=whole)
    return CreatedStreamKeyResponse.model_validate({"stream_key": conversion.stream_key(key), "key": whole, **ways})


async def get_all(services: Services, request: ApiRequest[EmptyRequest]) -> StreamKeysResponse:
    """One's own, and everybody's for who may make keys for others."""
    everybody = Capability.CREATE_STREAM_KEY in request.access.capabilities
    keys = await services.store.stream_keys.of_call(request.cid, None if everybody else [request.identity.user_id])
    return StreamKeysResponse(stream_keys=list(fitting(map(conversion.stream_key, keys))))


async def revoke(services: Services, request: ApiRequest[EmptyRequest]) -> EmptyResponse:
    name = request.path["key"]
    key = await services.store.stream_keys.get(name)
    if key is None or key.call_cid != request.cid:
        raise ApiError(404, f"the call has no stream key {name}")
    if key.user_id != request.identity.user_id:
        services.authorizer.judge(request.identity, request.cid, Capability.CREATE_STREAM_KEY)
    await services.store.stream_keys.revoke(name, request.now)
    return EmptyResponse()
