"""Where media go, each behind the contract of `gateway/sessions/output.py`."""
