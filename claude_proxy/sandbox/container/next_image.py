"""Next image of a container: the one that an update has made, which it has when it starts next."""

import json
from pathlib import Path

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import store

RECORD = "next-image.json"


def note(statedir: Path, name: str, image: str) -> None:
    """Note the image that a container is to have when it starts next."""
    record = json.dumps({"image": image}).encode()
    store.write(store.directory_of(statedir, name), RECORD, record)


def of(statedir: Path, name: str) -> str | None:
    """Return the name of that image; None: the container keeps the one it has."""
    path = _path(statedir, name)
    try:
        return str(json.loads(path.read_bytes())["image"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ClaudeProxyError(
            "it cannot be read which image the container is to have next",
            where=str(path),
            fix="remove the file, and update the container again",
        ) from error


def forget(statedir: Path, name: str) -> None:
    """Forget it: the container has it now, or was made from another one."""
    _path(statedir, name).unlink(missing_ok=True)


def _path(statedir: Path, name: str) -> Path:
    return store.directory_of(statedir, name) / RECORD
