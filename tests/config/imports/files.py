"""Files for converters under test: texts by name, no disk."""

from fnmatch import fnmatch

from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location


class Texts:
    """A library of texts."""

    def __init__(self, **texts: str) -> None:
        self._texts = {name.replace("__", "/"): text for name, text in texts.items()}

    def names(self, pattern: str, source: Location) -> list[str]:
        """Return the names that a path with wildcards means."""
        del source
        if "*" not in pattern:
            return [pattern]
        return sorted(name for name in self._texts if fnmatch(name, pattern))

    def text(self, name: str, source: Location) -> str:
        """Return a text; ConfigError if there is none of that name."""
        if name not in self._texts:
            raise ConfigError("the file cannot be read", where=str(source), fix="")
        return self._texts[name]
