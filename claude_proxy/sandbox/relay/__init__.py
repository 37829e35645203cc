"""The relay between TCP and Unix sockets; imports nothing heavy."""
