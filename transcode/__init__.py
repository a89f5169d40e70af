"""What must be decoded and encoded, and the worker processes that do it. Knows no sockets to peers, sessions or HTTP."""
