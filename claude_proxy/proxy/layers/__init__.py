"""Holds mitmproxy layers of ours: what a client's bytes go through, from the first on."""
