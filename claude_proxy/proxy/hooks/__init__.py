"""Holds mitmproxy addons of ours: hooks in, effects out, no judgement of their own."""
