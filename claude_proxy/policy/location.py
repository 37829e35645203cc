"""Location: file, line and column of a policy entry. Pure."""

from claude_proxy.deferred.data_classes import dataclass


@dataclass(frozen=True, slots=True)
class Location:
    """Where a rule was written; lines and columns count from 1, and 0 is that of no file."""

    file: str
    line: int
    column: int
    preset: str | None = None

    def __str__(self) -> str:
        place = self.file if self.preset is None else f"preset {self.preset}"
        return f"{place}:{self.line}" if self.line else place
