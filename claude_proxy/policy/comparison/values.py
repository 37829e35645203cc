"""Value sets: methods and ports as lists of names, or as all but some. Pure."""

from collections.abc import Iterable

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.rules import RuleScheme

_ORDER = {method: place for place, method in enumerate(METHODS)}


@dataclass(frozen=True, slots=True)
class MethodSet:
    """Some methods, or all but some; a name in lower case is every other spelling of it."""

    names: frozenset[str]
    others: bool = False  # then `names` are those that are missing

    def covers(self, method: str) -> bool:
        """Return whether a method is one of these, in its own spelling."""
        name = method if method == method.upper() else method.lower()
        return (name in self.names) != self.others

    @property
    def is_every(self) -> bool:
        """Whether no method is missing."""
        return self.others and not self.names

    def __str__(self) -> str:
        # Other spellings go without saying where the method itself is named.
        shown = [
            name if name == name.upper() else f"other spellings of {name.upper()}"
            for name in self.names
            if name == name.upper() or name.upper() not in self.names
        ]
        listed = ", ".join(sorted(shown, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)))
        if not self.others:
            return listed
        return f"every method but {listed}" if listed else "every method"


@dataclass(frozen=True, slots=True)
class PortSet:
    """Some ports, or all but some."""

    ports: frozenset[int]
    others: bool = False  # then `ports` are those that are missing

    def covers(self, port: int) -> bool:
        """Return whether a port is one of these."""
        return (port in self.ports) != self.others

    def __str__(self) -> str:
        listed = ranges_of(self.ports)
        if not self.others:
            return listed
        return f"every port but {listed}" if listed else "every port"


type Places = tuple[tuple[RuleScheme, PortSet], ...]


def ranges_of(ports: Iterable[int]) -> str:
    """Return ports as text, such as "443, 8000-8010"."""
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
