"""The private names of pylibsrtp that `protocols/webrtc/transport/srtp.py` stands on, at the pinned versions."""

from importlib.metadata import version

import pylibsrtp
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi, lib

from protocols.webrtc.transport import srtp


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("pylibsrtp") == "1.0.0"


def test_functions_take_a_context_memory_and_a_length() -> None:
    for name in ("srtp_protect", "srtp_unprotect", "srtp_protect_rtcp", "srtp_unprotect_rtcp"):
        assert ffi.typeof(getattr(lib, name)).cname == "srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)"
    assert lib.srtp_err_status_ok == 0


def test_a_session_keeps_its_context_where_we_take_it() -> None:
    session = Session(Policy(bytes(44), Policy.SSRC_ANY_OUTBOUND, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM))
    assert ffi.typeof(session._srtp[0]).cname == "struct srtp_ctx_t_ *"


def test_the_room_left_behind_packets_is_libsrtps() -> None:
    assert srtp.TRAILER_LIMIT == pylibsrtp.SRTP_MAX_TRAILER_LEN
    assert srtp.TRAILER_LIMIT + 4 == pylibsrtp.SRTP_MAX_SRTCP_TRAILER_LEN
