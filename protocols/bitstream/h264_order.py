"""H.264: where each picture stands in the order of presentation (ITU-T H.264 §8.2.1), read off its first slice.

Only for what encoders of live video with B-frames send: whole frames, order counts of type 0. Of anything else nothing is said.
"""

from protocols.bitstream.bits import BitReader, unescape
from protocols.bitstream.h264 import Sps, read_pps_ids, read_sps
from protocols.bitstream.picture_order import PictureOrder, PicturePosition

_SLICE, _IDR, _SPS, _PPS = 1, 5, 7, 8


class H264PictureOrder(PictureOrder):
    """It is counted in fields."""

    frame = 2

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    @property
    def known(self) -> bool:
        """Whether there are places to be told."""
        return any(sps in self._sps for sps in self._pps.values())

    def _forget(self) -> None:
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, int] = {}  # to its SPS

    def _follow_one(self, unit: bytes) -> None:
        if unit[0] & 0x1F == _SPS:
            sps = read_sps(unit)
            if sps.order_bits and sps.frames_only:
                self._sps[sps.identity] = sps
        elif unit[0] & 0x1F == _PPS:
            identity, sps_identity = read_pps_ids(unit)
            self._pps[identity] = sps_identity

    def _is_slice(self, first: int) -> bool:
        return first & 0x1F in (_SLICE, _IDR)

    def _read_slice(self, unit: bytes) -> PicturePosition | None:
        """§7.3.3 up to pic_order_cnt_lsb."""
        idr = unit[0] & 0x1F == _IDR
        bits = BitReader(unescape(unit, self.slice_bytes)[1:])
        bits.ue()  # first_mb_in_slice
        bits.ue(9)  # slice_type
        sps = self._sps.get(self._pps.get(bits.ue(255), -1))
        if sps is None:
            return None
        bits.skip(2 * sps.planes + sps.frame_num_bits)
        if idr:
            bits.ue(65535)  # idr_pic_id
            self._restart()
        referenced = unit[0] >> 5 & 3 != 0  # nal_ref_idc
        return PicturePosition(idr, self._counted(bits.bits(sps.order_bits), sps.order_bits, counts=referenced))
