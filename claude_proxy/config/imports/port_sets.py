"""Sets of ports as ranges, as 1025-65535 would be a long list. Pure."""

from collections.abc import Iterable

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.wire.authority import MAX_PORT

_MOST_LISTED = 32  # from a range, in a policy file


@dataclass(frozen=True, slots=True)
class PortSet:
    """Ports, as ranges that neither meet nor touch, in order."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, ranges: Iterable[tuple[int, int]]) -> "PortSet":
        """Return the ports that are in any of the ranges."""
        found: list[tuple[int, int]] = []
        for first, last in sorted((max(a, 1), min(b, MAX_PORT)) for a, b in ranges):
            if first > last:
                continue
            if found and first <= found[-1][1] + 1:
                found[-1] = found[-1][0], max(last, found[-1][1])
            else:
                found.append((first, last))
        return cls(tuple(found))

    @classmethod
    def single(cls, *ports: int) -> "PortSet":
        """Return these ports."""
        return cls.of((port, port) for port in ports)

    def __contains__(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __and__(self, other: "PortSet") -> "PortSet":
        return PortSet.of((max(a, c), min(b, d)) for a, b in self.ranges for c, d in other.ranges)

    def __or__(self, other: "PortSet") -> "PortSet":
        return PortSet.of((*self.ranges, *other.ranges))

    def __sub__(self, other: "PortSet") -> "PortSet":
        return self & other.complement()

    def complement(self) -> "PortSet":
        """Return all other ports."""
        edges = [0, *(edge for first, last in self.ranges for edge in (first, last)), MAX_PORT + 1]
        return PortSet.of((edges[at] + 1, edges[at + 1] - 1) for at in range(0, len(edges), 2))

    def listed(self) -> tuple[frozenset[int], "PortSet"]:
        """Return the ports that a policy file would list one by one, and the others."""
        short = [each for each in self.ranges if each[1] - each[0] < _MOST_LISTED]
        ports = [port for first, last in short for port in range(first, last + 1)]
        if len(ports) > _MOST_LISTED:
            ports = ports[:_MOST_LISTED]
        named = frozenset(ports)
        return named, self - PortSet.single(*named)

    def __str__(self) -> str:
        return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in self.ranges)


ALL_PORTS = PortSet(((1, MAX_PORT),))
