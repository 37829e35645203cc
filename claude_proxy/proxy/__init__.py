"""The data path of one connection: gate, dialer, connection, listeners, layers."""
