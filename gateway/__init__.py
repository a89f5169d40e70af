"""The gateway: composes listeners, stages and calls into sessions, and tells operators what is happening."""
