"""The macOS sandbox: sandbox-exec and its profile."""
