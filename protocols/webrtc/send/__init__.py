"""One source to its viewers: packetized once, kept once, sent to each."""
