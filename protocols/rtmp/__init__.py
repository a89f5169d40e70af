"""RTMP and RTMPS: how OBS, ffmpeg and hardware encoders publish over TCP (RTMP 1.0, Enhanced RTMP v2)."""
