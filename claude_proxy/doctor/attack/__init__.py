"""Attacks on a sandbox from inside, and their results."""
