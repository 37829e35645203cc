"""Program that brings a run's commits over every few seconds; a separate process.

Usage: periodic.py LIFELINE PLACE

It ends with its launcher, which then brings over the rest. So that it starts in milliseconds, it
imports what it needs when the first pause has passed.
"""

import os
import select
import sys

PAUSE_S = 10.0

if not __package__:  # run by its path: add the package's directory, after the standard library
    sys.path.append(os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3)))  # noqa: PTH100, PTH118, PTH120


def main(lifeline: int, place: str) -> None:
    """Bring over what is new after each pause, until the lifeline ends."""
    while not select.select([lifeline], [], [], PAUSE_S)[0]:
        _bring(place)


def _bring(place: str) -> None:
    from pathlib import Path  # noqa: PLC0415 - after the first pause

    from claude_proxy.sandbox.git import record  # noqa: PLC0415 - as above
    from claude_proxy.sandbox.git.bring_run import bring  # noqa: PLC0415 - as above

    try:
        bring(record.read(Path(place)), ended=False)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"commits are brought over at the end of the run: {error}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
