"""WebRTC: one UDP port for all peers (ICE-lite), DTLS, SDP answers, RTP in and out.

The media path is ours; OpenSSL gives the handshake, libsrtp the SRTP.
"""
