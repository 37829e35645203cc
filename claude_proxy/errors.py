"""User-facing errors: each says what is wrong, where, and how to fix it.

The code that knows the location raises them; only `cli` prints them and turns them into an exit
code. Programming mistakes stay builtin exceptions.
"""

from collections.abc import Sequence


class ClaudeProxyError(Exception):
    """A failure that the user can fix; the program ends with `exit_code`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def lines(self) -> list[str]:
        """Return the lines to print, the first without the program's name."""
        lines = [f"error: {self.what}"]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  fix:   {self.fix}")
        return lines


class ConfigError(ClaudeProxyError):
    """The configuration (arguments, files, directories, ports) cannot be used as it is."""

    exit_code = 2


class ConfigErrors(ConfigError):  # noqa: N818 - a plural
    """All errors of one configuration, so that the user can fix them together."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        if not problems:
            raise ValueError("ConfigErrors needs at least one problem")
        first = problems[0]
        super().__init__(first.what, where=first.where, fix=first.fix)
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        """Return the lines of all problems."""
        return [line for problem in self.problems for line in problem.lines()]


class AuditError(ClaudeProxyError):
    """A decision could not be recorded, so it becomes a denial (recorded or denied)."""
