"""Quoting for unit files (systemd.syntax(7), systemd.service(5))."""

import re

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,@+^~-]+", re.ASCII)
_NOT_IN_PROGRAMS = frozenset("\"'\\")


def refuse_control(text: str) -> str:
    """Return `text`; ValueError if it cannot be written on one line.

    A backslash at the end would continue the line.
    """
    if not text.isprintable() or text.endswith("\\"):
        raise ValueError(f"{text!r} has a character that a unit file cannot contain")
    return text


def path_of(text: str) -> str:
    """Return a path as the value of a setting that takes one path and no quotes."""
    return refuse_control(text).replace("%", "%%")


def word_of(text: str) -> str:
    """Return one word of a list or a command line; "%" begins a specifier, so it is doubled."""
    escaped = path_of(text)
    if _PLAIN.fullmatch(escaped.replace("%", "")):
        return escaped
    quoted = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'


def command_of(words: tuple[str, ...]) -> str:
    """Return a command line; the colon before it stops systemd from expanding "$".

    ValueError if the path of the program has characters that systemd does not accept in it.
    """
    if _NOT_IN_PROGRAMS & set(words[0]):
        raise ValueError(f"the path of the program has a quote or a backslash: {words[0]}")
    return ":" + " ".join(word_of(word) for word in words)
