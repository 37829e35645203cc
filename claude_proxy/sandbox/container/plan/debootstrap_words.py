"""Command lines that make a root file system of Debian; pure.

Law kept: the packages are those that Debian has signed. No option here switches that check off.
"""

from collections.abc import Sequence
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError

DEFAULT_SUITE = "stable"

_SUITE = lazy_pattern(r"[a-z][a-z0-9.-]{0,31}")
# What is made while it is installed and would only be carried along.
_LEFT_OUT = (
    "./var/cache/apt/archives/*.deb",
    "./var/lib/apt/lists/*",
    "./var/log/*.log",
    "./dev/*",
    "./proc/*",
    "./sys/*",
    "./etc/resolv.conf",
    "./etc/hostname",
)


def refuse_odd_suite(suite: str) -> None:
    """Raise ConfigError if this is not the name of a suite: it is a word of a command line."""
    if not _SUITE.fullmatch(suite):
        raise ConfigError(
            f"{suite!r} is not the name of a suite",
            where="--from-debootstrap",
            fix="name one like stable, trixie or noble",
        )


def debootstrap_words(program: str, suite: str, root: Path, mirror: str | None) -> list[str]:
    """Return the words of debootstrap(8)."""
    return [
        *(program, "--variant=minbase", "--merged-usr", "--force-check-gpg"),
        *(suite, str(root), *_given(mirror)),
    ]


def mmdebstrap_words(program: str, suite: str, archive: Path, mirror: str | None) -> list[str]:
    """Return the words of mmdebstrap(1), which needs no devices."""
    return [
        *(program, "--mode=root", "--variant=minbase", "--format=tar"),
        *(suite, str(archive), *_given(mirror)),
    ]


def archive_words(root: Path, archive: Path) -> list[str]:
    """Return the words of tar(1) that pack a root file system."""
    left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    return [
        *("tar", "--create", "--file", str(archive), "--numeric-owner", "--one-file-system"),
        *("--xattrs", "--directory", str(root), "--anchored", "--wildcards", *left_out, "."),
    ]


def _given(mirror: str | None) -> Sequence[str]:
    return () if mirror is None else (mirror,)
