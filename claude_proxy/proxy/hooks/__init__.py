"""mitmproxy addons: hooks without decisions of their own."""
