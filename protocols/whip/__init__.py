"""WHIP (RFC 9725): encoders and browsers that publish over WebRTC."""
