"""Sandboxed runs: a command whose only way to the network is the proxy."""
