"""Holds what the gateway takes, gives back and bounds; pure, and without a word of HTTP/1.1."""
