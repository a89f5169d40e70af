"""Who is who and who may do what: credentials, tokens, stream keys, and the rights that follow a user."""
