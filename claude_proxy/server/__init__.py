"""The proxy process: startup, app, reload, workers."""
