"""The /etc/passwd of a container, with the user of CMD and the home that it really has; pure.

Programs that ask the user database (ssh, getpwuid, `~`) find what HOME says. Engines themselves
name the working directory, or have no line at all for a user whom the image does not know.
"""

from collections.abc import Iterator

_SHELL = "/bin/sh"
_ROOT = "root"
_NAME = "agent"
_FIELDS = 7  # passwd(5)
_UID, _HOME = 2, 5


def with_user(text: str, uid: int, gid: int, home: str) -> str:
    """Return an image's passwd file where a user has a line, and this home in it."""
    lines = [line for line in text.split("\n") if line]
    for at, line in enumerate(lines):
        fields = line.split(":")
        if len(fields) == _FIELDS and fields[_UID] == str(uid):
            fields[_HOME] = home  # only the first line of a user counts
            return _text([*lines[:at], ":".join(fields), *lines[at + 1 :]])
    name = _free_name(uid, {line.partition(":")[0] for line in lines})
    return _text([*lines, f"{name}:x:{uid}:{gid}::{home}:{_SHELL}"])


def _free_name(uid: int, taken: set[str]) -> str:
    return next(name for name in _names(uid) if name not in taken)


def _names(uid: int) -> Iterator[str]:
    yield _NAME if uid else _ROOT
    name = f"{_NAME}{uid}"
    while True:
        yield name
        name += "x"


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
