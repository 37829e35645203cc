"""User numbers: a user of this machine, by number or by name."""

import pwd

_HIGHEST_UID = 0xFFFF_FFFE  # the one above it means "none" to the kernel


def parse_user(text: str) -> int:
    """Return the number of a user; raise ValueError if this machine has none of that name."""
    if text.isascii() and text.isdecimal():
        uid = int(text)
        if uid <= _HIGHEST_UID:
            return uid
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise ValueError(f'"{text}" is not a user of this machine') from None


def name_of_user(uid: int) -> str:
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
