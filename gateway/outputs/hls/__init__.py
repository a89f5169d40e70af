"""Calls as HLS: each participant's stream cut and muxed beside the call, kept in bounded memory or a bucket, and served over HTTP.

Kept true: nothing here can slow or end what WebRTC viewers get. A worker that fails loses parts, a disk or bucket that is slow or full
loses segments; both are gaps in the playlist, counted, and nothing more.
"""
