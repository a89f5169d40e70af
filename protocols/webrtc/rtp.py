"""RTP for sending and what one m-line agreed on (RFC 3550, RFC 4588, RFC 8285). Sans-IO."""

from dataclasses import dataclass

from protocols.media import Kind


@dataclass(frozen=True, slots=True)
class SendParameters:
    """What the SDP answer fixed for one m-line on which we send. An extension id of 0 means: not negotiated."""

    kind: Kind
    mid: str
    payload_type: int
    ssrc: int
    cname: str
    rtx_payload_type: int | None = None
    rtx_ssrc: int | None = None
    mid_extension: int = 0
    abs_send_time_extension: int = 0
    transport_cc_extension: int = 0
