"""Questions to the owner, made when the first is asked: most proxies ask nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claude_proxy.control.asking import Asking
    from claude_proxy.server.owner_answers import OwnerAnswers


class LazyQuestions:
    """The questions of one process; what keeps them is imported with the first."""

    def __init__(self, make: "Callable[[], OwnerAnswers]") -> None:
        self._make = make
        self._owner: OwnerAnswers | None = None

    @property
    def owner(self) -> "OwnerAnswers":
        """What takes the answers."""
        if self._owner is None:
            self._owner = self._make()
        return self._owner

    @property
    def made(self) -> "Asking | None":
        """The questions, if one was asked."""
        return None if self._owner is None else self._owner.made

    def __call__(self) -> "Asking":
        """Return the questions."""
        return self.owner()

    def ask_again(self) -> None:
        """Have what waits judged again, as the rules have changed."""
        if self._owner is not None:
            self._owner.ask_again()

    def close(self) -> None:
        """Settle everything as not answered, and ask nothing more."""
        if self._owner is not None:
            self._owner.close()
