"""SRT ingress: libsrt for the transport, our own MPEG-TS demuxer for what it carries."""
