"""Words of an engine that name a path of the host, whatever letters the path has; pure.

Law kept: no quiet downgrade: a path that an engine would read as another one is refused.
"""

from pathlib import Path, PurePosixPath

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.container.plan.model import EngineKind

_FIX = "rename it, or leave it out"


def bind_words(
    source: Path | str, at: PurePosixPath, *, writable: bool, private_label: bool = False
) -> tuple[str, str]:
    """Return the option and its value; `private_label` is of SELinux, for this container alone.

    ConfigError if the engine cannot be given the path.
    """
    for path in (str(source), str(at)):
        _check(path)
    mode = "rw" if writable else "ro"
    if ":" not in f"{source}{at}":
        return "--volume", f"{source}:{at}:{mode}{',Z' if private_label else ''}"
    fields = ["type=bind", f"source={source}", f"target={at}"]
    fields += [] if writable else ["readonly"]
    fields += ["relabel=private"] if private_label else []
    return "--mount", ",".join(map(_field, fields))


def refuse_colon(at: PurePosixPath) -> None:
    """Raise ConfigError for a place at which an engine can mount nothing of its own."""
    _check(str(at))
    if ":" in str(at):
        raise ConfigError(
            "an engine cannot hide a path with a colon in it", where=str(at), fix=_FIX
        )


def listed(path: Path | str, kind: EngineKind) -> str:
    """Return a path as the value of an option that podman takes as a list: commas separate."""
    _check(str(path))
    separated = kind is EngineKind.PODMAN and set(str(path)) & set(',"\n')
    return _field(str(path)) if separated else str(path)


def _field(text: str) -> str:
    """Return a field of a line of comma-separated values (RFC 4180), as engines read it."""
    escaped = text.replace('"', '""')
    return f'"{escaped}"'


def _check(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "an engine cannot mount a path that is not UTF-8", where=ascii(path), fix=_FIX
        ) from None
    if ":" in path and "\r" in path:
        raise ConfigError(
            "an engine cannot mount a path with a colon and a carriage return in it",
            where=ascii(path),
            fix=_FIX,
        )
