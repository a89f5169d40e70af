"""What the gateway tells operators about itself: the log, traces, and how long things take."""
