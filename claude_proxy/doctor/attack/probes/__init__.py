"""Probes: attacks on a sandbox that run inside it.

They need only the standard library, because they run (`python -I -S`) where nothing else exists.
The program reads a JSON object from standard input and prints one for each attack. Each attack has
its own process, so that it cannot affect the next; one without a conclusion has crashed, which is
never reported as stopped.

The targets are the canaries that the caller names, documentation addresses (RFC 5737, RFC 3849),
which no machine has, and, through the proxy, the metadata address.
"""
