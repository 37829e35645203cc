"""The data path of a connection: listeners, layers, the gate, the dialer, response inspection."""
