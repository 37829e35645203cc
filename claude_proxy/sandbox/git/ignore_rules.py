"""Ignore rules of a clone, judged by git itself in a directory that holds nothing but the rules.

Law kept: the sandbox cannot move its own wall. The `.gitignore` files are copied as data; git never
looks at the clone. Where git does not answer, nothing is ignored: more is shown, not less.
"""

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE_S = 60.0  # for all answers together
_PIECE = 64 * 1024
_ANSWER_FIELDS = 4  # the file of the rule, its line, the rule, the path


class IgnoreRules:
    """Asks git whether it ignores a path; `command` is git with the options for `directory`."""

    def __init__(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> None:
        self._directory = os.fsencode(directory)
        self._command = [
            *command,
            f"--work-tree={directory}",
            *("check-ignore", "--no-index", "-z", "-v", "-n", "--stdin"),
        ]
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._failed = False
        self._answers = b""
        self._patience_s = _PATIENCE_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def note(self, prefix: bytes, rules: bytes) -> None:
        """Add the rules of a directory; before anything in it is asked for."""
        with suppress(OSError):
            place = os.path.join(self._directory, prefix)  # noqa: PTH118 - bytes
            os.makedirs(place, exist_ok=True)  # noqa: PTH103 - bytes
            with open(os.path.join(place, b".gitignore"), "wb") as file:  # noqa: PTH118, PTH123
                file.write(rules)

    def ignores(self, path: bytes, is_directory: bool) -> bool:  # noqa: FBT001 - as it is called
        """Tell whether git ignores a path that is in no commit."""
        if self._failed:
            return False
        try:
            if is_directory:  # git looks what it is
                os.makedirs(os.path.join(self._directory, path), exist_ok=True)  # noqa: PTH103, PTH118
            rule = self._ask(path)
        except OSError:
            self._failed = True
            return False
        return rule != b"" and not rule.startswith(b"!")

    def _ask(self, path: bytes) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603 - git, on our own directory
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd="/",
            )
        stdin = self._process.stdin
        if stdin is None:
            raise BrokenPipeError
        stdin.write(b"./%b\0" % path)  # a name with a colon first would be an option to git
        stdin.flush()
        while self._answers.count(b"\0") < _ANSWER_FIELDS:
            self._answers += self._read()
        *fields, self._answers = self._answers.split(b"\0", _ANSWER_FIELDS)
        return fields[2]

    def _read(self) -> bytes:
        """Return what git has written; OSError if it has ended, or takes too long."""
        stdout = None if self._process is None else self._process.stdout
        began = time.monotonic()
        # A rule with many stars takes git longer than anybody waits.
        if stdout is None or not select.select([stdout], [], [], max(0, self._patience_s))[0]:
            raise TimeoutError
        self._patience_s -= time.monotonic() - began
        data = os.read(stdout.fileno(), _PIECE)
        if not data:
            raise BrokenPipeError
        return data
