"""Sending in C: optional, built where the gateway is set up. Pure Python serves where it was not built, or fails."""
