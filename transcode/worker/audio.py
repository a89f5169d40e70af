"""Any audio to Opus 48 kHz stereo 20 ms (or AAC, for HLS), on the source's timeline. Worker side: imports libav.

Keeps true: packets leave in steps of exactly 20 ms (AAC: 1024 samples), whatever the source's frames and rounded timestamps are; what is
heard is within a few ms of the source's `pts`. A clock that drifts is followed by one sample more or less per packet (0.1 %, not heard); a
gap or jump of more than 40 ms ends the steps and starts them anew at the source's time. A change of rate, channels or sample format ends
nothing.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

from av import AudioFrame, FFmpegError, Packet
from av.audio.codeccontext import AudioCodecContext
from av.codec import CodecContext

from protocols.media import Codec, EncodedPacket, Track
from transcode.plan import AudioTarget
from transcode.worker.encoders import AAC_FRAME, OPUS_FRAME, OPUS_RATE, open_aac, open_opus
from transcode.worker.mixdown import StereoMix
from transcode.worker.speex import SpeexDecoder

_SECOND = 1_000_000_000
_JUMP = 40_000_000
_SLEW_FROM = 1_000_000  # the mean of RTMP's ms-rounded times is within this
_SLEW_TO = 250_000
_DRIFT_WEIGHT = 64  # packets over which the distance is averaged: about 1.4 s
_LONGEST = 1.0  # s that one source packet may decode to: more is an attack
_DECODERS = {
    Codec.AAC: "aac",
    Codec.MP3: "mp3float",
    Codec.MP2: "mp2float",
    Codec.AC3: "ac3",
    Codec.EAC3: "eac3",
    Codec.FLAC: "flac",
    Codec.OPUS: "libopus",
    Codec.G711_ALAW: "pcm_alaw",
    Codec.G711_ULAW: "pcm_mulaw",
    Codec.SPEEX: "speex",
}
_PCM = {8: "pcm_u8", 16: "pcm_s16le"}  # by bits of a sample
_WITHOUT_HEADER = frozenset({Codec.G711_ALAW, Codec.G711_ULAW, Codec.PCM, Codec.SPEEX})  # of a rate that only the track says
_WITH_EXTRADATA = frozenset({Codec.AAC, Codec.FLAC, Codec.OPUS})


class Form(NamedTuple):
    """Of decoded sound."""

    rate: int
    layout: str
    format: str


_MIXED = Form(OPUS_RATE, "stereo", "s16")
_FED_AS_THEY_COME = frozenset({"fltp", "flt", "s16", "s16p"})  # sample formats in which zeros are silence
_FED_FROM = 44_100  # Hz: one sample more or less is not heard in them


class AudioTranscoder:
    """One audio track: `take` a source packet, get the Opus packets that it completes."""

    def __init__(self, track: Track, target: AudioTarget) -> None:
        aac = target.codec is Codec.AAC
        self._encoder = open_aac(target.bitrate) if aac else open_opus(target.bitrate)
        self._frame = AAC_FRAME if aac else OPUS_FRAME  # samples
        self._step = _SECOND * self._frame // OPUS_RATE
        head = self._encoder.extradata or b""
        # What an Opus packet decodes to lags by its pre-skip, at byte 10 (RFC 7845 §5.1), so it is dated back by as much; AAC begins with
        # a packet of nothing
        self._lag = 0 if aac else int.from_bytes(head[10:12], "little") * _SECOND // OPUS_RATE
        self._empty = int(aac)  # packets
        self._id = track.id
        self.outputs = (Track(track.id, target.codec, extradata=head, sample_rate=OPUS_RATE, channels=2),)
        self.decoded = self.encoded = self.errors = self.dropped = 0
        self._track = track
        self._decoder: AudioCodecContext | SpeexDecoder | None = None
        self._source: Form | None = None
        self._fed: Form | None = None
        """What the encoder is given, from its first frame on: it resamples that by itself, and cuts it into its own frames."""
        self._may_be_fed_as_it_comes = not aac  # AAC's encoder fails at samples that are no numbers
        self._mix: StereoMix | None = None  # where the source is of another form
        self._samples = 0  # that the encoder was given
        self._pts = 0  # of the next packet
        self._anchored: tuple[int, int] | None = None  # the packet at which the source's time last began anew, and its pts
        self._expected = 0  # pts of the next decoded sample, if the source's clock runs like ours
        self._drift = 0  # mean distance of the source's pts from that
        self._slewing = False

    def reopen(self, track: Track) -> None:
        """The source has changed: another decoder from the next packet on; the encoder and the steps go on."""
        if track != self._track:
            self._decoder = None
            self._track = track

    def take(self, packet: EncodedPacket, silent: bool = False) -> Iterator[EncodedPacket]:
        """Decode one source packet; a packet that the decoder refuses is counted. `silent` is for video only."""
        pts = packet.pts
        for frame in self._decode(packet):
            if self._anchored is None or self._jumps(pts):
                yield from self._end_steps(packet)
                self._anchor(pts)
            duration = frame.samples * _SECOND // frame.sample_rate
            pts += duration
            self._expected += duration
            for fed in self._as_fed(frame):
                yield from self._encode(fed, packet)

    def finish(self) -> Iterator[EncodedPacket]:
        """The end: what is left of less than 20 ms would be a step of silence, so nothing comes."""
        yield from ()

    def request_keyframe(self) -> None:
        """Nothing: every Opus packet is one."""

    def set_bitrate(self, bits_per_second: int) -> None:
        """Nothing: audio is a small part of a call, and its cut is heard first."""

    def _decode(self, packet: EncodedPacket) -> list[AudioFrame]:
        coded = Packet(len(packet.data))  # libav's own padded memory: a zero-copy packet has no padding to read beyond
        coded.update(packet.data)
        try:
            if self._decoder is None:
                self._decoder = sound_decoder(self._track)
            frames = [frame for frame in self._decoder.decode(coded) if isinstance(frame, AudioFrame) and frame.sample_rate > 0]
        except FFmpegError:
            self.errors += 1
            return []
        if sum(frame.samples / frame.sample_rate for frame in frames) > _LONGEST:
            self.errors += 1
            return []
        self.decoded += len(frames)
        return frames

    def _jumps(self, pts: int) -> bool:
        """Compare the source's time with ours: whether it has jumped; if not, take note of the drift."""
        distance = pts - self._expected
        if abs(distance) > _JUMP:
            return True
        self._drift += (distance - self._drift) // _DRIFT_WEIGHT
        if abs(self._drift) > _SLEW_FROM:
            self._slewing = True
        elif abs(self._drift) < _SLEW_TO:
            self._slewing = False
        return False

    def _end_steps(self, source: EncodedPacket) -> Iterator[EncodedPacket]:
        """Give what was decoded before a jump: the last packet of it ends in silence."""
        if self._mix is not None:
            for mixed in self._mix.mix(None):
                yield from self._encode(mixed, source)
        self._mix = self._source = None
        if self._fed is not None and (begun := self._samples * OPUS_RATE // self._fed.rate % self._frame):
            missing = -(-(self._frame - begun) * self._fed.rate // OPUS_RATE)
            yield from self._encode(_silence(self._fed, missing), source)

    def _anchor(self, pts: int) -> None:
        """The next sample that the encoder is given has this time."""
        packet = self._empty
        if self._fed is not None:
            packet += round(self._samples * OPUS_RATE / (self._fed.rate * self._frame))
        self._anchored = packet, pts - self._lag
        if packet == self._empty:  # the first: what comes before it has its time from it, too
            self._pts = pts - self._lag - self._empty * self._step
        self._expected = pts
        self._drift = 0
        self._slewing = False

    def _as_fed(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """A decoded frame as the encoder is fed."""
        form = Form(frame.sample_rate, frame.layout.name, frame.format.name)
        if form != self._source:
            if self._mix is not None:
                yield from self._mix.mix(None)
            self._source = form
            if self._fed is None:
                as_it_comes = self._may_be_fed_as_it_comes and form.rate >= _FED_FROM and form.format in _FED_AS_THEY_COME
                self._fed = form if as_it_comes and frame.layout.nb_channels == 2 else _MIXED
            self._mix = None if form == self._fed else StereoMix(frame, self._fed.rate, self._fed.format)
        if self._mix is None:
            yield from self._slewed(frame) if self._slewing else (frame,)
        else:
            for mixed in self._mix.mix(frame):
                yield from self._slewed(mixed) if self._slewing else (mixed,)

    def _slewed(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """A frame with its last sample twice, or without it, as the drift is."""
        step = _SECOND // frame.sample_rate
        if self._drift > 0:
            yield frame
            yield _part(frame, frame.samples - 1, 1)
        else:
            step = -step
            yield _part(frame, 0, frame.samples - 1)
        self._expected += step
        self._drift -= step

    def _encode(self, frame: AudioFrame, source: EncodedPacket) -> Iterator[EncodedPacket]:
        self._samples += frame.samples
        assert self._anchored is not None
        packet, pts = self._anchored
        for coded in self._encoder.encode(frame):
            if self.encoded == packet:
                self._pts = pts
            yield EncodedPacket(self._id, self._pts, self._pts, True, bytes(coded), source.begun, source.arrival)
            self.encoded += 1
            self._pts += self._step


def _part(frame: AudioFrame, start: int, samples: int) -> AudioFrame:
    """A copy of some of its samples."""
    part = AudioFrame(frame.format.name, frame.layout.name, samples)
    part.sample_rate = frame.sample_rate
    size = frame.format.bytes * (1 if frame.format.is_planar else frame.layout.nb_channels)
    for mine, its in zip(part.planes, frame.planes, strict=True):
        mine.update(bytes(memoryview(its)[start * size : (start + samples) * size]))
    return part


def _silence(form: Form, samples: int) -> AudioFrame:
    frame = AudioFrame(form.format, form.layout, samples)
    frame.sample_rate = form.rate
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


def sound_decoder(track: Track) -> AudioCodecContext | SpeexDecoder:
    """Raises `av.FFmpegError` where the track's facts are none that it can begin with."""
    begin = partial(_open_decoder, track)
    return SpeexDecoder(begin) if track.codec is Codec.SPEEX else begin()


def _open_decoder(track: Track) -> AudioCodecContext:
    name = _PCM[track.bit_depth] if track.codec is Codec.PCM else _DECODERS[track.codec]
    decoder = CodecContext.create(name, "r")
    assert isinstance(decoder, AudioCodecContext)
    decoder.thread_count = 1
    if track.codec in _WITH_EXTRADATA and track.extradata:
        decoder.extradata = track.extradata
    if track.codec in _WITHOUT_HEADER:
        decoder.sample_rate = track.sample_rate
        decoder.layout = "mono" if track.channels == 1 else "stereo"
    if track.codec is Codec.OPUS:
        decoder.sample_rate = OPUS_RATE
        decoder.layout = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}.get(
            track.channels, "stereo"
        )
    decoder.open()
    return decoder
