"""mitmproxy layers that a client's bytes go through, from the first byte on."""
