"""The gateway's side of the worker processes."""
