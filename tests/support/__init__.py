"""What tests share: a gateway in its own process, real encoders, and viewers that decode."""
