"""What the tests of commands share."""

from collections.abc import Callable

import pytest

from claude_proxy.cli import main
from claude_proxy.config.settings import Settings

type Served = Callable[..., Settings]


@pytest.fixture
def served() -> Served:
    """Return a function that runs a command line and returns the settings that serve was given."""

    def run(*arguments: str) -> Settings:
        taken: list[Settings] = []

        def start(settings: Settings) -> int:
            taken.append(settings)
            return 0

        assert main.main(arguments, start=start) == 0
        return taken[0]

    return run
