"""HTTP/1.1, sans-io: read strictly, written from what was judged (RFC 9110, RFC 9112)."""
