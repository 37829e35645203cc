"""History of Claude Code: which files of a home belong to it, and what of them leaves it; pure.

Law kept: secrets stay outside. It is a list of what is taken, never of what is left out: a file or
a key that a new version of Claude Code writes stays behind until somebody has looked at it. What is
taken is searched for the shapes of known credentials.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern

CLAUDE = ".claude"
STATE = ".claude.json"
REDACTED = b"[REDACTED]"

MOST_FILES = 200_000
MOST_BYTES = 8 * 1024 * 1024 * 1024
MOST_OF_A_FILE = 256 * 1024 * 1024

_DEEPEST = 12
_NAME = lazy_pattern(r"[A-Za-z0-9 ._@+=,~%()\[\]-]{1,255}")

# Below .claude: a directory, and how the names of the files in it end; "" is any name.
_TREES: Mapping[str, tuple[str, ...]] = {
    "projects": (".jsonl", ".json", ".md", ".txt"),
    "file-history": ("",),
    "plans": (".md",),
    "todos": (".json",),
    "tasks": (".json",),
    "agents": (".md",),
    "commands": (".md",),
    "output-styles": (".md",),
    "rules": (".md",),
}
_FILES = frozenset({"history.jsonl", "CLAUDE.md", "keybindings.json", "settings.json"})

# Of settings.json: what names no program, no variable and no server.
_SETTINGS = frozenset(
    {
        "alwaysThinkingEnabled",
        "attribution",
        "autoCompactEnabled",
        "cleanupPeriodDays",
        "includeCoAuthoredBy",
        "language",
        "model",
        "outputStyle",
        "spinnerTipsEnabled",
        "theme",
        "verbose",
    }
)
_PERMISSIONS = frozenset({"allow", "ask", "deny"})
# Of .claude.json: no account, no key, no server, no trust.
_STATE = frozenset(
    {
        "autoCompactEnabled",
        "editorMode",
        "hasCompletedOnboarding",
        "lastOnboardingVersion",
        "numStartups",
        "theme",
        "tipsHistory",
        "verbose",
    }
)
_OF_PROJECT = frozenset({"history", "lastSessionId", "projectOnboardingSeenCount"})

# Shapes of credentials, where a name or a word character before them would make it another word.
_CREDENTIALS = lazy_pattern(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|(?<![A-Za-z0-9_-])(?:"
    rb"sk-ant-(?!claude-proxy)[A-Za-z0-9_-]{16,}|sk-(?!ant-)[A-Za-z0-9_-]{20,}"
    rb"|sk_(?:live|test)_[A-Za-z0-9]{16,}|rk_live_[A-Za-z0-9]{16,}"
    rb"|gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}"
    rb"|xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}"
    rb"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}"
    rb"|npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{30,}"
    rb"|dop_v1_[a-f0-9]{60,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"
    rb"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    rb")"
    # As Claude Code, Codex and others write their own logins.
    rb'|\\*"(?:accessToken|refreshToken|access_token|refresh_token|client_secret|primaryApiKey)'
    rb'\\*"\s*:\s*\\*"(?!claude-proxy)[^"\\]{8,}'
)


@dataclass(frozen=True, slots=True)
class Suspect:
    """Where something looks like a credential; never what it is."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def is_history(path: str) -> bool:
    """Tell whether a path, relative to the home, is a file of the history."""
    if path == STATE:
        return True
    parts = PurePosixPath(path).parts
    if "/".join(parts) != path or not _are_plain(parts) or parts[0] != CLAUDE:
        return False
    inner = parts[1:]
    if len(inner) < 2:  # noqa: PLR2004 - a file in .claude itself
        return "".join(inner) in _FILES
    ends = _TREES.get(inner[0], ())
    return any(inner[-1].endswith(end) for end in ends)


def may_hold_history(directory: str) -> bool:
    """Tell whether a directory, relative to the home, is one that history can be in."""
    parts = PurePosixPath(directory).parts
    if not _are_plain(parts) or parts[0] != CLAUDE:
        return False
    return len(parts) == 1 or parts[1] in _TREES


def _are_plain(parts: tuple[str, ...]) -> bool:
    return 0 < len(parts) <= _DEEPEST and all(
        _NAME.fullmatch(part) and part not in {".", ".."} for part in parts
    )


def content_of(path: str, data: bytes) -> bytes | None:
    """Return what of a file's content leaves the home; None if nothing does."""
    if path == STATE:
        return _reduced(data, _state_of)
    if path == f"{CLAUDE}/settings.json":
        return _reduced(data, _settings_of)
    return data


def suspects(path: str, data: bytes) -> Iterator[Suspect]:
    """Yield where the content of a file looks like a credential, once a line."""
    last = 0
    for found in _CREDENTIALS.finditer(data):
        line = data.count(b"\n", 0, found.start()) + 1
        if line != last:
            yield Suspect(path, line)
        last = line


def redacted(data: bytes) -> bytes:
    """Return the content with whatever looks like a credential replaced."""
    return _CREDENTIALS.sub(_replacement, data)


def _replacement(found: "re.Match[bytes]") -> bytes:
    name, colon, _ = found[0].partition(b":")
    if colon and b'"' in name:  # keep the line valid JSON, whose quote after the value is left
        quote = b'\\"' if b'\\"' in name else b'"'
        return name + b":" + quote + REDACTED
    return REDACTED


def _reduced(data: bytes, reduce: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes | None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    kept = reduce(found)
    return json.dumps(kept, indent=2).encode() if kept else None


def _settings_of(found: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in found.items() if name in _SETTINGS}
    permissions = found.get("permissions")
    if isinstance(permissions, dict):
        rules = {
            name: [rule for rule in value if isinstance(rule, str)]
            for name, value in permissions.items()
            if name in _PERMISSIONS and isinstance(value, list)
        }
        kept |= {"permissions": rules} if rules else {}
    return kept


def _state_of(found: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in found.items() if name in _STATE}
    projects = found.get("projects")
    if isinstance(projects, dict):
        reduced = {
            path: {name: value for name, value in one.items() if name in _OF_PROJECT}
            for path, one in projects.items()
            if isinstance(one, dict)
        }
        if reduced := {path: one for path, one in reduced.items() if one}:
            kept["projects"] = reduced
    return kept
