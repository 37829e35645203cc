"""Comparison of policies: sets of hosts, methods and paths, and what one has more than another."""
