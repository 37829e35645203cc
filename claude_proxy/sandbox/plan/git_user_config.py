"""The user's Git configuration, without the credentials that some keep in it; pure.

Law kept: secrets stay outside. Inside it is needed for the author's name and for aliases. A line
that holds a credential is left out, and so is a whole section whose name holds one.
"""

import re
from collections.abc import Iterator

from claude_proxy.deferred.patterns import lazy_pattern

FILES = (".gitconfig", ".config/git/config")

_SECTION = lazy_pattern(r"\s*\[")
_SECRET = lazy_pattern(
    r"https?://[^/\s\"@]*:[^/\s\"@]*@"  # a password in an address
    r"|https?://[^/\s\"@]{20,}@"  # a token instead of the user
    r"|\b(?:bearer|basic)\s+[A-Za-z0-9+/=._-]{6,}"
    r"|\b(?:gh[opsur]_|github_pat_|glpat-|xox[a-z]-|AKIA|sk-)[A-Za-z0-9_-]{8,}"
    r"|^\s*(?:\[[^\]]*\]\s*)?[a-z0-9-]*(?:extraheader|pass|passwd|password|token|secret|api-?key|smtppass)\s*="
    r"|(?:password|passwd|token|secret)=[^\s;\"']",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str | None:
    """Return a configuration without lines that hold a credential; None if there are none."""
    kept: list[str] = []
    found = skipping = False
    for line in _logical_lines(text):
        holds = _SECRET.search(line) is not None
        if _SECTION.match(line):
            skipping = holds
        if holds or skipping:
            found = True
        else:
            kept.append(line)
    return "".join(kept) if found else None


def _logical_lines(text: str) -> Iterator[str]:
    """Yield each line together with those that continue it after a backslash."""
    whole = ""
    for line in text.splitlines(keepends=True):
        whole += line
        if not line.rstrip("\r\n").endswith("\\"):
            yield whole
            whole = ""
    if whole:
        yield whole
