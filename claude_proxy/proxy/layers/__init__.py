"""mitmproxy layers that parse a client's bytes, judge its requests and forward them."""
