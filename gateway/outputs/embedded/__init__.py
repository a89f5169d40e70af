"""The embedded call: this gateway is the call, and its viewers watch by WHEP."""
