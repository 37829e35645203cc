"""Credential decisions: which login a request may carry, and what is injected; pure."""
