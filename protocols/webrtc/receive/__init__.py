"""RTP from a publishing peer: back in order, a frame at a time."""
