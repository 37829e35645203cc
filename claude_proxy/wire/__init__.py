"""Wire formats, sans-io: names, addresses, ClientHello, HTTP/1.1, SOCKS5, the PROXY protocol."""
