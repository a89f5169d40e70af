"""The commands, by subject: each file adds its own to the command line (`add`)."""
