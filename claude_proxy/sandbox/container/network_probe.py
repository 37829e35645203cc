"""Probe of a container's network from inside; a program that prints what it found as JSON.

It is for a user who may not enter the container's namespaces from outside, and runs in a second
container that joins the network of the first, with the host's Python, lent read-only.
"""

import json
import os
import sys

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120

from claude_proxy.sandbox import netns
from claude_proxy.sandbox.container.namespace_holder import network_facts


def run(words: list[str]) -> int:
    """Probe with the port of the proxy, and with targets that are allowed and denied."""
    port, allowed, denied = words
    found = {**network_facts(), **netns.attempts(int(port), allowed, denied)}
    sys.stdout.write(f"{json.dumps(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
