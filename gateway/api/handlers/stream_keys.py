"""Short stream keys for encoders: made, listed and revoked; the key itself is told once, to whoever makes it."""

from datetime import timedelta

from gateway.access import stream_keys
from gateway.api.framework.errors import ApiError
from gateway.api.framework.route import Asked
from gateway.api.framework.services import Desk
from gateway.api.schemas import conversion
from gateway.api.schemas.answers import (
    CreatedStreamKeyResponse,
    EmptyResponse,
    RtmpWay,
    SrtWay,
    StreamKeysResponse,
    WhipWay,
)
from gateway.api.schemas.requests import EmptyRequest, StreamKeyRequest
from gateway.model.permissions import Capability
from gateway.model.records import StreamKey


async def create(desk: Desk, asked: Asked[StreamKeyRequest]) -> CreatedStreamKeyResponse:
    body, me = asked.body, asked.identity.user_id
    user_id = body.user_id if body.user_id is not None else asked.speaking_for(None)
    if not user_id:
        raise ApiError(401, "a stream key is a user's: come with a token")
    if user_id != me:
        desk.authority.judge(asked.identity, asked.cid, Capability.CREATE_STREAM_KEY)
    lasts = timedelta(seconds=body.expires_in_seconds) if body.expires_in_seconds is not None else None
    key = StreamKey(
        name=stream_keys.new_name(desk.stream_key_secret),
        call_cid=asked.cid,
        user_id=user_id,
        created_by_id=me,
        created_at=asked.now,
        expires_at=asked.now + lasts if lasts is not None else None,
    )
    await desk.store.users.ensure([user_id], asked.now)
    await desk.store.stream_keys.add(key)
    return _created(desk, asked, key)


def _created(desk: Desk, asked: Asked[StreamKeyRequest], key: StreamKey) -> CreatedStreamKeyResponse:
    secret = desk.stream_key_secret
    whole, passphrase = stream_keys.whole(secret, key.name), stream_keys.password(secret, key.name)
    where = desk.ingress.addresses(asked.cid, asked.origin)
    query = f"streamid={key.name}&passphrase={passphrase}&pbkeylen=16"
    return CreatedStreamKeyResponse(
        stream_key=conversion.stream_key(key),
        key=whole,
        rtmp=RtmpWay(server=where.rtmp, stream_key=whole),
        srt=SrtWay(
            server=where.srt,
            stream_id=key.name,
            passphrase=passphrase,
            address=f"{where.srt}?{query}" if where.srt else "",
        ),
        whip=WhipWay(server=where.whip, bearer_token=whole),
    )


async def get_all(desk: Desk, asked: Asked[EmptyRequest]) -> StreamKeysResponse:
    """One's own, and everybody's for who may make keys for others."""
    everybody = Capability.CREATE_STREAM_KEY in asked.place.capabilities
    keys = await desk.store.stream_keys.of_call(asked.cid, None if everybody else [asked.identity.user_id])
    return StreamKeysResponse(stream_keys=[conversion.stream_key(each) for each in keys])


async def revoke(desk: Desk, asked: Asked[EmptyRequest]) -> EmptyResponse:
    name = asked.path["key"]
    key = await desk.store.stream_keys.get(name)
    if key is None or key.call_cid != asked.cid:
        raise ApiError(404, f"the call has no stream key {name}")
    if key.user_id != asked.identity.user_id:
        desk.authority.judge(asked.identity, asked.cid, Capability.CREATE_STREAM_KEY)
    await desk.store.stream_keys.revoke(name, asked.now)
    return EmptyResponse()
