"""What scene switchers of mobile streamers read to see how a stream arrives: `/stat` in the form of nginx-rtmp, `/stats` in that of SRT
Live Server. NOALBS and its like poll one of them and show another scene while the bitrate is low or the stream is away.

A stream is named by its call and user, which are no secret, and not by its key. It is told of while media come of its encoder, whatever
viewers are shown: one that is away or silent is not there, which such programs take for offline.

Kept true: who shows a stream key is told of its own stream alone, who shows a token also of those that they may list; the key goes in a
header and never in an address; an answer has `MOST` streams at most.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from itertools import islice
from time import monotonic_ns
from typing import Final, Self
from xml.etree.ElementTree import Element, SubElement, tostring

from aiohttp import BasicAuth, hdrs, web

from gateway.access.authorizer import Authorizer
from gateway.access.credentials import Identity
from gateway.api.framework.quotas import Quotas
from gateway.api.status import listed
from gateway.model.permissions import SENDING
from gateway.sessions.registry import Registry
from gateway.sessions.seat import Seat
from gateway.sessions.seat_state import TRIGGERED, SeatState
from protocols.errors import Reason, Rejected
from protocols.media import Codec, Kind, Track
from protocols.publisher import Credential
from protocols.webrtc.http import bearer, problem

MOST: Final = 100
_CHALLENGE: Final = 'Basic realm="a stream key as the password", Bearer'
_WORDS: Final = "send a stream key, or a token, as the password (any user name) or after Bearer"
_UINT32: Final = (1 << 32) - 1  # readers keep bit rates in so many bits
_ARRIVES: Final = frozenset({SeatState.LIVE, SeatState.STALLED})


@dataclass(frozen=True, slots=True)
class Arriving:
    """How one stream arrives. Rates in bit/s, sizes in bytes, totals since its encoder came."""

    call: str
    user: str
    uptime_s: float
    video_bps: int
    audio_bps: int
    bytes_received: int
    round_trip_ms: float
    packets_lost: int
    packets_dropped: int
    packet_bytes: int  # of one, on average
    capacity_mbps: float
    buffer_ms: int
    video: Track | None  # the largest
    frame_rate: float
    audio: Track | None

    @classmethod
    def of(cls, seat: Seat, now: int) -> Self | None:
        """None while no media come of its encoder; `now` in monotonic ns."""
        pipeline, publisher = seat.pipeline, seat.publisher
        hidden = seat.interruption is not None and seat.interruption.cause in TRIGGERED
        if pipeline is None or publisher is None or not (hidden or seat.state in _ARRIVES):
            return None
        stats, link = publisher.stats, publisher.stats.link
        tracks = [each for each in pipeline.track_pipelines.values() if each.meter.packets]
        pictures = sorted((each for each in tracks if each.track.kind is Kind.VIDEO), key=lambda each: each.track.height)
        sounds = [each for each in tracks if each.track.kind is Kind.AUDIO]
        return cls(
            call=seat.call_cid,
            user=seat.user_id,
            uptime_s=(now - min((each.meter.begun for each in tracks), default=now)) / 1e9,
            video_bps=sum(each.meter.bitrate for each in pictures),
            audio_bps=sum(each.meter.bitrate for each in sounds),
            bytes_received=sum(each.meter.bytes for each in tracks),
            round_trip_ms=stats.round_trip_ns / 1e6,
            packets_lost=stats.packets_lost,
            packets_dropped=stats.packets_dropped,
            packet_bytes=stats.bytes_received // max(1, stats.packets_received),
            capacity_mbps=link.capacity_mbps if link is not None else 0.0,
            buffer_ms=link.buffer_ms if link is not None else 0,
            video=pictures[-1].track if pictures else None,
            frame_rate=pictures[-1].meter.frame_rate if pictures else 0.0,
            audio=sounds[0].track if sounds else None,
        )


class SceneSwitchers:
    """See the file."""

    def __init__(self, registry: Registry, authorizer: Authorizer, quotas: Quotas, most: int = MOST) -> None:
        """`most`: streams in an answer."""
        self._registry = registry
        self._most = most
        self._authorizer = authorizer
        self._quotas = quotas

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/stat", self._nginx_rtmp), web.get("/stats", self._srt_live_server)]

    async def _nginx_rtmp(self, request: web.Request) -> web.Response:
        return await self._answer(request, nginx_rtmp, "application/xml")

    async def _srt_live_server(self, request: web.Request) -> web.Response:
        return await self._answer(request, srt_live_server, "application/json")

    async def _answer(self, request: web.Request, form: "DocumentForm", content_type: str) -> web.Response:
        try:
            identity = await self._identify(request)
        except Rejected as refusal:
            if refusal.reason is not Reason.UNAUTHORIZED:
                raise
            response = problem(HTTPStatus.UNAUTHORIZED, refusal.detail)
            response.headers[hdrs.WWW_AUTHENTICATE] = _CHALLENGE
            return response
        call, now = request.query.get("call"), monotonic_ns()
        arriving = (each for seat in self._seats(identity, call) if (each := Arriving.of(seat, now)) is not None)
        shown = sorted(islice(arriving, self._most), key=lambda each: (each.call, each.user))
        text = form(sorted(identity.call_cids or ()), shown)
        return web.Response(text=text, content_type=content_type, charset="utf-8", headers={"Cache-Control": "no-store"})

    async def _identify(self, request: web.Request) -> Identity:
        """Who asks; what is needed to know their rights is in memory then. Raises `Rejected`."""
        credential, remote = _credential(request), request.remote or ""
        await self._authorizer.prepare(credential, None)
        identity = self._authorizer.authenticator.identify(credential, "The stream key", address=remote)
        self._quotas.asked(identity, remote, for_list=not identity.stream_key)
        await self._authorizer.administers(identity)
        return identity

    def _seats(self, identity: Identity, call: str | None) -> Iterator[Seat]:
        """Those that they may be told of, their own first. `call`: of this one alone."""
        seats = self._registry.seats
        cids = {cid for cid, _ in seats} if identity.call_cids is None else identity.call_cids
        asked = [cid for cid in cids if call in (None, cid)]
        own = [seats[cid, identity.user_id] for cid in asked if (cid, identity.user_id) in seats]
        if identity.reach & SENDING:  # else the credential is for watching alone
            yield from own
        if not identity.stream_key:
            others = [each for (cid, _), each in seats.items() if call in (None, cid) and each not in own]
            yield from listed(self._authorizer, identity, others)


def _credential(request: web.Request) -> Credential:
    """Raises `Rejected` (UNAUTHORIZED) where there is none."""
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    try:
        text = BasicAuth.decode(header, "utf-8").password if header[:6].lower() == "basic " else bearer(request)
    except ValueError:
        text = None
    if not text:
        raise Rejected(Reason.UNAUTHORIZED, _WORDS)
    return Credential(text)


DocumentForm = Callable[[Sequence[str], Sequence[Arriving]], str]
"""The calls that there are to who asks even without a stream, and the streams by call and user."""


def nginx_rtmp(calls: Sequence[str], shown: Sequence[Arriving]) -> str:
    """What nginx-rtmp tells of a server (`rtmp_stat all`): the call is the application, the user the stream. Rates in bit/s, times in
    ms."""
    root = Element("rtmp")
    _fields(root, bw_in=sum(each.video_bps + each.audio_bps for each in shown))
    server = SubElement(root, "server")
    by_call = {cid: list[Arriving]() for cid in calls}
    for each in shown:
        by_call.setdefault(each.call, []).append(each)
    for cid, streams in by_call.items():
        application = SubElement(server, "application")
        _fields(application, name=cid)
        live = SubElement(application, "live")
        for each in streams:
            _stream(SubElement(live, "stream"), each)
        _fields(live, nclients=len(streams))
    return '<?xml version="1.0" encoding="utf-8" ?>\n' + tostring(root, encoding="unicode")


def _stream(element: Element, each: Arriving) -> None:
    _fields(element, name=each.user, time=round(each.uptime_s * 1000), bw_in=_bits(each.video_bps + each.audio_bps))
    _fields(element, bytes_in=each.bytes_received, bw_audio=_bits(each.audio_bps), bw_video=_bits(each.video_bps))
    if (video := each.video) is not None:  # readers want the picture's facts or none
        meta = SubElement(element, "meta")
        picture, sound = SubElement(meta, "video"), SubElement(meta, "audio")
        _fields(picture, width=video.width, height=video.height, frame_rate=each.frame_rate, codec=_name(video))
        if video.profile:
            _fields(picture, profile=video.profile)
        if video.codec is Codec.H264 and video.level:
            _fields(picture, level=video.level / 10)
        if (audio := each.audio) is not None:
            _fields(sound, codec=_name(audio), channels=audio.channels, sample_rate=audio.sample_rate)
    _fields(element, nclients=1)
    SubElement(element, "publishing")
    SubElement(element, "active")


def _fields(element: Element, **values: object) -> None:
    for name, value in values.items():
        SubElement(element, name).text = str(value)


def _name(track: Track) -> str:
    return track.codec.value.upper()


def _bits(rate: int) -> int:
    return min(rate, _UINT32)


def srt_live_server(calls: Sequence[str], shown: Sequence[Arriving]) -> str:
    """What SRT Live Server tells of its publishers, here of any protocol, by `call/user`. `bitrate` in kbit/s, `rtt` in ms, `uptime` in s;
    the sizes of what is missing are, as libsrt's, those of average packets."""
    return json.dumps({"publishers": {f"{each.call}/{each.user}": _publisher(each) for each in shown}, "status": "ok"})


def _publisher(each: Arriving) -> dict[str, float]:
    rate = each.video_bps + each.audio_bps
    return {
        "bitrate": rate // 1000,
        "bytesRcvDrop": each.packets_dropped * each.packet_bytes,
        "bytesRcvLoss": each.packets_lost * each.packet_bytes,
        "mbpsBandwidth": round(each.capacity_mbps, 3),
        "mbpsRecvRate": round(rate / 1e6, 3),
        "msRcvBuf": each.buffer_ms,
        "pktRcvDrop": each.packets_dropped,
        "pktRcvLoss": each.packets_lost,
        "rtt": round(each.round_trip_ms, 2),
        "uptime": int(each.uptime_s),
    }
