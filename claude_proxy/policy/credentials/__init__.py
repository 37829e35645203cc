"""Which credential a request may carry, and what is injected; pure."""
