"""Knows what a request to the Messages API may ask for, and what it has used."""
