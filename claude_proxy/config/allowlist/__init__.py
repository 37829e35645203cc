"""The allowlist file: loaded, checked, edited and written."""
