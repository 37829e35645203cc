"""Names of containers: the one that is given, or a fresh one after the image."""

import re
import secrets
from pathlib import Path

from claude_proxy.sandbox.container import store
from claude_proxy.sandbox.git import clones

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # letters and digits that do not look alike
_SUFFIX_SIZE = 4
_WORD_SIZE = 16


def fresh(image: str, statedir: Path) -> str:
    """Return a name that no container has, and no clone, in which it would go on."""
    last = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    word = re.sub(r"[^A-Za-z0-9_-]+", "", last).lstrip("-_")[:_WORD_SIZE] or "container"
    while True:
        name = f"{word}-{''.join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_SIZE))}"
        taken = (store.directory_of(statedir, name), clones.directory_in(statedir) / name)
        if not any(path.exists() for path in taken):
            return name
