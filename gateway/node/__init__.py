"""This machine and this process: CPU, certificates, self-test, drain, and the client of a gateway that runs."""
