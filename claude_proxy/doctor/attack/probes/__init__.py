"""Tries the ways out of a sandbox, from inside it.

It needs the standard library alone, as it runs (`python -I -S`) in a place that has nothing
else. It reads a JSON object from standard input and prints one for each attack. Each attack runs
in a process of its own, so that none spoils the next; one that comes to no conclusion has
crashed, which is never reported as stopped.

It aims at nothing but the canaries that its caller names, addresses kept for documentation
(RFC 5737, RFC 3849), which nobody can answer, and, through the proxy, the metadata address.
"""
