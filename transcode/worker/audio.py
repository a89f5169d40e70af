"""Any audio to Opus 48 kHz stereo 20 ms (or AAC, for HLS), on the source's timeline. Worker side: imports libav.

Keeps true: packets leave in steps of exactly 20 ms (AAC: 1024 samples), whatever the source's frames and rounded timestamps are; what is
heard is within a few ms of the source's `pts`. A clock that drifts is followed by one sample more or less per packet (0.1 %, not heard); a
gap or jump of more than 40 ms ends the steps and starts them anew at the source's time. A change of rate, channels or sample format ends
nothing.
"""

from collections.abc import Iterator
from functools import partial

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
_SAMPLE = 4  # bytes: two channels of 16 bits
_SAMPLE_NS = _SECOND // OPUS_RATE
_LONGEST_FRAME = 1_000_000  # samples that one source packet may decode to: more is an attack
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


class AudioTranscoder:
    """One audio track: `take` a source packet, get the Opus packets that it completes."""

    def __init__(self, track: Track, target: AudioTarget) -> None:
        aac = target.codec is Codec.AAC
        self._encoder = open_aac(target.bitrate) if aac else open_opus(target.bitrate)
        self._frame = AAC_FRAME if aac else OPUS_FRAME  # samples
        self._step = _SECOND * self._frame // OPUS_RATE
        head = self._encoder.extradata or b""
        # What a packet decodes to lags by this, so it is dated back by as much. RFC 7845 §5.1: Opus has its pre-skip at byte 10; AAC
        # begins with a frame of nothing, and gives each packet one frame later
        lag = 2 * AAC_FRAME if aac else int.from_bytes(head[10:12], "little")
        self._lag = lag * _SECOND // OPUS_RATE
        self._id = track.id
        self.outputs = (Track(track.id, target.codec, extradata=head, sample_rate=OPUS_RATE, channels=2),)
        self.decoded = self.encoded = self.errors = self.dropped = 0
        self._track = track
        self._decoder: AudioCodecContext | SpeexDecoder | None = None
        self._mix: StereoMix | None = None
        self._format: tuple[int, str, str] | None = None  # rate, layout and sample format that it was made for
        self._pcm = bytearray()
        self._pts: int | None = None  # of the first sample in _pcm
        self._expected = 0  # pts of the next decoded sample, if the source's clock runs like ours
        self._drift = 0  # mean distance of the source's pts from that
        self._slewing = False
        self._position = 0  # samples encoded

    def reopen(self, track: Track) -> None:
        """The source has changed: another decoder from the next packet on; the encoder and the steps go on."""
        if track != self._track:
            self._decoder = None
            self._track = track

    def take(self, packet: EncodedPacket, silent: bool = False) -> Iterator[EncodedPacket]:
        """Decode one source packet; a packet that the decoder refuses is counted. `silent` is for video only."""
        pts = packet.pts
        for frame in self._decode(packet):
            self._follow(pts)
            if self._pts is None:
                self._anchor(pts)
            self._append(frame)
            pts += frame.samples * _SECOND // frame.sample_rate
            self._expected += frame.samples * _SECOND // frame.sample_rate
            yield from self._encode(packet)

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
                begin = partial(_open_decoder, self._track)
                self._decoder = SpeexDecoder(begin) if self._track.codec is Codec.SPEEX else begin()
            frames = [frame for frame in self._decoder.decode(coded) if isinstance(frame, AudioFrame) and frame.sample_rate > 0]
        except FFmpegError:
            self.errors += 1
            return []
        if sum(frame.samples for frame in frames) > _LONGEST_FRAME:
            self.errors += 1
            return []
        self.decoded += len(frames)
        return frames

    def _follow(self, pts: int) -> None:
        """Compare the source's time with ours: start anew after a jump, or take note of the drift."""
        if self._pts is None:
            return
        distance = pts - self._expected
        if abs(distance) > _JUMP:
            self._pcm.clear()  # less than 20 ms, of before the jump
            self._pts = None
            return
        self._drift += (distance - self._drift) // _DRIFT_WEIGHT
        if abs(self._drift) > _SLEW_FROM:
            self._slewing = True
        elif abs(self._drift) < _SLEW_TO:
            self._slewing = False

    def _anchor(self, pts: int) -> None:
        self._pts = self._expected = pts
        self._drift = 0
        self._slewing = False
        self._mix = self._format = None

    def _append(self, frame: AudioFrame) -> None:
        """Add a decoded frame's samples, resampled and mixed to stereo."""
        form = (frame.sample_rate, frame.layout.name, frame.format.name)
        if form != self._format:
            if self._mix is not None:
                self._collect(None)
            self._mix = StereoMix(frame)
            self._format = form
        frame.pts = None  # libav would mend gaps in its own way
        self._collect(frame)
        if self._slewing and len(self._pcm) >= 2 * _SAMPLE:
            if self._drift > 0:
                self._pcm += self._pcm[-_SAMPLE:]
            else:
                del self._pcm[-_SAMPLE:]
            step = _SAMPLE_NS if self._drift > 0 else -_SAMPLE_NS
            self._expected += step
            self._drift -= step

    def _collect(self, frame: AudioFrame | None) -> None:
        assert self._mix is not None
        for mixed in self._mix.mix(frame):
            self._pcm += memoryview(mixed.planes[0])[: mixed.samples * _SAMPLE]

    def _encode(self, source: EncodedPacket) -> Iterator[EncodedPacket]:
        start, size = 0, self._frame * _SAMPLE
        while len(self._pcm) - start >= size:
            assert self._pts is not None
            frame = AudioFrame("s16", "stereo", self._frame)
            frame.planes[0].update(bytes(self._pcm[start : start + size]))
            frame.sample_rate = OPUS_RATE
            frame.pts = self._position
            pts = self._pts - self._lag
            self._position += self._frame
            self._pts += self._step
            start += size
            for coded in self._encoder.encode(frame):
                self.encoded += 1
                yield EncodedPacket(self._id, pts, pts, True, bytes(coded), source.begun, source.arrival)
        del self._pcm[:start]


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
