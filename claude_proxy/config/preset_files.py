"""Shipped presets and policies: files of the package, found by name; nothing but files.

A preset names the hosts that one tool needs, no more: it holds no DNS-over-HTTPS host and no host
where anybody can put files (tests/config/test_preset_files.py).
"""

from functools import cache

from claude_proxy.deferred.packaged_files import packaged_names, packaged_text
from claude_proxy.deferred.patterns import lazy_pattern

SUFFIX = ".yaml"
# Of a preset, a policy or a profile; the name of a file, so that no two differ in case alone.
is_name = lazy_pattern(r"[a-z0-9][a-z0-9._-]{0,62}").fullmatch

_PACKAGE = "claude_proxy.config"


@cache
def names() -> tuple[str, ...]:
    """Return the names of the shipped presets, in alphabetical order."""
    return _names_in("presets")


def text(name: str) -> str:
    """Return a shipped preset's file as it is; KeyError if there is none of that name."""
    return _text_in("presets", name, names())


@cache
def policy_names() -> tuple[str, ...]:
    """Return the names of the built-in policies, in alphabetical order."""
    return _names_in("policies")


def policy_text(name: str) -> str:
    """Return a built-in policy's file as it is; KeyError if there is none of that name."""
    return _text_in("policies", name, policy_names())


def _names_in(directory: str) -> tuple[str, ...]:
    files = packaged_names(_PACKAGE, directory)
    return tuple(sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX)))


def _text_in(directory: str, name: str, known: tuple[str, ...]) -> str:
    # Looked up, never joined to a path as given: a name is what a user wrote.
    if name not in known:
        raise KeyError(name)
    return packaged_text(_PACKAGE, f"{directory}/{name}{SUFFIX}")
