"""Text of a configuration file: UTF-8, and no larger than memory allows.

Imports no YAML: other formats are read by it as well.
"""

from claude_proxy.errors import ConfigError

MAX_BYTES = 32 * 1024 * 1024  # a hundred thousand rules with paths and notes take about 15 MiB


def decode(raw: bytes, name: str) -> str:
    """Return the text of a file's bytes; raise `ConfigError` unless they are UTF-8."""
    if len(raw) > MAX_BYTES:
        raise too_large(name)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError("the file is UTF-16", where=name, fix="save it as UTF-8")
    try:
        # Windows editors put a byte order mark before UTF-8; it says nothing and hides nothing.
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"the byte 0x{raw[error.start]:02x} is not UTF-8",
            where=f"{name}:{line}",
            fix="save the file as UTF-8",
        ) from error


def too_large(name: str) -> ConfigError:
    """Return the error for a file that is larger than `MAX_BYTES`."""
    return ConfigError(
        f"the file is larger than {MAX_BYTES // 1024 // 1024} MiB",
        where=name,
        fix="is it the right file? a domain pattern such as .example.com covers many hosts",
    )
