"""Errors that a user may see: each says what is wrong, where, and how to fix it.

Lower rooms raise them where the location is known; only `cli` prints them and turns them into an
exit code. Programming mistakes stay builtin exceptions.
"""

from collections.abc import Sequence


class ClaudeProxyError(Exception):
    """A failure that its reader can fix; ends the program with `exit_code`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def lines(self) -> list[str]:
        """Return the message as the terminal shows it, without the program's name."""
        lines = [f"error: {self.what}"]
        if self.where is not None:
            lines.append(f"  where: {self.where}")
        if self.fix is not None:
            lines.append(f"  fix:   {self.fix}")
        return lines


class ConfigError(ClaudeProxyError):
    """The configuration (arguments, files, directories, ports) cannot be used as it is."""

    exit_code = 2


class ConfigErrors(ConfigError):  # noqa: N818 - the plural of an Error
    """Everything that is wrong with one configuration, collected to be fixed at once."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        if not problems:
            raise ValueError("ConfigErrors needs at least one problem")
        first = problems[0]
        super().__init__(first.what, where=first.where, fix=first.fix)
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        """Return every problem's lines, one problem after the other."""
        return [line for problem in self.problems for line in problem.lines()]


class AuditError(ClaudeProxyError):
    """A decision could not be written down; it becomes a denial (recorded or denied)."""
