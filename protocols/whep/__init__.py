"""WHEP: viewers of a call over WebRTC (draft-ietf-wish-whep), each with slots for several participants."""
