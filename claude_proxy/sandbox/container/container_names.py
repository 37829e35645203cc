"""Names of containers: the one that is given, or a fresh one after the image."""

import re
import secrets
from pathlib import Path

from claude_proxy.sandbox.container import store

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # letters and digits that do not look alike
_SUFFIX_SIZE = 4
_WORD_SIZE = 16


def fresh(image: str, statedir: Path) -> str:
    """Return a name that no container has."""
    last = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    word = re.sub(r"[^A-Za-z0-9_-]+", "", last).lstrip("-_")[:_WORD_SIZE] or "container"
    while True:
        name = f"{word}-{''.join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_SIZE))}"
        if not store.directory_of(statedir, name).exists():
            return name
