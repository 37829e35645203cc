"""Runs the command line for `python -m claude_proxy`.

An older Python cannot even read the other modules, so it is named before they are imported.
"""

import sys

OLDEST = (3, 12)
_USAGE = 2


def run() -> int:
    """Run the command line; return its exit code."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:2]))
        needed = ".".join(map(str, OLDEST))
        sys.stderr.write(
            f"claude-proxy: error: Python {needed} or newer is needed, and this is {found}\n"
            f"  where: {sys.executable}\n"
            f"  fix:   run it with a newer one, such as python{needed}; in a clone, `make run` "
            "finds or fetches one\n"
        )
        return _USAGE
    from claude_proxy.cli.main import main  # noqa: PLC0415 - older ones cannot read it

    return main()


if __name__ == "__main__":
    sys.exit(run())
