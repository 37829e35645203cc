"""Drives the real program with the real clients, in a small internet of our own."""
