"""The vocabulary of the gateway: calls, users, settings, permissions, lifecycle and event types. Plain data and pure functions."""
