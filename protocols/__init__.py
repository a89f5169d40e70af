"""How media reaches us and leaves us: wire formats, listeners and the types they share. Knows no calls, config, metrics or auth."""
