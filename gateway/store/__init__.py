"""What outlives the process: calls, call types, users, keys and the webhooks still to be sent."""
