"""HTTP/1.1, sans-io: strict parsers, and writers of what was judged (RFC 9110, RFC 9112)."""
