"""HLS, ordinary and low-latency (RFC 8216bis): how a stream is cut into segments and parts, and the playlists that name them. Sans-IO."""
