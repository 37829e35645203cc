"""Holds the presets: lists of rules that an allowlist pulls in by name; nothing but files.

A preset is a file of this directory. It names hosts that one tool needs, no more: no preset may
hold a DNS-over-HTTPS host or a host where anybody can put files (tests/test_presets.py).
"""

from functools import cache
from importlib import resources

_SUFFIX = ".yaml"
_FILES = resources.files("claude_proxy.config") / "presets"


@cache
def names() -> tuple[str, ...]:
    """Return the names of all presets, in alphabetical order."""
    files = (entry.name for entry in _FILES.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def text(name: str) -> str:
    """Return a preset's file as it is; KeyError if there is none of that name."""
    # Looked up, never joined to a path as given: a name is what a user wrote.
    if name not in names():
        raise KeyError(name)
    return (_FILES / f"{name}{_SUFFIX}").read_text("utf-8")
