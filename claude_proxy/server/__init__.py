"""The proxy process: startup, listening sockets, policy reload, workers and services."""
