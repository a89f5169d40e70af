"""One UDP port for all WebRTC peers: ICE, STUN, DTLS, SRTP and the way out."""
