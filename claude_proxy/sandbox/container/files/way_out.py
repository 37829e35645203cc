"""Names of the way out that is mounted: a directory of the host's with a socket and a relay; pure.

`claude-proxy container way-out` prepares it and serves there. The relay in it comes with a Python
of its own, so an image needs neither, and the file of a project need not know where they are
installed.
"""

from typing import Final

from claude_proxy.sandbox.plan.environment import HTTP_PORT, SOCKS_PORT

BELOW_HOME: Final = ".cache/claude-proxy/way-out"
TRUST: Final = "trust"  # ca.pem and bundle.pem, which the agent gets
RUNTIME: Final = "runtime"  # Python and the relay
SOCKET: Final = "proxy.sock"
PYTHON: Final = "bin/python"  # whatever its version is
RELAY: Final = "app/claude_proxy/sandbox/relay/relay.py"

INSIDE: Final = "/run/way-out"
RUNTIME_INSIDE: Final = f"{INSIDE}/{RUNTIME}"


def python_words() -> tuple[str, ...]:
    """Return the words that start Python in a container, where the way out is mounted."""
    return (
        # By its own loader, as the image may have another C library, or none.
        f"{RUNTIME_INSIDE}/ld.so",
        *("--inhibit-cache", "--library-path", f"{RUNTIME_INSIDE}/lib"),
        f"{RUNTIME_INSIDE}/{PYTHON}",
        *("-I", "-S", "-B", "-X", "utf8"),
    )


def relay_words() -> tuple[str, ...]:
    """Return the command line of the relay there."""
    return (
        *(*python_words(), f"{RUNTIME_INSIDE}/{RELAY}"),
        *("--listen", f"127.0.0.1:{HTTP_PORT}", "--listen", f"127.0.0.1:{SOCKS_PORT}"),
        *("--to", f"unix:{INSIDE}/{SOCKET}", "--quiet"),
    )
