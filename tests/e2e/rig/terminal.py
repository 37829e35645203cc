"""A terminal that is typed into and looked at, by tmux."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import until


class Terminal:
    """One tmux server with one window."""

    def __init__(self, socket: Path, environment: Mapping[str, str]) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._environment = {**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"}

    def start(self, command: Sequence[str], *, columns: int = 120, lines: int = 40) -> None:
        """Run a command in the terminal."""
        size = ["-x", str(columns), "-y", str(lines)]
        assert self._run("new-session", "-d", *size, *command).returncode == 0

    def write(self, text: str) -> None:
        """Type some text, and wait until it is seen."""
        self._run("send-keys", "-l", text)
        until(lambda: text in self.screen(), f"{text!r} on the screen:\n{self.screen()}")

    def type(self, text: str) -> None:
        """Type a line and press enter."""
        self.write(text)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys, by the names that tmux has for them."""
        self._run("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size of the window."""
        self._run("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> str:
        """Return what the terminal shows."""
        return self._run("capture-pane", "-p").stdout

    def shows(self, text: str, times: int = 1) -> None:
        """Wait until the terminal shows a text."""
        until(lambda: self.screen().count(text) >= times, f"{text!r} on:\n{self.screen()}")

    def shows_no_more(self, text: str) -> None:
        """Wait until the terminal does not show a text."""
        until(lambda: text not in self.screen(), f"no {text!r} on:\n{self.screen()}")

    def ended(self) -> bool:
        """Tell whether the command has ended."""
        return self._run("list-sessions").returncode != 0

    def close(self) -> None:
        """End the terminal and what runs in it."""
        self._run("kill-server")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._tmux, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
