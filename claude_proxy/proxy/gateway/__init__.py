"""The gateway: who may call it, what it serves and what its callers get back."""
