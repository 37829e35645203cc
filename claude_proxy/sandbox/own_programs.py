"""Command lines of our own programs that run as processes beside a sandbox.

Each is a module that can be run by its path as well. Started by the name of the module it is loaded
from its cached bytecode, where a script would be compiled at each start. It has neither the user's
environment of Python nor an installed package (-I, -S): only the standard library, and this package
after it.
"""

import sys
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parents[2]
# A run waits for the end of each, and the interpreter's own end takes milliseconds.
_BOOT = (
    "import os, sys; _, root, name, *words = sys.argv; sys.path.append(root); "
    "code = __import__(name, fromlist=['run']).run(words); "
    "sys.stdout.flush(); sys.stderr.flush(); os._exit(code or 0)"
)


def words_of(program: ModuleType | str, *words: str) -> list[str]:
    """Return the command line of a program: a module with a function `run`, or its name."""
    name = program if isinstance(program, str) else program.__name__
    return [sys.executable, "-I", "-S", "-c", _BOOT, str(_ROOT), name, *words]


def words_with_packages(program: ModuleType, *words: str) -> list[str]:
    """Return the command line of a program that needs installed packages too; it starts slower."""
    return [word for word in words_of(program, *words) if word != "-S"]
