"""What is inside the packets: each codec's bitstream, read as far as the gateway needs and written in the
form `protocols/media.py` keeps. Sans-IO.

A stream object takes the access units of one track in decoding order, in any of their framings, and knows the track's facts. Nothing here
decodes, and nothing costs time per byte in Python.
"""

from protocols.bitstream.unit import AccessUnit

__all__ = ["AccessUnit"]
