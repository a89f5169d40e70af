"""The gateway: composes listeners, stages and calls into seats, and tells operators what is happening."""

VERSION = "0.1.0"  # as in pyproject.toml, which is not there where the gateway runs from a checkout or an image
